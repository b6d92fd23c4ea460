"""Learnable SMPLify as a LightningModule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from zoo.data.motion_pairs import GROUPS, MotionPairBatch
from zoo.errors import ConfigError
from zoo.humans.arteq.regression import thin_body
from zoo.humans.body import Body, load_body
from zoo.humans.joints import SPIN_49_SOURCES
from zoo.humans.learnable_smplify import pictures, published
from zoo.humans.learnable_smplify.bones import Bones, body_25
from zoo.humans.learnable_smplify.export import export
from zoo.humans.learnable_smplify.files import check_output, read_joints, write_motion
from zoo.humans.learnable_smplify.fitting import FittedMotion, Fitter
from zoo.humans.learnable_smplify.geometry import ANKLE, aligned_error
from zoo.humans.learnable_smplify.graph import Labeling, Skeleton
from zoo.humans.learnable_smplify.network import BoneNetwork
from zoo.humans.learnable_smplify.noise import disturb
from zoo.humans.learnable_smplify.published import LossWeights
from zoo.humans.learnable_smplify.stgcn import BACKBONE, OfficialNetwork
from zoo.humans.metrics import point_errors
from zoo.humans.motion.sequence import Motion
from zoo.humans.render import upright
from zoo.humans.rotations import rotvec_to_rotmat
from zoo.humans.space import FOUND, TRUE, side_by_side
from zoo.module import ZooModule
from zoo.registry import register_model
from zoo.viz.space import Space

Architecture = Literal["bones", "official"]
# Of GROUPS, for figures.
_TITLES = ("1 frame apart", "5 frames apart", "9 frames apart", "5 apart, wide")
_EARLY = 0.5  # weight of the losses after every pass but the last


class FoundPoses(TypedDict):
    """What a test or predict step gives: rotations (B, 24, 3, 3) relative to the parents."""

    rotmats: Tensor


@register_model("humans/learnable-smplify")
class LearnableSMPLify(ZooModule):
    """Finds the pose whose joints are given, from a pose that is near.

    Args:
        architecture: ``"bones"``, see `zoo.humans.learnable_smplify.network.BoneNetwork`; ``"official"``, the
            published network, see `zoo.humans.learnable_smplify.stgcn.OfficialNetwork`.
        hidden, layers, passes: of ``"bones"``.
        skeleton, dropout, identity_init, pruned, backbone_config, input_dim, hidden_dim, temporal_kernel_size,
            labeling_mode: of ``"official"``.
        joints_weight, pose_weight, vertices_weight: of the losses.
        published_loss: the published angle between rotations, whose derivative vanishes near zero.
        noise_share: of training samples whose target joints are noisy, by which ``"bones"`` learns what their
            confidence means.
        noise: metres; such a sample's standard deviation is at most this.
        missing: share of the joints of a fifth of all samples that are missing; besides, share of all samples that
            lack the joints which another set (COCO's, SMPL's, ...) does not have.
        doubt_share: of training samples whose start pose is off by more than its joints show.
        doubt: radians; such a sample's standard deviation is at most this.
        vertex_step: the loss takes every so many vertices.
        lr, weight_decay: of AdamW.
        schedule: ``"cosine"`` down to a hundredth of the rate (the paper's), or ``"one-cycle"``.
        body: model file or folder, see `zoo.humans.body.load_body`; None for the stand-in.
        gender: of the body.
    """

    network: BoneNetwork | OfficialNetwork

    def __init__(
        self,
        architecture: Architecture = "bones",
        hidden: int = 160,
        layers: int = 3,
        passes: int = 2,
        skeleton: Skeleton = "ntu",
        dropout: float = 0.5,
        identity_init: bool = False,
        pruned: bool = False,
        backbone_config: tuple[tuple[int, int, int], ...] = BACKBONE,
        input_dim: int = 256,
        hidden_dim: int = 256,
        temporal_kernel_size: int = 9,
        labeling_mode: Labeling = "spatial",
        joints_weight: float = 5.0,
        pose_weight: float = 1.0,
        vertices_weight: float = 1.0,
        published_loss: bool = False,
        noise_share: float = 0.5,
        noise: float = 0.03,
        missing: float = 0.25,
        doubt_share: float = 0.3,
        doubt: float = 0.2,
        vertex_step: int = 24,
        lr: float = 2e-3,
        weight_decay: float = 0.01,
        schedule: Literal["cosine", "one-cycle"] = "one-cycle",
        body: str | None = None,
        gender: str = "neutral",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if min(passes, layers, vertex_step) < 1:
            raise ConfigError(
                f"model.passes ({passes}), model.layers ({layers}) and model.vertex_step ({vertex_step}) should be at "
                "least 1."
            )
        self.body = load_body(body, gender)
        self.loss_body = thin_body(self.body, vertex_step)
        self.loss_weights = LossWeights(joints_weight, pose_weight, vertices_weight)
        if architecture == "bones":
            self.network = BoneNetwork(hidden, layers, passes, min(10, self.body.num_betas))
            self.joints = body_25(self.body)
            self.bones = Bones(self.joints)
        else:
            self.network = OfficialNetwork(
                backbone_config,
                input_dim,
                hidden_dim,
                temporal_kernel_size=temporal_kernel_size,
                labeling_mode=labeling_mode,
                skeleton=skeleton,
                dropout=dropout,
                identity_init=identity_init,
                pruned=pruned,
                vertices=len(self.body.v_template),
            )
            self.network.openpose_regressor.copy_(default_regressor(self.body))
            self._read_joints()
            # Weights bring the regressor that they were trained with.
            self.network.register_load_state_dict_post_hook(lambda *_: self._read_joints())
        self.train_loss = MeanMetric()
        self.val_metrics, self.test_metrics = self._metrics(), self._metrics()

    def _read_joints(self) -> None:
        assert isinstance(self.network, OfficialNetwork)
        regressor = self.network.openpose_regressor
        # Of another body's mesh, as in a checkpoint of a smaller body, it can only be read with that body.
        if regressor.shape[1] == len(self.body.v_template):
            self.joints = published.regressed_joints(self.body, regressor.cpu()).to(regressor.device)

    @staticmethod
    def _metrics() -> torch.nn.ModuleDict:
        """By group: errors in mm of the vertices (pelvis or ankle brought together), the same of the start pose."""
        names = ("pve", "pve_ankle", "pa_pve", "joints", "copy")
        made: dict[str, Metric] = {f"{name}_{group}": MeanMetric() for name in names for group in GROUPS}
        return torch.nn.ModuleDict(made)

    # --- the network ---------------------------------------------------------------------------------------------

    def forward(
        self,
        rotmats: Tensor,
        betas: Tensor,
        target: Tensor,
        transl: Tensor | None = None,
        confidence: Tensor | None = None,
        doubt: Tensor | None = None,
    ) -> Tensor:
        """Poses whose joints are the targets.

        Args:
            rotmats: (B, 24, 3, 3) start poses, relative to the parents.
            betas: (B, S).
            target: (B, 25, 3) joints of BODY_25, metres.
            transl: (B, 3) of the start pose; the official network needs it.
            confidence, doubt: see `BoneNetwork.forward`; the official network has no use for them.

        Returns:
            (B, 24, 3, 3).
        """
        return self.unroll(rotmats, betas, target, transl, confidence, doubt)[-1]

    def unroll(
        self,
        rotmats: Tensor,
        betas: Tensor,
        target: Tensor,
        transl: Tensor | None = None,
        confidence: Tensor | None = None,
        doubt: Tensor | None = None,
    ) -> list[Tensor]:
        """The poses after each of the network's passes; arguments as of `forward`."""
        if isinstance(self.network, BoneNetwork):
            return self.network.unroll(self.bones, rotmats, betas, target, confidence, doubt)
        if transl is None:
            raise ConfigError("The official architecture needs the start pose's translation: give transl.")
        read_from, there = self.network.openpose_regressor.shape[1], len(self.body.v_template)
        if read_from != there:
            raise ConfigError(
                f"The network reads its joints from a body of {read_from} vertices, but this one has {there}: give the "
                "body that it was trained with (model.body)."
            )
        start = self.joints.state(rotmats, betas).joints + transl.unsqueeze(1)
        return [published.step(self.network, rotmats, betas, start, target)]

    def export(self, path: Path) -> None:
        """Writes the network as TorchScript, see `zoo.humans.learnable_smplify.export`.

        Raises:
            ConfigError: the official architecture.
        """
        if not isinstance(self.network, BoneNetwork):
            raise ConfigError('Exporting needs architecture="bones"; prune the official one instead.')
        export(self.network, self.bones, path)

    def fitter(self, keypoints: str | tuple[str, ...] = "body-25") -> Fitter:
        """What fits poses to joints of a named set, see `Fitter`.

        Raises:
            ConfigError: the official architecture, which only knows its own joints.
        """
        if not isinstance(self.network, BoneNetwork):
            raise ConfigError('Fitting needs architecture="bones".')
        return Fitter(self.network, self.bones, self.body, keypoints)

    def fit(
        self,
        joints: Tensor,
        init: Tensor | None = None,
        betas: Tensor | None = None,
        confidence: Tensor | None = None,
        keypoints: str | tuple[str, ...] = "body-25",
        refine: int = 0,
    ) -> FittedMotion:
        """Fits a motion to joints, each frame from the one before; see `Fitter.sequence`."""
        return self.fitter(keypoints).sequence(joints, init, betas, confidence, refine)

    # --- steps ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: MotionPairBatch, batch_idx: int) -> Tensor:
        """Losses of all passes, the last one's in full."""
        own, betas = self.hparams, batch["betas"]
        start, end = _matrices(batch["start_pose"]), _matrices(batch["end_pose"])
        count = len(betas)
        with torch.no_grad():
            truth = self._state(end, betas)
        observed, confidence, doubt = truth[1], None, None
        if isinstance(self.network, BoneNetwork) and own["noise_share"] > 0:
            observed, confidence = disturb(truth[1], own["noise_share"], own["noise"], own["missing"])
        if isinstance(self.network, BoneNetwork) and own["doubt_share"] > 0:
            chosen = (torch.rand(count, device=betas.device) < own["doubt_share"]).to(betas)
            doubt = chosen * own["doubt"] * torch.rand_like(chosen)
            off = rotvec_to_rotmat(doubt.view(-1, 1, 1) * torch.randn_like(start[:, :22, :, 0]))
            start = torch.cat([start[:, :22] @ off, start[:, 22:]], 1)
        target = observed + batch["end_trans"].unsqueeze(1)
        poses = self.unroll(start, betas, target, batch["start_trans"], confidence, doubt)
        loss = betas.new_zeros(())
        for number, rotmats in enumerate(poses, 1):
            terms = published.losses(self._state(rotmats, betas), truth, self.loss_weights, own["published_loss"])
            loss = loss + (1.0 if number == len(poses) else _EARLY) * torch.stack(list(terms.values())).sum()
        self.train_loss(loss.detach())
        self.log("train/loss", self.train_loss, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def _state(self, rotmats: Tensor, betas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotations, joints and the loss' vertices, without translation."""
        vertices = self.loss_body.to(betas.device)(rotmats[:, :1], rotmats[:, 1:], betas).vertices
        return rotmats, self.joints.to(betas.device).state(rotmats, betas).joints, vertices

    @torch.no_grad()
    def _evaluate(self, batch: MotionPairBatch, metrics: torch.nn.ModuleDict) -> FoundPoses:
        betas = batch["betas"]
        start, end = _matrices(batch["start_pose"]), _matrices(batch["end_pose"])
        joints, body = self.joints.to(betas.device), self.body.to(betas.device)
        target = joints.state(end, betas).joints
        placed = target + batch["end_trans"].unsqueeze(1)
        found = self(start, betas, placed, batch["start_trans"])
        meshes = [body(pose[:, :1], pose[:, 1:], betas).vertices for pose in (found, end, start)]
        regressor = body.J_regressor
        errors = {
            "pve": aligned_error(meshes[0], meshes[1], regressor),
            "pve_ankle": aligned_error(meshes[0], meshes[1], regressor, ANKLE),
            "pa_pve": point_errors(meshes[0], meshes[1], "procrustes").mean(1),
            "joints": (joints.state(found, betas).joints - target).norm(dim=-1).mean(1),
            "copy": aligned_error(meshes[2], meshes[1], regressor),
        }
        for number, group in enumerate(GROUPS):
            rows = batch["group"] == number
            if not bool(rows.any()):
                continue
            for name, values in errors.items():
                metrics[f"{name}_{group}"].update(1000 * values[rows])  # type: ignore[operator]
        return {"rotmats": found}

    def validation_step(self, batch: MotionPairBatch, batch_idx: int) -> None:
        """Errors of vertices and joints."""
        self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: MotionPairBatch, batch_idx: int) -> FoundPoses:
        """Errors of vertices and joints, and the poses for the figures."""
        return self._evaluate(batch, self.test_metrics)

    def on_validation_epoch_end(self) -> None:
        """Logs the errors of the groups there were."""
        self.log_seen(self.val_metrics, "val/")  # type: ignore[arg-type]

    def on_test_epoch_end(self) -> None:
        """Logs the errors of the groups there were."""
        self.log_seen(self.test_metrics, "test/")  # type: ignore[arg-type]

    def predict_step(self, batch: MotionPairBatch, batch_idx: int) -> FoundPoses:
        """Poses."""
        end = _matrices(batch["end_pose"])
        target = self.joints.state(end, batch["betas"]).joints + batch["end_trans"].unsqueeze(1)
        return {"rotmats": self(_matrices(batch["start_pose"]), batch["betas"], target, batch["start_trans"])}

    def configure_optimizers(self) -> Any:
        """AdamW on everything."""
        own = self.hparams
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=own["lr"], weight_decay=own["weight_decay"])
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        if own["schedule"] == "cosine":
            scheduler: Any = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, own["lr"] / 100)
        else:
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, own["lr"], steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # --- pictures and files --------------------------------------------------------------------------------------

    @torch.no_grad()
    def figures(self, batch: MotionPairBatch, output: FoundPoses) -> dict[str, Figure]:
        """Pairs of the batch, and a whole held-out motion followed from its first frame."""
        rows = torch.arange(0, len(batch["betas"]), max(1, len(batch["betas"]) // 7))[:7]
        betas = batch["betas"][rows]
        poses = [_matrices(batch["start_pose"][rows]), _matrices(batch["end_pose"][rows]), output["rotmats"][rows]]
        groups = [_TITLES[int(batch["group"][row])] for row in rows]
        drawn = {"pairs": pictures.pose_strips(self.body, self.joints, groups, poses[1], poses[2], betas, poses[0])}
        data: Any = None if self._trainer is None else self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(self.network, BoneNetwork) and hasattr(data, "test_motions"):
            drawn |= self._motion_figures(max(data.test_motions(), key=len))
        return drawn

    @torch.no_grad()
    def space(self, batch: MotionPairBatch, output: FoundPoses) -> Space:
        """The last pair's pose as found, and the true one."""
        body, betas = self.body.to(self.device), batch["betas"][-1:]
        shown = ((output["rotmats"][-1:], FOUND), (_matrices(batch["end_pose"][-1:]), TRUE))
        bodies = [
            (upright(body(pose[:, :1], pose[:, 1:], betas).vertices[0].cpu().numpy()), colour) for pose, colour in shown
        ]
        return side_by_side(bodies, body.faces.cpu().numpy())

    def _motion_figures(self, motion: Motion, frames: int = 300) -> dict[str, Figure]:
        motion = replace(motion, poses=motion.poses[:frames], trans=motion.trans[:frames])
        pose, trans = (torch.from_numpy(a).to(self.device) for a in (motion.poses, motion.trans))
        betas = torch.from_numpy(motion.betas).to(self.device)[None]
        joints = self.joints.state(_matrices(pose), betas.expand(len(pose), -1)).joints + trans.unsqueeze(1)
        fits = {
            "shape and first pose given": self.fit(joints, pose[0], betas),
            "only joints given": self.fit(joints),
        }
        return pictures.motion_figures(self.body, self.joints, motion, fits)

    @torch.no_grad()
    def predict_file(
        self,
        input: Path,
        output: Path,
        keypoints: str = "body-25",
        refine: int = 3,
        fps: float = 30.0,
        unit: Literal["m", "cm", "mm"] = "m",
        independent: bool = False,
    ) -> dict[str, Any]:
        """Fits bodies to joints in space.

        Args:
            input: ``.npy``, ``.npz`` or ``.json`` of joints over time, see `zoo.humans.learnable_smplify.files`.
            output: ``.npz`` in AMASS' layout, ``.json``, or ``.ply``, ``.obj``, ``.glb``, ``.stl`` for meshes.
            keypoints: which joints they are: body-25, coco-17, smpl-24, h36m-17, mpii-16, lsp-14,
                superset-24 or spin-49.
            refine: L-BFGS iterations after the network, twice so many.
            fps: frames per second.
            unit: of the input.
            independent: the frames are no motion but pictures of one person.

        Raises:
            DataError: the input can't be read, or the output's suffix is none of these.
        """
        check_output(output)
        content = read_joints(input)
        scale = {"m": 1.0, "cm": 0.01, "mm": 0.001}[unit]
        joints = torch.from_numpy(content.joints).to(self.device) * scale
        given = (content.pose, None if content.betas is None else content.betas[None], content.confidence)
        init, betas, confidence = (None if a is None else torch.from_numpy(a).to(self.device) for a in given)
        fitter = self.fitter(keypoints)
        if independent:
            motion = fitter.frames(joints, None, betas, confidence, refine)
        else:
            motion = fitter.sequence(joints, init, betas, confidence, refine)
        vertices = np.zeros((0, 0, 3))
        if output.suffix not in (".npz", ".json"):
            rotmats = _matrices(motion.pose)
            posed = self.body(rotmats[:, :1], rotmats[:, 1:], motion.betas.expand(len(rotmats), -1), motion.transl)
            vertices = posed.vertices.cpu().numpy()
        written = write_motion(output, motion, vertices, self.body.faces.cpu().numpy(), fps)
        return {
            "frames": len(joints),
            "joints": len(fitter.joints.rows),
            "mean distance": f"{1000 * float(motion.residual.mean()):.1f} mm",
            "written": str(written[0]) if len(written) == 1 else f"{written[0]} ... {written[-1]}",
        }


def default_regressor(body: Body) -> Tensor:
    """BODY_25 read from a body's posed vertices (25, V): its own joints by its regressor, the others picked."""
    count = len(body.parents)
    rows = torch.zeros(25, len(body.v_template))
    for row, source in enumerate(SPIN_49_SOURCES[:25]):
        if source < count:
            rows[row] = body.J_regressor[source]
        else:
            rows[row, body.extra_joints_idxs[source - count]] = 1.0
    return rows


def _matrices(pose: Tensor) -> Tensor:
    return rotvec_to_rotmat(pose.unflatten(1, (-1, 3)))
