"""Tensors that follow from plain values alone, made once and kept."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes


def kept(maxsize: int) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """`functools.lru_cache` for functions that make a tensor of plain values, such as filters for a size of image.

    What is kept serves every later call, whatever the first one came from: it takes part in gradients though it was
    made under inference mode, and it holds numbers though it was made while torch.export traced, for which it is a
    constant of the program. torch.compile traces the function itself.

    Args:
        maxsize: how many tensors are kept.
    """

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @lru_cache(maxsize=maxsize)
        def make(*arguments: Hashable) -> Tensor:
            with torch.inference_mode(False):
                return function(*arguments)

        @wraps(function)
        def call(*arguments: Hashable) -> Tensor:
            if torch.compiler.is_dynamo_compiling():
                return function(*arguments)
            if not torch.compiler.is_compiling():
                return make(*arguments)
            with _disable_current_modes():  # a tensor without numbers would stay for all calls after the tracing
                return make(*arguments)

        return call

    return decorate
