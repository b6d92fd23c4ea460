"""Gradient similarity and LPIPS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.mri.diffusion.golden import load
from zoo.errors import WeightsError
from zoo.mri.perceptual import LPIPS, gmsd, haarpsi, lpips_distance

VGG_CHANNELS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
VGG_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
ALEXNET = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}


def test_haarpsi() -> None:
    """1 for equal images, whatever their units; falls with noise; the whole formula once more in numpy."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 33, 24, generator=generator)
    noise = torch.randn(2, 33, 24, generator=generator)
    assert haarpsi(target, target).tolist() == pytest.approx([1, 1], abs=1e-5)
    little, more = (haarpsi(target + level * noise, target) for level in (0.05, 0.2))
    assert (more < little).all()
    assert (little < 1).all()
    torch.testing.assert_close(haarpsi(7 * (target + 0.2 * noise), 7 * target), more)
    expected = haarpsi_by_loops((target + 0.2 * noise)[0].numpy(), target[0].numpy())
    assert float(more[0]) == pytest.approx(expected, rel=1e-4)


def haarpsi_by_loops(prediction: np.ndarray, target: np.ndarray) -> float:
    def small(image: np.ndarray) -> np.ndarray:
        image = 255 * image / target.max()
        return np.array([[image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for j in range(12)] for i in range(16)])

    def coefficient(image: np.ndarray, scale: int, i: int, j: int) -> float:
        size = 2**scale
        padded = np.pad(image, size)
        top = i + size - size // 2 + 1
        left = j + size - size // 2 + 1
        patch = padded[top : top + size, left : left + size]
        return abs(float(patch[size // 2 :].sum() - patch[: size // 2].sum())) / size

    images = small(prediction), small(target)
    total = weights = 0.0
    for a, b in (images, (images[0].T, images[1].T)):
        for i, j in np.ndindex(a.shape):
            pairs = [(coefficient(a, s, i, j), coefficient(b, s, i, j)) for s in (1, 2, 3)]
            likeness = np.mean([(2 * p * q + 30) / (p * p + q * q + 30) for p, q in pairs[:2]])
            weight = max(pairs[2])
            total += weight / (1 + np.exp(-4.2 * likeness))
            weights += weight
    mean = total / weights
    return float((np.log(mean / (1 - mean)) / 4.2) ** 2)


def test_lpips_of_features() -> None:
    golden = load("stats_metrics")
    first, second = ([golden[f"lpips.f{k}.{i}"][None] for i in range(3)] for k in (0, 1))
    distance = lpips_distance(first, second, [golden[f"lpips.w.{i}"] for i in range(3)])
    assert float(distance) == pytest.approx(float(golden["lpips.d"]), rel=1e-5)
    assert float(lpips_distance(first, first, [golden[f"lpips.w.{i}"] for i in range(3)])) == 0


def files(folder: Path, vgg: bool) -> tuple[Path, Path]:
    """Random weights under the published names; small ones, the channels apart."""
    torch.manual_seed(0)
    if vgg:
        before = (3, *VGG_CHANNELS[:-1])
        sizes = {i: (o, b, 3) for i, o, b in zip(VGG_INDICES, VGG_CHANNELS, before, strict=True)}
        channels = [64, 128, 256, 512, 512]
    else:
        sizes, channels = ALEXNET, [64, 192, 384, 256, 256]
    state = {}
    for index, (out, inside, kernel) in sizes.items():
        state[f"features.{index}.weight"] = torch.randn(out, inside, kernel, kernel) / (inside * kernel**2) ** 0.5
        state[f"features.{index}.bias"] = torch.zeros(out)
    torch.save(state, folder / "backbone.pth")
    torch.save({f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1) for k, c in enumerate(channels)}, folder / "heads.pth")
    return folder / "backbone.pth", folder / "heads.pth"


@pytest.mark.parametrize("vgg", [False, True])
def test_lpips_grows_with_the_error(tmp_path: Path, vgg: bool) -> None:
    network = LPIPS(*files(tmp_path, vgg))
    target = torch.rand(2, 64, 64)
    noise = torch.randn_like(target)
    small, large = (network(target + level * noise, target) for level in (0.02, 0.2))
    assert network(target, target).eq(0).all()
    assert (small > 0).all()
    assert (small < large).all()
    torch.testing.assert_close(network(5 * target, 5 * (target + 0.2 * noise)), network(target, target + 0.2 * noise))
    assert [f.shape[-1] for f in network.features(target)] == ([64, 32, 16, 8, 4] if vgg else [15, 7, 3, 3, 3])


def test_lpips_without_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="unavailable: there is no file"):
        LPIPS(tmp_path / "none.pth", tmp_path / "none.pth")
    backbone, heads = files(tmp_path, False)
    with pytest.raises(WeightsError, match="should hold AlexNet or VGG16"):
        LPIPS(heads, backbone)
    for name in ("junk.pth", "junk.safetensors"):
        (tmp_path / name).write_bytes(b"junk")
        with pytest.raises(WeightsError, match=f"{name} can't be read as weights of LPIPS"):
            LPIPS(tmp_path / name, heads)


def test_gmsd() -> None:
    target = torch.rand(3, 32, 32)
    assert gmsd(target, target).eq(0).all()
    noise = torch.randn_like(target)
    small, large = gmsd(target + 0.02 * noise, target), gmsd(target + 0.3 * noise, target)
    assert (small > 0).all()
    assert (small < large).all()
    torch.testing.assert_close(gmsd(7 * (target + 0.3 * noise), 7 * target), large)
