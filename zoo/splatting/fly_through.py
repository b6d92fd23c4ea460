"""Ways of a camera through a scene, and films of what it sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.scene_readers import read_scene
from zoo.data.scene_views import camera_centres, look_at
from zoo.errors import DataError
from zoo.files import atomic_path


class HasCameras(Protocol):
    """A network that remembers some of the cameras it was fitted to; see `zoo.splatting.gaussians.GaussianModel`."""

    background: Tensor
    key_viewmats: Tensor
    key_K: Tensor
    key_size: Tensor


@dataclass(frozen=True)
class Way:
    """Cameras of one size, one after the other.

    Attributes:
        viewmats: (F, 4, 4) float32.
        Ks: (F, 3, 3) float32.
        size: width and height.
    """

    viewmats: Tensor
    Ks: Tensor
    size: tuple[int, int]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Camera by camera."""
        return iter(zip(self.viewmats, self.Ks, strict=True))


def cameras(
    network: HasCameras,
    source: Path,
    frames: int,
    width: int | None = None,
    target: NDArray[np.float64] | None = None,
) -> Way:
    """The way that a name or a folder means.

    Args:
        network: the scene, with the cameras it was fitted to.
        source: ``cameras``, ``turn``, or the folder of a scene.
        frames: of the first two.
        width: of the images in pixels; None for that of the training images.
        target: the middle (3,) of the circle; None for what the cameras look at.

    Raises:
        DataError: the source is none of them.
    """
    device = network.key_viewmats.device
    own_width, own_height = (int(n) for n in network.key_size)
    keys = network.key_viewmats.double().cpu().numpy()
    if source.is_dir():
        scene = read_scene(source)
        viewmats, K = scene.viewmats, scene.Ks[0]
        own_height, own_width = scene.images[0].shape[:2]
    elif str(source) == "cameras":
        viewmats, K = interpolate(keys, frames), network.key_K.double().cpu().numpy()
    elif str(source) == "turn":
        viewmats, K = turn(keys, frames, target), network.key_K.double().cpu().numpy()
    else:
        raise DataError(f"The input {source} is neither 'cameras', nor 'turn', nor the folder of a scene.")
    width = width or own_width
    height = round(own_height * width / own_width)
    K = np.diag([width / own_width, height / own_height, 1]) @ K
    return Way(
        torch.from_numpy(viewmats).float().to(device),
        torch.from_numpy(np.repeat(K[None], len(viewmats), 0)).float().to(device),
        (width, height),
    )


def interpolate(viewmats: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    """A smooth way (F, 4, 4) through cameras (V, 4, 4): splines of their centres and of their rotations."""
    from scipy.interpolate import CubicSpline
    from scipy.spatial.transform import Rotation, RotationSpline

    orientations = Rotation.from_matrix(viewmats[:, :3, :3])
    steps = np.linalg.norm(np.diff(camera_centres(viewmats), axis=0), axis=1)
    # Turning takes time, too: cameras at one place may look different ways.
    steps += max(float(steps.mean()), 1e-3) * ((orientations[1:] * orientations[:-1].inv()).magnitude() + 1e-3)
    moves = np.concatenate([[0.0], steps.cumsum()])
    times = np.linspace(0, moves[-1], frames)
    rotations = RotationSpline(moves, orientations)(times).as_matrix()
    centres = CubicSpline(moves, camera_centres(viewmats))(times)
    return _assemble(rotations, centres)


def turn(viewmats: NDArray[np.float64], frames: int, target: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """A circle (F, 4, 4) about a point, or what cameras (V, 4, 4) look at, at their mean height and distance."""
    target = focus(viewmats) if target is None else target
    up = upwards(viewmats)
    arms = camera_centres(viewmats) - target
    height = float((arms @ up).mean())
    radius = float(np.linalg.norm(arms - np.outer(arms @ up, up), axis=1).mean())
    first = arms[0] - (arms[0] @ up) * up
    first /= np.linalg.norm(first)
    second = np.cross(up, first)
    angles = np.linspace(0, 2 * np.pi, frames, endpoint=False)
    eyes = target + height * up + radius * (np.outer(np.cos(angles), first) + np.outer(np.sin(angles), second))
    return np.stack([look_at(eye, target, up) for eye in eyes])


def upwards(viewmats: NDArray[np.float64]) -> NDArray[np.float64]:
    """The unit vector (3,) that cameras (V, 4, 4) hold upwards: what their right sides are level to, if they differ."""
    mean = -viewmats[:, 1, :3].mean(0)
    _, spread, axes = np.linalg.svd(viewmats[:, 0, :3])
    if spread[1] > 0.2 * spread[0]:  # looking straight down, a camera's own upwards is sideways
        return np.asarray(axes[2] * (np.sign(axes[2] @ mean) or 1.0))
    return mean / np.linalg.norm(mean)


def focus(viewmats: NDArray[np.float64]) -> NDArray[np.float64]:
    """The point (3,) nearest to the optical axes of all cameras (V, 4, 4)."""
    axes, centres = viewmats[:, 2, :3], camera_centres(viewmats)
    projectors = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    return np.linalg.lstsq(projectors.sum(0), (projectors @ centres[..., None]).sum(0)[:, 0], rcond=None)[0]


def _assemble(rotations: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    viewmats = np.tile(np.eye(4), (len(centres), 1, 1))
    viewmats[:, :3, :3] = rotations
    viewmats[:, :3, 3] = -(rotations @ centres[..., None])[..., 0]
    return viewmats


def write_film(path: Path, pictures: list[NDArray[np.uint8]], fps: int = 24) -> None:
    """Writes pictures (H, W, 3) as .mp4, .gif, or without a suffix as a folder of PNG files.

    Raises:
        DataError: another suffix, or no encoder for .mp4 is installed.
    """
    from PIL import Image

    images = [Image.fromarray(p) for p in pictures]
    if path.suffix == "":
        for index, image in enumerate(images):
            with atomic_path(path / f"{index:04d}.png") as target:
                image.save(target)
    elif path.suffix == ".gif":
        with atomic_path(path) as target:
            images[0].save(target, save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0)
    elif path.suffix == ".mp4":
        try:
            import imageio.v3 as imageio
            import imageio_ffmpeg  # noqa: F401
        except ImportError:
            raise DataError(
                "Films are encoded with imageio-ffmpeg, which is not installed: pip install imageio-ffmpeg imageio, or "
                "write a .gif."
            ) from None
        even = [p[: len(p) // 2 * 2, : p.shape[1] // 2 * 2] for p in pictures]
        with atomic_path(path) as target:
            imageio.imwrite(target, np.stack(even), fps=fps, codec="libx264", extension=".mp4")
    else:
        raise DataError(f"The output {path} should end in .mp4, .gif, .ply or .splat, or be a folder.")
