"""Sampling masks: which k-space samples an accelerated acquisition measures.

Every family is a function of the k-space shape, the acceleration, the centre fraction and a
``numpy.random.RandomState``; `MaskFunction` draws from a family with seeds and rates the way fastMRI does,
so that equal seeds give the masks of fastMRI and DIRECT bit for bit (lines, radial, spiral).

A mask is boolean, (H, W), True where sampled, with the origin of k-space at index n // 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from zoo.errors import DataError
from zoo.files import parsing
from zoo.mri import masks_2d

BoolArray: TypeAlias = NDArray[np.bool_]
Family = Literal[
    "random",
    "equispaced",
    "equispaced-plain",
    "magic",
    "magic-plain",
    "gaussian-1d",
    "radial",
    "spiral",
    "poisson",
    "gaussian-2d",
]
FAMILIES: tuple[Family, ...] = get_args(Family)
Seed = int | np.integer[Any] | Sequence[int]


@dataclass(frozen=True)
class SamplingMask:
    """A drawn mask.

    Attributes:
        mask: (H, W) boolean, True where sampled.
        acs: (H, W) boolean, the fully sampled centre (autocalibration signal), a part of `mask`.
    """

    mask: BoolArray
    acs: BoolArray

    @property
    def acceleration(self) -> float:
        """What was achieved: all samples over the sampled ones."""
        return self.mask.size / max(int(self.mask.sum()), 1)


def low_frequencies(width: int, center_fraction: float) -> int:
    """Number of fully sampled central lines; a `center_fraction` of 1 or more is that number itself.

    Raises:
        ValueError: there are fewer lines.
    """
    lines = int(center_fraction) if center_fraction >= 1 else round(width * center_fraction)
    if lines > width:
        raise ValueError(f"a fully sampled centre of {lines} lines does not fit in the {width} of k-space")
    return lines


def center_lines(width: int, lines: int) -> BoolArray:
    """(width,), True at the given number of central lines."""
    start = (width - lines + 1) // 2
    chosen = np.zeros(width, dtype=bool)
    chosen[start : start + lines] = True
    return chosen


def seed_of(filename: str) -> tuple[int, ...]:
    """The seed that every slice of a volume shares: the code points of its file's name, without folders."""
    return tuple(map(ord, Path(filename).name))


def random_lines(width: int, acceleration: float, center_fraction: float, rng: RandomState) -> BoolArray:
    """Lines beside the centre drawn independently so that W / R are expected in total."""
    lines = low_frequencies(width, center_fraction)
    probability = (width / acceleration - lines) / (width - lines) if lines < width else 0.0
    return (rng.uniform(size=width) < probability) | center_lines(width, lines)


def adjusted_acceleration(acceleration: float, lines: float, width: float) -> float:
    """The stride of the samples beside `lines` central ones for which the total is `width` / `acceleration`."""
    if lines * acceleration >= width:
        raise ValueError(
            f"a fully sampled centre of {lines:g} of {width:g} leaves nothing to choose at {acceleration:g}x: "
            "take a smaller centre fraction or acceleration"
        )
    return acceleration * (lines - width) / (lines * acceleration - width)


def equispaced_lines(width: int, acceleration: float, center_fraction: float, rng: RandomState) -> BoolArray:
    """Lines at a constant stride, stretched so that centre and lines together are W / R."""
    lines = low_frequencies(width, center_fraction)
    stride = adjusted_acceleration(acceleration, lines, width)
    offset = rng.randint(0, high=round(stride))
    chosen = center_lines(width, lines)
    chosen[np.around(np.arange(offset, width - 1, stride)).astype(int)] = True
    return chosen


def plain_equispaced_lines(width: int, acceleration: float, center_fraction: float, rng: RandomState) -> BoolArray:
    """Every R-th line and the centre: less accelerated than R says."""
    chosen = center_lines(width, low_frequencies(width, center_fraction))
    chosen[rng.randint(0, high=round(acceleration)) :: round(acceleration)] = True
    return chosen


def magic_lines(width: int, acceleration: float, center_fraction: float, rng: RandomState) -> BoolArray:
    """Equispaced lines whose two halves are offset so that conjugate symmetry fills the gaps.

    The stride is stretched, to whole lines, so that centre and lines together are about W / R.
    """
    target = round(width / acceleration)
    lines = max(min(low_frequencies(width, center_fraction), target), 1)
    stride = round(width / max(target - lines, 1))
    chosen = _offset_halves(width, stride, rng.randint(0, high=stride))
    return (chosen & (target > lines)) | center_lines(width, lines)


