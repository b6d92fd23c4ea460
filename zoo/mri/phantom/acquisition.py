"""From anatomy to measured k-space.

The image is made at twice the resolution and its k-space truncated, so that edges ring as they do in a
scanner and no reconstruction gets an image that its own grid can represent exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import fft as sp_fft

from zoo.mri.phantom.anatomy import Anatomy, Tissue, grid
from zoo.mri.phantom.coils import CoilArray

Contrast = Literal["T1", "T2", "PD", "FLAIR"]

# Proton density, T1 and T2 in ms, of each `Tissue`; the scalp's fat is suppressed.
_TISSUE = np.array(
    [
        (0.0, 1000, 100),
        (0.35, 380, 70),
        (0.05, 500, 20),
        (1.0, 4000, 2000),
        (0.82, 1331, 100),
        (0.70, 832, 75),
        (0.78, 1100, 85),
        (0.88, 1500, 160),
        (0.90, 1600, 200),
    ]
)
_SPIN_ECHO = {"T1": (600, 10), "T2": (4500, 100), "PD": (3000, 15)}  # TR, TE in ms
_FLAIR = (9000, 2500, 110)  # TR, TI, TE in ms
CONTRASTS: tuple[Contrast, ...] = ("T1", "T2", "PD", "FLAIR")

SLAB = 0.35  # slices lie between heights -SLAB and SLAB
TEXTURE = 0.03
COIL_CORRELATION = 0.1


@dataclass(frozen=True)
class PhantomVolume:
    """A simulated acquisition.

    Attributes:
        name: says what it was drawn from.
        kspace: (S, C, H, W) complex64, fully sampled, noisy, origin at index n // 2.
        labels: (S, 2H, 2W) uint8 of `Tissue`, at twice the resolution.
        contrast: of the sequence.
        noise: standard deviation of real and imaginary part of every sample.
        truth: `kspace` without the noise.
    """

    name: str
    kspace: NDArray[np.complex64]
    labels: NDArray[np.uint8]
    contrast: Contrast
    noise: float
    truth: NDArray[np.complex64]


def signal(contrast: Contrast) -> NDArray[np.float64]:
    """Magnitude of every `Tissue`'s signal."""
    density, t1, t2 = _TISSUE.T
    if contrast == "FLAIR":
        tr, ti, te = _FLAIR
        recovered = np.abs(1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1))
    else:
        tr, te = _SPIN_ECHO[contrast]
        recovered = 1 - np.exp(-tr / t1)
    return density * recovered * np.exp(-te / t2)


def generate(
    seed: int | tuple[int, ...],
    contrast: Contrast = "T2",
    shape: tuple[int, int] = (96, 96),
    coils: int = 6,
    slices: int = 5,
    snr: float = 30.0,
) -> PhantomVolume:
    """A head, scanned.

    Anatomy, coils, field and noise have streams of random numbers of their own, so that changing the coils,
    the contrast or the noise leaves the head as it is.

    Args:
        seed: of everything; a tuple of ints names a sub-stream.
        contrast: of the sequence.
        shape: (H, W) of each slice.
        coils: number of receive coils.
        slices: number of slices, evenly through the slab.
        snr: root of the sum of squares over coils of the mean white matter, over the noise's standard
            deviation in real and imaginary part.
    """
    words = (seed,) if isinstance(seed, int) else tuple(seed)
    of_anatomy, of_coils, of_field, of_noise = (np.random.default_rng([*words, k]) for k in range(4))
    anatomy, array = Anatomy(of_anatomy), CoilArray(coils, of_coils)
    fine = (2 * shape[0], 2 * shape[1])
    field = _Field(of_field, fine)
    magnitude = signal(contrast).astype(np.float32)

    heights = np.linspace(-SLAB, SLAB, slices) if slices > 1 else np.zeros(1)
    kspace = np.empty((slices, coils, *shape), dtype=np.complex64)
    labels = np.empty((slices, *fine), dtype=np.uint8)
    white = []
    for index, z in enumerate(heights):
        labels[index] = anatomy.labels(fine, z)
        image = magnitude[labels[index]] * field.at(z)
        coil_images = array.sensitivities(fine, z) * image
        white.append(_mean_rss(coil_images, labels[index] == Tissue.WHITE_MATTER))
        kspace[index] = _truncated_spectrum(coil_images, shape)
    noise = float(np.mean(white)) / snr
    measured = kspace + noise * _noise(of_noise, kspace.shape)
    name = f"phantom_{contrast}_{'-'.join(map(str, words))}.h5"
    return PhantomVolume(name, measured.astype(np.complex64, copy=False), labels, contrast, noise, kspace)


