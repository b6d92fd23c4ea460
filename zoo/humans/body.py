"""The SMPL body: shape and pose to vertices and joints by linear blend skinning.

Source: Loper et al., "SMPL", SIGGRAPH Asia 2015; the 45 joints are those of the smplx package, to which the
tests compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.humans.joints import SMPL_VERTICES
from zoo.humans.rotations import rotvec_to_rotmat
from zoo.humans.smpl_file import GENDERS, SMPLArrays, load_smpl
from zoo.ops.precision import in_full_precision


@dataclass(frozen=True)
class BodyOutput:
    """A posed body.

    Attributes:
        vertices: (B, V, 3) metres.
        joints: (B, J + 21, 3): the posed joints, then the picked vertices.
    """

    vertices: Tensor
    joints: Tensor


class Body(nn.Module):
    """SMPL. The model's arrays are buffers under smplx's names; nothing is trained.

    Args:
        arrays: of a model file.
        vertex_ids: vertices that count as joints, by smplx's names in its order; None for SMPL's.
    """

    v_template: Tensor
    shapedirs: Tensor
    posedirs: Tensor
    J_regressor: Tensor
    lbs_weights: Tensor
    faces: Tensor
    extra_joints_idxs: Tensor
    joint_template: Tensor
    joint_shapedirs: Tensor

    def __init__(self, arrays: SMPLArrays, vertex_ids: Mapping[str, int] | None = None) -> None:
        super().__init__()
        ids = SMPL_VERTICES if vertex_ids is None else vertex_ids
        missing = [name for name in SMPL_VERTICES if name not in ids]
        if missing:
            raise ConfigError(f"vertex_ids lacks {', '.join(missing[:5])}: all of SMPL's 21 vertices are needed.")
        picked = torch.tensor([ids[name] for name in SMPL_VERTICES])
        if int(picked.max()) >= len(arrays.v_template):
            raise ConfigError(
                f"A body of {len(arrays.v_template)} vertices does not have SMPL's vertex {int(picked.max())}: "
                "give its own vertex_ids."
            )
        self.parents = [int(parent) for parent in arrays.parents]
        constants = {
            "v_template": torch.from_numpy(arrays.v_template),
            "shapedirs": torch.from_numpy(arrays.shapedirs),
            "posedirs": torch.from_numpy(arrays.posedirs).flatten(0, 1).T.contiguous(),
            "J_regressor": torch.from_numpy(arrays.J_regressor),
            "lbs_weights": torch.from_numpy(arrays.weights),
            "faces": torch.from_numpy(arrays.f),
            "extra_joints_idxs": picked,
        }
        # The joints are linear in the shape: their regression need not touch the mesh again.
        constants["joint_template"] = constants["J_regressor"] @ constants["v_template"]
        constants["joint_shapedirs"] = torch.einsum("jv,vck->jck", constants["J_regressor"], constants["shapedirs"])
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)
        self.tree = KinematicTree(self.parents)

    @property
    def num_betas(self) -> int:
        """Number of shape coefficients."""
        return self.shapedirs.shape[-1]

    @in_full_precision
    def rest_joints(self, betas: Tensor) -> Tensor:
        """Joints of the shaped rest body, (B, S) -> (B, J, 3)."""
        return self.joint_template + torch.einsum("bk,jck->bjc", betas, self.joint_shapedirs)

    @in_full_precision
    def transforms(self, rotmats: Tensor, rest_joints: Tensor) -> Tensor:
        """World transforms of the joints, (B, J, 3, 3) and (B, J, 3) -> (B, J, 4, 4)."""
        world: Tensor = self.tree(rotmats, rest_joints)
        return world

    @in_full_precision
    def forward(
        self,
        global_orient: Tensor,
        body_pose: Tensor,
        betas: Tensor,
        transl: Tensor | None = None,
    ) -> BodyOutput:
        """Poses the body.

        Args:
            global_orient: (B, 3) rotation vectors, or (B, 1, 3, 3) matrices. It turns the body about its pelvis.
            body_pose: (B, 3 (J - 1)) rotation vectors, or (B, J - 1, 3, 3) matrices.
            betas: (B, S) shape coefficients, about N(0, 1).
            transl: (B, 3) metres, added at the end.
        """
        rotmats = pose_matrices(global_orient, body_pose)
        rest = self.rest_joints(betas)
        world = self.transforms(rotmats, rest)
        feature = (rotmats[:, 1:] - torch.eye(3, dtype=rotmats.dtype, device=rotmats.device)).flatten(1)
        shaped = self.v_template + torch.einsum("bk,vck->bvc", betas, self.shapedirs)
        posed = shaped + (feature @ self.posedirs).unflatten(1, (-1, 3))
        rotation = world[:, :, :3, :3]
        offset = world[:, :, :3, 3] - (rotation @ rest.unsqueeze(-1)).squeeze(-1)
        relative = torch.cat([rotation.flatten(2), offset], 2)  # (B, J, 12)
        skin = self.lbs_weights @ relative
        turned = (skin[..., :9].unflatten(-1, (3, 3)) @ posed.unsqueeze(-1)).squeeze(-1)
        vertices = turned + skin[..., 9:]
        joints = torch.cat([world[:, :, :3, 3], vertices[:, self.extra_joints_idxs]], 1)
        if transl is not None:
            vertices, joints = vertices + transl.unsqueeze(1), joints + transl.unsqueeze(1)
        return BodyOutput(vertices, joints)


def pose_matrices(global_orient: Tensor, body_pose: Tensor) -> Tensor:
    """Both parts of a pose, as rotation vectors or matrices, -> (B, J, 3, 3)."""
    if body_pose.ndim == 4:
        return torch.cat([global_orient.reshape(-1, 1, 3, 3), body_pose], 1)
    return rotvec_to_rotmat(torch.cat([global_orient, body_pose], 1).unflatten(1, (-1, 3)))


class KinematicTree(nn.Module):
    """World transforms down a tree of joints, one batched product per level of the tree.

    Args:
        parents: parent of each joint, -1 for the root; a parent comes before its children.
    """

    root_or_parent: Tensor
    bottom: Tensor
    order: Tensor
    back: Tensor

    def __init__(self, parents: Sequence[int]) -> None:
        super().__init__()
        depth: list[int] = []
        for parent in parents:
            depth.append(0 if parent < 0 else depth[parent] + 1)
        levels = [[j for j, d in enumerate(depth) if d == level] for level in range(max(depth) + 1)]
        joints = [j for level in levels for j in level]
        self.sizes = [len(level) for level in levels]
        self.sorted = joints == sorted(joints)  # as in SMPL: then levels are slices
        constants = {
            "root_or_parent": torch.tensor([max(parent, 0) for parent in parents]),
            "bottom": torch.tensor([[[[0.0, 0.0, 0.0, 1.0]]]]),
            "order": torch.tensor(joints),
            "back": torch.tensor([joints.index(j) for j in range(len(joints))]),
        }
        for number, (above, level) in enumerate(pairwise(levels), 1):
            constants[f"above{number}"] = torch.tensor([above.index(parents[j]) for j in level])
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, rotmats: Tensor, rest_joints: Tensor) -> Tensor:
        """World transforms.

        Args:
            rotmats: (B, J, 3, 3) rotations relative to the parent.
            rest_joints: (B, J, 3) rest positions, metres.

        Returns:
            (B, J, 4, 4).
        """
        offsets = rest_joints - rest_joints.index_select(1, self.root_or_parent)
        offsets = torch.cat([rest_joints[:, :1], offsets[:, 1:]], 1)
        local = torch.cat([rotmats, offsets.unsqueeze(-1)], -1)
        local = torch.cat([local, self.bottom.expand(*local.shape[:2], 1, 4)], -2)
        if not self.sorted:
            local = local.index_select(1, self.order)
        first, *levels = local.split(self.sizes, 1)
        worlds = [first]
        for number, level in enumerate(levels, 1):
            worlds.append(worlds[-1].index_select(1, getattr(self, f"above{number}")) @ level)
        world = torch.cat(worlds, 1)
        return world if self.sorted else world.index_select(1, self.back)


def load_body(path: str | Path | None = None, gender: str = "neutral", num_betas: int = 10) -> Body:
    """The body of a model file or folder; without one, the procedural stand-in.

    Args:
        path: see `zoo.humans.smpl_file.load_smpl`; None for the stand-in.
        gender: ``"neutral"``, ``"male"`` or ``"female"``.
        num_betas: shape coefficients.

    Raises:
        DataError: there is no such file, or it is no SMPL model.
        ConfigError: another gender.
    """
    if gender not in GENDERS:
        raise ConfigError(f"There is no gender '{gender}' of body models: use one of {', '.join(GENDERS)}.")
    if path is None:
        from zoo.humans.standin import standin_arrays

        return Body(standin_arrays(gender))
    return Body(load_smpl(path, gender, num_betas))


def create_smplx(folder: str | Path, model_type: str = "smpl", **arguments: Any) -> nn.Module:
    """A body model of the smplx package: SMPL, SMPL-H, SMPL-X, MANO, FLAME.

    The package and the files come under the Max Planck Society's licence for non-commercial research.

    Args:
        folder: of model files, as smplx wants it.
        model_type: ``"smpl"``, ``"smplh"``, ``"smplx"``, ...
        arguments: of ``smplx.create``.

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        import smplx
    except ModuleNotFoundError:
        raise ConfigError("SMPL-H and SMPL-X need the smplx package: pip install 'zoo[humans]'.") from None
    model: nn.Module = smplx.create(str(folder), model_type=model_type, **arguments)
    return model
