"""The pose prior: a mixture of Gaussians over the 69 numbers of a body pose, and its fit by EM.

Source: Bogo et al., "Keep it SMPL", ECCV 2016 (the max-mixture prior).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from zoo.errors import DataError
from zoo.files import parsing
from zoo.humans.smpl_file import read_pickle

# Full-pose numbers that must not bend backwards, with the sign of the forbidden direction: elbows' y, knees' x.
ANGLE_INDICES = (52, 55, 9, 12)  # in the body pose: 55, 58, 12, 15 of the full one
ANGLE_SIGNS = (1.0, -1.0, -1.0, -1.0)


class MaxMixturePrior(nn.Module):
    """-log of the likeliest component of a Gaussian mixture, up to a constant.

    Args:
        components: number of Gaussians.
        dim: of the body pose.
    """

    em_steps: Tensor

    def __init__(self, components: int = 8, dim: int = 69) -> None:
        super().__init__()
        # Parameters, since they are what is learned; but by EM, not by gradients.
        self.means = nn.Parameter(torch.zeros(components, dim), requires_grad=False)
        self.covars = nn.Parameter(torch.eye(dim).repeat(components, 1, 1) * 0.1, requires_grad=False)
        self.weights = nn.Parameter(torch.full((components,), 1.0 / components), requires_grad=False)
        self.register_buffer("em_steps", torch.tensor(0))
        self._key: tuple[int, ...] = ()
        self._derived: tuple[Tensor, Tensor, Tensor] | None = None

    def _constants(self) -> tuple[Tensor, Tensor, Tensor]:
        """Whitening matrices side by side (D, K D), whitened means (K D), and minus the log weights (K,)."""
        tensors = (self.means, self.covars, self.weights)
        key = tuple(v for t in tensors for v in (t._version, t.data_ptr()))
        if self._derived is None or key != self._key:
            factor, log_root = _cholesky(self.covars)
            eye = torch.eye(self.means.shape[1], dtype=factor.dtype, device=factor.device)
            whiten = torch.linalg.solve_triangular(factor, eye, upper=False)  # P = whiten^T whiten
            offsets = (whiten @ self.means.double().unsqueeze(-1)).flatten()
            # Determinants relative to the smallest, so that nothing underflows; constants as in the literature.
            relative = log_root - log_root.min() + 0.5 * self.means.shape[1] * math.log(2 * math.pi)
            log_weights = self.weights.double().log() - relative
            side_by_side = whiten.permute(2, 0, 1).flatten(1)
            self._derived = tuple(t.to(self.means.dtype) for t in (side_by_side, offsets, -log_weights))  # type: ignore[assignment]
            self._key = key
        assert self._derived is not None
        return self._derived

    def component_energies(self, body_pose: Tensor) -> Tensor:
        """Half the squared Mahalanobis distance minus the log weight, (B, 69) -> (B, K)."""
        whiten, offsets, constants = self._constants()
        white = (body_pose @ whiten - offsets).unflatten(1, self.means.shape)
        return 0.5 * white.square().sum(-1) + constants

    def forward(self, body_pose: Tensor) -> Tensor:
        """Energy of the best component, (B, 69) -> (B,)."""
        return self.component_energies(body_pose).amin(1)

    def quadratic(self, body_pose: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Energy (B,), its gradient (B, 69) and Hessian (B, 69, 69) within the best component."""
        whiten, _, _ = self._constants()
        energy, best = self.component_energies(body_pose).min(1)
        factors = whiten.unflatten(1, self.means.shape).permute(1, 2, 0)  # (K, D, D)
        hessian = (factors.transpose(1, 2) @ factors)[best]
        gradient = (hessian @ (body_pose - self.means[best]).unsqueeze(-1)).squeeze(-1)
        return energy, gradient, hessian

    def mean_pose(self) -> Tensor:
        """The mixture's mean, (69,)."""
        return self.weights @ self.means

    @torch.no_grad()
    def em_step(self, body_pose: Tensor, ridge: float = 0.004) -> Tensor:
        """One step of expectation maximisation on body poses (N, 69); the first one chooses the means.

        Returns:
            Mean negative log-likelihood before the step.
        """
        poses = body_pose.double()
        if int(self.em_steps) == 0:
            chosen = poses[:1]
            while len(chosen) < len(self.means):  # far from one another, yet no outliers: the 95th percentile
                distance = torch.cdist(poses, chosen).amin(1)
                chosen = torch.cat([chosen, poses[distance.argsort()[int(0.95 * len(poses))]][None]])
            nearest = torch.cdist(poses, chosen).argmin(1)
            self._maximise(poses, nn.functional.one_hot(nearest, len(chosen)).T.double(), ridge)
        factor, log_root = _cholesky(self.covars)
        centred = (poses - self.means.double().unsqueeze(1)).transpose(1, 2)  # (K, D, N)
        white = torch.linalg.solve_triangular(factor, centred, upper=False)
        constant = log_root + 0.5 * poses.shape[1] * math.log(2 * math.pi)
        log_joint = self.weights.double().log()[:, None] - constant[:, None] - 0.5 * white.square().sum(1)
        log_evidence = log_joint.logsumexp(0)
        self._maximise(poses, (log_joint - log_evidence).exp(), ridge)
        self.em_steps += 1
        return -log_evidence.mean().float()

    def _maximise(self, poses: Tensor, share: Tensor, ridge: float) -> None:
        """Means, covariances and weights of poses (N, D) shared out to the components by `share` (K, N)."""
        total = share.sum(1).clamp_min(1e-6)
        means = (share @ poses) / total[:, None]
        centred = poses - means.unsqueeze(1)
        eye = torch.eye(poses.shape[1], dtype=poses.dtype, device=poses.device)
        covars = (share.unsqueeze(-1) * centred).transpose(1, 2) @ centred / total[:, None, None] + ridge * eye
        self.means.copy_(means)
        self.covars.copy_(covars)
        self.weights.copy_(total / total.sum())


