"""The convolutional GRU of RecurrentVarNet and RIM, and the network that initialises its state."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.mri.layers import ReplicateConv2d, instance_norm

State = list[Tensor]


class ConvGRU(nn.Module):
    """Layers of convolution and GRU, h' = (1 - u) h + u c, and a convolution to the output.

    Update and reset gate are one convolution of [input, state] and the candidate is another. The layers'
    output is ReLU(h'); the state that is carried on is h' itself.

    Source: the regularizer of RecurrentVarNet, arXiv 2111.09639.

    Args:
        in_channels: of the input.
        hidden_channels: h, of each layer's state.
        out_channels: None for `in_channels`.
        num_layers: layers before the output convolution.
        gru_kernel_size: of the gates' convolutions.
        dense_connect: how many earlier layers' inputs each layer sees beside its own.
        instance_norm: normalise input and state of the gates per channel.
        normalized: standardise the input in two groups of channels (real and imaginary part, for a complex
            image) and undo that on the output. A group without variation gives NaN, as published.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int | None = None,
        num_layers: int = 2,
        gru_kernel_size: int = 1,
        dense_connect: int = 0,
        instance_norm: bool = False,
        normalized: bool = False,
    ) -> None:
        super().__init__()
        h, k = hidden_channels, gru_kernel_size
        self.hidden_channels, self.num_layers = hidden_channels, num_layers
        self.dense_connect, self.instance_norm, self.normalized = dense_connect, instance_norm, normalized
        self.convs = nn.ModuleList()
        for index in range(num_layers + 1):
            inputs = in_channels if index == 0 else (1 + min(index, dense_connect)) * h
            outputs = h if index < num_layers else (out_channels or in_channels)
            kernel, dilation = (5, 1) if index == 0 else (3, 2 if index == 1 else 1)
            self.convs.append(ReplicateConv2d(inputs, outputs, kernel, dilation))
        self.gates = nn.ModuleList(nn.Conv2d(2 * h, 2 * h, k, padding=k // 2) for _ in range(num_layers))
        self.candidates = nn.ModuleList(nn.Conv2d(2 * h, h, k, padding=k // 2) for _ in range(num_layers))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Orthogonal gates of which the reset gate begins almost closed; PyTorch's own for the convolutions."""
        h = self.hidden_channels
        for layer in range(self.num_layers):
            gates, candidate = self._gates(layer)
            assert gates.bias is not None
            assert candidate.bias is not None
            for weight in (gates.weight[:h], gates.weight[h:], candidate.weight):
                nn.init.orthogonal_(weight)
            nn.init.zeros_(candidate.bias)
            nn.init.zeros_(gates.bias)
            nn.init.constant_(gates.bias[h:], -1.0)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One step.

        Args:
            x: (B, in_channels, H, W).
            state: one (B, h, H, W) per layer; None for zeros.

        Returns:
            Output (B, out_channels, H, W) and the new state.
        """
        if self.normalized:
            x, mean, std = _standardize(x)
        inputs: list[Tensor] = []
        new_state: State = []
        for layer in range(self.num_layers):
            x = torch.relu(self.convs[layer](self._with_earlier(x, inputs)))
            inputs.append(x)
            new_state.append(self._update(layer, x, None if state is None else state[layer]))
            x = torch.relu(new_state[-1])
        x = self.convs[-1](self._with_earlier(x, inputs))
        if self.normalized:
            x = _unstandardize(x, mean, std)
        return x, new_state

    def _with_earlier(self, x: Tensor, inputs: list[Tensor]) -> Tensor:
        if not self.dense_connect or not inputs:
            return x
        return torch.cat((*inputs[-self.dense_connect :], x), dim=1)

    def _update(self, layer: int, x: Tensor, state: Tensor | None) -> Tensor:
        (gates, candidate), h = self._gates(layer), self.hidden_channels
        if state is None:  # zeros: their half of the kernels does nothing, and neither does the reset gate
            assert gates.bias is not None
            x, margin = self._norm(x), gates.kernel_size[0] // 2
            update = torch.sigmoid(F.conv2d(x, gates.weight[:h, :h], gates.bias[:h], padding=margin))
            return update * torch.tanh(F.conv2d(x, candidate.weight[:, :h], candidate.bias, padding=margin))
        update, reset = torch.sigmoid(gates(self._norm(torch.cat((x, state), dim=1)))).chunk(2, dim=1)
        proposal = torch.tanh(candidate(self._norm(torch.cat((x, reset * state), dim=1))))
        return torch.lerp(state, proposal, update)

    def _gates(self, layer: int) -> tuple[nn.Conv2d, nn.Conv2d]:
        return cast(nn.Conv2d, self.gates[layer]), cast(nn.Conv2d, self.candidates[layer])

    def _norm(self, x: Tensor) -> Tensor:
        return instance_norm(x) if self.instance_norm else x


def _standardize(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each half of the channels of each sample to mean 0 and (unbiased) standard deviation 1."""
    groups = x.unflatten(1, (2, -1))
    std, mean = torch.std_mean(groups, dim=(2, 3, 4), keepdim=True)
    return ((groups - mean) / std).flatten(1, 2), mean, std


def _unstandardize(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (x.unflatten(1, (2, -1)) * std + mean).flatten(1, 2)


class StateInitializer(nn.Module):
    """Dilated convolutions of an image (2 channels) to the first state of every layer of a `ConvGRU`.

    Args:
        in_channels: of the image.
        hidden_channels: h, of each state.
        num_layers: number of states.
        channels: of the convolutions.
        dilations: of the convolutions, as many.
        multiscale: how many of the last feature maps the states are made of.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_layers: int,
        channels: tuple[int, ...],
        dilations: tuple[int, ...],
        multiscale: int = 1,
    ) -> None:
        super().__init__()
        if len(channels) != len(dilations):
            raise ValueError(f"{len(channels)} initializer channels need as many dilations, not {len(dilations)}")
        self.num_layers, self.multiscale = num_layers, multiscale
        self.convs = nn.ModuleList(
            ReplicateConv2d(before, after, 3, dilation)
            for before, after, dilation in zip((in_channels, *channels), channels, dilations, strict=False)
        )
        self.heads = nn.Conv2d(sum(channels[-multiscale:]), num_layers * hidden_channels, 1)

    def forward(self, x: Tensor) -> State:
        """(B, in_channels, H, W) -> one (B, h, H, W) per layer."""
        features = []
        for conv in self.convs:
            x = torch.relu(conv(x))
            features.append(x)
        states = torch.relu(self.heads(torch.cat(features[-self.multiscale :], dim=1)))
        # A state of its own memory each: slices of a common tensor would be read with large strides.
        return [s.contiguous(memory_format=torch.channels_last) for s in states.chunk(self.num_layers, dim=1)]
