"""SMPLify on joints in space: the rivals of the network, and what refines its answers.

The objective is the squared distance of the joints, a pull towards the pose it starts from, and if wanted the pose
prior of SMPLify; shape and translation are given. Source: the fitting stage of Bogo et al., ECCV 2016, with 3-D joints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zoo.humans.body import pose_matrices
from zoo.humans.joint_body import JointBody
from zoo.humans.smplify.prior import MaxMixturePrior

Optimizer = Literal["adam", "lbfgs"]
_MOVING = 66  # numbers of the pose without its hands


@dataclass(frozen=True)
class Descent:
    """How to descend.

    Attributes:
        optimizer: ``"adam"``, or ``"lbfgs"`` with a strong Wolfe line search over the whole batch.
        steps: of Adam, or iterations of L-BFGS.
        lr: of Adam, radians.
        unit: metres that cost 1 when squared.
        stay: weight of the squared radians from the start.
        prior: pose prior, and `prior_weight` its weight.
    """

    optimizer: Optimizer = "lbfgs"
    steps: int = 20
    lr: float = 0.02
    unit: float = 0.01
    stay: float = 0.1
    prior: MaxMixturePrior | None = None
    prior_weight: float = 0.01

    def __call__(
        self,
        joints: JointBody,
        pose: Tensor,
        betas: Tensor,
        transl: Tensor,
        target: Tensor,
        confidence: Tensor | None = None,
    ) -> Tensor:
        """The pose found.

        Args:
            joints: those that the targets are of.
            pose: (B, 72) rotation vectors to start from; its hands stay.
            betas: (B, S), transl: (B, 3) metres.
            target: (B, K, 3) metres.
            confidence: (B, K) weights; 1 by default.

        Returns:
            (B, 72).
        """
        with torch.inference_mode(False):  # a test loop may have it on; tensors made there know no gradients
            given = (
                pose,
                betas,
                transl,
                target,
                target.new_ones(target.shape[:2]) if confidence is None else confidence,
            )
            return self._found(joints, *(tensor.detach().clone() for tensor in given))

    def _found(
        self, joints: JointBody, pose: Tensor, betas: Tensor, transl: Tensor, target: Tensor, confidence: Tensor
    ) -> Tensor:
        anchor, hands = pose[:, :_MOVING], pose[:, _MOVING:]
        goal = target - transl.unsqueeze(1)
        weight = confidence.unsqueeze(-1).square() / self.unit**2

        def energy(numbers: Tensor) -> Tensor:
            whole = torch.cat([numbers, hands], 1)
            placed = joints.state(pose_matrices(whole[:, :3], whole[:, 3:]), betas).joints
            value = (weight * (placed - goal).square()).sum() + self.stay * (numbers - anchor).square().sum()
            if self.prior is not None:
                value = value + self.prior_weight * self.prior(whole[:, 3:]).sum()
            return value

        descend = {"adam": self._adam, "lbfgs": self._lbfgs}[self.optimizer]
        return torch.cat([descend(energy, anchor.clone().requires_grad_()), hands], 1)

    def _adam(self, energy: Callable[[Tensor], Tensor], numbers: Tensor) -> Tensor:
        optimizer = torch.optim.Adam([numbers], lr=self.lr)
        with torch.enable_grad():
            for _ in range(self.steps):
                (numbers.grad,) = torch.autograd.grad(energy(numbers), numbers)
                optimizer.step()
        return numbers.detach()

    def _lbfgs(self, energy: Callable[[Tensor], Tensor], numbers: Tensor) -> Tensor:
        optimizer = torch.optim.LBFGS([numbers], 1.0, self.steps, 2 * self.steps, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            with torch.enable_grad():
                value = energy(numbers)
                (numbers.grad,) = torch.autograd.grad(value, numbers)
            return value.detach()

        optimizer.step(closure)
        return numbers.detach()
