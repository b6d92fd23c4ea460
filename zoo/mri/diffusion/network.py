"""The U-Net of guided diffusion (Dhariwal and Nichol, arXiv 2105.05233), with its official parameter names.

MC-DDPM (Xie and Li, MICCAI 2022, arXiv 2203.03623) uses the same network on k-space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def timestep_embedding(timesteps: Tensor, channels: int) -> Tensor:
    """Cosines, then sines, of the timestep at frequencies from 1 down to 1e-4; (B,) -> (B, channels), even."""
    half = channels // 2
    index = torch.arange(half, device=timesteps.device, dtype=torch.float32)
    angle = timesteps[:, None].float() * torch.exp(-math.log(10_000) / half * index)
    return torch.cat((angle.cos(), angle.sin()), dim=1)


class GroupNorm(nn.GroupNorm):
    """Group norm that computes in float32 if the input's precision is half."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> the same."""
        wide = torch.promote_types(x.dtype, torch.float32)
        return F.group_norm(x.to(wide), self.num_groups, self.weight.to(wide), self.bias.to(wide), self.eps).to(x.dtype)


def zeroed(layer: nn.Conv1d | nn.Conv2d) -> Any:
    """A layer that begins as zero, so that its residual branch begins as the identity."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class Downsample(nn.Module):
    """Halves the size: a 3 x 3 convolution of stride 2, or the mean of 2 x 2 pixels.

    Args:
        channels: of the image.
        use_conv: the convolution.
    """

    def __init__(self, channels: int, use_conv: bool) -> None:
        super().__init__()
        self.op: nn.Module = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if use_conv else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H/2, W/2)."""
        return self.op(x)


class Upsample(nn.Module):
    """Doubles the size by repetition, with or without a 3 x 3 convolution after it.

    Args:
        channels: of the image.
        use_conv: the convolution.
    """

    def __init__(self, channels: int, use_conv: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if use_conv else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W)."""
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        return x if self.conv is None else self.conv(x)


class ResBlock(nn.Module):
    """Two convolutions with the timestep entering between them, and a shortcut.

    Args:
        channels, out_channels: before and after.
        embedding: channels of the timestep's embedding.
        groups: of the group norms.
        dropout: before the second convolution.
        scale_shift: the embedding scales and shifts the second norm's output; otherwise it is added before it.
        resample: a `Downsample` or `Upsample` class: change the size within the block.
        use_checkpoint: recompute the block in the backward pass instead of keeping its activations.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        embedding: int,
        groups: int,
        dropout: float,
        scale_shift: bool,
        resample: type[Downsample | Upsample] | None = None,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.scale_shift, self.use_checkpoint = scale_shift, use_checkpoint
        self.resample = resample(channels, use_conv=False) if resample is not None else None
        self.in_layers = nn.Sequential(
            GroupNorm(groups, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, out_channels * (1 + scale_shift)))
        self.out_layers = nn.Sequential(
            GroupNorm(groups, out_channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        self.skip_connection = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, channels, H, W) and (B, embedding) -> (B, out_channels, H', W')."""
        if self.use_checkpoint and torch.is_grad_enabled():
            return checkpoint(self._forward, x, embedding, use_reentrant=False)
        return self._forward(x, embedding)

    def _forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.in_layers[1](self.in_layers[0](x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.in_layers[2](h)
        time = self.emb_layers(embedding).to(h.dtype)[..., None, None]
        if self.scale_shift:
            scale, shift = time.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + time)
        return self.skip_connection(x) + h


class AttentionBlock(nn.Module):
    """Self-attention over the pixels of an image, with a shortcut.

    Args:
        channels: of the image.
        heads: of the attention.
        groups: of the group norm.
        new_order: the channels of ``qkv`` are ordered (q, k, v), then heads; otherwise heads, then (q, k, v).

    Raises:
        ValueError: the heads do not divide the channels.
    """

    def __init__(self, channels: int, heads: int, groups: int, new_order: bool) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"an attention of {channels} channels can't have {heads} heads of equal size")
        self.heads, self.new_order = heads, new_order
        self.norm = GroupNorm(groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        flat = x.flatten(2)
        mixed = self.qkv(self.norm(flat))
        if self.new_order:
            mixed = mixed.unflatten(1, (3, self.heads, -1)).movedim(1, 0)
        else:
            mixed = mixed.unflatten(1, (self.heads, 3, -1)).movedim(2, 0)
        q, k, v = mixed.transpose(-2, -1)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(-2, -1).reshape(flat.shape)
        return (flat + self.proj_out(attended)).view(x.shape)


class TimedSequential(nn.Sequential):
    """A sequence whose residual blocks are also given the timestep's embedding."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        """Applies the children in turn."""
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, ResBlock) else layer(x)
        return x


