"""Transform Once (T1): an operator that works on the low-frequency block of a field's spectrum.

Source: Poli, Massaroli, Berto, Park, Dao, Re and Ermon, "Transform Once: Efficient Operator Learning in
Frequency Domain", NeurIPS 2022.

The published network lifts the field in space, transforms all lifted channels, and from then on changes only
the m x m lowest modes; its head maps zero to zero. The lift is linear and commutes with the transform, so the
same function is had by transforming the input channels only and never leaving the block: `T1.process`. Names,
shapes and values of the weights are the published ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.operators import transforms
from zoo.operators.initialisation import InitRule, laid_out, mixing_std
from zoo.operators.transforms import Basis
from zoo.ops.kept import kept

Activation = Literal["sin", "gelu"]
HeadInit = Literal["published", "scaled"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"sin": torch.sin, "gelu": F.gelu}
_HEAD_WIDTH = 128


def per_axis(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """One number for all axes, or one for each."""
    values = (value,) * dims if isinstance(value, int) else tuple(value)
    if len(values) != dims:
        raise ValueError(f"{list(values)} should have one number for each of {dims} axes")
    return values


class T1Layer(nn.Module):
    """Mixes channels in each mode, then modes along each axis in each channel.

    Args:
        width: channels w.
        modes: kept modes per axis.
        resolution: points per axis, for the variance-preserving rule.
        act: activation after the channel mixing.
        residual: adds the input.
        keep_high: modes outside the block are passed on instead of set to zero.
        weight_init: rule of the channel mixing, see `zoo.operators.initialisation.mixing_std`.
    """

    spatial_mixing_1: nn.Parameter
    spatial_mixing_2: nn.Parameter

    def __init__(
        self,
        width: int,
        modes: Sequence[int],
        resolution: Sequence[int],
        act: Activation = "sin",
        residual: bool = True,
        keep_high: bool = False,
        weight_init: InitRule = 2,
    ) -> None:
        super().__init__()
        if act not in _ACTIVATIONS:
            raise ValueError(f"there is no activation '{act}': use {' or '.join(_ACTIVATIONS)}")
        self.width, self.modes = width, tuple(modes)
        self.act, self.residual, self.keep_high = act, residual, keep_high
        dims = len(self.modes)
        std = mixing_std(weight_init, width, width, math.prod(resolution), math.prod(self.modes))
        # Published shapes; the axes that a product runs over in a batch lie first in memory.
        self.ch_mixing_1 = laid_out((width, width, *self.modes), [*range(2, 2 + dims), 0, 1], std)
        for axis, size in enumerate(self.modes, start=1):
            weight = laid_out((size, size, width), [2, 0, 1], mixing_std(4, size, size, 1, 1))
            self.register_parameter(f"spatial_mixing_{axis}", weight)

    def forward(self, z: Tensor) -> Tensor:
        """The layer on a whole spectrum (B, w, *points)."""
        dims = len(self.modes)
        block = transforms.corner(z, self.modes)
        mixed = self.block(block.permute(*range(2, 2 + dims), 0, 1)).permute(dims, dims + 1, *range(dims))
        if self.keep_high and dims == 2:
            # Published: rows from m on, but not the last m, and then all rows of columns from m on.
            (m1, m2), rows = self.modes, z.shape[-2]
            last = max(m1, rows - m1)
            out = torch.cat((mixed, z[..., m1:last, :m2], torch.zeros_like(z[..., last:, :m2])), -2)
            return torch.cat((out, z[..., m2:]), -1)
        if self.keep_high:
            return torch.cat((mixed, z[..., self.modes[0] :]), -1)
        return embed(mixed, z.shape[2:])

    def block(self, z: Tensor) -> Tensor:
        """The layer on the kept modes (*modes, B, w), channels last."""
        batch = z.shape[-2]
        weight = self.ch_mixing_1.permute(*range(2, self.ch_mixing_1.ndim), 0, 1)
        h = torch.bmm(z.flatten(0, -3), weight.flatten(0, -3)).view(z.shape)
        h = _ACTIVATIONS[self.act](h)
        if len(self.modes) == 1:
            # (m, B, w) -> (w, B, m): one product per channel
            h = torch.bmm(h.permute(2, 1, 0), self.spatial_mixing_1.permute(2, 0, 1)).permute(2, 1, 0)
        else:
            m1, m2 = self.modes
            # (m1, m2, B, w) -> (w, m1, B, m2): rows and columns are both one product per channel
            h = h.permute(3, 0, 2, 1).reshape(self.width, m1, batch * m2)
            h = torch.bmm(self.spatial_mixing_1.permute(2, 1, 0), h)
            h = torch.bmm(h.view(self.width, m1 * batch, m2), self.spatial_mixing_2.permute(2, 0, 1))
            h = h.view(self.width, m1, batch, m2).permute(1, 3, 2, 0)
        return h + z if self.residual else h


class T1(nn.Module):
    """Transform Once in one or two dimensions.

    Args:
        modes: kept modes m, for all axes or per axis.
        width: channels w of the layers.
        signal_resolution: points per axis; its length says how many axes there are.
        in_channels, out_channels: of the fields.
        nlayers: layers.
        padding: zeros appended to the end of each axis before the transform; they are not taken away again.
        perform_forward: transform the input; False for an input that is a spectrum already.
        perform_inverse: give a field; False gives its spectrum, zero outside the block.
        residual, keep_high, act: see `T1Layer`.
        weight_init: rule of the channel mixings.
        first_layer_init_only: the rule holds for the first layer, the others take rule 4. Only the first layer
            sees the loss of variance that rule 2 makes up for; with rule 2 everywhere activations double in
            each layer.
        head_init: ``"published"`` draws the head's weights at 1e-8, from which training first has to grow them;
            ``"scaled"`` at 1 / sqrt(fan_in), the last ones a tenth of it.
        basis: ``"dct"``, or ``"fourier"`` for periodic fields.

    A field (B, *space) without a channel axis is taken where in_channels is 1, and then out_channels 1 gives
    one without. Fields of another resolution than `signal_resolution` are taken too: their coefficients are
    scaled to what they would be at `signal_resolution`.

    Raises:
        ValueError: numbers or names that are impossible.
    """

    def __init__(
        self,
        modes: int | Sequence[int],
        width: int,
        signal_resolution: Sequence[int],
        in_channels: int = 1,
        out_channels: int = 1,
        nlayers: int = 4,
        padding: int = 0,
        perform_forward: bool = True,
        perform_inverse: bool = False,
        residual: bool = True,
        keep_high: bool = False,
        act: Activation = "sin",
        weight_init: InitRule = 2,
        first_layer_init_only: bool = False,
        head_init: HeadInit = "published",
        basis: Basis = "dct",
    ) -> None:
        super().__init__()
        self.signal_resolution = tuple(signal_resolution)
        dims = len(self.signal_resolution)
        if dims not in (1, 2):
            raise ValueError(f"T1 works in one or two dimensions, not {dims}")
        self.modes = per_axis(modes, dims)
        if min(*self.modes, width, nlayers) < 1 or padding < 0:
            raise ValueError(
                f"modes {self.modes}, width {width} and nlayers {nlayers} should be 1 or more, "
                f"padding {padding} 0 or more"
            )
        if basis not in get_args(Basis) or head_init not in get_args(HeadInit):
            raise ValueError(
                f"basis should be one of {get_args(Basis)} and head_init one of {get_args(HeadInit)}, not '{basis}' "
                f"and '{head_init}'"
            )
        if any(m > n + padding for m, n in zip(self.modes, self.signal_resolution, strict=True)):
            raise ValueError(f"{self.modes} modes are more than the {self.signal_resolution} points")
        self.in_channels, self.out_channels, self.padding = in_channels, out_channels, padding
        self.perform_forward, self.perform_inverse, self.keep_high = perform_forward, perform_inverse, keep_high
        self.basis: Basis = basis
        self.fc0 = nn.Linear(in_channels + dims, width)
        rules = [4 if first_layer_init_only and index else weight_init for index in range(nlayers)]
        self.layers = nn.ModuleList(
            T1Layer(width, self.modes, self.signal_resolution, act, residual, keep_high, rule) for rule in rules
        )
        std1, std2 = (1e-8, 1e-8) if head_init == "published" else (width**-0.5, 0.1 * _HEAD_WIDTH**-0.5)
        self.fc1 = nn.Parameter(torch.randn(width, _HEAD_WIDTH) * std1)
        self.fc2 = nn.Parameter(torch.randn(_HEAD_WIDTH, out_channels) * std2)

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.modes)

    def forward(self, x: Tensor) -> Tensor:
        """Fields (B, in_channels, *space) -> spectrum or field (B, out_channels, *space), padding included."""
        without_channels = x.ndim == self.dims + 1
        if without_channels:
            x = x.unsqueeze(1)
        points = self._points(x.shape[2:])
        if self.perform_forward:
            given = self.coefficients(x)
        else:
            given = transforms.corner(embed(x, points), self.kept(x.shape[2:]))
        block = self.process(given, x.shape[2:])
        y = transforms.synthesise(block, points, self.basis) if self.perform_inverse else embed(block, points)
        return y.squeeze(1) if without_channels and self.out_channels == 1 else y

    def _points(self, space: Sequence[int]) -> tuple[int, ...]:
        return tuple(n + self.padding for n in space)

    def kept(self, space: Sequence[int]) -> tuple[int, ...]:
        """Modes per axis that the network carries: the block, or all of them where high modes are passed on."""
        return self._points(space) if self.keep_high else self.modes

    def coefficients(self, x: Tensor) -> Tensor:
        """The modes (..., C, *kept) that the network sees of fields (..., C, *space)."""
        kept = self.kept(x.shape[-self.dims :])
        return transforms.apply_axes(x, _padded_matrices(self.basis, kept, x, self.padding))

    def field(self, block: Tensor, space: Sequence[int]) -> Tensor:
        """The fields (..., C, *space) of modes (..., C, *kept), without padding."""
        return transforms.corner(transforms.synthesise(block, self._points(space), self.basis), space)

    def process(self, block: Tensor, space: Sequence[int]) -> Tensor:
        """The network on the modes: (B, in_channels, *kept) -> (B, out_channels, *kept).

        Args:
            block: `coefficients` of the input.
            space: points per axis of the fields that they are coefficients of.
        """
        scale = math.sqrt(math.prod(self.signal_resolution) / math.prod(space))
        constant = constant_block(
            tuple(space), self.kept(space), self.basis, self.padding, self.perform_forward, block.dtype, block.device
        )
        last = self.dims
        inner, whole = (*range(2, 2 + last), 0, 1), (last, last + 1, *range(last))
        given = block.permute(*inner)
        weight, grid_weight = self.fc0.weight.split((self.in_channels, self.dims), 1)
        # Grid and bias do not depend on the sample: their blocks are lifted once.
        fixed = constant[..., : self.dims] @ grid_weight.mT + constant[..., self.dims :] * self.fc0.bias
        z = scale * (given @ weight.mT + fixed.unsqueeze(-2))
        for layer in self.layers:
            # Channels last in the block; a layer that passes high modes on takes whole spectra.
            assert isinstance(layer, T1Layer)
            z = layer(z.permute(*whole)).permute(*inner) if self.keep_high else layer.block(z)
        y = torch.sin(z @ self.fc1) @ self.fc2
        return y.permute(*whole) / scale


def embed(block: Tensor, points: Sequence[int]) -> Tensor:
    """A block (..., *modes) in the corner of a spectrum (..., *points) that is zero elsewhere."""
    pads = [(0, n - m) for m, n in zip(block.shape[-len(points) :], points, strict=True)]
    return F.pad(block, [end for pad in reversed(pads) for end in pad])


def unit_grid(space: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Coordinates 0 to 1, both ends included, (*space, dims)."""
    axes = [torch.linspace(0, 1, n, dtype=dtype, device=device) for n in space]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def _padded_matrices(basis: Basis, modes: Sequence[int], x: Tensor, padding: int) -> list[Tensor]:
    """Transforms of fields as if they had `padding` zeros at the end of each axis."""
    space = x.shape[-len(modes) :]
    full = transforms.matrices(basis, modes, [n + padding for n in space], x)
    return [matrix[:, :n] for matrix, n in zip(full, space, strict=True)]


@kept(maxsize=16)
def constant_block(
    space: tuple[int, ...],
    modes: tuple[int, ...],
    basis: Basis,
    padding: int,
    transform: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """The block of what the lift adds to every input, (*modes, dims + 1): the grid's coordinates and a one."""
    grid = unit_grid(space, torch.float64, torch.device("cpu"))
    fields = torch.cat((grid, torch.ones(*space, 1, dtype=torch.float64)), -1).movedim(-1, 0)
    if transform:
        block = transforms.apply_axes(fields, _padded_matrices(basis, modes, fields, padding))
    else:
        block = transforms.corner(embed(fields, [n + padding for n in space]), modes)
    return block.movedim(0, -1).contiguous().to(device, dtype)
