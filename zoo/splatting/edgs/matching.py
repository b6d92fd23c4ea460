"""Dense matches between views, behind one interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.scene_views import Scene
from zoo.errors import ConfigError
from zoo.ops.plane_sweep import plane_sweep
from zoo.splatting.edgs.cameras import nearest_cameras

MatcherName = Literal["plane-sweep", "roma"]


@dataclass(frozen=True)
class Matches:
    """Where the pixels of a reference view lie in its neighbours.

    Attributes:
        warp: (n, h, w, 2) normalised (x, y): the outer pixels' centres are at -1 + 1/size and 1 - 1/size.
        certainty: (n, h, w) in [0, 1].
    """

    warp: Tensor
    certainty: Tensor


class Matcher(Protocol):
    """Finds matches; knows the scene."""

    def match(self, reference: int, neighbours: list[int]) -> Matches:
        """Matches of one view, by its index in the scene, in others."""


def make_matcher(
    name: MatcherName, scene: Scene, side: int, planes: int, min_score: float = 0.6, min_agreeing: int = 2
) -> Matcher:
    """The matcher of a name.

    Args:
        name: ``"plane-sweep"`` or ``"roma"``.
        scene: whose training views are matched.
        side: views with a longer side are matched at this many pixels (plane sweep).
        planes, min_score, min_agreeing: of the plane sweep, see `PlaneSweepMatcher`.

    Raises:
        ConfigError: the matcher's package is not installed, or its weights are absent.
    """
    if name == "roma":
        return RoMaMatcher(scene)
    return PlaneSweepMatcher(scene, side, planes, min_score=min_score, min_agreeing=min_agreeing)


class PlaneSweepMatcher:
    """Depth of every training view by plane sweeps, as matches.

    A pixel's depth counts where its correlation is high and the depth maps of two neighbours agree with it.

    Args:
        scene: the scene.
        side: views with a longer side are shrunk to this many pixels.
        planes: inverse depths that are tried, evenly from the nearest to the farthest sparse points in sight.
        neighbours: of each view.
        radius: of the compared windows, in pixels.
        tolerance: relative difference of depths that agree.
        min_score: of the correlation.
        min_agreeing: neighbours whose depth maps must agree.
    """

    def __init__(
        self,
        scene: Scene,
        side: int = 480,
        planes: int = 96,
        neighbours: int = 4,
        radius: int = 2,
        tolerance: float = 0.02,
        min_score: float = 0.6,
        min_agreeing: int = 2,
    ) -> None:
        self.scene, self.tolerance, self.min_score = scene, tolerance, min_score
        train = scene.train_indices
        near = nearest_cameras(scene.viewmats[train], neighbours)
        self.neighbours = {train[i]: [train[j] for j in row] for i, row in enumerate(near)}
        self.min_agreeing = min(min_agreeing, near.shape[1])
        height, width = scene.images[train[0]].shape[:2]
        factor = min(1.0, side / max(height, width))
        self.size = (max(round(height * factor), 2), max(round(width * factor), 2))
        self.Ks = np.stack([self._intrinsics(i) for i in range(len(scene.images))])
        grey = {i: self._grey(i) for i in train}
        self.depth: dict[int, Tensor] = {}
        self.score: dict[int, Tensor] = {}
        for view in train:
            self.depth[view], self.score[view] = self._sweep(view, grey, planes, radius)
        self.good = {view: self._check(view) for view in train}

    def _intrinsics(self, view: int) -> NDArray[np.float64]:
        height, width = self.scene.images[view].shape[:2]
        return np.diag([self.size[1] / width, self.size[0] / height, 1.0]) @ self.scene.Ks[view]

    def _grey(self, view: int) -> Tensor:
        image = torch.from_numpy(self.scene.images[view]).permute(2, 0, 1).float() / 255
        grey = image.mean(0)[None, None]
        if grey.shape[-2:] == self.size:
            return grey[0, 0]
        return F.interpolate(grey, self.size, mode="bilinear", antialias=True, align_corners=False)[0, 0]

    def _range(self, view: int) -> tuple[float, float]:
        """Nearest and farthest depth worth trying: of the sparse points in the frustum, with some room."""
        points = self.scene.points
        if len(points):
            local = points @ self.scene.viewmats[view, :3, :3].T + self.scene.viewmats[view, :3, 3]
            z = local[:, 2]
            image = local @ self.Ks[view].T
            with np.errstate(divide="ignore", invalid="ignore"):
                u, v = image[:, 0] / image[:, 2], image[:, 1] / image[:, 2]
            inside = (z > 1e-6) & (u >= 0) & (u < self.size[1]) & (v >= 0) & (v < self.size[0])
            if inside.sum() >= 8:
                near, far = np.quantile(z[inside], [0.01, 0.99])
                return 0.85 * float(near), 1.2 * float(far)
        return 0.05 * self.scene.extent, 20 * self.scene.extent

    def _relative(self, view: int, other: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A and b such that pixel p at depth z lies in the other view at A p + b / z."""
        motion = self.scene.viewmats[other] @ np.linalg.inv(self.scene.viewmats[view])
        K = self.Ks[other]
        return K @ motion[:3, :3] @ np.linalg.inv(self.Ks[view]), K @ motion[:3, 3]

    def _sweep(self, view: int, grey: dict[int, Tensor], planes: int, radius: int) -> tuple[Tensor, Tensor]:
        near, far = self._range(view)
        others = self.neighbours[view]
        homographies, offsets = zip(*(self._relative(view, other) for other in others), strict=True)
        inverse, score = plane_sweep(
            grey[view],
            torch.stack([grey[other] for other in others]),
            torch.from_numpy(np.stack(homographies)).float(),
            torch.from_numpy(np.stack(offsets)).float(),
            torch.linspace(1 / far, 1 / near, planes),
            radius,
        )
        return 1 / inverse, score

    def _project(self, view: int, other: int) -> tuple[Tensor, Tensor]:
        """Places (h, w, 2) in pixels and depths (h, w) of a view's pixels in another."""
        height, width = self.size
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1)
        homography, offset = (torch.from_numpy(m).float() for m in self._relative(view, other))
        image = pixels @ homography.T + offset / self.depth[view].unsqueeze(-1)
        z = image[..., 2]
        places = image[..., :2] / torch.where(z.abs() < 1e-9, 1e-9, z).unsqueeze(-1)
        return places, z * self.depth[view]

    def _agrees(self, view: int, other: int) -> tuple[Tensor, Tensor]:
        """Places as in `_project`, and where the other view's depth map agrees."""
        places, z = self._project(view, other)
        grid = self._normalised(places)
        seen = (z > 0) & (grid.abs() < 1).all(-1)
        theirs = F.grid_sample(self.depth[other][None, None], grid.unsqueeze(0), mode="nearest", align_corners=False)[
            0, 0
        ]
        return places, seen & ((theirs - z).abs() < self.tolerance * z)

    def _normalised(self, places: Tensor) -> Tensor:
        return 2 * places / torch.tensor([self.size[1], self.size[0]]) - 1

    def _check(self, view: int) -> Tensor:
        agreeing = sum(self._agrees(view, other)[1].int() for other in self.neighbours[view])
        return (self.score[view] > self.min_score) & (agreeing >= self.min_agreeing)

    def match(self, reference: int, neighbours: list[int]) -> Matches:
        """Matches of one view in others; certain where its depth counts and the other's agrees."""
        warps, certainties = [], []
        for other in neighbours:
            places, agrees = self._agrees(reference, other)
            warps.append(self._normalised(places))
            certainties.append(torch.where(agrees & self.good[reference], self.score[reference].clamp(0, 1), 0.0))
        return Matches(torch.stack(warps), torch.stack(certainties))


