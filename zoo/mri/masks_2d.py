"""Masks of points: radial and spiral patterns on the Cartesian grid, Poisson disc, Gaussian.

Each family is a function (shape, acceleration, center_fraction, rng) -> (mask, acs), see `zoo.mri.masks.draw`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

BoolArray: TypeAlias = NDArray[np.bool_]
Pair: TypeAlias = tuple[BoolArray, BoolArray]

GOLDEN_RATIO = (1 + 5**0.5) / 2
RATE_TOLERANCE = 0.2  # of a Poisson-disc mask's achieved acceleration


def center_distance(shape: tuple[int, int]) -> NDArray[np.float64]:
    """(H, W), distance in samples from the origin of k-space, index n // 2."""
    rows, columns = (np.arange(n) - n // 2 for n in shape)
    return np.hypot(rows[:, None], columns[None])


def disc_of_area(shape: tuple[int, int], fraction: float) -> BoolArray:
    """A centred disc of that fraction of the area."""
    radius = int(np.sqrt(shape[0] * shape[1] * fraction / np.pi))
    return center_distance(shape) < radius


def _ring_positions(side: int, ring: int) -> NDArray[np.int64]:
    """(K, 2), the perimeter of a ring of a square of that side, clockwise from its top-left corner."""
    length = side - 2 * ring
    run = np.arange(length - 1)
    end = np.full(length - 1, length - 1)
    none = np.zeros(length - 1, dtype=np.int64)
    rows = np.concatenate((none, run, end, end - run))
    columns = np.concatenate((run, end, end - run, none))
    return np.stack((rows, columns), axis=1) + ring


def _rings(shape: tuple[int, int], acceleration: float, choose: Callable[[int, int], NDArray[np.int64]]) -> BoolArray:
    """A pattern of equally many points on each of the nested square rings of k-space ("CIRCUS").

    Args:
        shape: (H, W).
        acceleration: R.
        choose: (points per ring M, side of the ring J) -> positions among the ring's 4 (J - 1).
    """
    height, width = shape
    even = [n - n % 2 for n in (max(shape), min(shape))]
    long, short = even
    points = int(height * width / (acceleration * (long / 2 - (long - short) * (1 + short / long) / 4)))
    square = np.zeros((long, long), dtype=bool)
    for ring in range(long // 2):
        positions = _ring_positions(long, ring)[choose(points, long - 2 * ring)]
        square[positions[:, 0], positions[:, 1]] = True
    square = np.pad(square, ((height % 2, 0), (width % 2, 0)))
    top, left = (square.shape[0] - height) // 2, (square.shape[1] - width) // 2
    return square[top : top + height, left : left + width]


def _with_center(
    shape: tuple[int, int],
    acceleration: float,
    center_fraction: float | None,
    pattern: Callable[[float], BoolArray],
) -> Pair:
    if center_fraction is None:
        mask = pattern(acceleration)
        return mask, _sampled_center(mask)
    from zoo.mri.masks import adjusted_acceleration

    disc = disc_of_area(shape, center_fraction)
    mask = pattern(adjusted_acceleration(acceleration, disc.sum(), disc.size)) | disc
    return mask, disc


def _sampled_center(mask: BoolArray) -> BoolArray:
    """What a centred disc has of a mask, for the first disc of which a tenth is missing."""
    distance = center_distance(mask.shape)
    radius = 1.0
    while True:
        disc = distance < radius
        common = disc & mask
        if disc.sum() > 1.1 * common.sum() or disc.all():
            return common
        radius += 0.1


def radial(shape: tuple[int, int], acceleration: float, center_fraction: float | None, rng: RandomState) -> Pair:
    """Points at golden-angle steps along each ring, the same steps on every ring: spokes."""
    turn = rng.randint(0, high=10_000)

    def choose(points: int, side: int) -> NDArray[np.int64]:
        steps = (np.arange(points) + turn * points) / GOLDEN_RATIO
        return np.floor(steps % 1 * (4 * (side - 1))).astype(np.int64)

    return _with_center(shape, acceleration, center_fraction, lambda rate: _rings(shape, rate, choose))


def spiral(shape: tuple[int, int], acceleration: float, center_fraction: float | None, rng: RandomState) -> Pair:
    """As `radial`, turned a little further on each ring."""
    power = rng.uniform(1.1, 1.3)

    def choose(points: int, side: int) -> NDArray[np.int64]:
        around = 4 * (side - 1)
        steps = np.floor(np.arange(points) / GOLDEN_RATIO % 1 * around).astype(np.int64)
        return (steps + int(np.ceil(side**power)) - 1) % around

    return _with_center(shape, acceleration, center_fraction, lambda rate: _rings(shape, rate, choose))


def _poisson_radii(shape: tuple[int, int], slope: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    distance = center_distance(shape)
    stretch = 1 + distance / distance.max() * slope
    # Rounded to 1/64 so that the few thousand different ellipses of a mask are few enough to keep.
    radius_y, radius_x = (np.rint(np.maximum(stretch * n / max(shape), 1.0) * 64) / 64 for n in shape)
    return radius_y, radius_x


def _throw_darts(shape: tuple[int, int], slope: float, rng: RandomState) -> BoolArray:
    """Points taken in random order, each forbidding an ellipse around it that grows away from the centre."""
    radius_y, radius_x = _poisson_radii(shape, slope)
    height, width = shape
    blocked = np.zeros(shape, dtype=bool)
    flat_blocked = blocked.reshape(-1)
    mask = np.zeros(height * width, dtype=bool)
    ry, rx = radius_y.reshape(-1).tolist(), radius_x.reshape(-1).tolist()
    for index in rng.permutation(height * width).tolist():
        if flat_blocked[index]:
            continue
        mask[index] = True
        row, column = divmod(index, width)
        a, b = ry[index], rx[index]
        top, left = max(row - int(a), 0), max(column - int(b), 0)
        patch = blocked[top : row + int(a) + 1, left : column + int(b) + 1]
        dy, dx = row - top, column - left
        patch |= _ellipse(a, b)[int(a) - dy :, int(b) - dx :][: patch.shape[0], : patch.shape[1]]
    return mask.reshape(shape)


@cache
def _ellipse(a: float, b: float) -> BoolArray:
    y, x = np.arange(-int(a), int(a) + 1), np.arange(-int(b), int(b) + 1)
    return (y[:, None] / a) ** 2 + (x[None] / b) ** 2 < 1


@cache
def _poisson_slope(shape: tuple[int, int], acceleration: float, center_fraction: float) -> float:
    """The slope of the radii at which the acceleration comes out, by bisection."""
    disc = disc_of_area(shape, center_fraction)
    low, high = 0.0, float(max(shape))
    rng = RandomState(0)
    for _ in range(24):
        middle = (low + high) / 2
        rate = disc.size / (_throw_darts(shape, middle, rng) | disc).sum()
        if abs(rate - acceleration) < RATE_TOLERANCE / 8:
            break
        low, high = (middle, high) if rate < acceleration else (low, middle)
    return middle


def poisson(shape: tuple[int, int], acceleration: float, center_fraction: float | None, rng: RandomState) -> Pair:
    """Variable-density Poisson disc and a full disc at the centre.

    Raises:
        ValueError: the rate can't be reached: the centre alone is larger.
    """
    assert center_fraction is not None
    disc = disc_of_area(shape, center_fraction)
    for _ in range(20):
        mask = _throw_darts(shape, _poisson_slope(shape, acceleration, center_fraction), rng) | disc
        if abs(mask.size / mask.sum() - acceleration) < RATE_TOLERANCE:
            return mask, disc
    raise ValueError(
        f"no Poisson disc on {shape[0]} x {shape[1]} samples is {acceleration:g}x with a centre of {center_fraction:g} "
        "of the area: take a smaller centre fraction or acceleration"
    )


def add_gaussian(center: BoolArray, acceleration: float, rng: RandomState) -> BoolArray:
    """Adds samples around the centre, normally distributed along each axis, without replacement.

    Args:
        center: boolean of any dimension, what is sampled already.
        acceleration: R of the result.
        rng: source of randomness.
    """
    mask = center.copy()
    wanted = round(mask.size / acceleration - int(center.sum()) - 1) + 1
    shape = np.array(mask.shape)
    while (missing := wanted - int(mask.sum()) + int(center.sum())) > 0:
        points = np.rint(rng.normal(shape // 2, 6 * np.sqrt(shape // 2), size=(missing, mask.ndim))).astype(int)
        points = points[((points >= 0) & (points < shape)).all(1)]
        mask[tuple(points.T)] = True
    return mask


def gaussian(shape: tuple[int, int], acceleration: float, center_fraction: float | None, rng: RandomState) -> Pair:
    """Points drawn from a normal distribution around the centre, and a full disc there."""
    assert center_fraction is not None
    disc = disc_of_area(shape, center_fraction)
    return add_gaussian(disc, acceleration, rng), disc


FAMILIES: dict[str, Callable[[tuple[int, int], float, float | None, RandomState], Pair]] = {
    "radial": radial,
    "spiral": spiral,
    "poisson": poisson,
    "gaussian-2d": gaussian,
}
