"""What keeps one decoder good for all blocks: the teacher, the consistency loss, the weights of blocks.

Source: Fan et al., "Momentum-GS", 2024 (arXiv 2412.04887), sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.splatting.scaffold_gs.decoder import Decoded, GaussianDecoder, Rows, activate


def consistency(
    teacher: GaussianDecoder, inputs: Tensor, rows: Rows, student: Decoded, detach: bool = False
) -> dict[str, Tensor]:
    """Mean squared differences of what teacher and student make of the same anchors; their sum is the loss.

    Args:
        teacher: the averaged decoder.
        inputs: (A, ...) what the student's networks saw.
        rows: the anchors.
        student: what the student made; only its Gaussians are compared, but all slots' opacities.
        detach: let no gradient reach the anchors through the teacher. Officially it does.

    Returns:
        color, rotation, scaling and opacity.
    """
    extent = rows["scaling"].exp()
    if detach:
        inputs, teacher_extent = inputs.detach(), extent.detach()
    else:
        teacher_extent = extent
    opacity, shape, color = teacher.heads(inputs)
    chosen = student.selected
    losses = {"opacity": F.mse_loss(student.raw_opacities, opacity)}
    if len(chosen) == 0:  # a mean over nothing is NaN
        return losses
    scales, quats = activate(shape[chosen], teacher_extent, chosen // teacher.n_offsets)
    return {
        **losses,
        "color": F.mse_loss(student.colors, color[chosen]),
        "rotation": F.mse_loss(student.quats, quats),
        "scaling": F.mse_loss(student.scales, scales),
    }


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student."""
    for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
        old.mul_(momentum).add_(new, alpha=1 - momentum)


class BlockWeights(nn.Module):
    """Weights in [1, 2) that favour blocks whose PSNR and SSIM lag behind the best.

    Args:
        blocks: number of blocks.
        sigma: width in dB; a hundredth of SSIM counts as a tenth of a dB.
        decay: of the averages, per iteration.

    Attributes:
        quality: (B, 2) last measured PSNR (dB) and SSIM; NaN before the first.
        average: (B, 2) their moving averages.
    """

    quality: Tensor
    average: Tensor

    def __init__(self, blocks: int, sigma: float, decay: float = 0.9) -> None:
        super().__init__()
        self.sigma, self.decay = sigma, decay
        self.register_buffer("quality", torch.full((blocks, 2), torch.nan, dtype=torch.float64))
        self.register_buffer("average", torch.full((blocks, 2), torch.nan, dtype=torch.float64))

    def measured(self, block: int, psnr: float, ssim: float) -> None:
        """Takes in a measurement."""
        self.quality[block] = torch.tensor([psnr, ssim], dtype=torch.float64)

    def advance(self, blocks: Sequence[int]) -> None:
        """Lets the averages of the blocks that train now follow their last measurements, by one iteration."""
        for block in blocks:
            new = self.quality[block]
            if not bool(new.isnan().any()):
                old = self.average[block]
                self.average[block] = new if bool(old.isnan().any()) else self.decay * old + (1 - self.decay) * new

    def forward(self, block: int) -> float:
        """The weight of a block; 1 before its first measurement."""
        behind = self.average.nan_to_num(-torch.inf).amax(0) - self.average[block]
        if bool(behind.isnan().any()):
            return 1.0
        distance = behind[0] ** 2 + (10 * behind[1]) ** 2
        return float(2 - torch.exp(-distance / (2 * self.sigma**2)))
