"""A neural operator as the denoiser: one set of weights for images of any resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.mri.diffusion.network import timestep_embedding
from zoo.ops.udno import UDNO, DISCOBlock


class DiffusionUDNO(UDNO):
    """A `UDNO` that is told the timestep: it scales and shifts what every instance norm of a block gives.

    Args:
        in_channels, out_channels: of what the network sees and of the prediction.
        model_channels: of the first level.
        num_pool_layers, radius_cutoff, kernel_shape, dropout: see `UDNO`.
    """

    def __init__(
        self,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        num_pool_layers: int,
        radius_cutoff: float,
        kernel_shape: Sequence[int],
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            in_channels, out_channels, model_channels, num_pool_layers, radius_cutoff, kernel_shape, dropout
        )
        self.model_channels = model_channels
        embedding = 4 * model_channels
        self.time_embed = nn.Sequential(
            nn.Linear(model_channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        widths = [model_channels * 2**level for level in range(num_pool_layers + 1)]
        self.modulation = nn.ModuleList(nn.Linear(embedding, 4 * width) for width in [*widths, *widths[-2::-1]])
        for layer in self.modulation:
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:  # type: ignore[override]
        """(B, in_channels, H, W) and (B,) -> (B, out_channels, H, W)."""
        embedding = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(x.dtype))
        changes = iter([layer(embedding)[..., None, None] for layer in self.modulation])
        skips = []
        for block in self.down_sample_layers:
            x = _modulated(block, x, next(changes))
            skips.append(x)
            x = F.avg_pool2d(x, 2)
        x = _modulated(self.bottleneck, x, next(changes))
        for up, block in zip(self.up_transpose, self.up, strict=True):
            x, skip = up(x), skips.pop()
            below, right = skip.shape[-2] - x.shape[-2], skip.shape[-1] - x.shape[-1]
            if below or right:
                x = F.pad(x, (0, right, 0, below), mode="reflect")
            x = torch.cat((x, skip), dim=1)
            if isinstance(block, nn.Sequential):
                x = block[1](_modulated(block[0], x, next(changes)))
            else:
                x = _modulated(block, x, next(changes))
        return x


def _modulated(block: nn.Module, x: Tensor, change: Tensor) -> Tensor:
    assert isinstance(block, DISCOBlock)
    scales_and_shifts = change.chunk(4, dim=1)
    for index in (0, 1):
        begin = 4 * index  # convolution, norm, activation, dropout
        scale, shift = scales_and_shifts[2 * index : 2 * index + 2]
        x = block.layers[begin : begin + 2](x) * (1 + scale) + shift
        x = block.layers[begin + 2 : begin + 4](x)
    return x
