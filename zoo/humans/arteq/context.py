"""What the paper's network leaves out: points that see the whole cloud, and parts that see the whole body.

Everything is done in each rotation's own frame, in which the cloud is turned by R_a^T, so that turning the cloud by a
rotation of the group still only permutes features. A part turned alone does change the others' features: the paper's
partwise equivariance is given up for that of the whole body.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zoo.humans.arteq.convolution import IntraConv
from zoo.humans.arteq.heads import interpolate, nearest_rotation
from zoo.ops.precision import full_precision


def in_frames(offsets: Tensor, rotations: Tensor) -> Tensor:
    """Vectors in the frame of each rotation: (B, P, 3) and (A, 3, 3) -> (B, P, A, 3), R_a^T v."""
    return torch.einsum("bpi,aij->bpaj", offsets, rotations)


class ContextBlock(nn.Module):
    """A residual block on each point, which also sees the maximum over all points.

    Args:
        dim: channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc_0 = nn.Linear(dim, dim)
        self.pooled = nn.Linear(dim, dim, bias=False)
        self.fc_1 = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, A, C) -> (B, P, A, C)."""
        normed = self.norm(x)
        inner = torch.relu(self.fc_0(normed) + self.pooled(normed.amax(1, keepdim=True)))
        out: Tensor = x + self.fc_1(inner)
        return out


class CloudContext(nn.Module):
    """Features that know where in the cloud they are.

    Args:
        dim_in: channels of the backbone.
        dim: channels while points see all others.
        dim_out: channels that come out.
        blocks: how often they do.
    """

    def __init__(self, dim_in: int, dim: int, dim_out: int, blocks: int) -> None:
        super().__init__()
        self.place = nn.Linear(3, dim)
        self.lift = nn.Linear(dim_in, dim, bias=False)
        self.blocks = nn.ModuleList(ContextBlock(dim) for _ in range(blocks))
        self.fine_place = nn.Linear(3, dim_out)
        self.fine_lift = nn.Linear(dim, dim_out, bias=False)

    def forward(
        self, features: Tensor, support: Tensor, points: Tensor, near: tuple[Tensor, Tensor], rotations: Tensor
    ) -> Tensor:
        """Features of all points of the cloud, (B, N, A, dim_out).

        Args:
            features: (B, S, A, C) of the backbone.
            support: (B, S, 3), where they are, relative to the cloud's centre.
            points: (B, N, 3) of the cloud, likewise.
            near: how support points make up points, see `zoo.humans.arteq.heads.three_nearest`.
            rotations: (A, 3, 3).
        """
        x = self.lift(features) + self.place(in_frames(support, rotations))
        for block in self.blocks:
            x = block(x)
        return torch.relu(interpolate(self.fine_lift(x), *near) + self.fine_place(in_frames(points, rotations)))


class BodyBlock(nn.Module):
    """Parts of a body see each other, then the rotations do, then each is worked on alone.

    Args:
        dim: channels.
        parts: of the body.
        neighbours: K, how many rotations each sees.
    """

    def __init__(self, dim: int, parts: int, neighbours: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.mix = nn.Sequential(nn.Linear(parts, 2 * parts), nn.ReLU(), nn.Linear(2 * parts, parts))
        self.turn = IntraConv(dim, dim, neighbours)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        """(B, J, A, C) -> (B, J, A, C), with the group's neighbours (A, K)."""
        x = x + self.mix(self.norms[0](x).transpose(1, 3)).transpose(1, 3)
        x = x + self.turn(torch.relu(self.norms[1](x)), neighbours)
        out: Tensor = x + self.mlp(self.norms[2](x))
        return out


def rotation_of_frames(matrices: Tensor, rotations: Tensor) -> Tensor:
    """The rotation nearest to sum_a R_a M_a, (..., A, 3, 3) and (A, 3, 3) -> (..., 3, 3)."""
    return nearest_rotation((rotations @ matrices).sum(-3))


class SecondLook(nn.Module):
    """Parts that have seen each other ask all points again which are theirs, and take in the features of those.

    Args:
        dim: channels of a part.
        dim_point: of a point.
        dim_in: of what is gathered for a part.
        width: of questions and answers.
    """

    def __init__(self, dim: int, dim_point: int, dim_in: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.question = nn.Linear(dim, width)
        self.answer = nn.Linear(dim_point, width)
        self.lift = nn.Linear(dim_in, dim)

    def agreement(self, parts: Tensor, points: Tensor) -> Tensor:
        """Parts (B, J, A, C) and points (B, N, A, P) -> (B, N, J): sums over all frames, so no frame is special."""
        questions, answers = self.question(self.norm(parts)).flatten(2), self.answer(points).flatten(2)
        total: Tensor = answers @ questions.mT / questions.shape[2] ** 0.5
        return total


class FramePoseHead(nn.Module):
    """Each rotation's frame names a matrix for each part; turned back, their sum's nearest rotation is the part's.

    The paper's head, one weight per rotation, is the case of matrices that are multiples of the identity.

    Args:
        dim_in: channels of a part.
        dim_point: of a point.
        dim: width.
        parts: of the body.
        blocks: how often the parts see each other; from the second time on, they look at the points again before.
        neighbours: K, how many rotations each sees.
    """

    def __init__(self, dim_in: int, dim_point: int, dim: int, parts: int, blocks: int, neighbours: int) -> None:
        super().__init__()
        self.lift = nn.Linear(dim_in, dim)
        self.identity = nn.Parameter(0.1 * torch.randn(parts, 1, dim))
        self.blocks = nn.ModuleList(BodyBlock(dim, parts, neighbours) for _ in range(blocks))
        self.looks = nn.ModuleList(SecondLook(dim, dim_point, dim_in, dim // 2) for _ in range(blocks - 1))
        self.norm = nn.LayerNorm(dim)
        self.matrices = nn.Parameter(torch.randn(parts, dim, 9) / dim**0.5)

    def forward(
        self,
        points: Tensor,
        logits: Tensor,
        gather: Callable[[Tensor], Tensor],
        rotations: Tensor,
        neighbours: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Rotations of the parts (B, J, 3, 3), and better logits (B, N, J).

        Args:
            points: (B, N, A, P) features of the points.
            logits: (B, N, J) of the parts at the points.
            gather: from logits to features (B, J, A, C) of the parts.
            rotations: (A, 3, 3).
            neighbours: (A, K), see `zoo.humans.arteq.group.RotationGroup`.
        """
        first, *others = self.blocks
        x = first(self.lift(gather(logits)) + self.identity, neighbours)
        for look, block in zip(self.looks, others, strict=True):
            assert isinstance(look, SecondLook)
            logits = logits + look.agreement(x, points)
            x = block(x + look.lift(gather(logits)), neighbours)
        x = self.norm(x)
        with full_precision(x):
            numbers = torch.einsum("bjac,jcn->bjan", x.to(self.matrices.dtype), self.matrices)
            return rotation_of_frames(numbers.unflatten(-1, (3, 3)), rotations.to(numbers.dtype)), logits
