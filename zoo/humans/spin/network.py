"""HMR's regressor as SPIN uses it: a ResNet and three rounds of correcting pose, shape and camera.

Sources: Kanazawa et al., CVPR 2018; Kolotouros et al., ICCV 2019; He et al., CVPR 2016. Names are the official ones
(and torchvision's and timm's for the ResNet), so their state dicts load as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import ConfigError, did_you_mean
from zoo.humans.rotations import rot6d_to_rotmat
from zoo.ops.precision import full_precision

Backbone = Literal["resnet18", "resnet34", "resnet50", "small"]


@dataclass(frozen=True)
class Regression:
    """Bodies regressed from images.

    Attributes:
        rotmats: (B, 24, 3, 3).
        betas: (B, 10).
        camera: (B, 3) scale and shift in the crop, see `zoo.humans.cameras.crop_translation`.
    """

    rotmats: Tensor
    betas: Tensor
    camera: Tensor


class IterativeRegressor(nn.Module):
    """Pose (6-D), shape and camera, corrected from the mean in rounds with shared weights.

    Args:
        features: width of the input.
        hidden: width of the two layers.
        rounds: corrections.
        dropout: after each layer.
        activation: ReLU after each layer; the original has none, so its two layers are one linear map.
        joints: rotations.
    """

    init_pose: Tensor
    init_shape: Tensor
    init_cam: Tensor

    def __init__(
        self,
        features: int = 2048,
        hidden: int = 1024,
        rounds: int = 3,
        dropout: float = 0.5,
        activation: bool = False,
        joints: int = 24,
    ) -> None:
        super().__init__()
        self.rounds, self.joints = rounds, joints
        pose = 6 * joints
        self.fc1 = nn.Linear(features + pose + 13, hidden)
        self.drop1 = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, hidden)
        self.drop2 = nn.Dropout(dropout)
        self.activation = nn.ReLU() if activation else nn.Identity()
        self.decpose = nn.Linear(hidden, pose)
        self.decshape = nn.Linear(hidden, 10)
        self.deccam = nn.Linear(hidden, 3)
        for layer in (self.decpose, self.decshape, self.deccam):
            nn.init.xavier_uniform_(layer.weight, gain=0.01)
        # The identity, upright in front of the camera.
        mean = torch.tensor([1.0, 0, 0, 1, 0, 0]).repeat(joints, 1)
        mean[0] = torch.tensor([1.0, 0, 0, -1, 0, 0])
        self.register_buffer("init_pose", mean.reshape(1, -1))
        self.register_buffer("init_shape", torch.zeros(1, 10))
        self.register_buffer("init_cam", torch.tensor([[0.9, 0.0, 0.0]]))

    def regress(
        self, feature: Tensor, rounds: int | None = None, start: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> Regression:
        """Features -> bodies.

        Args:
            feature: (B, F).
            rounds: corrections; those of the constructor by default.
            start: pose (B, 144) in 6-D, shape (B, 10) and camera (B, 3) to correct; the means by default.
        """
        means = (self.init_pose, self.init_shape, self.init_cam) if start is None else start
        pose, shape, camera = (mean.expand(len(feature), -1) for mean in means)
        for _ in range(self.rounds if rounds is None else rounds):
            hidden = self.drop1(self.activation(self.fc1(torch.cat([feature, pose, shape, camera], 1))))
            hidden = self.drop2(self.activation(self.fc2(hidden)))
            pose, shape = pose + self.decpose(hidden), shape + self.decshape(hidden)
            camera = camera + self.deccam(hidden)
        return Regression(rot6d_to_rotmat(pose.unflatten(1, (self.joints, 6))), shape, camera)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, width, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (with the stride) and 1 x 1 convolutions with a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4 width, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + (x if self.downsample is None else self.downsample(x)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


@dataclass(frozen=True)
class _Plan:
    block: type[BasicBlock] | type[Bottleneck]
    blocks: tuple[int, int, int, int]
    width: int = 64
    stem: int = 7
    stem_pool: bool = True
    grid: int = 1  # the features are a grid of averages of this side


_PLANS: dict[str, _Plan] = {
    "resnet18": _Plan(BasicBlock, (2, 2, 2, 2)),
    "resnet34": _Plan(BasicBlock, (3, 4, 6, 3)),
    "resnet50": _Plan(Bottleneck, (3, 4, 6, 3)),
    # For crops of 64 pixels: no pooling after the stem, and a 2 x 2 grid that keeps some of the layout.
    "small": _Plan(BasicBlock, (1, 1, 1, 1), width=32, stem=5, stem_pool=False, grid=2),
}


class HMR(IterativeRegressor):
    """Image -> SMPL.

    Args:
        backbone: ``"resnet50"`` is the paper's; ``"small"`` is for 64-pixel crops on a CPU.
        hidden, rounds, dropout, activation: see `IterativeRegressor`.
    """

    def __init__(
        self,
        backbone: Backbone = "resnet50",
        hidden: int = 1024,
        rounds: int = 3,
        dropout: float = 0.5,
        activation: bool = False,
    ) -> None:
        if backbone not in _PLANS:
            raise ConfigError(f"There is no backbone '{backbone}'. {did_you_mean(backbone, _PLANS)}")
        plan = _PLANS[backbone]
        super().__init__(8 * plan.width * plan.block.expansion * plan.grid**2, hidden, rounds, dropout, activation)
        self.stem_pool, self.grid = plan.stem_pool, plan.grid
        self.conv1 = nn.Conv2d(3, plan.width, plan.stem, 2, plan.stem // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(plan.width)
        inputs = plan.width
        for stage, count in enumerate(plan.blocks):
            width = plan.width * 2**stage
            blocks = []
            for number in range(count):
                blocks.append(plan.block(inputs, width, 2 if stage and number == 0 else 1))
                inputs = width * plan.block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan))

    def stages(self, image: Tensor) -> list[Tensor]:
        """Outputs of the four stages for normalised images (B, 3, H, W)."""
        x = F.relu(self.bn1(self.conv1(image)))
        if self.stem_pool:
            x = F.max_pool2d(x, 3, 2, 1)
        outputs = []
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
            outputs.append(x)
        return outputs

    def features(self, image: Tensor) -> Tensor:
        """Pooled features (B, F) of normalised images (B, 3, H, W)."""
        return F.adaptive_avg_pool2d(self.stages(image)[-1], self.grid).flatten(1)

    def forward(self, image: Tensor) -> Regression:
        """Bodies in images (B, 3, H, W), normalised with ImageNet's mean and deviation.

        Under autocast only the convolutions run in half precision: rounded, a rotation is off by millimetres.
        """
        feature = self.features(image.contiguous(memory_format=torch.channels_last))
        with full_precision(image):
            return self.regress(feature.to(self.fc1.weight.dtype))
