"""The anchors of one block with everything that training them needs: moments, statistics, counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.adam import adam

from zoo.splatting.gaussians import mean_square_distance

ANCHOR_ROWS = ("anchor", "offset", "anchor_feat", "scaling", "rotation", "opacity")
TRAINED = ("offset", "anchor_feat", "scaling")


@dataclass
class AnchorState:
    """N anchors and their training.

    Attributes:
        rows: anchor (N, 3) places; offset (N, k, 3), in units of the first three scales; anchor_feat (N, C); scaling
            (N, 6) logarithms, three for the offsets and three for the shapes; rotation (N, 4) and opacity (N, 1), which
            only the official layout needs.
        moments: name -> Adam's first and second moments, of the trained rows.
        steps: name -> Adam's step count, a float tensor.
        statistics: opacity_accum and anchor_denom (N,), gradient_accum and offset_denom (N k,).
        decoder: moments of the decoder's optimiser where every block keeps its own; ``index/key`` -> tensor.
        iteration: steps taken.
        radius: of the block's cameras; the offsets' learning rate is in its units.
    """

    rows: dict[str, Tensor]
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    steps: dict[str, Tensor] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)
    decoder: dict[str, Tensor] = field(default_factory=dict)
    iteration: int = 0
    radius: float = 1.0

    def __post_init__(self) -> None:
        for name in TRAINED:
            if name not in self.moments:
                self.moments[name] = (torch.zeros_like(self.rows[name]), torch.zeros_like(self.rows[name]))
            self.steps.setdefault(name, torch.zeros((), device=self.rows[name].device))
        if not self.statistics:
            count, slots = len(self), self.n_offsets * len(self)
            for name, length in (("opacity", count), ("anchor", count), ("gradient", slots), ("offset", slots)):
                suffix = "accum" if name in ("opacity", "gradient") else "denom"
                self.statistics[f"{name}_{suffix}"] = self.rows["anchor"].new_zeros(length)

    def __len__(self) -> int:
        """Number of anchors."""
        return len(self.rows["anchor"])

    @property
    def n_offsets(self) -> int:
        """Gaussians per anchor."""
        return self.rows["offset"].shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """All tensors under flat names, and the two numbers as float64 tensors; nothing is copied."""
        flat = {f"rows/{name}": value for name, value in self.rows.items()}
        for name, (first, second) in self.moments.items():
            flat |= {f"first/{name}": first, f"second/{name}": second, f"step/{name}": self.steps[name]}
        flat |= {f"statistics/{name}": value for name, value in self.statistics.items()}
        flat |= {f"decoder/{name}": value for name, value in self.decoder.items()}
        flat["counters"] = torch.tensor([self.iteration, self.radius], dtype=torch.float64)
        return flat

    @classmethod
    def from_tensors(cls, flat: Mapping[str, Tensor]) -> AnchorState:
        """What `tensors` gave."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {key.removeprefix(prefix): value for key, value in flat.items() if key.startswith(prefix)}

        first, second = part("first/"), part("second/")
        iteration, radius = flat["counters"].tolist()
        return cls(
            part("rows/"),
            {name: (first[name], second[name]) for name in first},
            part("step/"),
            part("statistics/"),
            part("decoder/"),
            int(iteration),
            radius,
        )

    def copied(self, device: torch.device | str) -> AnchorState:
        """A copy on a device that shares no memory with this one, on the same device either."""
        return AnchorState.from_tensors(
            {k: v if k == "counters" else v.detach().to(device, copy=True) for k, v in self.tensors().items()}
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(value.numel() * value.element_size() for value in self.tensors().values())

    @torch.no_grad()
    def adam(self, gradients: Mapping[str, Tensor], rates: Mapping[str, float]) -> None:
        """One step of Adam (eps 1e-15) for the rows that have a gradient.

        Args:
            gradients: name -> gradient of the whole tensor.
            rates: name -> learning rate.
        """
        for name, gradient in gradients.items():
            first, second = self.moments[name]
            adam(
                *([self.rows[name]], [gradient], [first], [second], [], [self.steps[name]]),
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=rates[name],
                weight_decay=0.0,
                eps=1e-15,
                maximize=False,
            )

    @torch.no_grad()
    def rearrange(self, keep: Tensor) -> None:
        """Keeps the anchors at `keep` (indices or mask), with all that belongs to them."""
        per_slot = {"gradient_accum", "offset_denom"}
        for name, value in self.statistics.items():
            slots = value.view(-1, self.n_offsets)[keep].flatten() if name in per_slot else value[keep]
            self.statistics[name] = slots.contiguous()
        self.rows = {name: value[keep].contiguous() for name, value in self.rows.items()}
        self.moments = {name: (a[keep].contiguous(), b[keep].contiguous()) for name, (a, b) in self.moments.items()}

    @torch.no_grad()
    def extend(self, rows: Mapping[str, Tensor]) -> None:
        """Appends anchors, with moments and statistics of zero."""
        count, new = len(self), len(rows["anchor"])
        self.rows = {name: torch.cat([value, rows[name]]) for name, value in self.rows.items()}
        self.moments = {name: (_padded(a, new), _padded(b, new)) for name, (a, b) in self.moments.items()}
        self.statistics = {
            name: _padded(value, new * (len(value) // max(count, 1))) for name, value in self.statistics.items()
        }


def _padded(values: Tensor, rows: int) -> Tensor:
    return torch.cat([values, values.new_zeros(rows, *values.shape[1:])])


def voxelise(points: NDArray[np.float64], size: float, ratio: int = 1) -> NDArray[np.float64]:
    """Centres (N, 3) of the cells that points (P, 3) fall into, in lexicographic order.

    Args:
        points: every `ratio`-th is used.
        size: of a cell.
        ratio: step through the points.
    """
    cells = np.round(np.asarray(points, dtype=np.float32)[::ratio] / np.float32(size))
    return np.asarray(np.unique(cells, axis=0) * np.float32(size), dtype=np.float64)


def automatic_voxel_size(points: NDArray[np.float64], squared: bool = False) -> float:
    """Median over points (P, 3) of the root mean square distance to the nearest 3.

    Args:
        points: the cloud.
        squared: the mean square itself, which the official code takes for a length.
    """
    distances = mean_square_distance(points)
    lower_middle = max(len(points) // 2 - 1, 0)
    return float(np.sort(distances if squared else np.sqrt(distances))[lower_middle])


def initial_anchors(centres: NDArray[np.float64], feat_dim: int = 32, n_offsets: int = 10) -> AnchorState:
    """Anchors at cells' centres (N, 3), as wide as the root mean square distance to the nearest 3, features 0."""
    count = len(centres)
    widths = 0.5 * np.log(np.maximum(mean_square_distance(centres), 1e-7)) if count > 1 else np.zeros(count)
    place, width = torch.from_numpy(centres).float(), torch.from_numpy(widths).float()
    return AnchorState(anchor_rows(place, width, feat_dim, n_offsets))


def anchor_rows(anchor: Tensor, widths: Tensor, feat_dim: int, n_offsets: int) -> dict[str, Tensor]:
    """Rows of fresh anchors at `anchor` (N, 3) with logarithmic `widths` (N,), on their device."""
    count = len(anchor)
    rotation = anchor.new_zeros(count, 4)
    rotation[:, 0] = 1
    return {
        "anchor": anchor,
        "offset": anchor.new_zeros(count, n_offsets, 3),
        "anchor_feat": anchor.new_zeros(count, feat_dim),
        "scaling": widths.unsqueeze(1).repeat(1, 6),
        "rotation": rotation,
        "opacity": anchor.new_full((count, 1), -2.1972246),  # logit of 0.1
    }
