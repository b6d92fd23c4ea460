"""Training in two phases: Adam, then L-BFGS with strong Wolfe line search."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from zoo.module import ZooModule

# torch's L-BFGS forgets a pair of its history when y.s <= 1e-10; this keeps small residuals above that.
_LBFGS_SCALE = 1e6


class TwoPhaseModule(ZooModule):
    """A module that minimises a first loss with Adam and then a second one with L-BFGS.

    One training step is so many iterations of its phase's optimiser on one batch, and which phase it is follows
    from the epoch alone. Both optimisers' states, the history of L-BFGS included, are in the checkpoint, so that
    a run can be stopped and resumed in either phase.

    Args:
        lr: Adam's, falling to a twentieth along a cosine.
        adam_epochs: epochs of the first phase; all others belong to L-BFGS.
        iterations: of the optimiser, per training step.
        history_size: pairs that L-BFGS remembers.
    """

    def __init__(self, lr: float, adam_epochs: int, iterations: int, history_size: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.lr, self.adam_epochs, self.iterations, self.history_size = lr, adam_epochs, iterations, history_size

    @property
    def in_second_phase(self) -> bool:
        """Whether L-BFGS is at work."""
        return self.current_epoch >= self.adam_epochs

    def descend(self, batch_idx: int, first_loss: Callable[[], Tensor], second_loss: Callable[[], Tensor]) -> Tensor:
        """One training step.

        Args:
            batch_idx: as Lightning gives it.
            first_loss, second_loss: evaluate the losses of the two phases at the parameters as they are.

        Returns:
            The phase's loss before its last iterations, detached.
        """
        adam, lbfgs = self.optimizers()  # type: ignore[attr-defined]
        if self.in_second_phase:

            def closure() -> Tensor:
                lbfgs.zero_grad()
                scaled = _LBFGS_SCALE * second_loss()
                self.manual_backward(scaled)
                return scaled

            return lbfgs.step(closure).detach() / _LBFGS_SCALE
        steps = self.trainer.num_training_batches * self.iterations
        for k in range(self.iterations):
            done = self.current_epoch * steps + batch_idx * self.iterations + k
            for group in adam.param_groups:
                group["lr"] = self.lr * cosine(done / (self.adam_epochs * steps))
            loss = first_loss()
            adam.zero_grad()
            self.manual_backward(loss)
            adam.step()
        return loss.detach()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam and L-BFGS, of the same parameters."""
        parameters = list(self.network.parameters())
        lbfgs = torch.optim.LBFGS(
            parameters,
            max_iter=self.iterations,
            history_size=self.history_size,
            line_search_fn="strong_wolfe",
            tolerance_grad=0.0,
            tolerance_change=0.0,
        )
        return [torch.optim.Adam(parameters, lr=self.lr), lbfgs]


def cosine(progress: float) -> float:
    """From 1 to 1/20 as `progress` goes from 0 to 1."""
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress))
