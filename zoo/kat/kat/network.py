"""The Kolmogorov-Arnold Transformer: a ViT whose MLPs are GR-KANs.

Source: Yang and Wang, "Kolmogorov-Arnold Transformer", ICLR 2025 (arXiv 2409.10594).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from zoo.kat.layers import GRKAN, MLPInit
from zoo.kat.transformer import VisionTransformer


class KAT(VisionTransformer):
    """Kolmogorov-Arnold Transformer.

    Args:
        act_init: function that the second rational of each MLP starts as.
        num_groups: channel groups of the rationals.
        drop_rate: dropout after each rational.
        mlp_init: see `zoo.kat.layers.GRKAN`.
        transformer: arguments of `VisionTransformer`.
    """

    def __init__(
        self,
        act_init: str = "swish",
        num_groups: int = 8,
        drop_rate: float = 0.0,
        mlp_init: MLPInit = "variance_preserving",
        **transformer: Any,
    ) -> None:
        make_mlp = partial(
            GRKAN, out_features=None, act_init=act_init, num_groups=num_groups, drop=drop_rate, init=mlp_init
        )
        super().__init__(make_mlp, **transformer)
