"""Fetching a file into the user's cache: resumed, checked, and safe for two processes at once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.client import HTTPResponse

_CHUNK = 1 << 20
_TIMEOUT_S = 30.0


def cache_dir() -> Path:
    """``$ZOO_CACHE``, or ``zoo`` in the user's cache folder."""
    if configured := os.environ.get("ZOO_CACHE"):
        return Path(configured).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zoo"


def is_offline() -> bool:
    """Whether ``ZOO_OFFLINE`` or ``HF_HUB_OFFLINE`` forbids the network."""
    return any(os.environ.get(name, "0") not in ("", "0") for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE"))


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def verify(path: Path, expected: str, origin: str) -> None:
    """Raises `WeightsError` unless the file has this checksum."""
    actual = sha256(path)
    if actual != expected:
        raise WeightsError(
            f"{path} has the checksum {actual[:16]}..., not {expected[:16]}... as the manifest says of {origin}. "
            "The file was changed or is another version: get it again, or update zoo."
        )


def fetch(url: str, target: Path, checksum: str, size: int | None = None) -> Path:
    """The file behind `url`, downloaded to `target` unless it is there already.

    An interrupted download leaves ``<target>.part`` and goes on from there the next time. A lock file lets
    one process at a time download a target; the others wait and find it done.

    Args:
        url: http(s) address.
        target: where to keep the file.
        checksum: its SHA-256.
        size: its length in bytes, if known, to tell a truncated answer from a wrong one.

    Raises:
        WeightsError: offline, unreachable, absent, truncated or of another checksum. A partial download is
            kept unless its checksum is wrong.
    """
    from filelock import FileLock

    if target.is_file():
        return target
    if is_offline():
        raise WeightsError(f"{url} is not in the cache ({target}) and the network is switched off (ZOO_OFFLINE).")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock")
        with lock:
            if not target.is_file():
                part = target.with_name(target.name + ".part")
                _download(url, part, size)
                try:
                    verify(part, checksum, url)
                except WeightsError:
                    part.unlink()
                    raise
                part.replace(target)
    except OSError as error:
        raise WeightsError(
            f"The cache {target.parent} can't be written to ({error}). Set ZOO_CACHE to a folder with space."
        ) from error
    return target


def _download(url: str, part: Path, size: int | None) -> None:
    import urllib.error

    done = part.stat().st_size if part.exists() else 0
    if size is not None and done == size:
        return
    try:
        try:
            answer = _open(url, done)
        except urllib.error.HTTPError as error:
            if error.code != 416 or not done:
                raise
            done, answer = 0, _open(url, 0)  # what lies there goes beyond the file's end: it is no part of it
        with answer:
            if answer.status != 206:  # the server sends the whole file
                done = 0
            length = answer.headers.get("Content-Length")
            total = done + int(length) if length is not None else size
            with part.open("ab" if done else "wb") as file:
                for chunk in _with_progress(_chunks(answer), part.stem, done, total):
                    file.write(chunk)
    except urllib.error.HTTPError as error:
        raise WeightsError(f"{url} answers {error.code} {error.reason}. The file may have moved: update zoo.") from None
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise WeightsError(
            f"{url} can't be reached ({reason}). Check the network; what was received is kept and goes on from there."
        ) from None
    got = part.stat().st_size
    expected = size if size is not None else total
    if expected is not None and got < expected:
        raise WeightsError(f"{url} broke off after {got} of {expected} bytes. Try again: it goes on from there.")


def _open(url: str, done: int) -> HTTPResponse:
    import urllib.request

    headers = {"User-Agent": "zoo"} | ({"Range": f"bytes={done}-"} if done else {})
    response: HTTPResponse = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S)
    return response


def _chunks(answer: HTTPResponse) -> Iterator[bytes]:
    from http.client import IncompleteRead

    while True:
        try:
            chunk = answer.read(_CHUNK)
        except IncompleteRead as error:  # keep what came: the length is checked afterwards
            yield error.partial
            return
        if not chunk:
            return
        yield chunk


def _with_progress(chunks: Iterator[bytes], label: str, done: int, total: int | None) -> Iterator[bytes]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total, completed=done)
        for chunk in chunks:
            yield chunk
            progress.advance(task, len(chunk))
