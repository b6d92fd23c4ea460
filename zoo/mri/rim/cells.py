"""Recurrent convolutional cells of the efficient RIM (Karkalousos et al., arXiv 2012.07819).

A cell takes an input (B, in, H, W) and a state (B, h, H, W) to the next state, which is also its output.
Biases stand on the input's side only. Unlike in `zoo.mri.convgru`, the reset gate acts after the recurrent
product, and the update gate keeps the old state where it is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

CellName = Literal["gru", "mgu", "indrnn"]


class _GatedCell(nn.Module):
    """Convolutions of input and state to `chunks` gates each.

    Args:
        in_channels: of the input.
        hidden_channels: of the state.
        kernel_size, dilation: of both convolutions, which pad with zeros.
        chunks: gates and candidates.
    """

    def __init__(self, in_channels: int, hidden_channels: int, kernel_size: int, dilation: int, chunks: int) -> None:
        super().__init__()
        k, padding, out = kernel_size, dilation * (kernel_size - 1) // 2, chunks * hidden_channels
        self.ih = nn.Conv2d(in_channels, out, k, padding=padding, dilation=dilation)
        self.hh = nn.Conv2d(hidden_channels, out, k, padding=padding, dilation=dilation, bias=False)
        self.chunks = chunks
        assert self.ih.bias is not None
        nn.init.zeros_(self.ih.bias)

    def _products(self, x: Tensor, state: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        return self.ih(x).chunk(self.chunks, 1), self.hh(state).chunk(self.chunks, 1)


class ConvGRUCell(_GatedCell):
    """r = sigma(a1 + b1), z = sigma(a2 + b2), n = tanh(a3 + r b3), h' = (1 - z) n + z h."""

    def __init__(self, in_channels: int, hidden_channels: int, kernel_size: int = 1, dilation: int = 1) -> None:
        super().__init__(in_channels, hidden_channels, kernel_size, dilation, chunks=3)
        for weight in (self.ih.weight, self.hh.weight):
            nn.init.orthogonal_(weight)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """The next state."""
        (a1, a2, a3), (b1, b2, b3) = self._products(x, state)
        candidate = torch.tanh(a3 + torch.sigmoid(a1 + b1) * b3)
        return candidate + torch.sigmoid(a2 + b2) * (state - candidate)


class ConvMGUCell(_GatedCell):
    """f = sigma(a1 + b1), c = tanh(a2 + f b2), h' = (1 - f) c + f h."""

    def __init__(self, in_channels: int, hidden_channels: int, kernel_size: int = 1, dilation: int = 1) -> None:
        super().__init__(in_channels, hidden_channels, kernel_size, dilation, chunks=2)
        nn.init.xavier_uniform_(self.ih.weight, nn.init.calculate_gain("relu"))
        nn.init.xavier_uniform_(self.hh.weight)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """The next state."""
        (a1, a2), (b1, b2) = self._products(x, state)
        forget = torch.sigmoid(a1 + b1)
        candidate = torch.tanh(a2 + forget * b2)
        return candidate + forget * (state - candidate)


class IndRNNCell(nn.Module):
    """h' = ReLU(W x + b + u h) with one recurrent weight u per channel.

    Args:
        in_channels: of the input.
        hidden_channels: of the state.
        kernel_size, dilation: of the input's convolution, which pads with zeros.
    """

    def __init__(self, in_channels: int, hidden_channels: int, kernel_size: int = 1, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel_size - 1) // 2
        self.ih = nn.Conv2d(in_channels, hidden_channels, kernel_size, padding=padding, dilation=dilation)
        self.hh = nn.Parameter(torch.empty(1, hidden_channels, 1, 1))
        assert self.ih.bias is not None
        nn.init.zeros_(self.ih.bias)
        for weight in (self.ih.weight, self.hh):
            nn.init.normal_(weight, std=(hidden_channels * (1 + kernel_size**2)) ** -0.5)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """The next state."""
        return torch.relu(torch.addcmul(self.ih(x), self.hh, state))


CELLS: dict[str, Callable[..., nn.Module]] = {"gru": ConvGRUCell, "mgu": ConvMGUCell, "indrnn": IndRNNCell}
