"""Reconstructing a file of k-space, slice by slice, into a file of images."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.errors import DataError
from zoo.files import atomic_path
from zoo.mri.fourier import move_origin
from zoo.mri.hdf5 import reading
from zoo.mri.masks import MaskFunction, SamplingMask, find_acs, seed_of
from zoo.mri.operators import center_crop
from zoo.mri.pipeline import Preparation, PreparedSlice, RawSlice, as_batch
from zoo.mri.refinement import Refinement
from zoo.mri.volumes import CALGARY_LAYOUT, CalgaryVolume, FastMRIVolume, FileVolume

if TYPE_CHECKING:
    from zoo.mri.reconstructor import Reconstructor

OUTPUTS = (".h5", ".npy", ".nii", ".nii.gz", ".png")


def require_format(output: Path, formats: tuple[str, ...]) -> None:
    """Raises `DataError` unless the file's name ends in one of these."""
    if not str(output).endswith(formats):
        raise DataError(f"The output {output} should end in one of {', '.join(formats)}.")


def open_file(path: Path, layout: str | None = None, key: str = "kspace", margin: int = 0) -> FileVolume:
    """A file of k-space as what it looks like: fastMRI's, Calgary-Campinas', or an array.

    Args:
        path: .h5 or .npy.
        layout: see `zoo.mri.volumes.Layout`; with one, the file counts as a plain array.
        key: name of the array in an .h5 file.
        margin: slices to leave out at either end.

    Raises:
        DataError: it can't be read.
    """
    if path.suffix not in (".h5", ".hdf5", ".npy"):
        raise DataError(f"The input {path} should be a .h5 or .npy file of k-space.")
    if path.suffix == ".npy" or layout is not None:
        return FileVolume(path, layout, key)
    with reading(path) as file:
        is_fastmri = "ismrmrd_header" in file
    if is_fastmri:
        return FastMRIVolume(path)
    volume = FileVolume(path, None, key)
    return CalgaryVolume(path, margin) if volume.layout.text == CALGARY_LAYOUT else volume


def sampled(volume: FileVolume, slices: range) -> NDArray[np.bool_]:
    """(H, W), True where any coil of any slice has signal, or what the file itself says."""
    first = volume.read(slices[0])
    if first.mask is not None:
        return first.mask
    found = np.zeros(volume.shape[1:], dtype=bool)
    for index in slices:
        found |= (volume.read(index).kspace != 0).any(0)
    return found


@dataclass(frozen=True)
class Undersampled:
    """A file of k-space that is to be reconstructed.

    Attributes:
        volume: the file.
        slices: those that count.
        mask: what of them is sampled.
    """

    volume: FileVolume
    slices: range
    mask: SamplingMask

    @classmethod
    def open(
        cls,
        path: Path,
        layout: str | None,
        key: str,
        acceleration: float | None,
        center_fraction: float,
        margin: int,
    ) -> Undersampled:
        """Arguments and errors as of `zoo.mri.reconstructor.Reconstructor.predict_file`."""
        volume = open_file(path, layout, key, margin)
        first = 0 if isinstance(volume, CalgaryVolume) else margin
        slices = range(first, volume.slices - first)
        if not slices:
            raise DataError(f"{path} has {volume.slices} slices: a margin of {margin} leaves none.")
        return cls(volume, slices, find_mask(volume, slices, acceleration, center_fraction))

    def prepare(self, index: int, preparation: Preparation) -> tuple[PreparedSlice, float | None]:
        """A slice in the preparation's convention, and the standard deviation of its noise if it is known."""
        raw = self.volume.read(index)
        kspace, padding = preparation.clean(RawSlice(raw.kspace, self.mask.mask, raw.unmeasured))
        # Files that are not public ones are taken to have the convention that the network has.
        is_public = isinstance(self.volume, FastMRIVolume | CalgaryVolume)
        if is_public and self.volume.centered != preparation.centered:
            kspace = move_origin(kspace, preparation.centered)
        return preparation(kspace, padding, self.mask, self.volume.crop()), raw.noise


