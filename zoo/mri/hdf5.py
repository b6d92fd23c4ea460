"""HDF5 files: opened once per process and read slice by slice, and the layouts of the two public data sets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError
from zoo.files import atomic_path, parsing

if TYPE_CHECKING:
    import h5py

NAMESPACE = "http://www.ismrm.org/ISMRMRD"
OPEN_FILES = 32  # kept open per process


@lru_cache(maxsize=OPEN_FILES)
def _open(path: Path, modified: int, process: int) -> h5py.File:
    import h5py

    return h5py.File(path, "r")


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """The open file; a worker process never uses a handle of its parent.

    Raises:
        DataError: the file is absent, no HDF5 file, truncated or damaged, or reading from it fails; or h5py
            is not installed.
    """
    try:
        with parsing(path, "HDF5 of the expected layout"):
            yield _open(path, path.stat().st_mtime_ns, os.getpid())
    except ModuleNotFoundError:
        raise DataError('HDF5 files need h5py: pip install "zoo[mri]".') from None


def get_dataset(file: h5py.File, key: str) -> h5py.Dataset:
    """An array of a file.

    Raises:
        KeyError: the file has none of that name; the message lists those it has.
    """
    if key not in file:
        raise KeyError(f"no array '{key}' in it, only {', '.join(sorted(file)) or 'nothing'}")
    return file[key]


class IsmrmrdHeader:
    """What the header of a fastMRI file says.

    Args:
        xml: text of ``ismrmrd_header``.

    Attributes:
        encoding_size, reconstruction_size: (x, y, z) matrix sizes.
        padding: the measured columns are those from padding[0] to before padding[1].
        voxel_size: (x, y, z) in mm of the reconstruction; None if the header does not say.

    Raises:
        DataError: the header is no XML or lacks a field.
    """

    def __init__(self, xml: str | bytes) -> None:
        try:
            root = ElementTree.fromstring(xml)
            encoding = self._find(root, "encoding")
            self.encoding_size = self._triple(encoding, "encodedSpace", "matrixSize", int)
            self.reconstruction_size = self._triple(encoding, "reconSpace", "matrixSize", int)
            limits = self._find(encoding, "encodingLimits", "kspace_encoding_step_1")
            center, maximum = (int(self._find(limits, name).text or "") for name in ("center", "maximum"))
        except (ElementTree.ParseError, KeyError, ValueError) as error:
            raise DataError(f"The ismrmrd_header can't be read ({error}).") from None
        left = self.encoding_size[1] // 2 - center
        self.padding = left, left + maximum + 1
        try:
            field_of_view = self._triple(encoding, "reconSpace", "fieldOfView_mm", float)
        except (KeyError, ValueError):
            self.voxel_size = None
        else:
            self.voxel_size = tuple(f / n for f, n in zip(field_of_view, self.reconstruction_size, strict=True))

    @staticmethod
    def _find(element: ElementTree.Element, *path: str) -> ElementTree.Element:
        for name in path:
            child = element.find(f"{{{NAMESPACE}}}{name}")
            if child is None:
                raise KeyError(f"no {name}")
            element = child
        return element

    def _triple(self, encoding: ElementTree.Element, space: str, field: str, kind: type) -> tuple[Any, Any, Any]:
        element = self._find(encoding, space, field)
        x, y, z = (kind(self._find(element, axis).text or "") for axis in "xyz")
        return x, y, z


def _header_xml(shape: tuple[int, int], reconstruction: tuple[int, int], padding: tuple[int, int]) -> str:
    """A header for k-space (H, W) of which columns padding[0] to before padding[1] are measured."""

    def triple(tag: str, values: tuple[float, float, float]) -> str:
        return (
            f"<{tag}>" + "".join(f"<{axis}>{v:g}</{axis}>" for axis, v in zip("xyz", values, strict=True)) + f"</{tag}>"
        )

    def space(tag: str, height: int, width: int) -> str:
        sizes = triple("matrixSize", (height, width, 1))
        return f"<{tag}>{sizes}{triple('fieldOfView_mm', (height, width, 5))}</{tag}>"

    center = shape[1] // 2 - padding[0]
    limits = f"<minimum>0</minimum><maximum>{padding[1] - padding[0] - 1}</maximum><center>{center}</center>"
    return (
        f'<?xml version="1.0"?><ismrmrdHeader xmlns="{NAMESPACE}"><encoding>'
        f"{space('encodedSpace', *shape)}{space('reconSpace', *reconstruction)}"
        f"<encodingLimits><kspace_encoding_step_1>{limits}</kspace_encoding_step_1></encodingLimits>"
        "</encoding></ismrmrdHeader>"
    )


def write_fastmri(
    path: str | Path,
    kspace: NDArray[np.complex64],
    reconstruction_rss: NDArray[np.float32],
    acquisition: str,
    padding: tuple[int, int] | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> None:
    """Writes a volume as fastMRI does.

    Args:
        path: an .h5 file.
        kspace: (S, C, H, W); (S, H, W) for a single coil.
        reconstruction_rss: (S, h, w), the true images, cropped to the reconstruction size.
        acquisition: for example "AXT2".
        padding: the measured columns are those from the first to before the second; None for all.
        mask: (W,) of an accelerated acquisition.
    """
    import h5py

    target = "reconstruction_rss" if kspace.ndim == 4 else "reconstruction_esc"
    shape = (kspace.shape[-2], kspace.shape[-1])
    reconstruction = (reconstruction_rss.shape[-2], reconstruction_rss.shape[-1])
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file["kspace"] = kspace
        file[target] = reconstruction_rss
        file["ismrmrd_header"] = _header_xml(shape, reconstruction, padding or (0, shape[1])).encode()
        if mask is not None:
            file["mask"] = mask
        file.attrs["acquisition"] = acquisition
        file.attrs["max"] = float(reconstruction_rss.max())
        file.attrs["norm"] = float(np.linalg.norm(reconstruction_rss))
        file.attrs["patient_id"] = "synthetic"


def write_calgary(path: str | Path, kspace: NDArray[np.complex64]) -> None:
    """Writes a volume (S, C, H, W) as Calgary-Campinas does: (S, H, W, 2C), real and imaginary interleaved."""
    import h5py

    last = np.ascontiguousarray(np.moveaxis(kspace, 1, -1))
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file["kspace"] = last.view(np.float32)
