"""Reading scenes: COLMAP models, NeRF's transforms.json, and bare photographs through structure from motion."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.colmap_sizes import check_sizes
from zoo.data.scene_views import Scene, opengl_to_viewmat
from zoo.download import cache_dir
from zoo.errors import DataError
from zoo.files import parsing

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
_MODEL_FOLDERS = ("sparse/0", "sparse", "colmap/sparse/0", ".")
_MAX_SIDE = 1600


def read_scene(
    path: Path,
    images: str = "images",
    max_side: int = _MAX_SIDE,
    test_every: int = 8,
    white_background: bool = False,
) -> Scene:
    """Reads whatever `path` is: a COLMAP scene, a folder with transforms.json files, or a folder of photographs.

    Args:
        path: the scene's folder.
        images: for COLMAP, the sub-folder with the photographs; ``images_2`` and the like hold shrunk ones.
        max_side: photographs whose longer side has more pixels are shrunk to it.
        test_every: see `Scene`; NeRF's files say themselves which views are held out.
        white_background: composite transparent pictures on white, not on black.

    Raises:
        DataError: there is no such folder, nothing in it can be read, or files are missing or damaged.
    """
    if not path.is_dir():
        raise DataError(f"There is no scene folder {path}.")
    for folder in _MODEL_FOLDERS:
        if any((path / folder / f"cameras{suffix}").is_file() for suffix in (".bin", ".txt")):
            return read_colmap(path, path / folder, path / images, max_side, test_every)
    if any(path.glob("transforms*.json")):
        return read_transforms(path, max_side, test_every, white_background)
    photographs = [p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    if photographs:
        model = reconstruct(path)
        return read_colmap(path, model, path, max_side, test_every)
    raise DataError(
        f"{path} holds neither a COLMAP model (sparse/0/cameras.bin or .txt), nor transforms*.json, nor photographs."
    )


def read_image(path: Path, background: float = 0.0) -> NDArray[np.uint8]:
    """A picture as (H, W, 3) uint8; a transparent one is composited on a grey level.

    Raises:
        DataError: it is absent or can't be read.
    """
    from PIL import Image

    with parsing(path, "an image"), Image.open(path) as picture:
        if picture.mode in ("RGBA", "LA", "P"):
            rgba = np.asarray(picture.convert("RGBA"), dtype=np.float32) / 255
            rgb = rgba[..., :3] * rgba[..., 3:] + background * (1 - rgba[..., 3:])
            return np.round(255 * rgb).astype(np.uint8)
        return np.array(picture.convert("RGB"))


def shrink(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The picture with another size, filtered against aliasing."""
    from PIL import Image

    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def _limited(width: int, height: int, max_side: int) -> tuple[int, int]:
    factor = min(1.0, max_side / max(width, height))
    return round(width * factor), round(height * factor)


def _scaled(K: NDArray[np.float64], x: float, y: float) -> NDArray[np.float64]:
    """Intrinsics for an image stretched by factors `x` and `y`; pixel coordinates begin at the image's corner."""
    return np.diag([x, y, 1.0]) @ K


def read_colmap(
    path: Path, model: Path, images: Path, max_side: int = _MAX_SIDE, test_every: int = 8, with_images: bool = True
) -> Scene:
    """Reads a COLMAP model, binary or text, with its photographs; lens distortion is removed from them.

    Args:
        path: the scene's folder, for its name.
        model: folder of cameras, images and points3D.
        images: folder of the photographs; if they are smaller than COLMAP's cameras, the intrinsics follow.
        max_side, test_every: as in `read_scene`.
        with_images: read the photographs; without, the scene's images are empty and of COLMAP's size.

    Raises:
        DataError: the model is damaged or empty, or photographs are missing.
    """
    pycolmap = _pycolmap()
    if with_images and not images.is_dir():
        beside = sorted(p.name for p in path.glob("images*") if p.is_dir())
        raise DataError(f"There is no folder {images} with the photographs. {_known('data.images', beside)}")
    with parsing(model, "a COLMAP model"):
        check_sizes(model)
        reconstruction = pycolmap.Reconstruction(str(model))
        return _scene(reconstruction, path, model, images if with_images else None, max_side, test_every)


