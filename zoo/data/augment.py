"""Augmentation of pictures for ImageNet-style training, on PIL images, with explicit generators.

Sources: Szegedy et al. 2015 (random resized crop), Cubuk et al. 2020 (RandAugment, arXiv 1909.13719), Zhong et
al. 2020 (random erasing), and the settings of DeiT (Touvron et al. 2021) that KAT trains with.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

Generator = np.random.Generator
_FILL = (124, 116, 104)  # ImageNet's mean colour
_BICUBIC = Image.Resampling.BICUBIC


def resize_and_crop(image: Image.Image, size: int, crop_fraction: float = 0.875) -> Image.Image:
    """The evaluation view: the shorter side to ``size / crop_fraction``, then the central square."""
    target = round(size / crop_fraction)
    scale = target / min(image.size)
    image = image.resize((max(target, round(image.width * scale)), max(target, round(image.height * scale))), _BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def random_resized_crop(
    image: Image.Image,
    size: int,
    generator: Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Image.Image:
    """A random part of the image, resized to a square by a randomly chosen interpolation.

    Args:
        scale: the part's area over the image's, uniformly drawn.
        ratio: the part's aspect ratio, drawn uniformly in the logarithm.
    """
    interpolation = (Image.Resampling.BILINEAR, _BICUBIC)[generator.integers(2)]
    for _ in range(10):
        area = image.width * image.height * generator.uniform(*scale)
        aspect = math.exp(generator.uniform(math.log(ratio[0]), math.log(ratio[1])))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= image.width and 0 < height <= image.height:
            left = int(generator.integers(image.width - width + 1))
            top = int(generator.integers(image.height - height + 1))
            return image.resize((size, size), interpolation, (left, top, left + width, top + height))
    return resize_and_crop(image, size, 1.0)  # no such part fits: an extremely long image


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, _BICUBIC, fillcolor=_FILL)


def _solarize_add(image: Image.Image, amount: int) -> Image.Image:
    table = [min(255, v + amount) if v < 128 else v for v in range(256)]
    return image.point(table * len(image.getbands()))


# name -> (image, magnitude in [0, 1], random sign) -> image. Stronger magnitudes always change the image more.
OPERATIONS: dict[str, Callable[[Image.Image, float, int], Image.Image]] = {
    "auto_contrast": lambda image, m, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, m, sign: ImageOps.equalize(image),
    "invert": lambda image, m, sign: ImageOps.invert(image),
    "rotate": lambda image, m, sign: image.rotate(sign * 30 * m, _BICUBIC, fillcolor=_FILL),
    "posterize": lambda image, m, sign: ImageOps.posterize(image, max(1, 4 - int(4 * m))),
    "solarize": lambda image, m, sign: ImageOps.solarize(image, 256 - int(256 * m)),
    "solarize_add": lambda image, m, sign: _solarize_add(image, int(110 * m)),
    "color": lambda image, m, sign: ImageEnhance.Color(image).enhance(max(0.1, 1 + sign * 0.9 * m)),
    "contrast": lambda image, m, sign: ImageEnhance.Contrast(image).enhance(max(0.1, 1 + sign * 0.9 * m)),
    "brightness": lambda image, m, sign: ImageEnhance.Brightness(image).enhance(max(0.1, 1 + sign * 0.9 * m)),
    "sharpness": lambda image, m, sign: ImageEnhance.Sharpness(image).enhance(max(0.1, 1 + sign * 0.9 * m)),
    "shear_x": lambda image, m, sign: _affine(image, (1, sign * 0.3 * m, 0, 0, 1, 0)),
    "shear_y": lambda image, m, sign: _affine(image, (1, 0, 0, sign * 0.3 * m, 1, 0)),
    "translate_x": lambda image, m, sign: _affine(image, (1, 0, sign * 0.45 * m * image.width, 0, 1, 0)),
    "translate_y": lambda image, m, sign: _affine(image, (1, 0, 0, 0, 1, sign * 0.45 * m * image.height)),
}


def rand_augment(
    image: Image.Image,
    generator: Generator,
    count: int = 2,
    magnitude: float = 9.0,
    magnitude_std: float = 0.5,
    probability: float = 0.5,
) -> Image.Image:
    """Applies randomly chosen operations ("rand-m9-n2-mstd0.5" by default).

    Args:
        count: operations drawn, with replacement.
        magnitude, magnitude_std: of the normal distribution of strengths, on a scale of 0 to 10.
        probability: of each drawn operation being applied.
    """
    for name in generator.choice(list(OPERATIONS), count):
        strength = float(np.clip(generator.normal(magnitude, magnitude_std), 0, 10)) / 10
        sign = int(generator.choice((-1, 1)))
        if generator.random() < probability:
            image = OPERATIONS[str(name)](image, strength, sign)
    return image


def random_erase(image: NDArray[np.float32], generator: Generator, probability: float = 0.25) -> NDArray[np.float32]:
    """Fills one random rectangle, of 2 to 33 % of the area, with noise of the image's own statistics.

    Args:
        image: (C, H, W).
    """
    if generator.random() >= probability:
        return image
    channels, height, width = image.shape
    for _ in range(10):
        area = height * width * generator.uniform(0.02, 1 / 3)
        aspect = math.exp(generator.uniform(math.log(0.3), math.log(1 / 0.3)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < h < height and 0 < w < width:
            top, left = generator.integers(height - h + 1), generator.integers(width - w + 1)
            mean, std = image.mean((1, 2), keepdims=True), image.std((1, 2), keepdims=True)
            erased = image.copy()
            noise = generator.standard_normal((channels, h, w))
            erased[:, top : top + h, left : left + w] = np.clip(mean + std * noise, 0, 1)
            return erased
    return image
