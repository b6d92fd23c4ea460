"""ArtEq as a LightningModule."""

from __future__ import annotations

from zoo.humans.arteq.group import GroupName, KernelName
from zoo.humans.arteq.losses import LossWeights
from zoo.humans.arteq.network import ArtEqNetwork
from zoo.humans.arteq.regression import CloudRegression, OptimizerName, Schedule
from zoo.registry import register_model


@register_model("humans/arteq")
class ArtEq(CloudRegression):
    """Finds SMPL in a point cloud with features that turn with each body part.

    Args:
        group, kernel, mlps, strides, radii, neighbors, attention_heads, part_hidden, pose_value_dim,
            shape_value_dim, kinematic_cond, context, context_dim: see `zoo.humans.arteq.network.ArtEqNetwork`.
        optimizer: ``"adam"`` (the paper's), or ``"muon"``, see `zoo.humans.arteq.muon.Muon`.
        lr: learning rate of Adam, and with Muon of the parameters that are no matrices.
        weight_decay: share of a weight that a step takes off it, times the learning rate; with Muon of the matrices.
        schedule: ``"constant"`` (the paper's), or ``"cosine"``, with a rise before it.
        segmentation_warmup: epochs, or part of one, in which features are gathered by the true parts.
        first_pose_only: as the official code, learn rotations from the first body of each batch only.
        train_feet: learn the rotations of the feet, which have no points; the official code does not.
        segmentation_weight, rotations_weight, betas_weight, joints_weight, vertices_weight, normals_weight,
            markers_weight, centroids_weight: of the losses.
        markers: numbers of vertices with a loss of their own.
        vertex_step: losses take every so many vertices.
        body: model file or folder, see `zoo.humans.body.load_body`; None for the stand-in.
        gender: of the body.
        scan_points: how many points of a scan prediction takes, unless told otherwise; best about as many as in
            training, where neighbours lie as far apart.
        refine, views: rounds of registration after the network in validation and test, and how many rotations of the
            cloud it then sees, see `CloudRegression.fit`; prediction of files has its own. 0 rounds: the network alone.
    """

    network: ArtEqNetwork

    def __init__(
        self,
        group: GroupName = "icosahedral",
        kernel: KernelName = "epn",
        mlps: tuple[tuple[int, ...], ...] = ((32, 32), (64, 64)),
        strides: tuple[int, ...] = (2, 2),
        radii: tuple[float, ...] | None = None,
        neighbors: tuple[int, ...] | None = None,
        attention_heads: int = 8,
        part_hidden: int = 128,
        pose_value_dim: int = 128,
        shape_value_dim: int = 6,
        kinematic_cond: bool = True,
        context: int = 0,
        context_dim: int = 64,
        optimizer: OptimizerName = "adam",
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        schedule: Schedule = "constant",
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
        network = ArtEqNetwork(
            group,
            kernel,
            mlps,
            strides,
            radii,
            neighbors,
            attention_heads,
            part_hidden,
            pose_value_dim,
            shape_value_dim,
            kinematic_cond,
            context,
            context_dim,
        )
        super().__init__(network, weights, markers, vertex_step, body, gender)
        self.save_hyperparameters()
