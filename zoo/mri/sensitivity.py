"""Coil sensitivity maps from the fully sampled centre of k-space: low-resolution maps, and ESPIRiT.

Maps are (B, C, H, W) complex with sum_c |S_c|^2 = 1 where there is signal and 0 elsewhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.mri.fourier import Norm, fft2, ifft2, unshift
from zoo.mri.operators import normalize_maps, safe_divide

BLOCK = 10  # samples along its shorter side, of a centre that ESPIRiT's maps are made of for networks


def acs_maps(
    kspace: Tensor,
    acs_mask: Tensor,
    taper: float | None = None,
    centered: bool = True,
    norm: Norm = "ortho",
) -> Tensor:
    """Coil images of the centre of k-space divided by their root of the sum of squares.

    Args:
        kspace: (B, C, H, W) complex.
        acs_mask: boolean, broadcastable to (B, 1, H, W), the fully sampled centre.
        taper: width of the Gaussian exp(-(u / taper)^2), u from -1 to 1 along the columns of k-space, that
            the centre is multiplied with; None for none.
        centered, norm: convention of the Fourier transform, see `zoo.mri.fourier`.
    """
    center = acs_mask * kspace
    if taper is not None:
        u = torch.linspace(-1, 1, kspace.shape[-1], dtype=kspace.real.dtype, device=kspace.device)
        center = center * torch.exp(-((u / taper) ** 2))
    return normalize_maps(ifft2(center, centered, norm))


def calibration_box(acs_mask: Tensor, max_size: int = 24) -> tuple[slice, slice]:
    """The largest centred rectangle within a fully sampled centre, no side longer than `max_size`.

    Args:
        acs_mask: (H, W) boolean.
        max_size: in samples.

    Returns:
        Its rows and columns.
    """
    height, width = acs_mask.shape
    # Summed from the centre outwards, a box is full if its count is its area.
    table = F.pad(acs_mask.long().cumsum(0).cumsum(1), (1, 0, 1, 0))
    best = (0, slice(0, 0), slice(0, 0))
    for rows in range(1, min(height, max_size) + 1):
        top = height // 2 - rows // 2
        for columns in range(1, min(width, max_size) + 1):
            left = width // 2 - columns // 2
            bottom, right = top + rows, left + columns
            count = table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
            if count == rows * columns and count > best[0]:
                best = (rows * columns, slice(top, bottom), slice(left, right))
    return best[1], best[2]


def espirit(
    kspace: Tensor,
    acs_mask: Tensor,
    kernel_size: int = 6,
    threshold: float = 0.02,
    crop: float = 0.95,
    max_size: int = 24,
    iterations: int = 30,
    centered: bool = True,
) -> Tensor:
    """ESPIRiT maps: the eigenvector of eigenvalue 1 of the local kernels that reproduce k-space.

    Source: Uecker et al., ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI, MRM 71, 2014. The
    phase is that of coil 0.

    Args:
        kspace: (B, C, H, W) complex.
        acs_mask: boolean, broadcastable to (B, 1, H, W).
        kernel_size: k, of the k x k kernels; smaller if the centre is.
        threshold: singular values below this fraction of the largest belong to noise.
        crop: eigenvalue below which a pixel counts as outside the object: its maps are 0.
        max_size: samples used of the centre along each axis.
        iterations: of the power method.
        centered: convention of the Fourier transform, see `zoo.mri.fourier`.

    Raises:
        ValueError: a sample has no fully sampled centre.
    """
    masks = acs_mask.expand(kspace.shape[0], 1, *kspace.shape[-2:])[:, 0]
    maps = []
    for sample, mask in zip(kspace, masks, strict=True):
        rows, columns = calibration_box(mask.cpu(), max_size)
        calibration = sample[:, rows, columns]
        if calibration.numel() == 0:
            raise ValueError("ESPIRiT needs a fully sampled centre, and the ACS mask has none")
        size = min(kernel_size, *calibration.shape[-2:])
        operators = _local_operators(_kernel_correlation(calibration, size, threshold), sample.shape[-2:], centered)
        maps.append(_leading_eigenvector(operators, crop, iterations))
    return torch.stack(maps)


def _kernel_correlation(calibration: Tensor, k: int, threshold: float) -> Tensor:
    """How a sample depends on its neighbours in all coils, by displacement.

    Args:
        calibration: (C, h, w), the fully sampled centre.
        k: size of the patches.
        threshold: see `espirit`.

    Returns:
        (C, C, 2k-1, 2k-1): for coils c, c' and a displacement d = u' - u, the projector onto the k x k
        patches of the signal, entry ((c, u), (c', u')), summed over all u, u' of that displacement.
    """
    coils = calibration.shape[0]
    patches = calibration.unfold(1, k, 1).unfold(2, k, 1).permute(1, 2, 0, 3, 4).reshape(-1, coils * k * k)
    values, vectors = torch.linalg.eigh(patches.mH @ patches)  # squared singular values, ascending
    signal = vectors[:, values > threshold**2 * values[-1]]
    projector = (signal.conj() @ signal.mT).view(coils, k, k, coils, k, k)
    summed = projector.new_zeros(coils, coils, 2 * k - 1, 2 * k - 1)
    for y in range(k):
        for x in range(k):
            summed[:, :, k - 1 - y : 2 * k - 1 - y, k - 1 - x : 2 * k - 1 - x] += projector[:, y, x]
    return summed


def _local_operators(correlation: Tensor, shape: torch.Size, centered: bool) -> Tensor:
    """(H, W, C, C): what applying the projector to every patch does to the coil vector at each pixel."""
    size = correlation.shape[-1]
    top, left = (n // 2 - size // 2 for n in shape)
    padded = F.pad(correlation, (left, shape[1] - size - left, top, shape[0] - size - top))
    operators = fft2(padded if centered else unshift(padded), centered, norm="backward")
    return operators.permute(2, 3, 0, 1) / ((size + 1) // 2) ** 2


def _leading_eigenvector(operators: Tensor, crop: float, iterations: int) -> Tensor:
    """(H, W, C, C) -> (C, H, W), by the power method; 0 for an operator of 0."""
    vector = operators.new_ones(*operators.shape[:-1], 1)
    value = vector.real
    for _ in range(iterations):
        vector = operators @ vector
        value = torch.linalg.vector_norm(vector, dim=-2, keepdim=True)
        vector = safe_divide(vector, value)
    phase = torch.polar(torch.ones_like(value), -vector[..., :1, :].angle())
    return (vector * phase * (value > crop)).squeeze(-1).movedim(-1, 0)


def calibration_maps(kspace: Tensor, acs_mask: Tensor, centered: bool = True, iterations: int = 30) -> Tensor:
    """ESPIRiT maps that are nowhere 0, for the classical methods; arguments as of `espirit`.

    A mask on them would spare the methods the noise outside the head, and cost them what it cuts off.
    """
    return espirit(kspace, acs_mask, crop=0.0, iterations=iterations, centered=centered)


def real_maps(kspace: Tensor, acs_mask: Tensor, centered: bool = True, iterations: int = 30) -> Tensor:
    """`calibration_maps` in the phase of `acs_maps`: the image they combine is real and positive at low resolution.

    That is the convention networks are trained in; ESPIRiT's own leaves the image the phase of coil 0.
    """
    maps = calibration_maps(kspace, acs_mask, centered, iterations)
    low = (maps.conj() * ifft2(acs_mask * kspace, centered)).sum(1, keepdim=True)
    return maps * torch.polar(torch.ones_like(low.real), low.angle())


@torch.no_grad()
def network_maps(kspace: Tensor, acs_mask: Tensor, maps: Tensor, centered: bool = True) -> Tensor:
    """The better coil maps of the two for each sample: `real_maps` if its centre is a block of some size.

    From few lines, however long they are, ESPIRiT's explain coil images less well than maps of low resolution.

    Args:
        kspace, acs_mask, centered: as of `espirit`.
        maps: (B, C, H, W), what a sample with a narrow centre keeps.
    """
    chosen = maps.clone()
    for index, center in enumerate(acs_mask[:, 0].cpu()):
        rows, columns = calibration_box(center)
        if min(rows.stop - rows.start, columns.stop - columns.start) >= BLOCK:
            one = slice(index, index + 1)
            chosen[one] = real_maps(kspace[one], acs_mask[one], centered, iterations=10)
    return chosen
