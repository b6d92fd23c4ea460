"""How the weights of spectral layers are drawn, and how they lie in memory.

Source: Poli et al., "Transform Once", NeurIPS 2022, section 3.3: keeping m of N modes keeps m / N of a field's
variance, so weights that see only the kept modes are drawn larger by N / m (rule 2, variance preserving).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

InitRule = Literal[1, 2, 3, 4]

# Gain of a complex weight: its real and imaginary parts each carry half of the variance.
COMPLEX_GAIN = 0.5


def mixing_std(rule: InitRule, fan_in: int, fan_out: int, points: int, modes: int, gain: float = 1.0) -> float:
    """Standard deviation of a dense mixing of the kept modes.

    Args:
        rule: 1: 1 / (fan_in fan_out); 2: sqrt(points / (fan_in modes)), variance preserving; 3: 1e-8;
            4: 1 / sqrt(fan_in).
        fan_in, fan_out: channels (or modes) mixed.
        points: of the whole grid.
        modes: kept, over all axes.
        gain: 1 for real weights, `COMPLEX_GAIN` for complex ones.

    Raises:
        ValueError: another rule.
    """
    _check_rule(rule)
    std = {
        1: 1 / (fan_in * fan_out),
        2: math.sqrt(points / (fan_in * modes)),
        3: 1e-8,
        4: 1 / math.sqrt(fan_in),
    }
    return gain * std[rule]


def convolution_std(
    rule: InitRule,
    transform: Literal["dct", "dft"],
    channels_in: int,
    channels_out: int,
    modes: Sequence[int],
    resolution: Sequence[int],
) -> float:
    """Standard deviation of a spectral convolution's weights: one channel matrix per kept mode.

    Args:
        rule: 1: 1 / (channels_in channels_out); 2: variance preserving; 3: 1 / channels_in; 4: 1e-8.
        transform: ``"dct"`` has `modes` real modes per axis; ``"dft"`` complex ones, of both signs on the axes
            before the last.
        channels_in, channels_out: channels.
        modes, resolution: per axis.

    Raises:
        ValueError: another rule.
    """
    _check_rule(rule)
    points = math.prod(resolution)
    if transform == "dct":
        kept = math.prod(modes)
    elif len(modes) == 1:
        kept = 2 * modes[0]
    else:
        kept = 4 * math.prod(modes) + 4
    std = {
        1: 1 / (channels_in * channels_out),
        2: math.sqrt(points / (channels_in * kept)),
        3: 1 / channels_in,
        4: 1e-8,
    }
    return std[rule]


def _check_rule(rule: InitRule) -> None:
    if rule not in get_args(InitRule):
        raise ValueError(f"weight_init should be one of {', '.join(map(str, get_args(InitRule)))}, not {rule}")


def laid_out(shape: Sequence[int], order: Sequence[int], std: float) -> nn.Parameter:
    """A normal parameter of the given shape whose axes lie in memory in the given order.

    Checkpoints fix the shape; batched matrix products want their batch axes first in memory. Copies, gradients
    and optimiser states keep the layout, so both are had without moving a number.

    Args:
        shape: as in the checkpoint.
        order: permutation of the axes, slowest first.
        std: standard deviation.
    """
    stored: Tensor = torch.randn([shape[axis] for axis in order]) * std
    inverse = [order.index(axis) for axis in range(len(order))]
    return nn.Parameter(stored.permute(inverse))
