"""Pretrained weights: the manifest, and getting from a name to a ready module.

Each entry is a YAML file: shipped ones stand under ``data/weights/``, a user's own (``python -m
zoo.publish``) under ``published/`` in the cache folder. `WeightsEntry` says what an entry holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import assets
from zoo.download import cache_dir, fetch, is_offline, verify
from zoo.errors import UnknownNameError, WeightsError, did_you_mean
from zoo.files import parsing

if TYPE_CHECKING:
    import torch

    from zoo.module import ZooModule

RUN_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class WeightsEntry:
    """One entry of the manifest. Exactly one of `file`, `url` and `hub` says where the weights are.

    Attributes:
        name: what `load_pretrained` takes, ``"family/name"``.
        model: registry name of the model.
        arguments: its constructor arguments.
        sha256: checksum of the file.
        size: its length in bytes.
        licence: licence of the weights.
        description: one sentence.
        file: path beside the YAML file.
        url: http(s) address.
        hub: ``{"repo_id": ..., "filename": ..., "revision": ...}`` on the Hugging Face hub.
        official: the file is the authors' checkpoint and goes through the model's convert.py.
        origin: where the weights come from, where it isn't this project.
        config: training config.
        seed: its seed.
        metrics: what was measured with these weights.
    """

    name: str
    model: str
    sha256: str
    size: int
    licence: str
    description: str
    arguments: dict[str, Any] = field(default_factory=dict)
    file: str | None = None
    url: str | None = None
    hub: dict[str, str] | None = None
    official: bool = False
    origin: str | None = None
    config: str | None = None
    seed: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    source: Path = Path()


def manifest_folders() -> list[Path]:
    """Folders of manifest entries: the shipped one and the user's own."""
    return [assets.path("data", "weights"), cache_dir() / "published"]


def _manifest() -> dict[str, WeightsEntry]:
    return {entry.name: entry for folder in manifest_folders() for entry in _entries(folder)}


def _entries(folder: Path) -> Iterator[WeightsEntry]:
    for file in sorted(folder.rglob("*.yaml")):
        yield _read_entry(file, file.stat().st_mtime_ns)


@cache
def _read_entry(file: Path, modified: int) -> WeightsEntry:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError("it is no mapping")
        unknown = content.keys() - {f.name for f in fields(WeightsEntry)}
        if unknown:
            raise TypeError(f"unknown keys: {', '.join(sorted(unknown))}")
        entry = WeightsEntry(**{**content, "source": file})
        if sum(place is not None for place in (entry.file, entry.url, entry.hub)) != 1:
            raise TypeError("exactly one of file, url and hub must be given")
    except (yaml.YAMLError, TypeError) as error:
        raise WeightsError(f"The manifest entry {file} is unusable: {error}") from None
    return entry


def list_weights(pattern: str = "*") -> list[str]:
    """Names of the pretrained weights that match a glob, sorted: ``list_weights("kat/*")``."""
    return sorted(name for name in _manifest() if fnmatchcase(name, pattern))


def get_entry(name: str) -> WeightsEntry:
    """The manifest entry of a name.

    Raises:
        UnknownNameError: no such entry; the message lists near matches.
    """
    manifest = _manifest()
    if name not in manifest:
        raise UnknownNameError(f"There are no pretrained weights '{name}'. {did_you_mean(name, manifest)}")
    return manifest[name]


def weights_file(entry: WeightsEntry) -> Path:
    """The entry's file on this machine, downloaded if need be, with its checksum verified.

    Raises:
        WeightsError: it is absent and can't be had, or its checksum is wrong.
    """
    if entry.file is not None:
        path = entry.source.parent / entry.file
        if not path.is_file():
            raise WeightsError(f"The weights file {path} of '{entry.name}' is missing: install zoo again.")
    elif entry.url is not None:
        target = cache_dir() / "weights" / f"{entry.sha256[:16]}-{entry.url.rsplit('/', 1)[-1]}"
        path = fetch(entry.url, target, entry.sha256, entry.size)
    else:
        assert entry.hub is not None
        path = _fetch_from_hub(entry.hub)
    verify(path, entry.sha256, f"'{entry.name}'")
    return path


def _fetch_from_hub(place: dict[str, str]) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        file = hf_hub_download(
            place["repo_id"],
            place["filename"],
            revision=place.get("revision"),
            cache_dir=cache_dir() / "hub",
            local_files_only=is_offline(),
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise WeightsError(f"{place['filename']} can't be had from the hub's {place['repo_id']}: {error}") from None
    return Path(file)


def load_pretrained(name: str) -> ZooModule:
    """The ready module behind a name of `list_weights`, in eval mode on the CPU.

    Raises:
        UnknownNameError: no such weights.
        WeightsError: they can't be had, are damaged, or do not fit the model.
    """
    from zoo import weights
    from zoo.registry import create_model

    entry = get_entry(name)
    path = weights_file(entry)
    module = create_model(entry.model, **entry.arguments)
    tensors = read_official(entry.model, path) if entry.official else weights.read(path)[0]
    weights.load_into(module.network, tensors, source=f"'{name}'")
    module.eval()
    return module


def read_official(model: str, path: Path) -> dict[str, Any]:
    """An official checkpoint file as the state dict of our network.

    Args:
        model: registry name.
        path: a ``.safetensors`` file, an ``.npz`` file, a torch file of plain tensors and values, or where the authors
            write several files, their folder.

    Raises:
        WeightsError: the file is absent, unreadable, would run code, or is no checkpoint of that model.
    """
    import numpy as np
    import torch

    from zoo import weights
    from zoo.registry import convert_official, read_official_folder

    if path.is_dir():
        return read_official_folder(model, path)
    if path.suffix == ".safetensors":
        return convert_official(model, weights.read(path)[0])
    with parsing(path, "a checkpoint of plain tensors", WeightsError):
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                content: Any = {name: arrays[name] for name in arrays.files}
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    try:
        return convert_official(model, content)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def resolve_file(source: str | Path) -> Path:
    """The weights file that ``weights=`` means: a pretrained name, a weights file or a run folder.

    Raises:
        UnknownNameError, WeightsError: there is nothing of that name, or the run was not finished.
    """
    path = Path(source)
    if path.is_dir():
        if not (path / RUN_WEIGHTS).is_file():
            raise WeightsError(f"{path} has no {RUN_WEIGHTS}: the run was not finished. Go on with resume={path}")
        return path / RUN_WEIGHTS
    if path.suffix == ".safetensors" or path.is_file():
        if not path.is_file():
            raise WeightsError(f"There is no weights file {path}.")
        return path
    return weights_file(get_entry(str(source)))


def load_module(source: str | Path) -> ZooModule:
    """The ready module behind a pretrained name, a weights file or a run folder, in eval mode.

    Raises:
        UnknownNameError, WeightsError: as `resolve_file`, `load_pretrained` and `zoo.weights.build`.
    """
    from zoo import weights

    if not Path(source).exists() and Path(source).suffix != ".safetensors":
        return load_pretrained(str(source))
    return weights.build(resolve_file(source))


def network_weights(source: str | Path) -> dict[str, torch.Tensor]:
    """The network's state dict behind a pretrained name, a weights file or a run folder.

    Raises:
        UnknownNameError, WeightsError: as `resolve_file` and `load_pretrained`.
    """
    from zoo import weights

    if Path(source).exists() or Path(source).suffix == ".safetensors":
        return weights.read(resolve_file(source))[0]
    return load_pretrained(str(source)).network.state_dict()
