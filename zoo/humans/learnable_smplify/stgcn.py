"""The published network: a spatio-temporal graph convolution over [start, target], a mixer, and a head per joint.

Source: Yang et al., "Learnable SMPLify", arXiv 2508.13562; names and order of the parameters are the official ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.humans.learnable_smplify.graph import POINTS, Labeling, Skeleton, adjacency
from zoo.humans.rotations import rot6d_to_rotmat

# (channels in, channels out, temporal stride) of each unit.
BACKBONE = (
    *((64, 64, 1), (64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 128, 1), (128, 256, 2)),
    *((256, 256, 1), (256, 256, 1)),
)
BODY_NUMBERS = 69 + 10  # of the start pose as rotation vectors, and of the shape
_FRAMES = 2


class GraphConvolution(nn.Module):
    """A 1 x 1 convolution per part of the graph, each part with a learned mask, summed.

    Args:
        in_channels, out_channels: widths.
        table: (K, V, V) adjacency.
    """

    table: Tensor

    def __init__(self, in_channels: int, out_channels: int, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)
        self.mask = nn.Parameter(torch.ones_like(table))
        self.conv_list = nn.ModuleList(nn.Conv2d(in_channels, out_channels, 1) for _ in table)
        self.bn = nn.BatchNorm2d(out_channels)
        for conv in self.conv_list:
            assert isinstance(conv, nn.Conv2d)
            nn.init.normal_(conv.weight, 0, math.sqrt(2 / out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, V) -> (B, C', T, V)."""
        graph = self.table * self.mask
        total = self.conv_list[0](x @ graph[0])
        for conv, part in zip(list(self.conv_list)[1:], graph[1:], strict=True):
            total = total + conv(x @ part)
        return torch.relu(self.bn(total))


class TemporalConvolution(nn.Module):
    """Convolution over time, norm, ReLU.

    Args:
        in_channels, out_channels: widths.
        kernel_size, stride, padding: along time.
        dropout: before the convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        padding = (kernel_size - 1) // 2 if padding is None else padding
        self.dropout = nn.Dropout(dropout)
        self.conv = nn.Conv2d(in_channels, out_channels, (kernel_size, 1), (stride, 1), (padding, 0))
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.normal_(self.conv.weight, 0, math.sqrt(2 / out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, V) -> (B, C', T', V)."""
        out: Tensor = torch.relu(self.bn(self.conv(self.dropout(x))))
        return out


def useful_taps(frames: int, kernel_size: int, stride: int) -> tuple[int, int, int]:
    """Which taps of a "same" convolution over so few frames ever meet data: first, one past the last, frames out."""
    padding = (kernel_size - 1) // 2
    out = (frames + 2 * padding - kernel_size) // stride + 1
    first = max(0, padding - (out - 1) * stride)
    return first, min(kernel_size, padding + frames), out


class Unit(nn.Module):
    """Graph convolution, temporal convolution, and the input added; nothing after the sum.

    Args:
        in_channels, out_channels, stride: of the unit.
        table: adjacency.
        kernel_size, padding: of the temporal convolution.
        dropout: before it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        table: Tensor,
        kernel_size: int,
        padding: int | None,
        dropout: float,
    ) -> None:
        super().__init__()
        self.gcn1 = GraphConvolution(in_channels, out_channels, table)
        self.tcn1 = TemporalConvolution(out_channels, out_channels, kernel_size, stride, padding, dropout)
        same = in_channels == out_channels and stride == 1
        self.down1 = None if same else TemporalConvolution(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, V) -> (B, C', T', V)."""
        out: Tensor = self.tcn1(self.gcn1(x)) + (x if self.down1 is None else self.down1(x))
        return out


