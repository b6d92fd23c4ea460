"""The vision transformer that KAT and its rival ViT share; they differ in the MLP alone.

Parameter names are those of timm's ViT and of the official KAT checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GlobalPool = Literal["token", "avg"]


class DropPath(nn.Module):
    """Drops whole residual branches per sample in training (stochastic depth), scaling the kept ones up.

    Args:
        rate: probability of dropping.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> the same shape."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = torch.rand(x.shape[0], *(1,) * (x.ndim - 1), device=x.device) < keep
        return x * (mask.to(x.dtype) / keep)


class LayerScale(nn.Module):
    """A learnable factor per channel on a residual branch.

    Args:
        dim: channels.
        init: the factor at the start.
    """

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> the same shape."""
        return x * self.gamma


class PatchEmbed(nn.Module):
    """Cuts an image into patches and projects each to a token.

    Args:
        img_size: height and width of the image.
        patch_size: height and width of a patch.
        in_chans: image channels.
        embed_dim: token channels.
    """

    def __init__(self, img_size: int, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.img_size = img_size
        self.grid_size = img_size // patch_size
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, H/p * W/p, embed_dim), row by row."""
        if image.shape[-2:] != (self.img_size, self.img_size):
            raise ValueError(
                f"the model takes {self.img_size} x {self.img_size} images, not {image.shape[-2]} x {image.shape[-1]}"
            )
        return self.proj(image).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention.

    Args:
        dim: token channels.
        num_heads: heads; must divide `dim`.
        qkv_bias: bias of the query, key and value projections.
        qk_norm: LayerNorm on the queries and keys of each head.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True, qk_norm: bool = False) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{num_heads} heads can't share {dim} channels evenly")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        head_dim = dim // num_heads
        self.q_norm = nn.LayerNorm(head_dim, eps=1e-6) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(head_dim, eps=1e-6) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        q, k, v = self._split(x)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def maps(self, x: Tensor) -> Tensor:
        """The attention weights of the same input: (B, heads, N, N), rows summing to 1."""
        q, k, _ = self._split(x)
        return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.q_norm(q), self.k_norm(k), v

    @torch.no_grad()
    def init_mimetic(self) -> None:
        """Makes each head's query-key product resemble the identity and value-projection minus the identity.

        Source: Trockman and Kolter, "Mimetic Initialization of Self-Attention Layers", 2023; the factors are
        KAT's. qkv is stacked as query, key, value; biases are zero.
        """
        dim = self.proj.in_features
        head_dim = dim // self.num_heads
        query, key, value = self.qkv.weight.chunk(3)
        for head in range(self.num_heads):
            rows = slice(head * head_dim, (head + 1) * head_dim)
            left, right = _factors(dim, head_dim, noise=0.7, identity=0.7)
            query[rows] = left.T
            key[rows] = right
        left, right = _factors(dim, dim, noise=0.4, identity=-0.4)
        value.copy_(left)
        self.proj.weight.copy_(right)
        for bias in (self.qkv.bias, self.proj.bias):
            if bias is not None:
                nn.init.zeros_(bias)


def _factors(dim: int, rank: int, noise: float, identity: float) -> tuple[Tensor, Tensor]:
    """The first `rank` columns of U sqrt(S) and rows of sqrt(S) V^T, A = noise * Z + identity * I, Var Z = 1 / dim."""
    z = torch.empty(dim, dim).uniform_(-1, 1) * math.sqrt(3 / dim)
    a = noise * z + identity * torch.eye(dim)
    if 4 * rank < dim:  # KAT-Base has 144 heads: whole decompositions would take minutes
        u, s, v = torch.svd_lowrank(a, q=rank + 16, niter=4)
        vt = v.T
    else:
        u, s, vt = torch.linalg.svd(a)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root.unsqueeze(-1) * vt[:rank]