def _cholesky(covars: Tensor) -> tuple[Tensor, Tensor]:
    """Lower factors in float64 and the logarithms of the determinants' square roots."""
    factor = torch.linalg.cholesky(covars.double())
    return factor, factor.diagonal(dim1=1, dim2=2).log().sum(1)


def load_prior(path: str | Path) -> MaxMixturePrior:
    """SMPLify's ``gmm_08.pkl``, or an npz file with means, covars and weights.

    Raises:
        DataError: it is absent or of another layout.
    """
    path = Path(path)
    with parsing(path, "a pose prior with means, covars and weights"):
        content = dict(np.load(path, allow_pickle=False)) if path.suffix == ".npz" else read_pickle(path)
        arrays = {key: torch.as_tensor(np.asarray(content[key]), dtype=torch.float32) for key in _PRIOR_KEYS}
    means, covars, weights = (arrays[key] for key in _PRIOR_KEYS)
    if covars.shape != (*means.shape, means.shape[1]) or weights.shape != means.shape[:1]:
        raise DataError(f"{path}: the shapes {means.shape}, {covars.shape}, {weights.shape} are no mixture's.")
    prior = MaxMixturePrior(*means.shape)
    prior.load_state_dict({**arrays, "em_steps": torch.tensor(1)})
    with parsing(path, "a mixture: its covariances have no inverse"):
        finite = prior(means).isfinite().all()
    if not finite:
        raise DataError(f"{path} holds NaN or infinity.")
    return prior


_PRIOR_KEYS = ("means", "covars", "weights")


def angle_terms(body_pose: Tensor) -> Tensor:
    """exp(s theta)^2 of elbows and knees, large where they bend backwards, (B, 69) -> (B, 4)."""
    signs = torch.tensor(ANGLE_SIGNS, dtype=body_pose.dtype, device=body_pose.device)
    return torch.exp(body_pose[:, list(ANGLE_INDICES)] * signs).square()