class Backbone(nn.Module):
    """Spatio-temporal graph convolutions.

    Args:
        backbone_config: (channels in, channels out, temporal stride) of each unit.
        table: (K, V, V) adjacency.
        kp_dim: coordinates of a joint.
        temporal_kernel_size: frames that a temporal convolution sees.
        dropout: in the units.
        pruned: leave out the taps that never meet data.
    """

    def __init__(
        self,
        backbone_config: tuple[tuple[int, int, int], ...],
        table: Tensor,
        kp_dim: int = 3,
        window_size: int = _FRAMES,
        temporal_kernel_size: int = 9,
        dropout: float = 0.5,
        pruned: bool = False,
    ) -> None:
        super().__init__()
        first = backbone_config[0][0]
        self.data_bn = nn.BatchNorm1d(table.shape[-1] * kp_dim)
        self.gcn0 = GraphConvolution(kp_dim, first, table)
        self.taps: list[tuple[int, int]] = []
        frames = window_size

        def taps(stride: int) -> tuple[int, int | None]:
            nonlocal frames
            begin, end, out = useful_taps(frames, temporal_kernel_size, stride)
            self.taps.append((begin, end))
            frames = out
            return (end - begin, (temporal_kernel_size - 1) // 2 - begin) if pruned else (temporal_kernel_size, None)

        kernel, padding = taps(1)
        self.tcn0 = TemporalConvolution(first, first, kernel, 1, padding)
        units = []
        for width_in, width_out, stride in backbone_config:
            kernel, padding = taps(stride)
            units.append(Unit(width_in, width_out, stride, table, kernel, padding, dropout))
        self.backbone = nn.ModuleList(units)

    def forward(self, x: Tensor) -> Tensor:
        """Joints over time (B, 3, T, V) -> features (B, C, T'), the mean over the joints."""
        count, channels, frames, points = x.shape
        flat = x.permute(0, 3, 1, 2).reshape(count, points * channels, frames)
        x = self.data_bn(flat).view(count, points, channels, frames).permute(0, 2, 3, 1)
        x = self.tcn0(self.gcn0(x))
        for unit in self.backbone:
            x = unit(x)
        return x.mean(-1)


class MultiLinear(nn.Module):
    """A linear layer per joint.

    Args:
        heads: joints.
        in_features, out_features: of each layer.
    """

    def __init__(self, heads: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(heads, out_features))
        # As published: the fan is taken of the whole tensor, which makes the weights smaller than usual.
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        bound = 1 / math.sqrt(in_features * out_features)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(B, heads, F) -> (B, heads, F')."""
        return torch.einsum("hoi,bhi->bho", self.weight, x) + self.bias


class Regressor(nn.Module):
    """Two layers per joint to the six numbers of a rotation.

    Args:
        heads: joints.
        input_dim, hidden_dim: widths.
    """

    def __init__(self, heads: int, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        first = nn.Sequential(MultiLinear(heads, input_dim, hidden_dim), nn.ReLU())
        self.layers = nn.ModuleList([first, MultiLinear(heads, hidden_dim, 6)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, heads, F) -> (B, heads, 6)."""
        for layer in self.layers:
            x = layer(x)
        return x


class OfficialNetwork(nn.Module):
    """The network of the paper, 6,098,200 parameters.

    Args:
        backbone_config: (channels in, channels out, temporal stride) of each unit.
        input_dim: width of the mixer and of the heads' input.
        hidden_dim: width of the heads.
        pred_pose_num: joints whose rotation is found, the root first.
        temporal_kernel_size: of the temporal convolutions.
        labeling_mode: partition of the graph; one with several parts.
        skeleton: ``"ntu"`` as published (BODY_25's joints linked as NTU's are), or ``"body-25"``.
        dropout: in the backbone's units.
        identity_init: zero the last layer, so that an untrained network leaves the pose as it is.
        pruned: without the temporal taps that never meet data, see `prune`: 4,050,200 parameters, for inference.
        vertices: of the body that ``openpose_regressor`` (25, V) reads the joints from.
    """

    openpose_regressor: Tensor

    def __init__(
        self,
        backbone_config: tuple[tuple[int, int, int], ...] = BACKBONE,
        input_dim: int = 256,
        hidden_dim: int = 256,
        pred_pose_num: int = 22,
        temporal_kernel_size: int = 9,
        labeling_mode: Labeling = "spatial",
        skeleton: Skeleton = "ntu",
        dropout: float = 0.5,
        identity_init: bool = False,
        pruned: bool = False,
        vertices: int = 6890,
    ) -> None:
        super().__init__()
        for before, after in pairwise(backbone_config):
            if before[1] != after[0]:
                raise ConfigError(f"In backbone_config a unit of {after[0]} channels follows one of {before[1]}.")
        table = adjacency(labeling_mode, skeleton)
        table = table if table.ndim == 3 else table.unsqueeze(0)
        self.pred_pose_num = pred_pose_num
        self.register_buffer("openpose_regressor", torch.zeros(POINTS, vertices))
        self.backbone = Backbone(
            backbone_config, table, temporal_kernel_size=temporal_kernel_size, dropout=dropout, pruned=pruned
        )
        feat_dim = backbone_config[-1][1] + BODY_NUMBERS
        self.linear = nn.Sequential(
            nn.Linear(feat_dim, input_dim), nn.ReLU(), nn.Linear(input_dim, pred_pose_num * input_dim)
        )
        self.regressor = Regressor(pred_pose_num, input_dim, hidden_dim)
        if identity_init:
            last = self.regressor.layers[1]
            assert isinstance(last, MultiLinear)
            nn.init.zeros_(last.weight)
            with torch.no_grad():
                last.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]))

    def fit_to(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over the number of vertices of a checkpoint's body."""
        if "openpose_regressor" in tensors:
            like = tensors["openpose_regressor"]
            self.openpose_regressor = torch.zeros_like(like, device=self.openpose_regressor.device)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        name = f"{prefix}openpose_regressor"
        self.fit_to({"openpose_regressor": state_dict[name]} if name in state_dict else {})
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, joints: Tensor, body_pose: Tensor, betas: Tensor) -> Tensor:
        """Rotations from the start pose to the target, to be applied on the right.

        Args:
            joints: (B, 3, 2, 25): start and target in the start's human-centric frame.
            body_pose: (B, 69) rotation vectors of the start.
            betas: (B, 10).

        Returns:
            (B, 22, 3, 3).
        """
        features = self.backbone(joints).flatten(1)
        mixed = self.linear(torch.cat([features, body_pose, betas], 1)).unflatten(1, (self.pred_pose_num, -1))
        return rot6d_to_rotmat(self.regressor(mixed))


def prune(network: OfficialNetwork) -> dict[str, Tensor]:
    """The state dict of the same network with ``pruned=True``: its outputs are the same, at two thirds of the size.

    With two frames, reduced to one, most taps of the temporal convolutions only ever meet padding.
    """
    backbone = network.backbone
    names = ["backbone.tcn0", *(f"backbone.backbone.{k}.tcn1" for k in range(len(backbone.backbone)))]
    state = dict(network.state_dict())
    for name, (begin, end) in zip(names, backbone.taps, strict=True):
        state[f"{name}.conv.weight"] = state[f"{name}.conv.weight"][:, :, begin:end].clone()
    return state