def _scene(reconstruction: Any, path: Path, model: Path, images: Path | None, max_side: int, test_every: int) -> Scene:
    names = {key: image.name for key, image in reconstruction.images.items()} | _names_in_text(model)
    found = sorted(reconstruction.images.items(), key=lambda item: names[item[0]])
    if not found:
        raise DataError(f"The COLMAP model in {model} has no images.")
    pictures, viewmats, Ks = [], [], []
    for key, image in found:
        camera = reconstruction.cameras[image.camera_id]
        viewmat = np.eye(4)
        viewmat[:3] = image.cam_from_world().matrix()
        if images is not None:
            picture, K = _undistorted(read_image(images / names[key]), camera, max_side)
        else:
            picture, K = np.zeros((camera.height, camera.width, 3), np.uint8), camera.calibration_matrix()
        pictures.append(picture)
        viewmats.append(viewmat)
        Ks.append(K)
    points = [point for _, point in sorted(reconstruction.points3D.items())]
    if not (np.isfinite(viewmats).all() and np.isfinite(Ks).all()):
        raise DataError(f"The COLMAP model in {model} holds NaN or infinity.")
    return Scene(
        name=path.resolve().name,
        names=[names[key] for key, _ in found],
        images=pictures,
        viewmats=np.stack(viewmats),
        Ks=np.stack(Ks),
        points=np.array([p.xyz for p in points], dtype=np.float64).reshape(-1, 3),
        point_colors=np.array([p.color for p in points], dtype=np.uint8).reshape(-1, 3),
        test_every=test_every,
    )


def _names_in_text(model: Path) -> dict[int, str]:
    """Names of the images of a text model, which may hold spaces: pycolmap cuts them off there."""
    file = model / "images.txt"
    if not file.is_file() or (model / "images.bin").is_file():
        return {}
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    fields = [line.split(maxsplit=9) for line in lines[::2] if line.strip()]  # every second line lists points
    return {int(parts[0]): parts[9].strip() for parts in fields if len(parts) == 10}


def _known(key: str, values: list[str]) -> str:
    return f"{key} can be: {', '.join(values)}." if values else f"Say with {key} where they are."