def predict_volume(
    module: Reconstructor,
    preparation: Preparation,
    scan: Undersampled,
    output: Path,
    refinement: Refinement | None = None,
) -> dict[str, Any]:
    """See `zoo.mri.reconstructor.Reconstructor.predict_file`."""
    volume, images = scan.volume, []
    for index in scan.slices:
        prepared, noise = scan.prepare(index, preparation)
        batch: Any = as_batch(prepared, module.device, noise)
        with torch.no_grad():
            image = module(batch) if refinement is None else module.magnitude(refinement(module, batch), batch)
            image = image * batch["scaling_factor"]
        images.append(center_crop(image, *volume.crop())[0].cpu().numpy())
    write_images(np.stack(images), output, volume.voxel_size)
    return {
        "slices": len(images),
        "coils": volume.shape[0],
        "acceleration": round(scan.mask.acceleration, 2),
        "image": images[0].shape,
        "written": output,
    }


def find_mask(volume: FileVolume, slices: range, acceleration: float | None, center_fraction: float) -> SamplingMask:
    """The mask of an undersampled volume, or one to undersample it with.

    Raises:
        DataError: it is fully sampled and no acceleration is given, or the reverse; or the mask has no centre.
    """
    measured = sampled(volume, slices)
    if acceleration is not None:
        height, width = volume.shape[1:]
        try:
            mask = MaskFunction("equispaced", (acceleration,), (center_fraction,))(
                (height, width), seed_of(volume.name)
            )
        except ValueError as error:
            raise DataError(f"No mask for {volume.name}: {error}.") from None
        if not (measured | ~mask.mask).mean() > 0.9:
            raise DataError(f"{volume.name} is undersampled already: leave acceleration= away.")
        return SamplingMask(mask.mask & measured, mask.acs & measured)
    if measured.mean() > 0.9:
        raise DataError(
            f"{volume.name} is fully sampled: there is nothing to reconstruct. "
            "acceleration=4 undersamples it first, to see what the network makes of that."
        )
    acs = find_acs(measured)
    if not acs.any():
        raise DataError(f"{volume.name} has no fully sampled centre of k-space, from which coil maps could be made.")
    return SamplingMask(measured, acs)


def write_images(images: NDArray[np.float32], output: Path, voxel_size: tuple[float, float, float]) -> None:
    """Writes (S, H, W) in the format that the file's name says, one of `OUTPUTS`."""
    if output.suffix == ".h5":
        import h5py

        with atomic_path(output) as path, h5py.File(path, "w") as file:
            file["reconstruction"] = images
    elif output.suffix == ".npy":
        with atomic_path(output) as path:
            np.save(path, images)
    elif output.suffix == ".png":
        from matplotlib.image import imsave

        columns = int(np.ceil(np.sqrt(len(images))))
        missing = -len(images) % columns
        filled = np.concatenate((images, np.zeros((missing, *images.shape[1:]), images.dtype)))
        rows = [np.concatenate(list(row), axis=1) for row in filled.reshape(-1, columns, *images.shape[1:])]
        with atomic_path(output) as path:
            imsave(path, np.concatenate(rows), cmap="gray", vmin=0, vmax=float(np.quantile(images, 0.999)))
    else:
        _write_nifti(images, output, voxel_size)


def _write_nifti(images: NDArray[np.float32], output: Path, voxel_size: tuple[float, float, float]) -> None:
    try:
        import nibabel
    except ModuleNotFoundError:
        raise DataError('NIfTI files need nibabel: pip install "zoo[mri]".') from None
    picture = nibabel.Nifti1Image(images.transpose(1, 2, 0), np.diag([*voxel_size, 1.0]))
    content = picture.to_bytes()
    with atomic_path(output) as path:
        path.write_bytes(gzip.compress(content) if output.suffix == ".gz" else content)