def plain_magic_lines(width: int, acceleration: float, center_fraction: float, rng: RandomState) -> BoolArray:
    """As `magic_lines` with every R-th line and the centre: less accelerated than R says."""
    stride = round(acceleration)
    chosen = _offset_halves(width, stride, rng.randint(0, high=stride))
    return chosen | center_lines(width, low_frequencies(width, center_fraction))


def _offset_halves(width: int, stride: int, offset: int) -> BoolArray:
    """Lines at a stride on either side of the centre, those of one side where the other's mirror image has none."""
    positive, negative = (offset + 1, offset + 2) if offset % 2 == 0 else (offset + 2, offset - 1)
    halves = np.zeros((width + 1) // 2, dtype=bool), np.zeros(width // 2, dtype=bool)
    halves[0][positive::stride] = True
    halves[1][negative::stride] = True
    return np.fft.fftshift(np.concatenate((halves[0], halves[1][::-1])))


def gaussian_lines(width: int, acceleration: float, center_fraction: float, rng: RandomState) -> BoolArray:
    """Lines drawn from a normal distribution around the centre."""
    lines = center_lines(width, low_frequencies(width, center_fraction))
    return masks_2d.add_gaussian(lines, acceleration, rng)


_LINES: dict[str, Callable[[int, float, float, RandomState], BoolArray]] = {
    "random": random_lines,
    "equispaced": equispaced_lines,
    "equispaced-plain": plain_equispaced_lines,
    "magic": magic_lines,
    "magic-plain": plain_magic_lines,
    "gaussian-1d": gaussian_lines,
}


def _check_rate(acceleration: float, center_fraction: float | None) -> None:
    if not 1 <= acceleration < np.inf:
        raise ValueError(f"an acceleration should be 1 or more, not {acceleration:g}")
    if center_fraction is not None and not 0 <= center_fraction < np.inf:
        raise ValueError(f"a centre fraction should be 0 or more, not {center_fraction:g}")


def draw(
    family: Family,
    shape: tuple[int, int],
    acceleration: float,
    center_fraction: float | None,
    rng: RandomState,
) -> SamplingMask:
    """One mask of a family.

    Args:
        family: lines along columns ("random", "equispaced", "equispaced-plain", "magic", "magic-plain",
            "gaussian-1d") or points ("radial", "spiral", "poisson", "gaussian-2d").
        shape: (H, W) of k-space.
        acceleration: R, wanted; `SamplingMask.acceleration` says what came out.
        center_fraction: fraction of the lines (of the area, for points) that the fully sampled centre takes;
            for lines a number of 1 or more counts them. None, for radial and spiral only: whatever centre
            the pattern has.
        rng: source of randomness.

    Raises:
        ValueError: there is no such family, acceleration or centre fraction, the centre alone exceeds the wanted
            samples, or the family needs a centre fraction.
    """
    height, width = shape
    if family not in FAMILIES:
        raise ValueError(f"there is no family of masks '{family}', only {', '.join(FAMILIES)}")
    _check_rate(acceleration, center_fraction)
    if center_fraction is None and family not in ("radial", "spiral"):
        raise ValueError(f"a {family} mask needs a centre fraction")
    if family in _LINES:
        assert center_fraction is not None
        chosen = _LINES[family](width, acceleration, center_fraction, rng)
        lines = low_frequencies(width, center_fraction)
        if family == "magic":
            lines = max(min(lines, round(width / acceleration)), 1)
        acs = center_lines(width, lines)
        return SamplingMask(*(np.broadcast_to(line, (height, width)).copy() for line in (chosen, acs)))
    if center_fraction is not None and center_fraction > 1:
        raise ValueError(f"the centre of a {family} mask is a fraction of the area, at most 1, not {center_fraction:g}")
    mask, acs = masks_2d.FAMILIES[family](shape, acceleration, center_fraction, rng)
    return SamplingMask(mask, acs)


def _generator(seed: Seed) -> RandomState:
    return RandomState(int(seed) if isinstance(seed, int | np.integer) else list(seed))


class MaskSource(Protocol):
    """Gives a mask for a shape and a seed.

    Attributes:
        accelerations: the rates among which each mask has one.
    """

    @property
    def accelerations(self) -> tuple[float, ...]:
        """The rates."""

    def __call__(self, shape: tuple[int, int], seed: Seed) -> SamplingMask:
        """A mask (H, W); equal seeds give equal masks."""


@dataclass(frozen=True)
class MaskFunction:
    """Draws masks of one family at one of several rates.

    Attributes:
        family: see `draw`.
        accelerations: the rates; each mask gets one of them at random.
        center_fractions: the centre fraction that belongs to each rate; None as in `draw`.

    Raises:
        ValueError: there is no rate, an impossible one, or not one centre fraction for each.
    """

    family: Family
    accelerations: tuple[float, ...]
    center_fractions: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.accelerations:
            raise ValueError("masks need at least one acceleration")
        if self.center_fractions is not None and len(self.center_fractions) != len(self.accelerations):
            raise ValueError(
                f"{len(self.accelerations)} accelerations need as many centre fractions, "
                f"not {len(self.center_fractions)}"
            )
        for acceleration, fraction in zip(self.accelerations, self.center_fractions or self.accelerations, strict=True):
            _check_rate(acceleration, fraction)

    def __call__(self, shape: tuple[int, int], seed: Seed) -> SamplingMask:
        """A mask (H, W); equal seeds give equal masks."""
        rng = _generator(seed)
        choice = rng.randint(0, high=len(self.accelerations))
        fraction = None if self.center_fractions is None else self.center_fractions[choice]
        return draw(self.family, shape, self.accelerations[choice], fraction, rng)


@dataclass(frozen=True)
class MaskFiles:
    """Draws from ready-made masks, such as those of the Calgary-Campinas challenge.

    Attributes:
        folder: holds ``R<acceleration>_<H>x<W>.npy``, boolean (number, H, W), for every shape.
        acceleration: of the masks to take.
        acs_radius: the masks are fully sampled up to that distance from the centre.
    """

    folder: Path
    acceleration: float
    acs_radius: float = 18.0

    @property
    def accelerations(self) -> tuple[float, ...]:
        """The one rate."""
        return (self.acceleration,)

    def __call__(self, shape: tuple[int, int], seed: Seed) -> SamplingMask:
        """One of the masks; equal seeds give equal masks.

        Raises:
            DataError: there is no file for that shape, or its masks are of another.
        """
        masks = _read_masks(self.folder / f"R{self.acceleration:g}_{shape[0]}x{shape[1]}.npy", shape)
        rng = _generator(seed)
        mask = masks[rng.randint(0, high=len(masks))].astype(bool)
        return SamplingMask(mask, mask & (masks_2d.center_distance(shape) <= self.acs_radius))


@cache
def _read_masks(path: Path, shape: tuple[int, int]) -> BoolArray:
    with parsing(path, "masks"):
        masks = np.load(path, mmap_mode="r", allow_pickle=False)
    if masks.ndim != 3 or masks.shape[1:] != shape or len(masks) == 0:
        raise DataError(f"{path} should hold masks (number, {shape[0]}, {shape[1]}), not an array {masks.shape}.")
    return masks


def find_acs(mask: BoolArray) -> BoolArray:
    """The fully sampled centre of a mask that came without one.

    Args:
        mask: (H, W) boolean.

    Returns:
        (H, W): for lines the run of sampled ones through the centre; otherwise the largest centred
        rectangle of equal margins, or disc, whichever is larger, that is sampled throughout.
    """
    height, width = mask.shape
    if (mask == mask[:1]).all():
        return np.broadcast_to(_central_run(mask[0]), mask.shape).copy()
    if (mask == mask[:, :1]).all():
        return np.broadcast_to(_central_run(mask[:, 0])[:, None], mask.shape).copy()
    best = np.zeros_like(mask)
    for half in range(1, min(height, width) // 2 + 1):
        box = np.zeros_like(mask)
        box[height // 2 - half : height // 2 + half, width // 2 - half : width // 2 + half] = True
        if not mask[box].all():
            break
        best = box
    distance = masks_2d.center_distance(mask.shape)
    unsampled = distance[~mask]
    disc = distance < (unsampled.min() if unsampled.size else np.inf)
    return disc if disc.sum() > best.sum() else best


def _central_run(line: BoolArray) -> BoolArray:
    center = len(line) // 2
    missing = np.flatnonzero(~line)
    left = missing[missing <= center].max(initial=-1) + 1
    right = missing[missing >= center].min(initial=len(line))
    run = np.zeros_like(line)
    run[left:right] = True
    return run
