"""Layers of the Kolmogorov-Arnold Transformer: the learnable rational, and the MLP made of it.

Source: Yang and Wang, "Kolmogorov-Arnold Transformer", ICLR 2025 (arXiv 2409.10594), section 4.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from zoo import ops
from zoo.errors import did_you_mean
from zoo.kat.coefficients import INITIAL_COEFFICIENTS, Coefficients

MLPInit = Literal["variance_preserving", "official"]


class Rational(nn.Module):
    """A learnable activation: one numerator for all channels, one denominator per group of channels.

    Args:
        mode: the function it starts as: a name (`zoo.kat.coefficients`) or coefficients (`zoo.kat.fit_rational`).
        num_groups: G; must divide the number of channels.
        dim: the channel dimension of the input; 1 for images (B, C, H, W).
        form: see `zoo.ops.rational`.

    Raises:
        ValueError: no such function or form, or no group.
    """

    def __init__(
        self, mode: str | Coefficients = "identity", num_groups: int = 8, dim: int = -1, form: ops.Form = "A"
    ) -> None:
        super().__init__()
        if isinstance(mode, str) and mode not in INITIAL_COEFFICIENTS:
            raise ValueError(f"no initial coefficients are called '{mode}'. {did_you_mean(mode, INITIAL_COEFFICIENTS)}")
        if form not in ops.FORMS:
            raise ValueError(f"there is no form {form!r}: use {', '.join(map(repr, ops.FORMS))}")
        if num_groups < 1:
            raise ValueError(f"num_groups should be 1 or more, not {num_groups}")
        self.mode, self.num_groups, self.dim, self.form = mode, num_groups, dim, form
        numerator, denominator = INITIAL_COEFFICIENTS[mode] if isinstance(mode, str) else mode
        # The names and shapes of the official checkpoints.
        self.weight_numerator = nn.Parameter(torch.tensor([numerator]))
        self.weight_denominator = nn.Parameter(torch.tensor([denominator]).repeat(num_groups, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise; any shape whose `dim` is divisible by the number of groups."""
        return ops.rational(x, self.weight_numerator, self.weight_denominator, self.form, self.dim)

    def extra_repr(self) -> str:
        """Shown by print(module)."""
        return f"mode={self.mode!r}, num_groups={self.num_groups}, form={self.form!r}"


def variance_gain(mode: str) -> float:
    """alpha = Var(x) / E[F(x)^2] for x ~ N(0, 1) and F the initial rational `mode` (section 4.3).

    A linear layer fed by that rational preserves variance when drawn from N(0, alpha / fan_in).
    """
    # Gauss-Hermite quadrature for the weight exp(-x^2 / 2), exact to far below float32.
    from numpy.polynomial.hermite_e import hermegauss

    nodes, weights = hermegauss(120)
    # On the CPU even if a model is made on the meta device; not worth compiling a kernel for.
    a, b = (torch.tensor([c], dtype=torch.float64, device="cpu") for c in INITIAL_COEFFICIENTS[mode])
    y = ops.rational(torch.from_numpy(nodes).unsqueeze(-1), a, b, implementation="reference").squeeze(-1)
    mean_square = (torch.from_numpy(weights) * y**2).sum() / math.sqrt(2 * math.pi)
    return 1.0 / float(mean_square)


class GRKAN(nn.Module):
    """The group-rational KAN that replaces a transformer's MLP: rational, linear, rational, linear.

    Args:
        in_features: channels in.
        hidden_features: channels between the two linear layers; `in_features` if None.
        out_features: channels out; `in_features` if None.
        act_init: function the second rational starts as; the first starts as the identity.
        num_groups: groups of both rationals.
        drop: dropout after each rational.
        init: ``"variance_preserving"`` as the paper says, or ``"official"``: truncated normal of standard
            deviation 0.02, which is what the released code ends up with.

    Raises:
        ValueError: the groups do not divide the channels.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_init: str = "swish",
        num_groups: int = 8,
        drop: float = 0.0,
        init: MLPInit = "variance_preserving",
    ) -> None:
        super().__init__()
        hidden_features = hidden_features or in_features
        out_features = out_features or in_features
        self.act1 = Rational("identity", num_groups)
        self.drop1 = nn.Dropout(drop)
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.act2 = Rational(act_init, num_groups)
        self.drop2 = nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden_features, out_features)
        if in_features % num_groups or hidden_features % num_groups:
            raise ValueError(
                f"{num_groups} groups can't share the MLP's {in_features} and {hidden_features} channels evenly"
            )
        for linear, mode in ((self.fc1, "identity"), (self.fc2, act_init)):
            if init == "variance_preserving":
                nn.init.normal_(linear.weight, std=math.sqrt(variance_gain(mode) / linear.in_features))
            else:
                nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        x = self.fc1(self.drop1(self.act1(x)))
        return self.fc2(self.drop2(self.act2(x)))
