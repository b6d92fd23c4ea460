"""Recurrent inference machines: a recurrent network that learns how to descend the likelihood.

In every step a network sees the image x and the gradient of the likelihood, R F^-1 M (F E x - y), and says by
how much to change x. `RIM` is the form of the Calgary-Campinas challenge (with the GRU of RecurrentVarNet),
`EfficientRIM` that of Karkalousos et al., arXiv 2012.07819, with a choice of cells.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo.mri.convgru import ConvGRU, State, StateInitializer
from zoo.mri.fourier import Norm, ifft2
from zoo.mri.layers import ReplicateConv2d
from zoo.mri.operators import SenseOperator, from_channels, reduce, to_channels
from zoo.mri.rim.cells import CELLS, CellName
from zoo.mri.unet import SensitivityRefinement

ImageInitialization = Literal["sense", "zero_filled", "input_image"]


class _Unrolled(nn.Module):
    """What the two forms share: where they begin, and what a step's network sees.

    Args:
        image_initialization: begin with the SENSE combination of the coils, their sum, or a given image.
        fft_centered, fft_norm: convention of the Fourier transform, see `zoo.mri.fourier`.
        checkpoint_steps: keep only image and states of each step for the backward pass.
        sensitivity_filters, sensitivity_pools: of the U-Net that refines the coil maps, see
            `zoo.mri.unet.SensitivityRefinement`; None for no refinement.
    """

    def __init__(
        self,
        image_initialization: ImageInitialization,
        fft_centered: bool,
        fft_norm: Norm,
        checkpoint_steps: bool,
        sensitivity_filters: int | None,
        sensitivity_pools: int,
    ) -> None:
        super().__init__()
        self.image_initialization = image_initialization
        self.sensitivity_model = (
            SensitivityRefinement(sensitivity_filters, sensitivity_pools) if sensitivity_filters else None
        )
        self.fft_centered, self.fft_norm = fft_centered, fft_norm
        self.checkpoint_steps = checkpoint_steps

    def first_image(self, masked_kspace: Tensor, maps: Tensor, initial_image: Tensor | None) -> Tensor:
        """x before the first step, (B, H, W) complex."""
        if self.image_initialization == "input_image":
            if initial_image is None:
                raise ValueError("image_initialization='input_image' needs an initial_image")
            return initial_image
        coil_images = ifft2(masked_kspace, self.fft_centered, self.fft_norm)
        return reduce(coil_images, maps) if self.image_initialization == "sense" else coil_images.sum(1)

    def refine(self, sensitivity_map: Tensor) -> Tensor:
        """The coil maps that the steps use."""
        return sensitivity_map if self.sensitivity_model is None else self.sensitivity_model(sensitivity_map)

    def _run(self, step: nn.Module, *arguments: object) -> tuple[Tensor, State]:
        if self.checkpoint_steps and torch.is_grad_enabled():
            return checkpoint(step, *arguments, use_reentrant=False)
        return step(*arguments)


def log_likelihood_gradient(
    image: Tensor, masked_kspace: Tensor, operator: SenseOperator, scale: Tensor | float = 1.0
) -> Tensor:
    """s R F^-1 M (F E x - y), (B, H, W) complex; s is a scalar or (B,)."""
    gradient = operator.gradient(image, masked_kspace)
    return gradient * (scale.view(-1, 1, 1) if isinstance(scale, Tensor) else scale)


class RIM(_Unrolled):
    """Image and gradient (4 channels) go to a `ConvGRU`, whose output is added to the image (unless told otherwise).

    Args:
        hidden_channels: of the GRU.
        length: number of steps.
        depth: layers of the GRU.
        no_parameter_sharing: every step has weights of its own.
        instance_norm: see `ConvGRU`.
        dense_connect: each layer of the GRU sees its predecessor's input too.
        skip_connections: the GRU's output is added to the image; otherwise it is the next image.
        normalized: see `ConvGRU`; as published, the two groups are image and gradient on the way in, and
            real and imaginary part on the way out.
        image_initialization, fft_centered, fft_norm, checkpoint_steps, sensitivity_filters,
            sensitivity_pools: see `_Unrolled`.
        learned_initializer: the GRU's first state is learned from the first image, else 0.
        initializer_channels, initializer_dilations, initializer_multiscale: see `StateInitializer`.
    """

    def __init__(
        self,
        hidden_channels: int = 128,
        length: int = 16,
        depth: int = 2,
        no_parameter_sharing: bool = False,
        instance_norm: bool = False,
        dense_connect: bool = False,
        skip_connections: bool = True,
        normalized: bool = False,
        image_initialization: ImageInitialization = "sense",
        learned_initializer: bool = False,
        initializer_channels: tuple[int, ...] = (32, 32, 64, 64),
        initializer_dilations: tuple[int, ...] = (1, 1, 2, 4),
        initializer_multiscale: int = 1,
        fft_centered: bool = True,
        fft_norm: Norm = "ortho",
        checkpoint_steps: bool = False,
        sensitivity_filters: int | None = None,
        sensitivity_pools: int = 4,
    ) -> None:
        super().__init__(
            image_initialization, fft_centered, fft_norm, checkpoint_steps, sensitivity_filters, sensitivity_pools
        )
        self.length, self.skip_connections = length, skip_connections
        self.initializer = (
            StateInitializer(
                2, hidden_channels, depth, initializer_channels, initializer_dilations, initializer_multiscale
            )
            if learned_initializer
            else None
        )
        self.cell_list = nn.ModuleList(
            ConvGRU(
                4,
                hidden_channels,
                2,
                depth,
                dense_connect=int(dense_connect),
                instance_norm=instance_norm,
                normalized=normalized,
            )
            for _ in range(length if no_parameter_sharing else 1)
        )
        for part in (self.initializer, self.cell_list):
            if part is not None:
                part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self,
        masked_kspace: Tensor,
        sampling_mask: Tensor,
        sensitivity_map: Tensor,
        initial_image: Tensor | None = None,
        state: State | None = None,
        loglikelihood_scaling: Tensor | float = 1.0,
    ) -> tuple[list[Tensor], State]:
        """The image after every step, and the GRU's last state.

        Args:
            masked_kspace: (B, C, H, W) complex, 0 where not sampled.
            sampling_mask: boolean, broadcastable to (B, 1, H, W).
            sensitivity_map: coil maps (B, C, H, W) complex.
            initial_image: (B, H, W) complex, for ``image_initialization="input_image"``.
            state: where an earlier call ended; None to begin anew.
            loglikelihood_scaling: s, a scalar or (B,).
        """
        maps = self.refine(sensitivity_map)
        operator = SenseOperator(maps, sampling_mask.bool(), self.fft_centered, self.fft_norm)
        image = self.first_image(masked_kspace, maps, initial_image)
        if state is None and self.initializer is not None:
            state = self.initializer(to_channels(image).contiguous(memory_format=torch.channels_last))
        images = []
        for index in range(self.length):
            gradient = log_likelihood_gradient(image, masked_kspace, operator, loglikelihood_scaling)
            channels = torch.cat((to_channels(image), to_channels(gradient)), dim=1)
            cell = self.cell_list[index % len(self.cell_list)]
            delta, state = self._run(cell, channels.contiguous(memory_format=torch.channels_last), state)
            image = image + from_channels(delta) if self.skip_connections else from_channels(delta)
            images.append(image)
        assert state is not None
        return images, state


class _EfficientStep(nn.Module):
    """Convolution and cell, twice, and a convolution to the change of the image.

    Args:
        filters: of the convolutions and cells.
        cell: which.
        conv_kernels, conv_dilations: of the three convolutions.
        recurrent_kernels: of the two cells.
    """

    def __init__(
        self,
        filters: int,
        cell: CellName,
        conv_kernels: tuple[int, int, int],
        conv_dilations: tuple[int, int, int],
        recurrent_kernels: tuple[int, int],
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            ReplicateConv2d(before, after, kernel, dilation, bias)
            for before, after, kernel, dilation, bias in zip(
                (4, filters, filters),
                (filters, filters, 2),
                conv_kernels,
                conv_dilations,
                (True, True, False),
                strict=True,
            )
        )
        self.cells = nn.ModuleList(CELLS[cell](filters, filters, kernel) for kernel in recurrent_kernels)
        for conv in self.convs:
            assert isinstance(conv, ReplicateConv2d)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, 4, H, W) and two states -> (B, 2, H, W) and the next states."""
        new_state: State = []
        *convs, last = self.convs
        for conv, cell, old in zip(convs, self.cells, state, strict=True):
            x = cell(torch.relu(conv(x)), old)
            new_state.append(x)
        return last(x), new_state


