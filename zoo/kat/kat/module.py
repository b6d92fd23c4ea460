"""KAT as a LightningModule."""

from __future__ import annotations

from zoo.kat.classifier import ImageClassifier
from zoo.kat.kat.network import KAT
from zoo.kat.layers import MLPInit
from zoo.kat.sizes import Size, resolve_size
from zoo.kat.transformer import GlobalPool
from zoo.registry import register_model


@register_model("kat/kat")
class KATClassifier(ImageClassifier):
    """Image classification with a Kolmogorov-Arnold Transformer.

    Args:
        size: the paper's ``"tiny"``, ``"small"`` or ``"base"``; sets the five that are None below.
        embed_dim, depth, num_heads, drop_path_rate: None for the size's own.
        act_init, num_groups, drop_rate, mlp_init: see `zoo.kat.kat.network.KAT`.
        img_size, patch_size, in_chans, num_classes, mlp_ratio, qkv_bias, qk_norm, init_values, global_pool:
            see `zoo.kat.transformer.VisionTransformer`.
        pixel_mean, pixel_std, lr, weight_decay, coef_weight_decay, warmup_epochs, label_smoothing, mixup, cutmix,
            layer_decay: see `zoo.kat.classifier.ImageClassifier`.
    """

    def __init__(
        self,
        size: Size = "tiny",
        img_size: int = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        init_values: float | None = None,
        drop_path_rate: float | None = None,
        global_pool: GlobalPool = "token",
        act_init: str = "swish",
        num_groups: int = 8,
        drop_rate: float = 0.0,
        mlp_init: MLPInit = "variance_preserving",
        pixel_mean: tuple[float, ...] = (0.485, 0.456, 0.406),
        pixel_std: tuple[float, ...] = (0.229, 0.224, 0.225),
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        coef_weight_decay: float = 0.0,
        warmup_epochs: float = 5.0,
        label_smoothing: float = 0.1,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        layer_decay: float = 1.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self._build(
            KAT,
            act_init=act_init,
            num_groups=num_groups,
            drop_rate=drop_rate,
            mlp_init=mlp_init,
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_chans,
            num_classes=num_classes,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            qk_norm=qk_norm,
            init_values=init_values,
            global_pool=global_pool,
            **resolve_size(size, embed_dim, depth, num_heads, drop_path_rate),
        )
