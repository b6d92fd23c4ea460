"""How the set of Gaussians changes while they are optimised: densification, MCMC, or only pruning.

Sources: adaptive density control, Kerbl et al. 2023, section 5; MCMC, Kheradmand et al., "3D Gaussian Splatting as
Markov Chain Monte Carlo", 2024; pruning without densification, Kotovenko, Grebenkova, Ommer, "EDGS", 2025.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.ops.rasterize_reference import covariances, rotation_matrices
from zoo.splatting.gaussians import PARAMETERS, GaussianModel
from zoo.splatting.rows import forget, keep, rearrange


class Strategy(Protocol):
    """What a strategy does around an optimiser step. Steps are counted from 0."""

    absgrad: bool

    def before_backward(self, meta: dict[str, Any]) -> None:
        """Sees what the rasterizer left."""

    def penalty(self, model: GaussianModel) -> Tensor | None:
        """A term of the loss."""

    def after_step(
        self, step: int, model: GaussianModel, optimizer: torch.optim.Optimizer, meta: dict[str, Any], lr_means: float
    ) -> None:
        """Changes the Gaussians after the optimiser's step."""

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed run needs."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes up what `state_dict` gave."""


@dataclass
class Prune:
    """Removes transparent Gaussians, and presses all towards transparency so that useless ones go.

    Attributes:
        prune_opacity: below it a Gaussian is removed.
        every: steps between two removals.
        fade: factor on the odds of every opacity, every 10 steps; 1 for none.
        stop: step after which nothing is done.
    """

    prune_opacity: float = 0.005
    every: int = 50
    fade: float = 0.99
    stop: int = 15_000
    absgrad: bool = False

    def before_backward(self, meta: dict[str, Any]) -> None:
        """Nothing is needed."""

    def penalty(self, model: GaussianModel) -> None:
        """None."""

    @torch.no_grad()
    def after_step(
        self, step: int, model: GaussianModel, optimizer: torch.optim.Optimizer, meta: dict[str, Any], lr_means: float
    ) -> None:
        """Fades and removes."""
        if step >= self.stop:
            return
        if self.fade != 1 and step % 10 == 0:
            model.opacities.data += math.log(self.fade)
        if step % self.every == self.every - 1:
            keep(model, optimizer, model.opacities.sigmoid() >= self.prune_opacity)

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing."""


@dataclass
class Densify:
    """Adaptive density control: clones small and splits large Gaussians whose image position is pulled at hard.

    Attributes:
        extent: the scene's.
        grow_grad2d: mean gradient norm of the 2-D mean, in half image sizes, above which a Gaussian grows.
        grow_scale3d: times the extent, up to which a Gaussian is cloned and not split.
        prune_opacity, prune_scale3d: a Gaussian that is more transparent, or (after the first reset) larger times the
            extent, is removed.
        start, stop, every: steps in which Gaussians are added and removed.
        reset_every: steps between two resets of all opacities to at most twice `prune_opacity`.
        absgrad: use absolute gradients, with a threshold about three to four times as high.
        cap: growth stops at this many Gaussians.
    """

    extent: float
    grow_grad2d: float = 2e-4
    grow_scale3d: float = 0.01
    prune_opacity: float = 0.005
    prune_scale3d: float = 0.1
    start: int = 500
    stop: int = 15_000
    every: int = 100
    reset_every: int = 3000
    absgrad: bool = False
    cap: int | None = None
    grad2d: Tensor = field(default_factory=lambda: torch.zeros(0))
    count: Tensor = field(default_factory=lambda: torch.zeros(0))

    def before_backward(self, meta: dict[str, Any]) -> None:
        """Asks for the gradient of the 2-D means."""
        meta["means2d"].retain_grad()

    def penalty(self, model: GaussianModel) -> None:
        """None."""

    @torch.no_grad()
    def after_step(
        self, step: int, model: GaussianModel, optimizer: torch.optim.Optimizer, meta: dict[str, Any], lr_means: float
    ) -> None:
        """Collects gradients; grows, prunes and resets when it is time."""
        if step >= self.stop:
            return
        self._collect(meta, len(model))
        if step > self.start and step % self.every == 0:
            self.grow(model, optimizer)
            self.prune(step, model, optimizer)
            self.grad2d, self.count = torch.zeros(0), torch.zeros(0)
        if step % self.reset_every == 0 and step > 0:
            self.reset_opacity(model, optimizer)

    def _collect(self, meta: dict[str, Any], total: int) -> None:
        means2d = meta["means2d"]
        grad = means2d.absgrad if self.absgrad else means2d.grad
        if len(self.grad2d) != total:
            self.grad2d, self.count = means2d.new_zeros(total), means2d.new_zeros(total)
        scale = torch.tensor([meta["width"], meta["height"]], device=grad.device) / 2 * meta["n_cameras"]
        visible = (meta["radii"] > 0).all(-1)
        self.grad2d += torch.where(visible, (grad * scale).norm(dim=-1), 0).sum(0)
        self.count += visible.sum(0)

    @torch.no_grad()
    def grow(self, model: GaussianModel, optimizer: torch.optim.Optimizer, noise: Tensor | None = None) -> None:
        """Clones and splits.

        Args:
            model, optimizer: changed in place; survivors first, then clones, then the halves of split ones.
            noise: (2, number split, 3) normal numbers that place the halves; drawn if None.
        """
        mean_grad = self.grad2d / self.count.clamp_min(1)
        chosen = mean_grad > self.grow_grad2d
        if self.cap is not None:
            room = max(self.cap - len(model), 0)
            if int(chosen.sum()) > room:  # those pulled hardest
                rank = torch.where(chosen, mean_grad, -1.0).argsort(descending=True)
                chosen = torch.zeros_like(chosen).index_fill(0, rank[:room], True)
        small = model.scales.exp().amax(-1) <= self.grow_scale3d * self.extent
        clones = (chosen & small).nonzero().squeeze(1)
        split = chosen & ~small
        parents = split.nonzero().squeeze(1)
        rest = (~split).nonzero().squeeze(1)
        source = torch.cat([rest, clones, parents, parents])
        fresh = torch.arange(len(source), device=source.device) >= len(rest)
        rearrange(model, optimizer, source, fresh)
        if len(parents):
            children = slice(len(source) - 2 * len(parents), None)
            scales = model.scales.data[children].exp()
            if noise is None:
                noise = torch.randn(2, len(parents), 3, device=scales.device)
            offset = rotation_matrices(model.quats.data[children]) @ (scales * noise.flatten(0, 1)).unsqueeze(-1)
            model.means.data[children] += offset.squeeze(-1)
            model.scales.data[children] = (scales / 1.6).log()

    @torch.no_grad()
    def prune(self, step: int, model: GaussianModel, optimizer: torch.optim.Optimizer) -> None:
        """Removes transparent and, after the first reset, huge Gaussians."""
        good = model.opacities.sigmoid() >= self.prune_opacity
        if step > self.reset_every:
            good &= model.scales.exp().amax(-1) <= self.prune_scale3d * self.extent
        keep(model, optimizer, good)

    @torch.no_grad()
    def reset_opacity(self, model: GaussianModel, optimizer: torch.optim.Optimizer) -> None:
        """Caps all opacities."""
        opacity = 2 * self.prune_opacity
        model.opacities.data.clamp_max_(math.log(opacity / (1 - opacity)))
        forget(model, optimizer, "opacities")

    def state_dict(self) -> dict[str, Tensor]:
        """The gradients collected since the last growth."""
        return {"grad2d": self.grad2d, "count": self.count}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes them up."""
        self.grad2d, self.count = state["grad2d"], state["count"]


