"""Sampling a file of k-space slice by slice; a run that was stopped goes on with the next slice."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from zoo.errors import ConfigError
from zoo.files import atomic_path, write_json
from zoo.mri.diffusion.problem import MapsName, scan_of
from zoo.mri.fourier import ifft2
from zoo.mri.operators import center_crop, reduce
from zoo.mri.pipeline import Preparation, as_batch
from zoo.mri.prediction import OUTPUTS, Undersampled, write_images
from zoo.mri.reconstructor import Reconstructor

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
    module: DiffusionReconstructor, scan: Undersampled, input: Path, output: Path, start: str | None, **how: Any
) -> dict[str, Any]:
    """See `zoo.mri.diffusion.module.DiffusionReconstructor.predict_file`."""
    starter = None if start is None else load_starter(start, module)
    work = {
        "input": str(input.resolve()),
        "modified": input.stat().st_mtime_ns,
        "weights": [_fingerprint(part) for part in (module, starter) if part is not None],
        "mask": hashlib.sha256(scan.mask.mask.tobytes()).hexdigest(),
        "sampling": how,
    }
    folder = _take_up(output.parent / f".{output.name}.slices", work)
    with Progress(*COLUMNS, console=Console(stderr=True)) as bar:
        for index in bar.track(scan.slices, description="slices"):
            part = folder / f"{index}.npz"
            if not part.exists():
                with atomic_path(part) as path:
                    np.savez(path, **_sample(module, starter, scan, index, **how))  # type: ignore[arg-type]
    parts = [dict(np.load(folder / f"{index}.npz")) for index in scan.slices]
    arrays = {name: np.stack([part[name] for part in parts]) for name in ARRAYS}
    _write(arrays, output, scan.volume.voxel_size)
    shutil.rmtree(folder)
    return {
        "slices": len(scan.slices),
        "coils": scan.volume.shape[0],
        "acceleration": round(scan.mask.acceleration, 2),
        "image": arrays["image"].shape[1:],
        "samples": arrays["samples"].shape[1],
        "residual": f"{arrays['residual'].mean():.3g} (1 for the truth)",
        "written": output,
    }


def load_starter(source: str, module: DiffusionReconstructor) -> Reconstructor:
    """The model whose images samples start from, on the sampler's device.

    Args:
        source: pretrained name, weights file or run folder.
        module: the sampler.

    Raises:
        ConfigError: it is no model of this family, or one of the other Fourier convention.
        UnknownNameError, WeightsError: it can't be loaded.
    """
    from zoo.pretrained import load_module

    starter = load_module(source)
    if not isinstance(starter, Reconstructor):
        raise ConfigError(
            f"start={source} should be weights that reconstruct k-space, not those of {starter.zoo_name}."
        )
    if (starter.centered, starter.norm) != (module.centered, module.norm):
        raise ConfigError(f"start={source} has its origin elsewhere in image and k-space than {module.zoo_name}.")
    return starter.to(module.device)


def _fingerprint(module: Reconstructor) -> list[float]:
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
    starter: Reconstructor | None,
    scan: Undersampled,
    index: int,
    maps: MapsName = "acs",
    **how: Any,
) -> dict[str, NDArray[Any]]:
    prepared, _ = scan.prepare(index, Preparation(percentile=None))
    kspace, mask = prepared["masked_kspace"][None], prepared["sampling_mask"][None]
    found = prepared["sensitivity_map"][None] if maps == "acs" else scan_of(kspace, mask, maps)[2]
    several = found if kspace.shape[1] > 1 else None
    start = None if starter is None else _image(starter, scan, index, several)
    posterior = module.reconstruct(kspace, mask, several, start=start, keys=[(index,)], **how)
    crop = scan.volume.crop()

    def cropped(x: torch.Tensor) -> NDArray[Any]:
        return center_crop(x[0], *crop).cpu().numpy()

    return {
        "image": cropped(posterior.image),
        "std": cropped(posterior.std),
        "samples": cropped(posterior.samples),
        "residual": posterior.residual[0].cpu().numpy(),
        "noise": posterior.noise[0].cpu().numpy(),
    }


@torch.no_grad()
def _image(starter: Reconstructor, scan: Undersampled, index: int, maps: torch.Tensor | None) -> torch.Tensor:
    """The complex image (1, H, W) that a model reconstructs, combined by the sampler's maps, in the file's units."""
    prepared, noise = scan.prepare(index, Preparation(starter.centered, starter.norm))
    batch: Any = as_batch(prepared, starter.device, noise)
    images = ifft2(starter.kspace(batch), starter.centered, starter.norm) * batch["scaling_factor"]
    return images[:, 0] if maps is None else reduce(images, maps.to(images.device))


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
