"""The training of blocks with one decoder, without anything of Lightning: teacher, weights, optimiser, one step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from zoo.splatting.momentum_gs.distillation import BlockWeights, update_teacher
from zoo.splatting.momentum_gs.step import Outcome, View, Weights, exponential, view_gradients
from zoo.splatting.scaffold_gs.anchors import AnchorState
from zoo.splatting.scaffold_gs.decoder import GaussianDecoder
from zoo.splatting.scaffold_gs.footprint import visible_anchors
from zoo.splatting.scaffold_gs.network import AnchorModel

DecoderOptimizer = Literal["shared", "per_block"]
Member = tuple[int, Callable[[], AnchorState], View]


@dataclass(frozen=True)
class Rates:
    """Learning rates; pairs go from the first to the second exponentially.

    Attributes:
        offset: in units of the block's radius.
        anchor_feat, scaling: of the anchors.
        mlp_opacity, mlp_cov, mlp_color, mlp_feature_bank, embedding_appearance: of the decoder.
    """

    offset: tuple[float, float] = (0.01, 1e-4)
    anchor_feat: float = 0.0075
    scaling: float = 0.007
    mlp_opacity: tuple[float, float] = (0.002, 2e-5)
    mlp_cov: tuple[float, float] = (0.004, 0.004)
    mlp_color: tuple[float, float] = (0.008, 5e-5)
    mlp_feature_bank: tuple[float, float] = (0.01, 1e-5)
    embedding_appearance: tuple[float, float] = (0.05, 5e-4)

    def of_anchors(self, part: float, radius: float) -> dict[str, float]:
        """Rates of the anchors' rows at a part of the decay."""
        return {
            "offset": radius * exponential(*self.offset, part),
            "anchor_feat": self.anchor_feat,
            "scaling": self.scaling,
        }

    def of_decoder(self, name: str, part: float) -> float:
        """The rate of one of the decoder's parts."""
        first, last = getattr(self, name)
        return exponential(first, last, part)


class StepResult(NamedTuple):
    """What a step gave: losses and a weight per block."""

    losses: list[dict[str, Tensor]]
    weights: list[float]


