"""Readers of large aerial data sets: COLMAP folders by split, Mega-NeRF's layout, MatrixCity's poses.

Photographs are read when they are needed, since thousands of them do not fit into memory.
"""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from zoo.data.procedural_city import CityScene
from zoo.data.scene_readers import IMAGE_SUFFIXES, read_colmap, read_image, read_points, shrink
from zoo.data.scene_views import opengl_to_viewmat
from zoo.errors import DataError
from zoo.files import parsing

Array = NDArray[np.float64]

# Mega-NeRF's axes are down, right, backwards; COLMAP's frame of its scenes swaps and flips them once more.
_SWAP = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]])
_KEPT = 128  # photographs in memory


@dataclass(frozen=True)
class Photograph:
    """A view of a data set.

    Attributes:
        file: its picture.
        viewmat: (4, 4) world to camera.
        K: (3, 3) intrinsics at the size (width, height) below.
        size: width and height that K belongs to.
    """

    file: Path
    viewmat: Array
    K: Array
    size: tuple[int, int]


class ImageFiles(Sequence[NDArray[np.uint8]]):
    """Pictures (H, W, 3) read on demand and shrunk; the last ones used stay in memory.

    Args:
        photographs: where they are.
        factor: by which they are shrunk.
    """

    def __init__(self, photographs: Sequence[Photograph], factor: float) -> None:
        self.files = [p.file for p in photographs]
        self.sizes = [(round(p.size[0] / factor), round(p.size[1] / factor)) for p in photographs]
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.uint8]]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        """A picture, read now if need be."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        if index not in self._kept:
            self._kept[index] = shrink(read_image(self.files[index]), *self.sizes[index])
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(index)
        return self._kept[index]


def assemble(
    name: str,
    train: list[Photograph],
    held_out: list[Photograph],
    cloud: tuple[Array, NDArray[np.uint8]],
    factor: float,
) -> CityScene:
    """A scene of photographs by split, shrunk by a factor.

    Raises:
        DataError: there is nothing to train on, or a picture is missing.
    """
    if not train:
        raise DataError(f"{name} has no photographs to train on.")
    views = [*train, *held_out]
    lost = [str(p.file) for p in views if not p.file.is_file()]
    if lost:
        raise DataError(f"{len(lost)} of {len(views)} photographs of {name} are missing, the first is {lost[0]}.")
    images = ImageFiles(views, factor)
    scales = [(w / p.size[0], h / p.size[1]) for p, (w, h) in zip(views, images.sizes, strict=True)]
    return CityScene(
        name=name,
        names=[p.file.stem if i < len(train) else f"test/{p.file.stem}" for i, p in enumerate(views)],
        images=images,  # type: ignore[arg-type]
        viewmats=np.stack([p.viewmat for p in views]),
        Ks=np.stack([np.diag([x, y, 1.0]) @ p.K for p, (x, y) in zip(views, scales, strict=True)]),
        points=cloud[0],
        point_colors=cloud[1],
        test_every=0,
        held_out=tuple(range(len(train), len(views))),
    )


def no_points() -> tuple[Array, NDArray[np.uint8]]:
    """An empty cloud."""
    return np.zeros((0, 3)), np.zeros((0, 3), np.uint8)


def read_colmap_split(folder: Path) -> tuple[list[Photograph], tuple[Array, NDArray[np.uint8]]]:
    """The photographs and points of ``folder/sparse/0`` and ``folder/images``, sorted by name; pinhole cameras only.

    Raises:
        DataError: the model is absent, damaged, or of distorted photographs.
    """
    import pycolmap

    model = folder / "sparse" / "0"
    scene = read_colmap(folder, model, folder / "images", with_images=False)
    models = {camera.model.name for camera in pycolmap.Reconstruction(str(model)).cameras.values()}
    if not models <= {"PINHOLE", "SIMPLE_PINHOLE"}:
        raise DataError(
            f"The photographs of {folder} are distorted ({', '.join(sorted(models))}): run colmap image_undistorter."
        )
    photographs = [
        Photograph(folder / "images" / name, viewmat, K, (image.shape[1], image.shape[0]))
        for name, viewmat, K, image in zip(scene.names, scene.viewmats, scene.Ks, scene.images, strict=True)
    ]
    return photographs, (scene.points, scene.point_colors)


def meganerf_viewmat(c2w: Array, origin: Array, scale: float) -> Array:
    """World-to-camera matrices (..., 4, 4) in COLMAP's frame of Mega-NeRF's camera-to-world ones (..., 3, 4).

    Args:
        c2w: columns down, right, backwards and place, the last in units of `scale`.
        origin: (3,) ``origin_drb``.
        scale: ``pose_scale_factor``.
    """
    down, right, back, place = np.moveaxis(np.asarray(c2w, dtype=np.float64), -1, 0)
    turned = np.stack([-right, down, back], axis=-1)
    pose = np.zeros((*c2w.shape[:-2], 4, 4))
    pose[..., :3, :3] = _SWAP @ turned @ _SWAP
    pose[..., :3, 3] = (place * scale + origin) @ _SWAP.T
    pose[..., 3, 3] = 1
    return np.asarray(np.linalg.inv(pose))


def read_meganerf(root: Path, split: str) -> list[Photograph]:
    """The photographs of ``root/<split>/{metadata,rgbs}``.

    Raises:
        DataError: files are absent, damaged, or their photographs distorted.
    """
    frame = _tensors(root / "coordinates.pt")
    folder = root / split
    pictures = {p.stem: p for p in sorted((folder / "rgbs").glob("*")) if p.suffix.lower() in IMAGE_SUFFIXES}
    photographs = []
    for file in sorted((folder / "metadata").glob("*.pt")):
        content = _tensors(file)
        with parsing(file, "metadata of Mega-NeRF"):
            fx, fy, cx, cy = (float(v) for v in content["intrinsics"])
            if "distortion" in content and np.abs(np.asarray(content["distortion"])).max() > 1e-8:
                raise DataError(f"{file} is of a distorted photograph: undistort them, as Mega-NeRF's README says.")
            origin = np.asarray(frame["origin_drb"], dtype=np.float64)
            viewmat = meganerf_viewmat(np.asarray(content["c2w"]), origin, float(frame["pose_scale_factor"]))
            size = (int(content["W"]), int(content["H"]))
        K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        photographs.append(Photograph(pictures.get(file.stem, folder / "rgbs" / f"{file.stem}.jpg"), viewmat, K, size))
    return photographs


def _tensors(file: Path) -> dict[str, Any]:
    import torch

    if not file.is_file():
        raise DataError(f"There is no file {file}.")
    try:
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except (RuntimeError, EOFError, ValueError, TypeError, pickle.UnpicklingError) as error:
        raise DataError(f"{file} can't be read ({error}).") from None


def read_matrixcity(file: Path, pictures: Path) -> list[Photograph]:
    """The photographs of one of MatrixCity's files of poses, of either kind.

    ``transforms_train.json`` has OpenGL matrices and intrinsics; ``block_K/transforms.json`` has matrices with the
    rotation scaled by 0.01 and centimetres, and a field of view.

    Args:
        file: the poses.
        pictures: folder below which ``block_K/NNNN.png`` lie.

    Raises:
        DataError: the file is absent, damaged or of neither kind.
    """
    with parsing(file, "MatrixCity's poses"):
        content = json.loads(file.read_text(encoding="utf-8"))
        frames = content["frames"]
        if frames and "rot_mat" in frames[0]:
            return [_cm_frame(content, frame, file.parent) for frame in frames]
        w, h = int(content.get("w", 1920)), int(content.get("h", 1080))
        K = np.array([[content["fl_x"], 0, content["cx"]], [0, content["fl_y"], content["cy"]], [0, 0, 1.0]])
        return [
            Photograph(
                pictures.joinpath(*Path(frame["file_path"]).parts[-2:]),
                opengl_to_viewmat(np.array(frame["transform_matrix"], dtype=np.float64)),
                K,
                (w, h),
            )
            for frame in frames
        ]


def _cm_frame(content: dict[str, Any], frame: dict[str, Any], folder: Path) -> Photograph:
    pose = np.array(frame["rot_mat"], dtype=np.float64)
    pose[:3, :3] *= 100
    pose[:3, 3] *= 0.01
    w, h = int(content.get("w", 1920)), int(content.get("h", 1080))
    focal = 0.5 * w / np.tan(0.5 * float(content["camera_angle_x"]))
    K = np.array([[focal, 0, w / 2], [0, focal, h / 2], [0, 0, 1]])
    name = f"{int(frame['frame_index']):04d}.png"
    beside = folder / name if (folder / name).is_file() else folder / "rgb" / name
    return Photograph(beside, opengl_to_viewmat(pose), K, (w, h))


def read_cloud(path: str | None) -> tuple[Array, NDArray[np.uint8]]:
    """The points of a .ply file; none without a path."""
    return no_points() if path is None else read_points(Path(path).expanduser())
