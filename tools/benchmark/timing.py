"""Timing a piece of work so that a busy machine disturbs the result little."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def interleaved(
    work: Mapping[str, Callable[[], object]],
    repeats: int = 20,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """The shortest time of each contender in seconds, run in turns so that all see the same load.

    Args:
        work: name -> what to run.
        repeats: rounds that count.
        warmup: rounds before them that do not.
        clock: ``time.process_time`` for work on a single thread leaves out what other processes take.
    """
    best = dict.fromkeys(work, float("inf"))
    for round_ in range(warmup + repeats):
        for name, function in work.items():
            start = clock()
            function()
            elapsed = clock() - start
            if round_ >= warmup:
                best[name] = min(best[name], elapsed)
    return best
