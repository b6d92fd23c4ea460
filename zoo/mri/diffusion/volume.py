"""Sampling a file of k-space slice by slice; a run that was stopped goes on with the next slice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from zoo.errors import DataError
from zoo.files import atomic_path, write_json
from zoo.mri.diffusion.problem import MapsName
from zoo.mri.masks import SamplingMask
from zoo.mri.operators import center_crop
from zoo.mri.pipeline import Preparation, RawSlice
from zoo.mri.prediction import OUTPUTS, find_mask, open_file, write_images
from zoo.mri.volumes import CalgaryVolume, FileVolume

if TYPE_CHECKING:
    from zoo.mri.diffusion.module import DiffusionReconstructor

FORMATS = (".npz", *OUTPUTS)
ARRAYS = ("image", "std", "samples", "residual", "noise")
COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


def predict_posterior(
    module: DiffusionReconstructor,
    input: Path,
    output: Path,
    layout: str | None,
    key: str,
    acceleration: float | None,
    center_fraction: float,
    margin: int,
    **sampling: Any,
) -> dict[str, Any]:
    """See `zoo.mri.diffusion.module.DiffusionReconstructor.predict_file`."""
    if not str(output).endswith(FORMATS):
        raise DataError(f"The output {output} should end in one of {', '.join(FORMATS)}.")
    volume = open_file(input, layout, key, margin)
    first = 0 if isinstance(volume, CalgaryVolume) else margin
    slices = range(first, volume.slices - first)
    if not slices:
        raise DataError(f"{input} has {volume.slices} slices: a margin of {margin} leaves none.")
    mask = find_mask(volume, slices, acceleration, center_fraction)
    work = {
        "input": str(input.resolve()),
        "modified": input.stat().st_mtime_ns,
        "weights": _fingerprint(module),
        "mask": [acceleration, center_fraction],
        "sampling": sampling,
    }
    folder = _take_up(output.parent / f".{output.name}.slices", work)
    with Progress(*COLUMNS, console=Console(stderr=True)) as bar:
        for index in bar.track(slices, description="slices"):
            part = folder / f"{index}.npz"
            if not part.exists():
                with atomic_path(part) as path:
                    np.savez(path, **_sample(module, volume, index, mask, **sampling))  # type: ignore[arg-type]
    parts = [dict(np.load(folder / f"{index}.npz")) for index in slices]
    arrays = {name: np.stack([part[name] for part in parts]) for name in ARRAYS}
    _write(arrays, output, volume.voxel_size)
    shutil.rmtree(folder)
    return {
        "slices": len(slices),
        "coils": volume.shape[0],
        "acceleration": round(mask.acceleration, 2),
        "image": arrays["image"].shape[1:],
        "samples": arrays["samples"].shape[1],
        "residual": f"{arrays['residual'].mean():.3g} (1 for the truth)",
        "written": output,
    }


def _fingerprint(module: DiffusionReconstructor) -> list[float]:
    return [float(p.detach().double().sum()) for p in module.network.parameters()]


def _take_up(folder: Path, work: dict[str, Any]) -> Path:
    """The folder of finished slices: kept if it belongs to the same work, emptied otherwise."""
    record = folder / "work.json"
    wanted = json.loads(json.dumps(work))
    if folder.exists() and not (record.exists() and json.loads(record.read_text(encoding="utf-8")) == wanted):
        shutil.rmtree(folder)
    write_json(record, work)
    return folder


def _sample(
    module: DiffusionReconstructor,
    volume: FileVolume,
    index: int,
    mask: SamplingMask,
    maps: MapsName = "acs",
    **sampling: Any,
) -> dict[str, NDArray[Any]]:
    raw = volume.read(index)
    preparation = Preparation(percentile=None)
    kspace, padding = preparation.clean(RawSlice(raw.kspace, mask.mask, raw.unmeasured))
    prepared = preparation(kspace, padding, mask, volume.crop())
    posterior = module.reconstruct(
        prepared["masked_kspace"][None],
        prepared["sampling_mask"][None],
        prepared["sensitivity_map"][None] if maps == "acs" and len(kspace) > 1 else maps,
        keys=[(index,)],
        **sampling,
    )

    def cropped(x: torch.Tensor) -> NDArray[Any]:
        return center_crop(x[0], *volume.crop()).cpu().numpy()

    return {
        "image": cropped(posterior.image),
        "std": cropped(posterior.std),
        "samples": cropped(posterior.samples),
        "residual": posterior.residual[0].cpu().numpy(),
        "noise": posterior.noise[0].cpu().numpy(),
    }


def _write(arrays: dict[str, NDArray[Any]], output: Path, voxel_size: tuple[float, float, float]) -> None:
    if output.suffix == ".npz":
        with atomic_path(output) as path:
            np.savez(path, **arrays)  # type: ignore[arg-type]
    elif output.suffix == ".h5":
        import h5py

        with atomic_path(output) as path, h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file["reconstruction" if name == "image" else name] = array
    else:
        write_images(arrays["image"], output, voxel_size)