class DiffusionUNet(nn.Module):
    """The denoiser. Arguments and parameter names are guided diffusion's.

    Args:
        in_channels: of what the network sees, condition included.
        model_channels: of the first level.
        out_channels: of the prediction.
        num_res_blocks: per level; the decoder has one more.
        attention_resolutions: downsampling factors at which there is attention.
        channel_mult: channels of each level over `model_channels`.
        num_heads: of the attention.
        num_head_channels: channels per head, instead of `num_heads`; -1 says none, as None does.
        use_scale_shift_norm: see `ResBlock`.
        resblock_updown: change the size within residual blocks instead of by convolutions of their own.
        use_new_attention_order: see `AttentionBlock`.
        dropout: in the residual blocks.
        norm_groups: of the group norms; must divide all channels.
        use_checkpoint: see `ResBlock`.
    """

    def __init__(
        self,
        in_channels: int,
        model_channels: int = 128,
        out_channels: int = 2,
        num_res_blocks: int = 2,
        attention_resolutions: Sequence[int] = (16,),
        channel_mult: Sequence[int] = (1, 1, 2, 2, 4),
        num_heads: int = 4,
        num_head_channels: int | None = None,
        use_scale_shift_norm: bool = True,
        resblock_updown: bool = True,
        use_new_attention_order: bool = False,
        dropout: float = 0.0,
        norm_groups: int = 32,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.model_channels = model_channels
        self.multiple = 2 ** (len(channel_mult) - 1)
        embedding = 4 * model_channels
        self.time_embed = nn.Sequential(
            nn.Linear(model_channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )

        def block(channels: int, out: int, resample: type[Downsample | Upsample] | None = None) -> ResBlock:
            return ResBlock(
                channels, out, embedding, norm_groups, dropout, use_scale_shift_norm, resample, use_checkpoint
            )

        def attention(channels: int) -> AttentionBlock:
            if num_head_channels is None or num_head_channels == -1:
                heads = num_heads
            else:
                heads = channels // num_head_channels if num_head_channels > 0 else 0
            return AttentionBlock(channels, heads, norm_groups, use_new_attention_order)

        def resized(channels: int, resample: type[Downsample | Upsample]) -> nn.Module:
            return block(channels, channels, resample) if resblock_updown else resample(channels, use_conv=True)

        channels = channel_mult[0] * model_channels
        self.input_blocks = nn.ModuleList([TimedSequential(nn.Conv2d(in_channels, channels, 3, padding=1))])
        skips, factor = [channels], 1
        for level, mult in enumerate(channel_mult):
            for _ in range(num_res_blocks):
                layers: list[nn.Module] = [block(channels, mult * model_channels)]
                channels = mult * model_channels
                if factor in attention_resolutions:
                    layers.append(attention(channels))
                self.input_blocks.append(TimedSequential(*layers))
                skips.append(channels)
            if level < len(channel_mult) - 1:
                self.input_blocks.append(TimedSequential(resized(channels, Downsample)))
                skips.append(channels)
                factor *= 2
        self.middle_block = TimedSequential(block(channels, channels), attention(channels), block(channels, channels))
        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(channel_mult))):
            for index in range(num_res_blocks + 1):
                layers = [block(channels + skips.pop(), mult * model_channels)]
                channels = mult * model_channels
                if factor in attention_resolutions:
                    layers.append(attention(channels))
                if level and index == num_res_blocks:
                    layers.append(resized(channels, Upsample))
                    factor //= 2
                self.output_blocks.append(TimedSequential(*layers))
        self.out = nn.Sequential(
            GroupNorm(norm_groups, channels), nn.SiLU(), zeroed(nn.Conv2d(channels, out_channels, 3, padding=1))
        )

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """The prediction for noisy images.

        Args:
            x: (B, in_channels, H, W), noisy image and condition; of any size.
            timesteps: (B,).

        Returns:
            (B, out_channels, H, W).
        """
        height, width = x.shape[-2:]
        below, right = -height % self.multiple, -width % self.multiple
        if below or right:
            mode = "reflect" if below < height and right < width else "replicate"
            x = F.pad(x, (0, right, 0, below), mode=mode)
        x = x.contiguous(memory_format=torch.channels_last)  # the convolutions' fast layout, on any device
        embedding = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(x.dtype))
        skips: list[Tensor] = []
        for layer in self.input_blocks:
            x = layer(x, embedding)
            skips.append(x)
        x = self.middle_block(x, embedding)
        for layer in self.output_blocks:
            x = layer(torch.cat((x, skips.pop()), dim=1), embedding)
        return self.out(x)[..., :height, :width]