def _mean_rss(coil_images: NDArray[np.complex64], where: NDArray[np.bool_]) -> float:
    return float(np.sqrt((np.abs(coil_images[:, where]) ** 2).sum(0)).mean())


def _truncated_spectrum(coil_images: NDArray[np.complex64], shape: tuple[int, int]) -> NDArray[np.complex64]:
    """The centre of the k-space of an image of twice the resolution, in the units of an orthonormal FFT."""
    axes = (-2, -1)
    spectrum = sp_fft.fft2(sp_fft.ifftshift(coil_images, axes), norm="ortho", workers=1)
    # What is kept lies at both ends of the unshifted spectrum.
    rows, columns = (np.r_[-(n // 2) : n - n // 2] for n in shape)
    return spectrum[:, rows[:, None], columns[None]] / 2


def _noise(rng: Generator, shape: tuple[int, ...]) -> NDArray[np.complex64]:
    """Complex, of variance 1 in each part, correlated between coils (second axis)."""
    white = rng.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    covariance = COIL_CORRELATION + (1 - COIL_CORRELATION) * np.eye(shape[1])
    return np.einsum("ij,sjhw->sihw", np.linalg.cholesky(covariance).astype(np.float32), white, optimize=True)


class _Field:
    """What multiplies the tissues' signal: texture, receive bias and phase, all smooth along z.

    Args:
        rng: draws it.
        shape: (H, W).
    """

    def __init__(self, rng: Generator, shape: tuple[int, int]) -> None:
        x, y = grid(shape)
        linear, second = rng.normal(0, 0.8, 3), rng.normal(0, 0.6, 3)
        self.polynomial = linear[0] + linear[1] * x + linear[2] * y + _quadratic(second, x, y)
        self.drift = rng.normal(0, 1.0)
        self.waves = _waves(rng, x, y)
        bias = rng.normal(0, 0.06, 5)
        self.bias = np.exp(bias[0] * x + bias[1] * y + _quadratic(bias[2:], x, y))
        self.textures = [_band_limited(rng, shape) for _ in range(2)]

    def at(self, z: float) -> NDArray[np.complex64]:
        """(H, W) at height z."""
        waves = self.waves * np.exp(2j * z)
        phase = self.polynomial + self.drift * z + waves.real
        turn = 4 * z
        texture = np.cos(turn) * self.textures[0] + np.sin(turn) * self.textures[1]
        return ((1 + TEXTURE * texture) * self.bias * np.exp(1j * phase)).astype(np.complex64)


def _quadratic(c: NDArray[np.float64], x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float64]:
    return c[0] * x * x + c[1] * x * y + c[2] * y * y


def _waves(rng: Generator, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.complex128]:
    """A field of 5 x 5 low spatial frequencies with random amplitudes and phases."""
    order = np.arange(5)
    amplitude = rng.normal(0, 0.06, (5, 5)) * np.exp(1j * rng.uniform(0, 2 * np.pi, (5, 5)))
    along_y = np.exp(0.5j * np.pi * order[:, None] * y[:, 0])
    along_x = np.exp(0.5j * np.pi * order[:, None] * x[0])
    return along_y.T @ amplitude @ along_x


def _band_limited(rng: Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Noise of standard deviation 1 with spatial frequencies up to a quarter of the grid's."""
    from scipy.ndimage import gaussian_filter

    texture = gaussian_filter(rng.standard_normal(shape), 2.0, mode="wrap")
    return texture / texture.std()