def _undistorted(
    picture: NDArray[np.uint8], camera: Any, max_side: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The picture as a pinhole camera of the same focal length and centre would have taken it, and intrinsics."""
    height, width = picture.shape[:2]
    x, y = width / camera.width, height / camera.height
    if camera.model.name not in ("PINHOLE", "SIMPLE_PINHOLE"):
        picture = _remove_distortion(picture, camera, x, y)
    limited = _limited(width, height, max_side)
    K = _scaled(camera.calibration_matrix(), limited[0] / camera.width, limited[1] / camera.height)
    return shrink(picture, *limited), K


def _remove_distortion(picture: NDArray[np.uint8], camera: Any, x: float, y: float) -> NDArray[np.uint8]:
    from scipy.ndimage import map_coordinates

    height, width = picture.shape[:2]
    columns, rows = np.meshgrid((np.arange(width) + 0.5) / x, (np.arange(height) + 0.5) / y)
    K = camera.calibration_matrix()
    rays = np.stack([(columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1], np.ones_like(rows)], axis=-1)
    seen = np.asarray(camera.img_from_cam(rays.reshape(-1, 3))).reshape(height, width, 2)
    at = [seen[..., 1] * y - 0.5, seen[..., 0] * x - 0.5]
    channels = [map_coordinates(picture[..., c].astype(np.float32), at, order=1, mode="nearest") for c in range(3)]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def _pycolmap() -> Any:
    try:
        import pycolmap
    except ImportError:
        raise DataError("COLMAP models are read with pycolmap, which is not installed: pip install pycolmap") from None
    return pycolmap


def need_plyfile() -> Any:
    """The package plyfile.

    Raises:
        DataError: it is not installed.
    """
    try:
        import plyfile
    except ImportError:
        raise DataError("Files .ply need the package plyfile: pip install plyfile") from None
    return plyfile


def reconstruct(photographs: Path) -> Path:
    """Runs structure from motion on a folder of photographs, once; returns the folder of the COLMAP model.

    The result is kept in the cache folder until the photographs change.

    Raises:
        DataError: fewer than three photographs, or their cameras can't be found.
    """
    files = sorted(p for p in photographs.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if len(files) < 3:
        raise DataError(f"{photographs} has {len(files)} photographs; at least 3 (better 20 or more) are needed.")
    pycolmap = _pycolmap()
    stamp = json.dumps([[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files])
    key = hashlib.sha256(f"{photographs.resolve()}{stamp}".encode()).hexdigest()[:16]
    folder = cache_dir() / "scenes" / f"{photographs.resolve().name}-{key}"
    model = folder / "sparse" / "0"
    if (model / "points3D.bin").is_file():
        return model
    folder.mkdir(parents=True, exist_ok=True)
    pycolmap.logging.minloglevel = pycolmap.logging.Level.ERROR.value
    database = folder / "database.db"
    database.unlink(missing_ok=True)
    try:
        names = [p.name for p in files]
        pycolmap.extract_features(str(database), str(photographs), names, camera_mode=pycolmap.CameraMode.SINGLE)
        pycolmap.match_exhaustive(str(database))
        models = pycolmap.incremental_mapping(str(database), str(photographs), str(folder / "tries"))
    except (RuntimeError, ValueError) as error:
        raise DataError(f"Structure from motion failed on {photographs}: {error}") from None
    best = max(models.values(), key=lambda m: m.num_reg_images(), default=None)
    if best is None or best.num_reg_images() < 3:
        raise DataError(
            f"The cameras of the photographs in {photographs} can't be found: take more of them, with more overlap "
            "and texture, or run COLMAP by hand and give its folder."
        )
    model.mkdir(parents=True, exist_ok=True)
    best.write_binary(str(model))
    return model


def read_transforms(
    path: Path, max_side: int = _MAX_SIDE, test_every: int = 8, white_background: bool = False, with_images: bool = True
) -> Scene:
    """Reads ``transforms.json`` of nerfstudio, or ``transforms_{train,test}.json`` of NeRF's synthetic scenes.

    Of the latter, the views of the test file are held out, whatever `test_every` says.

    Raises:
        DataError: a file is damaged, lacks what is needed, or a picture is missing.
    """
    whole, train = path / "transforms.json", path / "transforms_train.json"
    test = path / "transforms_test.json"
    if whole.is_file():
        frames, split = _frames(whole), test_every
    elif train.is_file():
        frames, split = _frames(train), 0
        if test.is_file():
            held_out = _frames(test)
            # Views held out lie at every k-th place, as `Scene` has it.
            split = len(frames) // len(held_out) + 1 if held_out else 0
            frames = _interleave(frames, held_out, split)
            split = split if held_out else 0
    else:
        raise DataError(f"{path} has neither transforms.json nor transforms_train.json.")
    with parsing(whole if whole.is_file() else train, "a transforms file"):
        return _scene_of_frames(path, frames, split, max_side, float(white_background), with_images)


def _scene_of_frames(
    path: Path, frames: list[dict[str, Any]], test_every: int, max_side: int, background: float, with_images: bool
) -> Scene:
    images, Ks, viewmats, names = [], [], [], []
    for frame in frames:
        file = _picture_of(path, frame["file_path"])
        picture = read_image(file, background) if with_images else np.zeros((*_stated_size(frame), 3), np.uint8)
        height, width = picture.shape[:2]
        limited = _limited(width, height, max_side)
        K = _intrinsics(frame, width, height)
        images.append(shrink(picture, *limited))
        Ks.append(_scaled(K, limited[0] / width, limited[1] / height))
        viewmats.append(opengl_to_viewmat(np.array(frame["transform_matrix"], dtype=np.float64)))
        names.append(str(frame["file_path"]))
    if not (np.isfinite(viewmats).all() and np.isfinite(Ks).all()):
        raise ValueError("a camera with NaN or infinity")
    points, colors = np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    cloud = frames[0].get("ply_file_path")
    if cloud:
        points, colors = read_points(path / cloud)
    return Scene(
        name=path.resolve().name,
        names=names,
        images=images,
        viewmats=np.stack(viewmats),
        Ks=np.stack(Ks),
        points=points,
        point_colors=colors,
        background=(background,) * 3,
        test_every=test_every,
    )


def _interleave(train: list[Any], test: list[Any], every: int) -> list[Any]:
    """Test frames at 0, every, 2 every, ...; training frames between them. Test frames that have no place are cut."""
    rest, held_out, merged = iter(train), iter(test), []
    for index in range(len(train) + len(test)):
        frame = next(held_out if index % every == 0 else rest, None)
        if frame is None:
            break
        merged.append(frame)
    return [*merged, *(f for f in rest if (len(merged)) % every)]


def _frames(file: Path) -> list[dict[str, Any]]:
    """The file's frames, each with the file's own values for what it does not say itself."""
    with parsing(file, "a transforms file"):
        content = json.loads(file.read_text(encoding="utf-8"))
        shared = {key: value for key, value in content.items() if key != "frames"}
        frames = [{**shared, **frame} for frame in content["frames"]]
        for frame in frames:
            if np.shape(frame["transform_matrix"]) != (4, 4):
                raise DataError(f"{file}: the transform_matrix of {frame['file_path']} is not 4 x 4.")
            if any(abs(float(frame.get(key, 0))) > 1e-8 for key in ("k1", "k2", "k3", "k4", "p1", "p2")):
                raise DataError(f"{file} describes distorted pictures: undistort them first (ns-process-data does).")
    if not frames:
        raise DataError(f"{file} lists no frames.")
    return frames


def _picture_of(path: Path, name: str) -> Path:
    file = path / name
    return file if file.suffix.lower() in IMAGE_SUFFIXES else file.with_name(file.name + ".png")


def _stated_size(frame: dict[str, Any]) -> tuple[int, int]:
    return int(frame["h"]), int(frame["w"])


def _intrinsics(frame: dict[str, Any], width: int, height: int) -> NDArray[np.float64]:
    x, y = width / float(frame.get("w", width)), height / float(frame.get("h", height))
    if "fl_x" in frame:
        fx = float(frame["fl_x"])
        fy = float(frame.get("fl_y", fx))
        cx, cy = float(frame.get("cx", width / x / 2)), float(frame.get("cy", height / y / 2))
    elif "camera_angle_x" in frame:
        fx = fy = 0.5 * width / x / np.tan(0.5 * float(frame["camera_angle_x"]))
        cx, cy = width / x / 2, height / y / 2
    else:
        raise DataError(f"{frame['file_path']} has neither fl_x nor camera_angle_x: its focal length is unknown.")
    return _scaled(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), x, y)


def read_points(file: Path) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Positions (P, 3) and colours (P, 3) of a .ply cloud; grey where it has no colours.

    Raises:
        DataError: the file is absent or no cloud of points.
    """
    plyfile = need_plyfile()
    with parsing(file, "a cloud of points"):
        vertex = plyfile.PlyData.read(str(file))["vertex"]
        points = np.stack([vertex[k] for k in ("x", "y", "z")], axis=-1).astype(np.float64)
        names = {p.name for p in vertex.properties}
        if {"red", "green", "blue"} <= names:
            colors = np.stack([vertex[k] for k in ("red", "green", "blue")], axis=-1).astype(np.uint8)
        else:
            colors = np.full((len(points), 3), 128, np.uint8)
    return points, colors
