"""Rotations as the human-mesh literature writes them; the arithmetic is roma's.

Rotation vectors (axis-angle) are in radians. Poses are joints x 3 of them, or matrices (..., 3, 3).
"""

from __future__ import annotations

import roma
import torch
from torch import Tensor


def rotvec_to_rotmat(rotvec: Tensor) -> Tensor:
    """Rodrigues' formula, (..., 3) -> (..., 3, 3), with finite derivatives at zero."""
    return roma.rotvec_to_rotmat(rotvec)


def rotmat_to_rotvec(rotmat: Tensor) -> Tensor:
    """Rotation vectors of angle at most pi, (..., 3, 3) -> (..., 3).

    It goes through the quaternion's largest component, so it is exact near the identity and near pi.
    """
    return roma.rotmat_to_rotvec(rotmat)


def quaternion_to_rotmat(quaternion: Tensor) -> Tensor:
    """Quaternions (..., 4), scalar first and of any length, -> (..., 3, 3)."""
    unit = torch.nn.functional.normalize(quaternion, dim=-1)
    return roma.unitquat_to_rotmat(roma.quat_wxyz_to_xyzw(unit))


def rot6d_to_rotmat(numbers: Tensor) -> Tensor:
    """The continuous 6-D representation in SPIN's layout, (..., 6) -> (..., 3, 3).

    The six numbers are the row-major 3 x 2 matrix [a1 a2]: the columns are numbers 0, 2, 4 and 1, 3, 5 (other
    projects store a1 before a2). Gram-Schmidt gives the first two columns, their cross product the third.
    Source: Zhou et al., CVPR 2019.
    """
    return roma.special_gramschmidt(numbers.unflatten(-1, (3, 2)), epsilon=1e-12)


def rotmat_to_rot6d(rotmat: Tensor) -> Tensor:
    """The first two columns in the layout of `rot6d_to_rotmat`, (..., 3, 3) -> (..., 6)."""
    return rotmat[..., :2].flatten(-2)


def geodesic_distance(a: Tensor, b: Tensor) -> Tensor:
    """Angle between rotations in radians, (..., 3, 3) twice -> (...); differentiable at zero."""
    return roma.rotmat_geodesic_distance(a, b)


def right_jacobian(rotvec: Tensor) -> Tensor:
    """J with exp(v + dv) = exp(v) exp(J dv) to first order, (..., 3) -> (..., 3, 3)."""
    angle_sq = rotvec.square().sum(-1)[..., None, None]
    small = angle_sq < 1e-4
    safe = torch.where(small, torch.ones_like(angle_sq), angle_sq)
    angle = safe.sqrt()
    first = torch.where(small, 0.5 - angle_sq / 24, (1 - angle.cos()) / safe)
    second = torch.where(small, 1 / 6 - angle_sq / 120, (angle - angle.sin()) / (safe * angle))
    cross = skew(rotvec)
    return torch.eye(3, dtype=rotvec.dtype, device=rotvec.device) - first * cross + second * (cross @ cross)


def skew(vector: Tensor) -> Tensor:
    """Cross-product matrices, (..., 3) -> (..., 3, 3)."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))


def rotate_in_image(rotvec: Tensor, degrees: Tensor) -> Tensor:
    """Global orientations after the image was rotated by `degrees`, (B, 3) and (B,) -> (B, 3).

    The rotation vector of R_z(-degrees) R(rotvec), as SPIN's augmentation turns a body with its picture.
    """
    about_z = torch.zeros_like(rotvec)
    about_z[..., 2] = -torch.deg2rad(degrees.to(rotvec))
    return rotmat_to_rotvec(rotvec_to_rotmat(about_z) @ rotvec_to_rotmat(rotvec))
