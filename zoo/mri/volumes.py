"""Volumes of k-space in files and in memory, read slice by slice."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.errors import DataError
from zoo.files import parsing
from zoo.mri.fourier import ifft2
from zoo.mri.hdf5 import IsmrmrdHeader, get_dataset, reading
from zoo.mri.masks import MaskSource
from zoo.mri.operators import center_crop, rss
from zoo.mri.pipeline import RawSlice

FASTMRI_LAYOUTS = ("schw", "shw")
CALGARY_LAYOUT = "shw(c2)"
CALGARY_MEASURED = 0.85  # part of the columns that the scanner measures


class Volume(ABC):
    """A volume of slices.

    Attributes:
        name: file name without folders; masks for evaluation are seeded by it.
        slices: number of slices.
        shape: (C, H, W) of each slice.
        centered: the image has its origin at index n // 2.
        voxel_size: (row, column, slice) in mm.
        masks: to undersample it with in training, if not with those of its data set.
    """

    name: str
    slices: int
    shape: tuple[int, int, int]
    centered: bool = True
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    masks: Sequence[MaskSource] | None = None

    @abstractmethod
    def read(self, index: int) -> RawSlice:
        """One slice.

        Raises:
            DataError: it can't be read.
        """

    def crop(self) -> tuple[int, int]:
        """(height, width) of the image that counts."""
        return self.shape[1:]

    def maximum(self) -> float:
        """The largest value of the true images, for metrics that are scaled by it."""
        return self._maximum

    @cached_property
    def _maximum(self) -> float:
        largest = 0.0
        for index in range(self.slices):
            raw = self.read(index)
            kspace = raw.kspace if raw.truth is None else raw.truth
            image = rss(ifft2(torch.tensor(kspace), self.centered))
            largest = max(largest, float(center_crop(image, *self.crop()).max()))
        return largest


class ArrayVolume(Volume):
    """A volume in memory.

    Args:
        name: see `Volume`.
        kspace: (S, C, H, W) complex64.
        mask: (H, W) boolean if it is undersampled.
        truth: (S, C, H, W) complex64 without noise, if known.
        noise: see `zoo.mri.pipeline.RawSlice`.
    """

    def __init__(
        self,
        name: str,
        kspace: NDArray[np.complex64],
        mask: NDArray[np.bool_] | None = None,
        truth: NDArray[np.complex64] | None = None,
        noise: float | None = None,
    ) -> None:
        self.name, self.kspace, self.mask, self.truth, self.noise = name, kspace, mask, truth, noise
        self.slices, *shape = kspace.shape
        self.shape = (shape[0], shape[1], shape[2])

    def read(self, index: int) -> RawSlice:
        """One slice."""
        truth = None if self.truth is None else self.truth[index]
        return RawSlice(self.kspace[index], self.mask, crop=self.crop(), truth=truth, noise=self.noise)


class Layout:
    """Which axis of an array is what.

    Args:
        text: one letter per axis: ``s`` slices, ``c`` coils, ``h`` rows, ``w`` columns, ``2`` real and
            imaginary part; ``(c2)`` is one axis in which each coil's real part is followed by its imaginary
            part. Slices and coils may be absent. ``schw`` is fastMRI's, ``shw(c2)`` Calgary-Campinas'.

    Raises:
        DataError: the text is no layout.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.axes = re.findall(r"\(c2\)|[schw2]", text)
        letters = sorted("".join(self.axes).replace("(", "").replace(")", ""))
        if "".join(self.axes) != text or len(set(letters)) != len(letters) or not {"h", "w"} <= set(letters):
            raise DataError(
                f"'{text}' is no k-space layout: give one letter per axis, s slices, c coils, h rows, w columns, "
                "2 real and imaginary part, such as schw, chw2 or shw(c2)."
            )
        if "(c2)" in self.axes and self.axes[-1] != "(c2)":
            raise DataError(f"In the layout '{text}', (c2) must be the last axis.")

    def sizes(self, shape: tuple[int, ...], dtype: Any) -> tuple[int, int, int, int]:
        """(slices, coils, rows, columns) of an array.

        Raises:
            DataError: an array of that shape or dtype can't have this layout.
        """
        paired = "(c2)" in self.axes or "2" in self.axes
        if len(shape) != len(self.axes) or paired == np.issubdtype(dtype, np.complexfloating):
            raise DataError(f"An array {tuple(shape)} of {dtype} does not have the layout '{self.text}'.")
        size = dict(zip(self.axes, shape, strict=True))
        if size.get("2", 2) != 2 or size.get("(c2)", 2) % 2:
            raise DataError(f"An array {tuple(shape)} does not have the layout '{self.text}': no pairs of numbers.")
        return size.get("s", 1), size.get("c", size.get("(c2)", 2) // 2), size["h"], size["w"]

    def slice(self, array: Any, index: int) -> NDArray[np.complex64]:
        """One slice as (C, H, W), reading no more than that from a file."""
        where = tuple(index if axis == "s" else slice(None) for axis in self.axes)
        part = np.asarray(array[where])
        axes = [axis for axis in self.axes if axis != "s"]
        if "2" in axes:
            part = np.moveaxis(part, axes.index("2"), -1)
            axes = [axis for axis in axes if axis != "2"] + ["2"]
        if axes[-1] in ("2", "(c2)"):
            part = np.ascontiguousarray(part, dtype=np.float32).view(np.complex64)
            axes[-1] = "c"
            if "c" in axes[:-1]:
                part, axes = part[..., 0], axes[:-1]
        if "c" not in axes:
            part, axes = part[None], ["c", *axes]
        return np.ascontiguousarray(part.transpose([axes.index(axis) for axis in "chw"]), dtype=np.complex64)


def guess_layout(shape: tuple[int, ...], dtype: Any) -> str:
    """The usual layout of an array of that shape and dtype.

    Raises:
        DataError: none is usual.
    """
    if np.issubdtype(dtype, np.complexfloating):
        usual = {2: "hw", 3: "chw", 4: "schw"}
    else:
        usual = {3: "hw2", 4: "chw2", 5: "schw2"} if shape[-1] == 2 else {3: "hw(c2)", 4: CALGARY_LAYOUT}
    if len(shape) not in usual:
        raise DataError(f"An array {tuple(shape)} of {dtype} has no usual k-space layout: give one, such as schw.")
    return usual[len(shape)]


class FileVolume(Volume):
    """A volume in an .h5 or .npy file.

    Args:
        path: the file.
        layout: see `Layout`; None for the usual one.
        key: name of the array in an .h5 file.

    Raises:
        DataError: the file is absent or damaged, or its array has another layout.
    """

    def __init__(self, path: str | Path, layout: str | None = None, key: str = "kspace") -> None:
        self.path, self.key, self.name = Path(path), key, Path(path).name
        shape, dtype = self._describe()
        try:
            self.layout = Layout(layout or guess_layout(shape, dtype))
            self.slices, *rest = self.layout.sizes(shape, dtype)
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from None
        self.shape = (rest[0], rest[1], rest[2])
        if math.prod((self.slices, *self.shape)) == 0:
            raise DataError(f"{self.path} holds an empty array {shape}.")

    def _describe(self) -> tuple[tuple[int, ...], Any]:
        if self.path.suffix == ".npy":
            array = self._map()
            return array.shape, array.dtype
        with reading(self.path) as file:
            dataset = get_dataset(file, self.key)
            return tuple(dataset.shape), dataset.dtype

    def _map(self) -> NDArray[Any]:
        with parsing(self.path, "a .npy file"):
            return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def kspace(self, index: int) -> NDArray[np.complex64]:
        """One slice (C, H, W)."""
        if self.path.suffix == ".npy":
            part = self.layout.slice(self._map(), index)
        else:
            with reading(self.path) as file:
                part = self.layout.slice(get_dataset(file, self.key), index)
        if not np.isfinite(part.view(np.float32)).all():
            raise DataError(f"{self.path} holds NaN or infinity in slice {index}.")
        return part

    def read(self, index: int) -> RawSlice:
        """One slice."""
        return RawSlice(self.kspace(index), crop=self.crop())

    def check(self) -> None:
        """Reads the last slice, which a truncated file does not have.

        Raises:
            DataError: it can't be read.
        """
        self.read(self.slices - 1)


class FastMRIVolume(FileVolume):
    """A file of fastMRI: multi-coil or single-coil, with its header.

    Args:
        path: the file.

    Raises:
        DataError: the file is absent or damaged, or its array or header is not fastMRI's.
    """

    def __init__(self, path: str | Path) -> None:
        with reading(Path(path)) as file:
            dimensions = get_dataset(file, "kspace").ndim
            try:
                header = IsmrmrdHeader(get_dataset(file, "ismrmrd_header")[()])
            except DataError as error:
                raise DataError(f"{path}: {error}") from None
            mask = np.asarray(file["mask"]).astype(bool).reshape(-1) if "mask" in file else None
            self.largest = float(file.attrs["max"]) if "max" in file.attrs else None
        super().__init__(path, FASTMRI_LAYOUTS[4 - dimensions] if dimensions in (3, 4) else None)
        height, width = self.shape[1:]
        unmeasured = np.ones(width, dtype=bool)
        unmeasured[max(header.padding[0], 0) : header.padding[1]] = False
        self.unmeasured = np.broadcast_to(unmeasured, (height, width))
        if mask is not None and len(mask) != width:
            raise DataError(f"{path} has a mask of {len(mask)} columns, and its k-space has {width}.")
        self.mask = None if mask is None else np.broadcast_to(mask & ~unmeasured, (height, width))
        self.reconstruction = header.reconstruction_size[:2]
        if header.voxel_size is not None:
            self.voxel_size = header.voxel_size

    def read(self, index: int) -> RawSlice:
        """One slice."""
        return RawSlice(self.kspace(index), self.mask, self.unmeasured, self.crop())

    def crop(self) -> tuple[int, int]:
        """The reconstruction size; where k-space has fewer columns than that, a square of their number."""
        height, width = self.reconstruction
        return (height, width) if self.shape[2] >= width else (self.shape[2], self.shape[2])

    def maximum(self) -> float:
        """As the file says."""
        return super().maximum() if self.largest is None else self.largest


class CalgaryVolume(FileVolume):
    """A file of Calgary-Campinas. The images are not centred, and the last columns were not measured.

    The benchmark's metrics are scaled slice by slice, so `maximum` is NaN.

    Args:
        path: the file.
        margin: slices left out at either end.

    Raises:
        DataError: the file is absent or damaged, or its array has another layout.
    """

    centered = False

    def __init__(self, path: str | Path, margin: int = 50) -> None:
        super().__init__(path, CALGARY_LAYOUT)
        if self.slices <= 2 * margin:
            raise DataError(f"{self.path} has {self.slices} slices, not more than the {2 * margin} left out.")
        self.margin = margin
        self.slices -= 2 * margin
        self.unmeasured = np.zeros(self.shape[1:], dtype=bool)
        self.unmeasured[:, math.ceil(CALGARY_MEASURED * self.shape[2]) :] = True

    def read(self, index: int) -> RawSlice:
        """One slice."""
        return RawSlice(self.kspace(index + self.margin), None, self.unmeasured, self.crop())

    def maximum(self) -> float:
        """NaN."""
        return float("nan")
