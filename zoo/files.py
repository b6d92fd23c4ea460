"""Writing files so that a crash, a full disk or Ctrl-C never leaves half a file under the real name."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.errors import DataError, ZooError


@contextlib.contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `target` to write to; it takes the target's place only on success.

    Raises:
        ZooError: the disk is full or the folder can't be written; `target` is as it was before.
    """
    target = Path(target)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The suffix stays the same: writers such as matplotlib and numpy choose the format by it.
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".writing-", suffix=target.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except ZooError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        # torch, safetensors and HDF5 have errors of their own for it, which name no reason.
        if number in (errno.ENOSPC, errno.EDQUOT) or (number is None and _is_full(target.parent)):
            raise ZooError(
                f"No space left on the disk while writing {target}. What was there before is intact: "
                "free some space (or set run_dir= to another disk) and go on from there."
            ) from error
        if isinstance(error, OSError) and number in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise ZooError(f"{target.parent} can't be written to ({error.strerror}). Choose another folder.") from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def parsing(path: str | Path, what: str, error_type: type[ZooError] = DataError) -> Iterator[None]:
    """Around the reading of a file from elsewhere: whatever goes wrong becomes one error that names the file.

    Parsers raise anything on a damaged file (of zip, zlib, struct, pickle, tokenize, or a MemoryError for a size
    that is garbage), so that no list of exceptions would be complete. The original error is the cause.

    Args:
        path: the file.
        what: it should be, such as ``"a body model"``.
        error_type: of the error.

    Raises:
        DataError: (or `error_type`) the file is absent, damaged or of another layout.
    """
    try:
        yield
    except (ZooError, ImportError):
        raise
    except FileNotFoundError as error:
        raise error_type(f"There is no file {error.filename or path}.") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise error_type(f"{path} can't be read as {what} ({reason}).") from error


def _is_full(folder: Path) -> bool:
    """Whether no further block fits, as when a writer has just filled what there was."""
    return folder.is_dir() and shutil.disk_usage(folder).free < 1 << 14


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(target: str | Path, text: str) -> None:
    """Atomically writes UTF-8 text."""
    with atomic_path(target) as path:
        path.write_text(text, encoding="utf-8")


def write_json(target: str | Path, value: Any) -> None:
    """Atomically writes JSON, indented, with a final newline."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