class Block(nn.Module):
    """Pre-norm transformer block: attention, then `mlp`, each on a residual branch.

    Args:
        dim: token channels.
        num_heads: attention heads.
        mlp: the MLP.
        qkv_bias, qk_norm: see `Attention`.
        init_values: LayerScale's start; None for no LayerScale.
        drop_path: probability of dropping a branch.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp: nn.Module,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        init_values: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads, qkv_bias, qk_norm)
        self.ls1 = nn.Identity() if init_values is None else LayerScale(dim, init_values)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = mlp
        self.ls2 = nn.Identity() if init_values is None else LayerScale(dim, init_values)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x))))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


class VisionTransformer(nn.Module):
    """A ViT whose MLPs are made by `make_mlp`.

    Args:
        make_mlp: (token channels, hidden channels) -> MLP module.
        img_size, patch_size: of the square input images, in pixels.
        in_chans: image channels.
        num_classes: outputs.
        embed_dim: token channels, d.
        depth: blocks.
        num_heads: attention heads.
        mlp_ratio: hidden channels of an MLP over d.
        qkv_bias, qk_norm, init_values: see `Block`.
        drop_path_rate: of the last block; earlier ones linearly less.
        global_pool: classify the class token (``"token"``) or the mean of the patch tokens (``"avg"``).

    Raises:
        ValueError: numbers of which no network can be made.
    """

    def __init__(
        self,
        make_mlp: Callable[[int, int], nn.Module],
        img_size: int = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 192,
        depth: int = 12,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        init_values: float | None = None,
        drop_path_rate: float = 0.0,
        global_pool: GlobalPool = "token",
    ) -> None:
        super().__init__()
        counts = {"img_size": img_size, "patch_size": patch_size, "in_chans": in_chans, "num_classes": num_classes}
        counts |= {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}
        counts["mlp_ratio * embed_dim"] = int(mlp_ratio * embed_dim)
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} should be 1 or more, not {count}")
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f"drop_path_rate should be from 0 to below 1, not {drop_path_rate}")
        if img_size % patch_size:
            raise ValueError(f"patches of {patch_size} pixels do not tile an image of {img_size}")
        self.global_pool = global_pool
        self.patch_embed = PatchEmbed(img_size, patch_size, in_chans, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.patch_embed.grid_size**2, embed_dim))
        rates = [drop_path_rate * index / max(depth - 1, 1) for index in range(depth)]
        self.blocks = nn.Sequential(
            *(
                Block(
                    embed_dim,
                    num_heads,
                    make_mlp(embed_dim, int(embed_dim * mlp_ratio)),
                    qkv_bias,
                    qk_norm,
                    init_values,
                    rate,
                )
                for rate in rates
            )
        )
        pooled = global_pool == "avg"
        self.norm = nn.Identity() if pooled else nn.LayerNorm(embed_dim, eps=1e-6)
        self.fc_norm = nn.LayerNorm(embed_dim, eps=1e-6) if pooled else nn.Identity()
        self.head = nn.Linear(embed_dim, num_classes)
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        for module in self.modules():
            if isinstance(module, Attention):
                module.init_mimetic()

    def embed(self, image: Tensor) -> Tensor:
        """Tokens before the first block: (B, 1 + patches, d), the class token first."""
        patches = self.patch_embed(image)
        tokens = torch.cat([self.cls_token.expand(image.shape[0], -1, -1), patches], dim=1)
        return tokens + self.pos_embed

    def forward_features(self, image: Tensor) -> Tensor:
        """Tokens after the last block and the final norm: (B, 1 + patches, d)."""
        return self.norm(self.blocks(self.embed(image)))

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_chans, img_size, img_size) -> logits (B, num_classes)."""
        tokens = self.forward_features(image)
        pooled = tokens[:, 1:].mean(1) if self.global_pool == "avg" else tokens[:, 0]
        return self.head(self.fc_norm(pooled))

    def attention_maps(self, image: Tensor) -> Tensor:
        """Attention weights of every block: (B, depth, heads, 1 + patches, 1 + patches)."""
        tokens = self.embed(image)
        maps = []
        for block in self.blocks:
            assert isinstance(block, Block)
            maps.append(block.attn.maps(block.norm1(tokens)))
            tokens = block(tokens)
        return torch.stack(maps, dim=1)
