"""The published GPU algorithms of the rational function, written in Triton from their descriptions.

Yang and Wang's kernel (arXiv 2409.10594) adds each element's share of the coefficients' gradients to global memory
atomically. FlashKAT's (Raffel and Chen, arXiv 2505.13813) gives a block 64 rows of one group, adds up tiles of
64 x 64 elements and uses atomics once per block. Both take, save and return float32: under mixed precision,
tensors are cast before and after.
"""

# mypy: disable-error-code="no-untyped-def, attr-defined"

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 64
ELEMENT_BLOCK = 256


@triton.jit
def _parts(x, a, b):
    r = tl.abs(x)
    p = tl.load(a + 5)
    slope = p
    p = p * x + tl.load(a + 4)
    for i in tl.static_range(3, -1, -1):
        slope = slope * x + p
        p = p * x + tl.load(a + i)
    q = tl.abs(tl.load(b + 3))
    q_slope = q
    for j in tl.static_range(2, -1, -1):
        q = q * r + tl.abs(tl.load(b + j))
        q_slope = q_slope * r + q
    q = q * r + 1.0
    return p, slope, q, q_slope


@triton.jit
def _forward(x_ptr, y_ptr, a, b, count, width, groups, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    group = (at % (groups * width)) // width
    x = tl.load(x_ptr + at, mask=inside, other=0.0)
    p, _, q, _ = _parts(x, a, b + group * 4)
    tl.store(y_ptr + at, p / q, mask=inside)


@triton.jit
def _backward_atomic(g_ptr, x_ptr, dx_ptr, a, b, da, db, count, width, groups, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    group = (at % (groups * width)) // width
    x = tl.load(x_ptr + at, mask=inside, other=0.0)
    g = tl.load(g_ptr + at, mask=inside, other=0.0)
    p, slope, q, q_slope = _parts(x, a, b + group * 4)
    u = g / q
    t = -u * p / q
    tl.store(dx_ptr + at, u * slope + t * tl.where(x < 0, -q_slope, q_slope), mask=inside)
    power = tl.full((BLOCK,), 1.0, tl.float32)
    for i in tl.static_range(6):
        tl.atomic_add(da + group * 6 + i, u * power, mask=inside)
        power = power * x
    power = tl.abs(x)
    for j in tl.static_range(4):
        sign = tl.where(tl.load(b + group * 4 + j) < 0, -1.0, 1.0)
        tl.atomic_add(db + group * 4 + j, sign * t * power, mask=inside)
        power = power * tl.abs(x)


@triton.jit
def _backward_tiles(g_ptr, x_ptr, dx_ptr, a, b, da, db, rows, width, groups, TILE: tl.constexpr):
    group = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    a0, a1, a2, a3, a4, a5 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    b1, b2, b3, b4 = 0.0, 0.0, 0.0, 0.0
    for start in range(0, width, TILE):
        column = start + tl.arange(0, TILE)
        at = row[:, None] * (groups * width) + group * width + column[None, :]
        inside = (row[:, None] < rows) & (column[None, :] < width)
        x = tl.load(x_ptr + at, mask=inside, other=0.0)
        g = tl.load(g_ptr + at, mask=inside, other=0.0)
        p, slope, q, q_slope = _parts(x, a, b + group * 4)
        u = g / q
        t = -u * p / q
        tl.store(dx_ptr + at, u * slope + t * tl.where(x < 0, -q_slope, q_slope), mask=inside)
        r, x2 = tl.abs(x), x * x
        a0 += tl.sum(u)
        a1 += tl.sum(u * x)
        a2 += tl.sum(u * x2)
        a3 += tl.sum(u * x2 * x)
        a4 += tl.sum(u * x2 * x2)
        a5 += tl.sum(u * x2 * x2 * x)
        b1 += tl.sum(t * r)
        b2 += tl.sum(t * x2)
        b3 += tl.sum(t * x2 * r)
        b4 += tl.sum(t * x2 * x2)
    tl.atomic_add(da + group * 6, a0)
    tl.atomic_add(da + group * 6 + 1, a1)
    tl.atomic_add(da + group * 6 + 2, a2)
    tl.atomic_add(da + group * 6 + 3, a3)
    tl.atomic_add(da + group * 6 + 4, a4)
    tl.atomic_add(da + group * 6 + 5, a5)
    tl.atomic_add(db + group * 4, tl.where(tl.load(b + group * 4) < 0, -b1, b1))
    tl.atomic_add(db + group * 4 + 1, tl.where(tl.load(b + group * 4 + 1) < 0, -b2, b2))
    tl.atomic_add(db + group * 4 + 2, tl.where(tl.load(b + group * 4 + 2) < 0, -b3, b3))
    tl.atomic_add(db + group * 4 + 3, tl.where(tl.load(b + group * 4 + 3) < 0, -b4, b4))


class TritonRational:
    """The published kernels, forward and backward, for orders 5 and 4 with a shared numerator.

    Args:
        atomic: Yang and Wang's backward pass instead of FlashKAT's.
    """

    def __init__(self, atomic: bool) -> None:
        self.atomic = atomic

    def forward(self, x: Tensor, numerator: Tensor, denominator: Tensor) -> tuple[Tensor, Tensor]:
        """y, through float32, and what `backward` needs of x: its copy in float32."""
        wide = x.float()
        y = torch.empty_like(wide)
        groups, width = len(denominator), x.shape[-1] // len(denominator)
        grid = (-(-x.numel() // ELEMENT_BLOCK),)
        _forward[grid](wide, y, numerator, denominator, x.numel(), width, groups, BLOCK=ELEMENT_BLOCK)
        return y.to(x.dtype), wide

    def backward(self, grad: Tensor, wide: Tensor, numerator: Tensor, denominator: Tensor) -> tuple[Tensor, ...]:
        """dx, da, db, through float32."""
        g, dx = grad.float(), torch.empty_like(wide)
        groups, width = len(denominator), wide.shape[-1] // len(denominator)
        da, db = numerator.new_zeros(groups, 6), torch.zeros_like(denominator)
        operands = (g, wide, dx, numerator, denominator, da, db)
        if self.atomic:
            grid = (-(-wide.numel() // ELEMENT_BLOCK),)
            _backward_atomic[grid](*operands, wide.numel(), width, groups, BLOCK=ELEMENT_BLOCK)
        else:
            rows = wide.numel() // wide.shape[-1]
            _backward_tiles[(-(-rows // TILE), groups)](*operands, rows, width, groups, TILE=TILE)
        return dx.to(grad.dtype), da.sum(0, keepdim=True), db