class RoMaMatcher:
    """Matches by RoMa (Edstedt et al., CVPR 2024) through the package romatch, with weights that it downloads.

    Args:
        scene: the scene.
        model: a RoMa model with ``match(image, image)``; None for romatch's outdoor model.

    Raises:
        ConfigError: romatch is not installed.
    """

    def __init__(self, scene: Scene, model: object | None = None) -> None:
        self.scene = scene
        self.model = model if model is not None else _roma()

    def match(self, reference: int, neighbours: list[int]) -> Matches:
        """Matches of one view in others, on RoMa's own grid."""
        from PIL import Image

        warps, certainties = [], []
        first = Image.fromarray(self.scene.images[reference])
        for other in neighbours:
            second = Image.fromarray(self.scene.images[other])
            warp, certainty = self.model.match(first, second)  # type: ignore[attr-defined]
            width = warp.shape[-2]
            if width == 2 * warp.shape[-3]:  # symmetric: the right half goes from B to A
                warp, certainty = warp[..., : width // 2, :], certainty[..., : width // 2]
            place = warp[..., 2:].float().cpu()
            inside = (place.abs() < 1).all(-1)
            warps.append(place)
            certainties.append(torch.where(inside, certainty.float().cpu(), 0.0))
        return Matches(torch.stack(warps), torch.stack(certainties))


def _roma() -> object:
    try:
        from romatch import roma_outdoor
    except ImportError:
        raise ConfigError(
            "matcher=roma needs the package romatch (pip install romatch), which downloads 1.6 GB of weights at first "
            "use. matcher=plane-sweep needs nothing."
        ) from None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = roma_outdoor(device=device)
    model.eval()
    return model
