"""Perceptual distances of magnitude images (B, H, W): GMSD, HaarPSI, and LPIPS if its weights are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import WeightsError

GMSD_CONSTANT = 170 / 255**2
HAARPSI_CONSTANT, HAARPSI_SLOPE = 30.0, 4.2
LPIPS_EPSILON = 1e-10
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# The convolutions among torchvision's ``features``, by the stage after which LPIPS looks. AlexNet's have a stride and
# padding each, and pooling before its second and third.
_ALEXNET = (0, 3, 6, 8, 10)
_ALEXNET_STRIDES, _ALEXNET_PADDING = (4, 1, 1, 1, 1), (2, 2, 1, 1, 1)
_VGG16_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


def gmsd(prediction: Tensor, target: Tensor) -> Tensor:
    """Gradient magnitude similarity deviation, (B,): 0 for equal images.

    Source: Xue et al., IEEE TIP 23, 2014. Images count relative to the target's maximum.

    Args:
        prediction, target: (B, H, W).
    """
    peak = target.amax((-2, -1), keepdim=True)
    prewitt = torch.tensor([[1.0, 0, -1]] * 3, dtype=target.dtype, device=target.device) / 3
    kernels = torch.stack((prewitt, prewitt.mT)).unsqueeze(1)

    def edges(image: Tensor) -> Tensor:
        small = F.avg_pool2d((image / peak).unsqueeze(1), 2)
        return F.conv2d(small, kernels, padding=1).square().sum(1).sqrt()

    a, b = edges(prediction), edges(target)
    similarity = (2 * a * b + GMSD_CONSTANT) / (a.square() + b.square() + GMSD_CONSTANT)
    return similarity.flatten(1).std(1, correction=0)


def haarpsi(prediction: Tensor, target: Tensor) -> Tensor:
    """Haar wavelet-based perceptual similarity index, (B,): 1 for equal images.

    Source: Reisenhofer et al., Signal Processing: Image Communication 61, 2018. Images count relative to the target's
    maximum.

    Args:
        prediction, target: (B, H, W).
    """
    peak = target.amax((-2, -1), keepdim=True)
    a, b = (F.avg_pool2d((255 * x / peak).unsqueeze(1), 2) for x in (prediction, target))
    similarity, weight = [], []
    for across in (False, True):
        (a1, b1), (a2, b2), (a3, b3) = ((_haar(a, s, across), _haar(b, s, across)) for s in (1, 2, 3))
        likeness = [
            (2 * p * q + HAARPSI_CONSTANT) / (p.square() + q.square() + HAARPSI_CONSTANT)
            for p, q in ((a1, b1), (a2, b2))
        ]
        similarity.append(torch.sigmoid(HAARPSI_SLOPE * (likeness[0] + likeness[1]) / 2).flatten(1))
        weight.append(torch.maximum(a3, b3).flatten(1))
    weights = torch.cat(weight, 1)
    mean = (torch.cat(similarity, 1) * weights).sum(1) / weights.sum(1)
    return (torch.logit(mean) / HAARPSI_SLOPE).square()


def _haar(image: Tensor, scale: int, across: bool) -> Tensor:
    """Magnitudes of the Haar wavelet's coefficients at a scale, along rows or columns; (B, 1, H, W) -> the same."""
    size = 2**scale
    kernel = torch.full((size, size), 1 / size, dtype=image.dtype, device=image.device)
    kernel[: size // 2] *= -1
    kernel = (kernel.mT if across else kernel).view(1, 1, size, size)
    before = size // 2 - 1
    return F.conv2d(F.pad(image, (before, size // 2, before, size // 2)), kernel).abs()


def lpips_distance(first: Sequence[Tensor], second: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """LPIPS of two lists of feature maps; Zhang et al., CVPR 2018.

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
    return features / (features.square().sum(1, keepdim=True).sqrt() + LPIPS_EPSILON)


class LPIPS(nn.Module):
    """Learned perceptual distance on a backbone whose weights the user has.

    Args:
        backbone: file with the state dict of torchvision's AlexNet or VGG16.
        heads: file with the published weights of the layers (``lin0.model.1.weight``, ...).

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
        """(B,) distances of magnitude images (B, H, W), relative to the target's maximum."""
        peak = target.amax((-2, -1), keepdim=True)
        a, b = (self.features(2 * (x / peak).clamp(0, 1) - 1) for x in (prediction, target))
        return lpips_distance(a, b, list(self.heads))

    def features(self, image: Tensor) -> list[Tensor]:
        """Feature maps of the five layers for images (B, H, W) from -1 to 1."""
        shift, scale = (image.new_tensor(v).view(1, 3, 1, 1) for v in (SHIFT, SCALE))
        x = (image.unsqueeze(1) - shift) / scale
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
    if Path(path).suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    content: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return content
