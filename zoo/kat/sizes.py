"""The paper's model sizes, for KAT and ViT alike (table 1)."""

from __future__ import annotations

from typing import Any, Literal

Size = Literal["tiny", "small", "base"]

_SIZES: dict[Size, dict[str, Any]] = {
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3, "drop_path_rate": 0.1},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6, "drop_path_rate": 0.1},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12, "drop_path_rate": 0.4},
}


def resolve_size(
    size: Size, embed_dim: int | None, depth: int | None, num_heads: int | None, drop_path_rate: float | None
) -> dict[str, Any]:
    """The arguments of a `VisionTransformer` that a size sets, with those given explicitly in their place."""
    given = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads, "drop_path_rate": drop_path_rate}
    return {**_SIZES[size], **{name: value for name, value in given.items() if value is not None}}