class EfficientRIM(_Unrolled):
    """The same small recurrent network in every step.

    Args:
        cell: "gru", "mgu" or "indrnn", see `zoo.mri.rim.cells`.
        hidden_channels: filters of convolutions and cells.
        length: number of steps.
        conv_kernels, conv_dilations: of the three convolutions.
        recurrent_kernels: of the two cells.
        sigma: noise level; the gradient is divided by its square.
        image_initialization, fft_centered, fft_norm, checkpoint_steps, sensitivity_filters,
            sensitivity_pools: see `_Unrolled`.
    """

    def __init__(
        self,
        cell: CellName = "gru",
        hidden_channels: int = 64,
        length: int = 8,
        conv_kernels: tuple[int, int, int] = (5, 3, 3),
        conv_dilations: tuple[int, int, int] = (1, 2, 1),
        recurrent_kernels: tuple[int, int] = (1, 1),
        sigma: float = 1.0,
        image_initialization: ImageInitialization = "sense",
        fft_centered: bool = True,
        fft_norm: Norm = "ortho",
        checkpoint_steps: bool = False,
        sensitivity_filters: int | None = None,
        sensitivity_pools: int = 4,
    ) -> None:
        super().__init__(
            image_initialization, fft_centered, fft_norm, checkpoint_steps, sensitivity_filters, sensitivity_pools
        )
        self.length, self.hidden_channels, self.sigma = length, hidden_channels, sigma
        self.step = _EfficientStep(hidden_channels, cell, conv_kernels, conv_dilations, recurrent_kernels)
        self.step.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self,
        masked_kspace: Tensor,
        sampling_mask: Tensor,
        sensitivity_map: Tensor,
        initial_image: Tensor | None = None,
        state: State | None = None,
    ) -> tuple[list[Tensor], State]:
        """The image after every step, and the cells' last states; arguments as of `RIM.forward`."""
        maps = self.refine(sensitivity_map)
        operator = SenseOperator(maps, sampling_mask.bool(), self.fft_centered, self.fft_norm)
        image = self.first_image(masked_kspace, maps, initial_image)
        if state is None:
            zeros = image.real.new_zeros(len(image), self.hidden_channels, *image.shape[1:])
            state = [zeros.contiguous(memory_format=torch.channels_last)] * len(self.step.cells)
        images = []
        for _ in range(self.length):
            gradient = log_likelihood_gradient(image, masked_kspace, operator, self.sigma**-2)
            channels = torch.cat((to_channels(image), to_channels(gradient)), dim=1)
            delta, state = self._run(self.step, channels.contiguous(memory_format=torch.channels_last), state)
            image = image + from_channels(delta)
            images.append(image)
        return images, state
