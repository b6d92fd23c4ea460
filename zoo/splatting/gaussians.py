"""A scene as N Gaussians, the plain torch network of the splatting family.

Source: Kerbl, Kopanas, Leimkuehler, Drettakis, "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023
(arXiv 2308.04079). Parameter names are gsplat's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.ops.rasterize import RasterizeMode, RenderMode, rasterize
from zoo.ops.spherical_harmonics import rgb_to_sh0, sh_count

Rows = dict[str, Tensor]

PARAMETERS = ("means", "scales", "quats", "opacities", "sh0", "shN")
KEY_CAMERAS = 32


class GaussianModel(nn.Module):
    """N Gaussians with 59 numbers each (at degree 3), and the cameras they were fitted to.

    The number of Gaussians is part of the data: loading a state dict takes over its size.

    Args:
        sh_degree: degree of the spherical harmonics, 0 to 3.
        count: number of Gaussians to begin with.

    Attributes:
        means: (N, 3) centres.
        scales: (N, 3) logarithms of the standard deviations.
        quats: (N, 4) rotations w, x, y, z, of any length.
        opacities: (N,) logits.
        sh0: (N, 1, 3) colour coefficients of degree 0.
        shN: (N, K - 1, 3) the others.
        background: (3,) colour behind everything.
        key_viewmats: (32, 4, 4) some training cameras along their way, for fly-throughs.
        key_K: (3, 3) intrinsics of the first of them.
        key_size: (2,) width and height of its image.
    """

    means: nn.Parameter
    scales: nn.Parameter
    quats: nn.Parameter
    opacities: nn.Parameter
    sh0: nn.Parameter
    shN: nn.Parameter
    background: Tensor
    key_viewmats: Tensor
    key_K: Tensor
    key_size: Tensor

    def __init__(self, sh_degree: int = 3, count: int = 0) -> None:
        super().__init__()
        self.sh_degree = sh_degree
        for name, shape in self.row_shapes().items():
            self.register_parameter(name, nn.Parameter(torch.zeros(count, *shape)))
        self.register_buffer("background", torch.zeros(3))
        self.register_buffer("key_viewmats", torch.eye(4).repeat(KEY_CAMERAS, 1, 1))
        self.register_buffer("key_K", torch.eye(3))
        self.register_buffer("key_size", torch.ones(2, dtype=torch.int64))

    def row_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one Gaussian's part of each parameter."""
        rest = sh_count(self.sh_degree) - 1
        return {"means": (3,), "scales": (3,), "quats": (4,), "opacities": (), "sh0": (1, 3), "shN": (rest, 3)}

    def __len__(self) -> int:
        """Number of Gaussians."""
        return len(self.means)

    def rows(self) -> Rows:
        """The parameters' values, not copied."""
        return {name: getattr(self, name).data for name in PARAMETERS}

    @torch.no_grad()
    def set_rows(self, rows: Mapping[str, Tensor]) -> None:
        """Replaces all Gaussians, keeping the parameter objects (optimisers hold on to them).

        Args:
            rows: a tensor (M, ...) per parameter.
        """
        for name, shape in self.row_shapes().items():
            parameter = getattr(self, name)
            parameter.data = rows[name].detach().to(parameter).reshape(len(rows["means"]), *shape).contiguous()
            parameter.grad = None

    def fit_to(self, state: Mapping[str, Tensor]) -> None:
        """Takes over the number of Gaussians of a state dict that is to be loaded."""
        count = len(state["means"]) if "means" in state else len(self)
        if count != len(self):
            self.set_rows({n: getattr(self, n).new_zeros(count, *shape) for n, shape in self.row_shapes().items()})

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        self.fit_to({name: state_dict[prefix + name] for name in PARAMETERS if prefix + name in state_dict})
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(
        self,
        viewmats: Tensor,
        Ks: Tensor,
        width: int,
        height: int,
        sh_degree: int | None = None,
        rasterize_mode: RasterizeMode = "classic",
        render_mode: RenderMode = "RGB",
        absgrad: bool = False,
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Renders the scene; see `zoo.ops.rasterize`.

        Args:
            viewmats: (C, 4, 4) world to camera.
            Ks: (C, 3, 3).
            width, height: of the images.
            sh_degree: use harmonics up to this degree only; None for all.
            rasterize_mode, render_mode, absgrad: see `zoo.ops.rasterize`.
        """
        degree = self.sh_degree if sh_degree is None else min(sh_degree, self.sh_degree)
        rest = sh_count(degree) - 1
        colors = torch.cat([self.sh0, self.shN[:, :rest]], dim=1) if rest else self.sh0
        background = self.background.expand(len(viewmats), 3) if bool(self.background.any()) else None
        return rasterize(
            *(self.means, self.quats, self.scales.exp(), self.opacities.sigmoid(), colors, viewmats, Ks),
            *(width, height),
            sh_degree=degree,
            rasterize_mode=rasterize_mode,
            render_mode=render_mode,
            backgrounds=background,
            absgrad=absgrad,
        )


def make_rows(
    means: Tensor,
    rgb: Tensor,
    scales: Tensor,
    opacity: float = 0.1,
    sh_degree: int = 3,
) -> Rows:
    """Round Gaussians of one colour from all sides.

    Args:
        means: (N, 3).
        rgb: (N, 3) in [0, 1].
        scales: (N,) standard deviations.
        opacity: of all, in (0, 1).
        sh_degree: of the colours.
    """
    count = len(means)
    quats = torch.zeros(count, 4)
    quats[:, 0] = 1
    return {
        "means": means.float(),
        "scales": scales.float().log().unsqueeze(-1).repeat(1, 3),
        "quats": quats,
        "opacities": torch.full((count,), float(np.log(opacity / (1 - opacity)))),
        "sh0": rgb_to_sh0(rgb.float()).unsqueeze(1),
        "shN": torch.zeros(count, sh_count(sh_degree) - 1, 3),
    }


def rows_from_points(
    points: NDArray[np.float64], colors: NDArray[np.uint8], opacity: float = 0.1, scale: float = 1.0, sh_degree: int = 3
) -> Rows:
    """One round Gaussian per point, as wide as the root mean square distance to its 3 nearest neighbours.

    Args:
        points: (N, 3), two or more.
        colors: (N, 3).
        opacity: of all.
        scale: factor on the widths.
        sh_degree: of the colours.
    """
    widths = scale * np.sqrt(np.maximum(mean_square_distance(points), 1e-7))
    rgb = torch.from_numpy(colors.astype(np.float32) / 255)
    return make_rows(torch.from_numpy(points), rgb, torch.from_numpy(widths), opacity, sh_degree)


def mean_square_distance(points: NDArray[np.float64], neighbours: int = 3) -> NDArray[np.float64]:
    """Mean squared distance of each point (N, 3) to its nearest neighbours."""
    from scipy.spatial import cKDTree

    neighbours = min(neighbours, len(points) - 1)
    distances, _ = cKDTree(points).query(points, k=neighbours + 1)
    return (distances[:, 1:] ** 2).mean(1)
