"""ArtEq: body parts, their rotations and the body's shape from a point cloud.

Source: Feng et al., "Generalizing Neural Human Fitting to Unseen Poses With Articulated SE(3) Equivariance", ICCV
2023 (arXiv 2304.10528).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.humans.arteq.context import CloudContext, FramePoseHead, in_frames
from zoo.humans.arteq.convolution import ConvSetting, SeparableBlock
from zoo.humans.arteq.group import GroupName, KernelName, rotation_group
from zoo.humans.arteq.heads import PartSegmentation, PoseHead, ShapeHead, interpolate, spread, three_nearest
from zoo.humans.arteq.sizes import SizeHead

NUM_PARTS = 22
# SMPL's joints without the hands: a part each.
PARENTS = (0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)

_BASE_RADIUS = 0.4 * 0.2  # search_radius times the radius ratio, metres
_NEIGHBOURS = 32


class ArtEqOutput(NamedTuple):
    """What the network finds.

    Attributes:
        segmentation: (B, N, 22) probability of each part at each point.
        pose: (B, 22, 3, 3) global rotations of the parts.
        betas: (B, 10) shape.
        logits: (B, N, 22) logarithms of the probabilities but for a constant.
    """

    segmentation: Tensor
    pose: Tensor
    betas: Tensor
    logits: Tensor


def conv_settings(
    mlps: Sequence[Sequence[int]],
    strides: Sequence[int],
    radii: Sequence[float] | None = None,
    neighbors: Sequence[int] | None = None,
) -> list[ConvSetting]:
    """The spatial convolutions of a backbone.

    Args:
        mlps: widths of the convolutions of each stage.
        strides: of each stage's first convolution.
        radii: of each convolution, metres; None for the paper's, 0.08 and sqrt(2) as much from stage to stage.
        neighbors: of each convolution; None for the paper's, 32, and 64 in each stage's first.
    """
    settings: list[ConvSetting] = []
    dim_in = 1
    for stage, (widths, stride) in enumerate(zip(mlps, strides, strict=True)):
        for place, width in enumerate(widths):
            number = len(settings)
            step = 0 if number == 0 else stage + 1
            radius = _BASE_RADIUS * 2 ** (step / 2) if radii is None else radii[number]
            slots = (_NEIGHBOURS if place else 2 * _NEIGHBOURS) if neighbors is None else neighbors[number]
            here = stride if place == 0 else 1
            settings.append(ConvSetting(dim_in, width, here, radius, 0.5 * radius**2, slots, number > 0))
            dim_in = width
    return settings


class Encoder(nn.Module):
    """The equivariant backbone.

    Args:
        settings: of its convolutions.
        group, kernel: see `zoo.humans.arteq.convolution.InterConv`.
    """

    rotations: Tensor
    neighbours: Tensor

    def __init__(self, settings: Sequence[ConvSetting], group: GroupName, kernel: KernelName) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SeparableBlock(setting, group, kernel) for setting in settings)
        tables, device = rotation_group(group), next(self.parameters()).device
        self.register_buffer("rotations", tables.rotations.float().to(device))
        self.register_buffer("neighbours", tables.neighbours.clone().to(device))

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points (B, N, 3) -> fewer points (B, P, 3) with features (B, P, A, C)."""
        features = points.new_ones(*points.shape[:2], len(self.rotations), 1)
        for block in self.blocks:
            points, features = block(points, features, self.rotations, self.neighbours)
        return points, features