class BlockLoop(nn.Module):
    """A decoder in training, with its teacher and the weights of blocks.

    Args:
        network: whose decoders are trained; its anchors play no part.
        blocks: number of blocks.
        momentum: of the teacher.
        sigma: of `BlockWeights`.
        rates: learning rates.
        decoder_optimizer: ``"shared"``, one memory of Adam; ``"per_block"``, each group of blocks keeps its own, as
            officially, where it is stale when the group's next turn comes.
    """

    def __init__(
        self,
        network: AnchorModel,
        blocks: int,
        momentum: float = 0.9,
        sigma: float = 10.0,
        rates: Rates | None = None,
        decoder_optimizer: DecoderOptimizer = "shared",
    ) -> None:
        super().__init__()
        self._network = (network,)  # known, but no part of this module's state
        self.teachers = copy.deepcopy(network.decoders).requires_grad_(False)
        self.balance = BlockWeights(blocks, sigma)
        self.momentum, self.rates, self.per_block = momentum, rates or Rates(), decoder_optimizer == "per_block"
        groups = [
            {"params": list(part.parameters()), "name": name}
            for decoder in network.decoders
            for name, part in decoder.named_children()
        ]
        self.optimizer = torch.optim.Adam(groups, lr=1e-3, eps=1e-15)

    @property
    def network(self) -> AnchorModel:
        """The network."""
        return self._network[0]

    def teacher(self, block: int) -> GaussianDecoder:
        """The teacher of a block."""
        module = self.teachers[block if len(self.teachers) > 1 else 0]
        assert isinstance(module, GaussianDecoder)
        return module

    def step(
        self,
        members: Sequence[Member],
        iteration: int,
        weights: Weights,
        balance: bool = False,
        part: float = 0.0,
        learn_decoder: bool = True,
        apply: bool = True,
        group: Sequence[int] | None = None,
        reduce: Callable[[Tensor], Tensor] | None = None,
        optimizer: Any = None,
        after: Callable[[int, AnchorState, Outcome], None] | None = None,
    ) -> StepResult:
        """Takes one step of some blocks together, which all see the decoder as it was before.

        Args:
            members: block, a function that brings it, and its view, of those on this process; a block may be taken
                away again once the next one is brought.
            iteration: of the blocks, from 1.
            weights: of the losses; without `weights.consistency` the teacher plays no part.
            balance: weigh the blocks by their quality.
            part: of the decay of learning rates, 0 to 1.
            learn_decoder: False while the decoder rests.
            apply: take the optimisers' steps.
            group: all blocks that step together, on all processes; None for those of `members`.
            reduce: sums a tensor over processes.
            optimizer: to step in place of `self.optimizer`, such as Lightning's wrapper of it.
            after: sees each block after its step, with what its view gave.
        """
        group = [block for block, _, _ in members] if group is None else group
        if self.momentum and weights.consistency:
            update_teacher(self.teachers, self.network.decoders, self.momentum)
        if balance:
            self.balance.advance(group)
        sums = _Sums(self.network, group) if apply and learn_decoder else None
        result = StepResult([], [])
        for block, bring, view in members:
            factor = self.balance(block) if balance else 1.0
            state = bring()
            decoder, teacher = self.network.decoder(block), self.teacher(block) if weights.consistency else None
            outcome = view_gradients(self.network, decoder, teacher, state, view, weights, factor, learn_decoder)
            result.losses.append(outcome.losses)
            result.weights.append(factor)
            if sums is not None:
                sums.add(block, outcome.decoder)
            if apply:
                state.adam(outcome.rows, self.rates.of_anchors(part, state.radius))
                state.iteration = iteration
                if after is not None:
                    after(block, state, outcome)
        if sums is not None:
            sums.leave(reduce)
        if apply:
            self._step_decoder(members[0][1]() if self.per_block else None, part, optimizer or self.optimizer)
        return result

    def _step_decoder(self, keeper: AnchorState | None, part: float, optimizer: Any) -> None:
        for settings in self.optimizer.param_groups:
            settings["lr"] = self.rates.of_decoder(settings["name"], part)
        if keeper is not None:
            self._recall(keeper)
        optimizer.step()  # parameters without gradient stay
        optimizer.zero_grad(set_to_none=True)
        if keeper is not None:
            self._remember(keeper)

    def _recall(self, keeper: AnchorState) -> None:
        self.optimizer.state.clear()
        for index, parameter in enumerate(self.network.decoders.parameters()):
            prefix = f"{index}/"
            own = {k.removeprefix(prefix): v for k, v in keeper.decoder.items() if k.startswith(prefix)}
            if own:
                self.optimizer.state[parameter] = own

    def _remember(self, keeper: AnchorState) -> None:
        for index, parameter in enumerate(self.network.decoders.parameters()):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                keeper.decoder[f"{index}/{key}"] = value.clone()


class _Sums:
    """Gradients of decoders, added up over the blocks that use them."""

    def __init__(self, network: AnchorModel, group: Sequence[int]) -> None:
        self.shared = len(network.decoders) == 1
        self.share = len(group) if self.shared else 1
        self.parameters = {i: list(network.decoder(i).parameters()) for i in ([0] if self.shared else group)}
        self.totals = {i: torch.zeros_like(nn.utils.parameters_to_vector(p)) for i, p in self.parameters.items()}

    def add(self, block: int, gradients: Sequence[Tensor]) -> None:
        self.totals[0 if self.shared else block] += torch.cat([g.flatten() for g in gradients])

    def leave(self, reduce: Callable[[Tensor], Tensor] | None) -> None:
        """Puts in ``.grad`` the mean over the blocks that share a decoder, the same on all processes."""
        for index, total in self.totals.items():
            mean = (total if reduce is None else reduce(total)) / self.share
            parameters = self.parameters[index]
            for parameter, gradient in zip(parameters, mean.split([p.numel() for p in parameters]), strict=True):
                parameter.grad = gradient.view_as(parameter)


@torch.no_grad()
def render_state(network: AnchorModel, decoder: GaussianDecoder, state: AnchorState, view: View) -> Tensor:
    """What a camera sees of a block alone, (1, H, W, 3)."""
    height, width = view.image.shape[1:3]
    visible = visible_anchors(state.rows, view.viewmat, view.K, width, height, network.near_plane)
    centre = -(view.viewmat[:3, :3].mT @ view.viewmat[:3, 3])
    rows = {name: value[visible] for name, value in state.rows.items()}
    image, _, _ = network.render(decoder(rows, centre, view.index), view.viewmat, view.K, width, height)
    return image
