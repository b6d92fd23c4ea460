"""Fitting the coefficients of a rational to a function, so that a layer can start as it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from zoo.kat.coefficients import Coefficients

Array = NDArray[np.float64]
_REWEIGHTINGS = 12


def fit_rational(
    function: Callable[[Array], Array],
    low: float = -3.0,
    high: float = 3.0,
    order: tuple[int, int] = (5, 4),
    starts: int = 8,
    seed: int = 0,
) -> tuple[Coefficients, float]:
    """Coefficients of form A (see `zoo.ops.rational`) that come close to a function in the largest error.

    For a given denominator the best numerator is a linear least-squares problem, so only the denominator is
    searched for (variable projection), from several starts; then samples are reweighted towards where the
    error is largest.

    Args:
        function: vectorised; called with points of [low, high].
        low, high: the interval. Outside it a rational tends to a straight line on either side.
        order: degrees of numerator and denominator.
        starts: random starts of the search.
        seed: of the starts.

    Returns:
        The coefficients, and their largest error on the interval.

    Raises:
        ValueError: the function is not finite there.
    """
    from scipy.optimize import least_squares

    x = 0.5 * (low + high) - 0.5 * (high - low) * np.cos(np.linspace(0, np.pi, 1001))  # denser at the ends
    y = np.asarray(function(x), dtype=np.float64)
    if y.shape != x.shape or not np.isfinite(y).all():
        raise ValueError(f"the function should give one finite value per point of [{low}, {high}]")
    powers = x[:, None] ** np.arange(order[0] + 1)
    magnitudes = np.abs(x)[:, None] ** np.arange(1, order[1] + 1)

    def numerator(b: Array, weight: Array) -> Array:
        scaled = weight / (1 + magnitudes @ np.abs(b))
        return np.asarray(np.linalg.lstsq(powers * scaled[:, None], y * weight, rcond=None)[0], np.float64)

    def error(b: Array, weight: Array) -> Array:
        return (powers @ numerator(b, weight)) / (1 + magnitudes @ np.abs(b)) - y

    generator = np.random.default_rng(seed)
    best: tuple[float, Array, Array] | None = None
    for _ in range(starts):
        weight = np.ones_like(x)
        b = np.abs(generator.standard_normal(order[1]))
        for _ in range(_REWEIGHTINGS):
            b = np.abs(least_squares(lambda b, w: w * error(b, w), b, args=(weight,), max_nfev=200).x)
            residual = np.abs(error(b, weight))
            largest = float(residual.max())
            if best is None or largest < best[0]:
                best = (largest, numerator(b, weight), b)
            weight = weight * np.sqrt(residual / max(largest, 1e-300) + 1e-3)
            weight /= weight.max()
    assert best is not None
    largest, a, b = best
    return Coefficients(tuple(map(float, a)), tuple(map(float, b))), largest
