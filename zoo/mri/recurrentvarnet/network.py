"""RecurrentVarNet (Yiasemis, Sanchez, Sonke, Teuwen, CVPR 2022, arXiv 2111.09639).

Gradient descent on k-space, unrolled: each block subtracts a learned multiple of the residual at the sampled
points and adds what a convolutional GRU finds in the image.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo.mri.convgru import ConvGRU, State, StateInitializer
from zoo.mri.fourier import Norm, fft2, ifft2, shift, unshift
from zoo.mri.operators import SenseOperator, conjugate_gradient, expand, from_channels, reduce, to_channels
from zoo.mri.unet import SensitivityRefinement

Initialization = Literal["sense", "zero_filled", "input_image"]
Domain = Literal["kspace", "image"]

OPENING_WEIGHT = 0.02
CLOSING_WEIGHT = 0.03


class RecurrentVarNetBlock(nn.Module):
    """One step, k <- k - alpha M (k - y) + F E(w), with w and the next state from the GRU.

    Args:
        regularizer: the GRU.
        data_gradient: the GRU sees R F^-1 M (k - y) in two more channels.
    """

    def __init__(self, regularizer: ConvGRU, data_gradient: bool = False) -> None:
        super().__init__()
        self.learning_rate = nn.Parameter(torch.ones(1))
        self.regularizer = regularizer
        self.data_gradient = data_gradient

    def forward(
        self,
        kspace: Tensor,
        measured: Tensor,
        mask: Tensor,
        maps: Tensor,
        scale: Tensor | None,
        centered: bool,
        norm: Norm,
        state: State | None,
    ) -> tuple[Tensor, State]:
        """One step; all of k-space and the maps have their origin at index 0.

        Args:
            kspace: k, (B, C, H, W) complex.
            measured: y, likewise, 0 where not sampled.
            mask: M, (B, 1, H, W) boolean.
            maps: coil maps (B, C, H, W) complex.
            scale: (B, 1, 1, 1), what the GRU's input is divided and its output multiplied by.
            centered: images have their origin at index n // 2 where the GRU sees them.
            norm: of the Fourier transform.
            state: of the GRU.

        Returns:
            The next k and the GRU's state.
        """
        residual = torch.where(mask, kspace - measured, 0)
        image = reduce(ifft2(kspace, centered=False, norm=norm), maps)
        channels = to_channels(image)
        if self.data_gradient:
            gradient = reduce(ifft2(residual, centered=False, norm=norm), maps)
            channels = torch.cat((channels, to_channels(gradient)), dim=1)
        if scale is not None:
            channels = channels / scale
        if centered:
            channels = shift(channels)
        channels, state = self.regularizer(channels.contiguous(memory_format=torch.channels_last), state)
        if scale is not None:
            channels = channels * scale
        correction = from_channels(unshift(channels) if centered else channels)
        correction = fft2(expand(correction, maps), centered=False, norm=norm)
        return kspace - self.learning_rate * residual + correction, state


class RecurrentVarNet(nn.Module):
    """The unrolled network.

    The defaults are the paper's configuration for Calgary-Campinas, without the refinement of the coil maps.

    Args:
        num_steps: T, number of steps.
        recurrent_hidden_channels: h, of the GRU's states.
        recurrent_num_layers: layers of the GRU.
        no_parameter_sharing: every step has weights of its own.
        learned_initializer: the GRU's first state is learned from the measurement, else 0.
        initializer_initialization: from what: the SENSE reconstruction, the sum over coils, or the image
            given to `forward`; None as `learned_initializer` False.
        initializer_channels, initializer_dilations, initializer_multiscale: see `StateInitializer`.
        normalized: see `ConvGRU`.
        fft_centered, fft_norm: convention of the Fourier transform, see `zoo.mri.fourier`. The paper's
            networks for Calgary-Campinas are not centred.
        sensitivity_filters: filters of the U-Net that refines the coil maps; None for no refinement. The
            paper has 8.
        sensitivity_pools: its levels below the first.
        data_gradient: not in the paper: the GRU also sees the data-consistency gradient.
        rms_scaling: not in the paper: the GRU works on images scaled to a root mean square of 1, so that
            scaling k-space scales the output.
        initializer_domain: not in the paper if "image": the initialiser sees the image, as the GRU does,
            and not its k-space.
        checkpoint_steps: keep only k-space and states of each step for the backward pass and compute the
            rest again: less memory, more time.
        opening_iterations: not in the paper: k-space starts as what so many conjugate-gradient iterations of SENSE
            say of it, and not as the samples alone; 0 for the samples.
        closing_iterations: not in the paper: after the last step, so many iterations bring the image into agreement
            with the samples, see `close`; 0 for none.
    """

    def __init__(
        self,
        num_steps: int = 8,
        recurrent_hidden_channels: int = 128,
        recurrent_num_layers: int = 4,
        no_parameter_sharing: bool = True,
        learned_initializer: bool = True,
        initializer_initialization: Initialization | None = "sense",
        initializer_channels: tuple[int, ...] = (32, 32, 64, 64),
        initializer_dilations: tuple[int, ...] = (1, 1, 2, 4),
        initializer_multiscale: int = 3,
        normalized: bool = False,
        fft_centered: bool = True,
        fft_norm: Norm = "ortho",
        sensitivity_filters: int | None = None,
        sensitivity_pools: int = 4,
        data_gradient: bool = False,
        rms_scaling: bool = False,
        initializer_domain: Domain = "kspace",
        checkpoint_steps: bool = False,
        opening_iterations: int = 0,
        closing_iterations: int = 0,
    ) -> None:
        super().__init__()
        self.num_steps, self.fft_centered, self.fft_norm = num_steps, fft_centered, fft_norm
        self.rms_scaling, self.initializer_domain = rms_scaling, initializer_domain
        self.checkpoint_steps = checkpoint_steps
        self.opening_iterations, self.closing_iterations = opening_iterations, closing_iterations
        self.log_closing_weight = nn.Parameter(torch.tensor(math.log(CLOSING_WEIGHT))) if closing_iterations else None
        self.initialization = initializer_initialization if learned_initializer else None
        self.sensitivity_model = (
            SensitivityRefinement(sensitivity_filters, sensitivity_pools) if sensitivity_filters else None
        )
        self.initializer = (
            StateInitializer(
                2,
                recurrent_hidden_channels,
                recurrent_num_layers,
                initializer_channels,
                initializer_dilations,
                initializer_multiscale,
            )
            if self.initialization is not None
            else None
        )
        self.block_list = nn.ModuleList(
            RecurrentVarNetBlock(
                ConvGRU(
                    4 if data_gradient else 2,
                    recurrent_hidden_channels,
                    2,
                    recurrent_num_layers,
                    normalized=normalized,
                ),
                data_gradient,
            )
            for _ in range(num_steps if no_parameter_sharing else 1)
        )
        for part in (self.initializer, self.block_list):
            if part is not None:
                part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self,
        masked_kspace: Tensor,
        sampling_mask: Tensor,
        sensitivity_map: Tensor,
        initial_image: Tensor | None = None,
    ) -> Tensor:
        """Reconstructed k-space.

        Args:
            masked_kspace: (B, C, H, W) complex, 0 where not sampled.
            sampling_mask: boolean, broadcastable to (B, 1, H, W).
            sensitivity_map: coil maps (B, C, H, W) complex, before refinement.
            initial_image: (B, H, W) complex, for ``initializer_initialization="input_image"``.

        Returns:
            (B, C, H, W) complex. The image is the root of the sum of squares of its coil images, after
            setting to 0 what the acquisition can't contain.
        """
        return self.trajectory(masked_kspace, sampling_mask, sensitivity_map, initial_image)[-1]

    def trajectory(
        self,
        masked_kspace: Tensor,
        sampling_mask: Tensor,
        sensitivity_map: Tensor,
        initial_image: Tensor | None = None,
    ) -> list[Tensor]:
        """k-space after every step; arguments as in `forward`."""
        maps = self.refine(sensitivity_map)
        mask = sampling_mask.bool()
        start = self.open(masked_kspace, mask, maps)
        state = self.initial_state(start, maps, initial_image)
        scale = self._scale(masked_kspace, maps)
        measured, kspace = masked_kspace, start
        if self.fft_centered:
            # With the origin at index 0 throughout, only the combined image has to be shifted in each step.
            mask, maps = unshift(mask.expand(*mask.shape[:-2], *maps.shape[-2:])), unshift(maps)
            measured, kspace = unshift(measured), unshift(kspace)
        steps = []
        for index in range(self.num_steps):
            block = self.block_list[index % len(self.block_list)]
            arguments = (kspace, measured, mask, maps, scale, self.fft_centered, self.fft_norm, state)
            if self.checkpoint_steps and torch.is_grad_enabled():
                kspace, state = checkpoint(block, *arguments, use_reentrant=False)
            else:
                kspace, state = block(*arguments)
            steps.append(kspace)
        steps[-1] = self.close(steps[-1], measured, SenseOperator(maps, mask, centered=False, norm=self.fft_norm))
        return [shift(step) for step in steps] if self.fft_centered else steps

    def open(self, measured: Tensor, mask: Tensor, maps: Tensor) -> Tensor:
        """The k-space, (B, C, H, W), that the steps start from: the samples, or SENSE's of few iterations."""
        if not self.opening_iterations:
            return measured
        operator = SenseOperator(maps, mask, self.fft_centered, self.fft_norm)
        right = operator.adjoint(measured)

        def normal(image: Tensor) -> Tensor:
            return operator.normal(image) + OPENING_WEIGHT * image

        return self._fft2(expand(conjugate_gradient(normal, right, right, self.opening_iterations), maps))

    def close(self, kspace: Tensor, measured: Tensor, operator: SenseOperator) -> Tensor:
        """F S x of the image argmin ||A x - y||^2 + weight ||x - R F^-1 k||^2; the weight is learned.

        Args:
            kspace: k, (B, C, H, W) complex.
            measured: y, likewise, 0 where not sampled.
            operator: A, in the convention of both.
        """
        if self.log_closing_weight is None:
            return kspace
        weight = self.log_closing_weight.exp()
        prior = reduce(ifft2(kspace, operator.centered, operator.norm), operator.maps)

        def normal(image: Tensor) -> Tensor:
            return operator.normal(image) + weight * image

        right = operator.adjoint(measured) + weight * prior
        image = conjugate_gradient(normal, right, prior, self.closing_iterations)
        return fft2(expand(image, operator.maps), operator.centered, operator.norm)

    def refine(self, sensitivity_map: Tensor) -> Tensor:
        """The coil maps that the steps use."""
        return sensitivity_map if self.sensitivity_model is None else self.sensitivity_model(sensitivity_map)

    def initial_state(self, kspace: Tensor, maps: Tensor, initial_image: Tensor | None) -> State | None:
        """The GRU's first state, one (B, h, H, W) per layer; None for zeros."""
        if self.initializer is None:
            return None
        if self.initialization == "zero_filled":
            combined = kspace.sum(1)
            source = self._ifft2(combined) if self.initializer_domain == "image" else combined
        else:
            if self.initialization == "sense":
                image = reduce(self._ifft2(kspace), maps)
            elif initial_image is None:
                raise ValueError("initializer_initialization='input_image' needs an initial_image")
            else:
                image = initial_image
            source = image if self.initializer_domain == "image" else self._fft2(image)
        channels = to_channels(source)
        if self.rms_scaling:
            channels = channels / self._rms(channels)
        return self.initializer(channels.contiguous(memory_format=torch.channels_last))

    def _scale(self, masked_kspace: Tensor, maps: Tensor) -> Tensor | None:
        if not self.rms_scaling:
            return None
        return self._rms(to_channels(reduce(self._ifft2(masked_kspace), maps)))

    @staticmethod
    def _rms(channels: Tensor) -> Tensor:
        """(B, 1, 1, 1), root mean square of each sample; 1 for an empty one."""
        square = channels.square().mean((1, 2, 3), keepdim=True)
        return torch.where(square > 0, square, 1.0).sqrt()  # the root of 0 would have a gradient of NaN

    def _fft2(self, image: Tensor) -> Tensor:
        return fft2(image, self.fft_centered, self.fft_norm)

    def _ifft2(self, kspace: Tensor) -> Tensor:
        return ifft2(kspace, self.fft_centered, self.fft_norm)
