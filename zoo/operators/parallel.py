"""Running many small tensor computations on all cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor


def map_portions(function: Callable[[Tensor], Tensor], portions: Iterable[Tensor]) -> Tensor:
    """``torch.cat([function(p) for p in portions])``, each portion on one core, as many at once as torch has threads.

    Operations too small to be shared by cores lose more by sharing than they gain; whole portions do not.
    """
    portions = list(portions)
    threads = min(torch.get_num_threads(), len(portions))
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return torch.cat(list(pool.map(function, portions)))