@dataclass
class MCMC:
    """Keeps Gaussians moving at random, and puts dead ones where there are live ones, up to a fixed number.

    Attributes:
        cap: number of Gaussians to grow to, by 5 % at a time.
        noise: times the learning rate of the means.
        min_opacity: at most this, a Gaussian is dead.
        opacity_weight, scale_weight: of the penalties on mean opacity and mean scale.
        start, stop, every: steps in which Gaussians are relocated and added.
    """

    cap: int = 1_000_000
    noise: float = 5e5
    min_opacity: float = 0.005
    opacity_weight: float = 0.01
    scale_weight: float = 0.01
    start: int = 500
    stop: int = 25_000
    every: int = 100
    absgrad: bool = False

    def before_backward(self, meta: dict[str, Any]) -> None:
        """Nothing is needed."""

    def penalty(self, model: GaussianModel) -> Tensor:
        """Mean opacity and mean scale."""
        opacity, scale = model.opacities.sigmoid().mean(), model.scales.exp().mean()
        return self.opacity_weight * opacity + self.scale_weight * scale

    @torch.no_grad()
    def after_step(
        self, step: int, model: GaussianModel, optimizer: torch.optim.Optimizer, meta: dict[str, Any], lr_means: float
    ) -> None:
        """Relocates and adds when it is time; adds noise to the positions."""
        if self.start < step < self.stop and step % self.every == 0:
            self._relocate(model, optimizer)
            self._add(model, optimizer)
        scale = lr_means * self.noise
        means = model.means.data
        means += position_noise(
            model.quats.data, model.scales.data.exp(), model.opacities.data.sigmoid(), torch.randn_like(means), scale
        )

    def _relocate(self, model: GaussianModel, optimizer: torch.optim.Optimizer) -> None:
        opacity = model.opacities.data.sigmoid()
        dead = (opacity <= self.min_opacity).nonzero().squeeze(1)
        alive = (opacity > self.min_opacity).nonzero().squeeze(1)
        if len(dead) == 0 or len(alive) == 0:
            return
        chosen = alive[torch.multinomial(opacity[alive], len(dead), replacement=True)]
        self._share(model, chosen)
        for name in PARAMETERS:
            getattr(model, name).data[dead] = getattr(model, name).data[chosen]
            forget(model, optimizer, name, chosen)

    def _add(self, model: GaussianModel, optimizer: torch.optim.Optimizer) -> None:
        count = min(self.cap, int(1.05 * len(model))) - len(model)
        if count <= 0:
            return
        chosen = torch.multinomial(model.opacities.data.sigmoid(), count, replacement=True)
        self._share(model, chosen)
        total = torch.arange(len(model), device=chosen.device)
        source = torch.cat([total, chosen])
        rearrange(model, optimizer, source, torch.arange(len(source), device=chosen.device) >= len(total))

    def _share(self, model: GaussianModel, chosen: Tensor) -> None:
        """Makes the chosen ones such that they and their copies together look as each did alone."""
        copies = torch.bincount(chosen, minlength=len(model))[chosen] + 1
        opacity, scale = relocated(
            model.opacities.data[chosen].sigmoid(), model.scales.data[chosen].exp(), copies, self.min_opacity
        )
        model.opacities.data[chosen] = opacity.clamp(1e-6, 1 - 1e-6).logit()
        model.scales.data[chosen] = scale.log()

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing."""


def position_noise(quats: Tensor, scales: Tensor, opacities: Tensor, noise: Tensor, scale: float) -> Tensor:
    """Offsets (N, 3) along a Gaussian's own axes, only for nearly transparent ones.

    Args:
        quats: (N, 4).
        scales: (N, 3) linear.
        opacities: (N,) in [0, 1].
        noise: (N, 3) normal numbers.
        scale: of the noise.
    """
    gate = torch.sigmoid(-100 * (opacities - 0.005)).unsqueeze(-1)
    return (covariances(quats, scales) @ (noise * gate * scale).unsqueeze(-1)).squeeze(-1)


def relocated(opacity: Tensor, scale: Tensor, copies: Tensor, min_opacity: float = 0.005) -> tuple[Tensor, Tensor]:
    """Opacity and scale of n Gaussians in one place that together look like one (MCMC paper, Eq. 9).

    Args:
        opacity: (M,) in [0, 1].
        scale: (M, 3) linear.
        copies: (M,) n, at least 1; more than 51 count as 51.
        min_opacity: of the result, lest it be dead at once.
    """
    copies = copies.clamp(1, 51)
    value = opacity.double()
    new = (1 - (1 - value) ** (1 / copies)).clamp_min(min_opacity)
    largest = int(copies.max()) if len(copies) else 1
    denominator = torch.zeros_like(value)
    for i in range(1, largest + 1):
        terms = sum(math.comb(i - 1, k) * (-1) ** k * new ** (k + 1) / math.sqrt(k + 1) for k in range(i))
        denominator += torch.where(copies >= i, terms, 0.0)
    factor = (value / denominator).to(scale)
    return new.to(opacity), scale * factor.unsqueeze(-1)
