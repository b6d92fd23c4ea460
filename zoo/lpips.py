"""LPIPS, a learned perceptual distance of images, on weights that the user has.

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import WeightsError
from zoo.files import parsing

EPSILON = 1e-10
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# The convolutions among torchvision's ``features``, by the stage after which LPIPS looks. AlexNet's have a stride and
# padding each, and pooling before its second and third.
_ALEXNET = (0, 3, 6, 8, 10)
_ALEXNET_STRIDES, _ALEXNET_PADDING = (4, 1, 1, 1, 1), (2, 2, 1, 1, 1)
_VGG16_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


def lpips_distance(first: Sequence[Tensor], second: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """LPIPS of two lists of feature maps.

    Args:
        first, second: (B, C_i, H_i, W_i) of each layer.
        weights: (C_i,) of each layer.

    Returns:
        (B,).
    """
    total = first[0].new_zeros(len(first[0]))
    for a, b, weight in zip(first, second, weights, strict=True):
        difference = (_unit(a) - _unit(b)).square()
        total = total + (difference * weight.view(1, -1, 1, 1)).sum(1).mean((-2, -1))
    return total


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + EPSILON)


class LPIPS(nn.Module):
    """Learned perceptual distance on a backbone whose weights the user has.

    Args:
        backbone: file with the state dict of torchvision's AlexNet or VGG16.
        heads: file with the published weights of the layers (``lin0.model.1.weight``, ...).

    Attributes:
        is_vgg: whether the backbone is VGG16; distances by different backbones don't compare.

    Raises:
        WeightsError: a file is missing or holds something else.
    """

    def __init__(self, backbone: str | Path, heads: str | Path) -> None:
        super().__init__()
        features = {k.removeprefix("features."): v for k, v in _read(backbone).items() if k.startswith("features.")}
        lins = _read(heads)
        self.is_vgg = "28.weight" in features
        indices = [i for stage in _VGG16_STAGES for i in stage] if self.is_vgg else list(_ALEXNET)
        try:
            self.convs = nn.ParameterList()
            for index in indices:
                self.convs += [features[f"{index}.weight"], features[f"{index}.bias"]]
            self.heads = nn.ParameterList(lins[f"lin{k}.model.1.weight"].flatten() for k in range(5))
        except KeyError as error:
            raise WeightsError(
                f"{backbone} and {heads} should hold AlexNet or VGG16 and LPIPS's layers: no {error}."
            ) from None
        self.requires_grad_(False)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(B,) distances of images from -1 to 1, (B, 3, H, W) or grey (B, H, W)."""
        return lpips_distance(self.features(prediction), self.features(target), list(self.heads))

    def features(self, image: Tensor) -> list[Tensor]:
        """Feature maps of the five layers for images from -1 to 1, (B, 3, H, W) or grey (B, H, W)."""
        shift, scale = (image.new_tensor(v).view(1, 3, 1, 1) for v in (SHIFT, SCALE))
        x = ((image if image.ndim == 4 else image.unsqueeze(1)) - shift) / scale
        pairs = list(zip(self.convs[::2], self.convs[1::2], strict=True))
        layers = []
        if self.is_vgg:
            for number, stage in enumerate(_VGG16_STAGES):
                x = F.max_pool2d(x, 2) if number else x
                for _ in stage:
                    x = F.relu(F.conv2d(x, *pairs.pop(0), padding=1))
                layers.append(x)
            return layers
        for number, (weight, bias) in enumerate(pairs):
            x = F.max_pool2d(x, 3, 2) if number in (1, 2) else x
            x = F.relu(F.conv2d(x, weight, bias, stride=_ALEXNET_STRIDES[number], padding=_ALEXNET_PADDING[number]))
            layers.append(x)
        return layers


def _read(path: str | Path) -> Mapping[str, Tensor]:
    if not Path(path).is_file():
        raise WeightsError(f"LPIPS is unavailable: there is no file {path}.")
    with parsing(path, "weights of LPIPS", WeightsError):
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return content
