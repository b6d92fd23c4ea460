"""PointNet as a LightningModule."""

from __future__ import annotations

from zoo.humans.arteq.losses import LossWeights
from zoo.humans.arteq.regression import CloudRegression, OptimizerName, Schedule
from zoo.humans.pointnet.network import PointNet
from zoo.registry import register_model


@register_model("humans/pointnet")
class PointNetRegression(CloudRegression):
    """Finds SMPL in a point cloud with a PointNet: ArtEq's rival.

    Args:
        widths, part_hidden, attention_heads, shape_value_dim, part_dim: see
            `zoo.humans.pointnet.network.PointNet`.
        optimizer, lr, weight_decay, schedule, segmentation_warmup, first_pose_only, train_feet, segmentation_weight,
            rotations_weight, betas_weight, joints_weight, vertices_weight, normals_weight, markers_weight,
            centroids_weight, markers, vertex_step, body, gender, scan_points, refine, views: see
            `zoo.humans.arteq.module.ArtEq`.
    """

    network: PointNet

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 128, 128),
        part_hidden: int = 74,
        attention_heads: int = 8,
        shape_value_dim: int = 6,
        part_dim: int = 80,
        optimizer: OptimizerName = "adam",
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        schedule: Schedule = "cosine",
        segmentation_warmup: float = 1.0,
        first_pose_only: bool = False,
        train_feet: bool = True,
        segmentation_weight: float = 5.0,
        rotations_weight: float = 5.0,
        betas_weight: float = 1.0,
        joints_weight: float = 100.0,
        vertices_weight: float = 100.0,
        normals_weight: float = 1.0,
        markers_weight: float = 200.0,
        centroids_weight: float = 100.0,
        markers: tuple[int, ...] = (),
        vertex_step: int = 1,
        body: str | None = None,
        gender: str = "neutral",
        scan_points: int = 5000,
        refine: int = 0,
        views: int = 1,
    ) -> None:
        weights = LossWeights(
            segmentation_weight,
            rotations_weight,
            betas_weight,
            joints_weight,
            vertices_weight,
            normals_weight,
            markers_weight,
            centroids_weight,
        )
        network = PointNet(widths, part_hidden, attention_heads, shape_value_dim, part_dim)
        super().__init__(network, weights, markers, vertex_step, body, gender)
        self.save_hyperparameters()
