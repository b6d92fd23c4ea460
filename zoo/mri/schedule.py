"""Learning-rate schedules: factors of the peak learning rate by optimiser step."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["step", "cosine", "inverse-sqrt"]


def factor(step: int, schedule: Schedule, warmup: int, total: int, decay_every: int = 1, decay: float = 0.2) -> float:
    """The factor in a step.

    Args:
        step: number of the optimiser step, from 0.
        schedule: "step" multiplies by `decay` every `decay_every` steps and warms up linearly from a third;
            "cosine" falls to 0 at `total` and warms up from 0; "inverse-sqrt" falls as 1 / sqrt(step).
        warmup: steps of the linear warm-up.
        total: steps of the whole training, for "cosine".
        decay_every, decay: for "step".
    """
    begin = 1 / 3 if schedule == "step" else 0.0
    rising = begin + (1 - begin) * min(step / warmup, 1.0) if warmup else 1.0
    if schedule == "step":
        return rising * decay ** (step // decay_every)
    if step < warmup:
        return max(rising, 1 / max(warmup, 1))
    if schedule == "inverse-sqrt":
        return math.sqrt(max(warmup, 1) / max(step, 1))
    return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(total - warmup, 1), 1.0)))