class ArtEqNetwork(nn.Module):
    """Part segmentation, part rotations and shape of a body.

    The defaults are the paper's network of 933149 parameters. Turning the cloud by a rotation R of the group leaves
    segmentation and betas as they are and makes the pose R times what it was.

    Args:
        group: ``"icosahedral"`` (60 rotations), ``"tetrahedral"`` (12), or ``"trivial"`` (1: the same network without
            equivariance, to compare to).
        kernel: ``"epn"``, the official convolutions; ``"orbit"``, whose kernel points the group permutes, with the
            nearest neighbours in any order of the points: faster, for new training.
        mlps, strides, radii, neighbors: see `conv_settings`.
        attention_heads: of both heads of the paper.
        part_hidden: width of the segmentation.
        pose_value_dim: width of the pose head behind its attention.
        shape_value_dim: numbers that each part contributes to the shape, without context.
        kinematic_cond: each part sees its parent's features, too.
        context: how often points see the whole cloud, and parts the whole body, see `zoo.humans.arteq.context`; 0, as
            in the paper, for features of a part that depend on nothing far from it.
        context_dim: width of that.

    Raises:
        ValueError: widths, strides, radii and neighbours do not belong together, or one of the numbers is impossible.
    """

    def __init__(
        self,
        group: GroupName = "icosahedral",
        kernel: KernelName = "epn",
        mlps: Sequence[Sequence[int]] = ((32, 32), (64, 64)),
        strides: Sequence[int] = (2, 2),
        radii: Sequence[float] | None = None,
        neighbors: Sequence[int] | None = None,
        attention_heads: int = 8,
        part_hidden: int = 128,
        pose_value_dim: int = 128,
        shape_value_dim: int = 6,
        kinematic_cond: bool = True,
        context: int = 0,
        context_dim: int = 64,
    ) -> None:
        super().__init__()
        count = sum(map(len, mlps))
        if len(strides) != len(mlps) or any(v is not None and len(v) != count for v in (radii, neighbors)):
            raise ValueError(
                f"{len(mlps)} stages of {count} convolutions need as many strides, and as many radii and neighbors "
                "as convolutions"
            )
        sizes = [*chain(*mlps), *strides, *(radii or ()), *(neighbors or ())]
        sizes += [attention_heads, part_hidden, pose_value_dim, shape_value_dim, context_dim // 2]
        if not mlps or not all(mlps) or not all(size > 0 for size in sizes) or context < 0:
            raise ValueError(
                "an ArtEq needs a stage, convolutions in each, context of 0 or more, context_dim of 2 or more, and all "
                "other widths, strides, radii, neighbors and heads positive"
            )
        width, times = mlps[-1][-1], 2 if kinematic_cond else 1
        if not context and times * width % attention_heads:
            raise ValueError(f"{attention_heads} attention heads don't divide the {times * width} channels of a part")
        self.encoder = Encoder(conv_settings(mlps, strides, radii, neighbors), group, kernel)
        self.kinematic_cond = kinematic_cond
        self.context: CloudContext | None = None
        self.pose_head: PoseHead | FramePoseHead
        self.shape_head: ShapeHead | SizeHead
        if context:
            self.context = CloudContext(width, context_dim, context_dim // 2, context)
            self.part_segmentation = PartSegmentation(2 * (context_dim // 2), part_hidden, NUM_PARTS)
            of_point = context_dim // 2 + 3  # with its place
            rotations_seen = self.encoder.neighbours.shape[1]
            self.pose_head = FramePoseHead(
                times * of_point, of_point, pose_value_dim, NUM_PARTS, context, rotations_seen
            )
            self.shape_head = SizeHead(PARENTS, 3 * pose_value_dim, 10)
        else:
            self.part_segmentation = PartSegmentation(width, part_hidden, NUM_PARTS)
            of_part = times * width
            self.pose_head = PoseHead(of_part, attention_heads, pose_value_dim)
            self.shape_head = ShapeHead(of_part, attention_heads, shape_value_dim, NUM_PARTS, 10)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, points: Tensor, segmentation: Tensor | None = None) -> ArtEqOutput:
        """Finds the parts and their pose.

        Args:
            points: (B, N, 3) metres.
            segmentation: (B, N, 22) to gather the parts' features with, instead of the one found.
        """
        support, features = self.encoder(points)
        near, rotations = three_nearest(points, support), self.encoder.rotations
        if self.context is None:
            invariant = interpolate(features.mean(2), *near)
        else:
            centre = points.mean(1, keepdim=True)
            places = points - centre
            features = self.context(features, support - centre, places, near, rotations)
            invariant = torch.cat([features.mean(2), features.amax(2)], -1)
            features = torch.cat([features, in_frames(places, rotations).to(features.dtype)], -1)
        logits = self.part_segmentation(invariant)

        def gather(logits: Tensor) -> Tensor:
            """Features of the parts (B, J, A, C)."""
            belongs = logits.softmax(-1) if segmentation is None else segmentation
            shares = F.normalize(belongs, p=1.0, dim=1)  # of the points in a part
            if self.context is None:
                # The mean over points of interpolated features is one over the support points: features of all points
                # and rotations are never made.
                shares = spread(shares, *near, features.shape[1])
            parts = (shares.mT @ features.flatten(2)).unflatten(2, features.shape[2:])
            return torch.cat([parts[:, list(PARENTS)], parts], -1) if self.kinematic_cond else parts

        if isinstance(self.pose_head, FramePoseHead):
            pose, logits = self.pose_head(features, logits, gather, rotations, self.encoder.neighbours)
            betas = self.shape_head(points, logits.softmax(-1) if segmentation is None else segmentation)
        else:
            parts = gather(logits)
            pose = self.pose_head(parts, rotations)
            betas = self.shape_head(parts.mean(2))
        return ArtEqOutput(logits.softmax(-1), pose, betas, logits)
