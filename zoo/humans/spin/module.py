"""SPIN as a LightningModule."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection

from zoo.data.bodies import HumanBatch
from zoo.errors import ConfigError
from zoo.humans import figures
from zoo.humans.body_set import load_body_set
from zoo.humans.cameras import assumed_focal_length, crop_translation
from zoo.humans.crops import CropMode, take_crop
from zoo.humans.joints import H36M_TO_J14, J24_TO_J14
from zoo.humans.metrics import PCK, MeanPointError, point_errors
from zoo.humans.results import check_output, read_picture, write_people
from zoo.humans.rotations import rotmat_to_rot6d, rotmat_to_rotvec, rotvec_to_rotmat
from zoo.humans.segmentation import Segmentation, SegmentationScores, part_labels, segment
from zoo.humans.smplify.module import place_people, to_pixels
from zoo.humans.smplify.prior import MaxMixturePrior, load_prior
from zoo.humans.smplify.solver import Optimizer, SMPLify
from zoo.humans.space import FOUND, TRUE, side_by_side
from zoo.humans.spin.fits import FitsDictionary, load_fits
from zoo.humans.spin.loop import Signal, teach, training_losses
from zoo.humans.spin.losses import LossWeights
from zoo.humans.spin.network import HMR, Backbone, Regression
from zoo.module import ZooModule
from zoo.ops.precision import full_precision
from zoo.registry import register_model
from zoo.viz.space import Space

PRIOR_WEIGHTS = "humans/smplify-activities"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BOX_MARGIN = 1.2  # crops in training are so much larger than the people in them
_TRACKED = 400  # fits whose quality is logged where the truth is known


class Bodies(TypedDict):
    """What a test or predict step gives: rotation matrices (B, 24, 3, 3), betas (B, 10), camera (B, 3)."""

    rotmats: Tensor
    betas: Tensor
    camera: Tensor


@register_model("humans/spin")
class SPIN(ZooModule):
    """Regresses SMPL from a crop of a person; fits that start at its predictions teach it.

    Args:
        backbone: ``"resnet50"`` (the paper's), ``"resnet34"``, ``"resnet18"`` or ``"small"``.
        hidden, rounds, dropout, activation: see `zoo.humans.spin.network.IterativeRegressor`.
        img_size: side of the crops, pixels.
        signal: ``"spin"`` fits in the loop; ``"static"`` keeps the first fits; ``"keypoints"`` uses none.
        fit_optimizer, fit_steps: of the fits in the loop, see `zoo.humans.smplify.solver.SMPLify`.
        fit_threshold: mean reprojection above which a fit does not teach.
        start_optimizer, start_steps, start_yaws: of the first fits, made from the keypoints where the data brings
            none.
        fits: file of first fits, in the official layout; for training sets of one data set.
        lr: learning rate of Adam.
        schedule: ``"constant"`` (the paper's) or ``"one-cycle"`` with `lr` as its peak.
        keypoints_weight, keypoints_3d_weight, pose_weight, betas_weight, vertices_weight: of the losses; the paper's
            has none on vertices.
        body: folder of the body model, see `zoo.humans.body_set.load_body_set`; None for the stand-in.
        prior: file of the pose prior (``gmm_08.pkl``); None for the one that ships, fitted to our activities.
    """

    network: HMR
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: Backbone = "resnet50",
        hidden: int = 1024,
        rounds: int = 3,
        dropout: float = 0.5,
        activation: bool = False,
        img_size: int = 224,
        signal: Signal = "spin",
        fit_optimizer: Optimizer = "adam",
        fit_steps: int = 100,
        fit_threshold: float = 100.0,
        start_optimizer: Optimizer = "gauss-newton",
        start_steps: int = 15,
        start_yaws: tuple[float, ...] = (0.0, -65.0, 65.0),
        fits: str | None = None,
        lr: float = 5e-5,
        schedule: Literal["constant", "one-cycle"] = "constant",
        keypoints_weight: float = 5.0,
        keypoints_3d_weight: float = 5.0,
        pose_weight: float = 1.0,
        betas_weight: float = 0.001,
        vertices_weight: float = 0.0,
        body: str | None = None,
        prior: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = HMR(backbone, hidden, rounds, dropout, activation)
        self.bodies = load_body_set(body)
        pose_prior = _shipped_prior() if prior is None else load_prior(prior)
        self.solver = SMPLify(self.bodies.spin, pose_prior, fit_steps, fit_optimizer, "superset")
        mean = rotvec_to_rotmat(pose_prior.mean_pose().unflatten(0, (-1, 3)))
        self.network.init_pose[0, 6:] = rotmat_to_rot6d(mean).flatten()
        self.loss_weights = LossWeights(
            keypoints_weight, keypoints_3d_weight, pose_weight, betas_weight, vertices_weight
        )
        self.fits: FitsDictionary | None = None
        self.first_fit_errors: dict[str, float] = {}
        for name, values in (("pixel_mean", _IMAGENET_MEAN), ("pixel_std", _IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        for name in ("total", "keypoints", "keypoints_3d", "pose", "betas", "vertices", "fit_updates", "fit_loss"):
            setattr(self, f"train_{name}", MeanMetric())
        # Named as in the papers: errors are in mm, relative to the pelvis or after Procrustes alignment.
        self.val_metrics = MetricCollection(
            {"mpjpe": MeanPointError("none"), "pa_mpjpe": MeanPointError("procrustes")}, prefix="val/"
        )
        self.test_metrics = MetricCollection(
            {
                "mpjpe": MeanPointError("none"),
                "pa_mpjpe": MeanPointError("procrustes"),
                "pck150": PCK(0.15, alignment="none"),
                "auc": PCK(0.15, steps=31, alignment="none"),
            },
            prefix="test/",
        )
        self.test_vertices = MetricCollection(
            {"pve": MeanPointError("none"), "pa_pve": MeanPointError("procrustes")}, prefix="test/"
        )
        self.test_segmentation = SegmentationScores("test/")

    def forward(self, image: Tensor) -> Regression:
        """Bodies in crops (B, 3, H, W), pixels in [0, 1]."""
        regression: Regression = self.network((image - self.pixel_mean) / self.pixel_std)
        return regression

    # --- fits ---------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Makes or reads the first fits, unless a checkpoint brought some."""
        if self.fits is not None or self.hparams["signal"] == "keypoints":
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(data, "training_keypoints"):
            raise ConfigError(
                f"{data.zoo_name} has no keypoints to fit to: SPIN trains on humans/rendered-people or humans/images."
            )
        keypoints = data.training_keypoints()
        if self.hparams["fits"] is not None:
            self.fits = load_fits(self.hparams["fits"], len(keypoints))
            return
        table = data.initial_fits()
        self.fits = FitsDictionary(self._fit_all(keypoints) if table is None else table)
        self.first_fit_errors = self._fit_errors()

    @torch.no_grad()
    def _fit_all(self, keypoints: Tensor) -> Tensor:
        """First fits (N, 82) from the keypoints alone."""
        own = self.hparams
        solver = self.solver.with_settings(own["start_steps"], own["start_optimizer"], "visible")
        rows = []
        for part in to_pixels(keypoints).split(256):
            fit = solver.from_scratch(part.to(self.device), tuple(own["start_yaws"]))
            rows.append(torch.cat([fit.pose, fit.betas], 1).cpu())
        return torch.cat(rows)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The fits belong to the state of the training."""
        if self.fits is not None:
            checkpoint["fits"] = self.fits.table
            checkpoint["first_fit_errors"] = self.first_fit_errors

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up the fits."""
        if "fits" in checkpoint:
            self.fits = FitsDictionary(checkpoint["fits"].cpu().clone())
            self.first_fit_errors = checkpoint["first_fit_errors"]

    def on_train_epoch_end(self) -> None:
        """Logs how good the stored fits are, and how good they were at first, where the truth is known."""
        errors = {f"fits/{name}": value for name, value in self._fit_errors().items()}
        first = {f"fits/start_{name}": value for name, value in self.first_fit_errors.items()}
        self.log_dict({**errors, **first}, rank_zero_only=True)

    @torch.no_grad()
    def _fit_errors(self) -> dict[str, float]:
        """Of the first fits of the table, in mm; nothing where the truth is unknown."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.fits is None or not hasattr(data, "training_truth"):
            return {}
        pose, betas = (t[:_TRACKED].to(self.device) for t in data.training_truth())
        rows = self.fits.table[:_TRACKED].to(self.device)
        found, truth = self.evaluation_joints(rows[:, :72], rows[:, 72:]), self.evaluation_joints(pose, betas)
        return {
            "mpjpe": 1000 * float(point_errors(found, truth, "none").mean()),
            "pa_mpjpe": 1000 * float(point_errors(found, truth, "procrustes").mean()),
        }

    # --- steps --------------------------------------------------------------------------------------------------

    def training_step(self, batch: HumanBatch, batch_idx: int) -> Tensor:
        """The step of section 3 of the paper."""
        regression = self(batch["image"])
        with full_precision(batch["image"]):
            losses = self._losses(batch, regression)
        for name, value in losses.items():
            self._count(name, value.detach())
        for name in (*losses, *(("fit_updates", "fit_loss") if self.fits is not None else ())):
            label = "loss" if name == "total" else name
            self.log(
                f"train/{label}", getattr(self, f"train_{name}"), prog_bar=name == "total", on_step=False, on_epoch=True
            )
        return losses["total"]

    def _losses(self, batch: HumanBatch, regression: Regression) -> dict[str, Tensor]:
        joints = self.bodies.spin.state(regression.rotmats, regression.betas).joints
        teaching = None
        if self.fits is not None:
            index, rotation, flipped = batch["index"], batch["rotation"], batch["flipped"]
            teaching = teach(
                self.solver,
                regression if self.hparams["signal"] == "spin" else None,
                self.fits.get(index, rotation, flipped),
                to_pixels(batch["keypoints"]),
                (batch["pose"], batch["betas"], batch["has_smpl"]),
                self.hparams["fit_threshold"],
            )
            rows = (index, rotation, flipped, teaching.update, teaching.pose, teaching.betas)
            if self.trainer.world_size > 1:  # every process keeps the whole table
                rows = tuple(t.flatten(0, 1) for t in self.all_gather(rows))
            self.fits.set(*rows)
            self._count("fit_updates", teaching.update.float())
            self._count("fit_loss", teaching.loss)
        pose_3d = (batch["pose_3d"], batch["has_pose_3d"]) if bool(batch["has_pose_3d"].any()) else None
        vertices = None
        if teaching is not None and self.loss_weights.vertices > 0:
            taught = rotvec_to_rotmat(teaching.target_pose.unflatten(1, (-1, 3)))
            found = self._mesh(regression.rotmats, regression.betas)
            vertices = (found, self._mesh(taught, teaching.mesh_betas))
        return training_losses(regression, joints, teaching, batch["keypoints"], pose_3d, self.loss_weights, vertices)

    def _count(self, name: str, value: Tensor) -> None:
        metric: MeanMetric = getattr(self, f"train_{name}")
        metric(value)

    def evaluation_joints(self, pose: Tensor, betas: Tensor) -> Tensor:
        """The 14 joints of the literature about the pelvis, (B, 14, 3) metres, of a pose in either form."""
        if pose.ndim == 2:
            pose = rotvec_to_rotmat(pose.unflatten(1, (-1, 3)))
        joints = self.bodies.h36m.to(pose.device).state(pose, betas).joints
        return (joints - joints[:, :1])[:, list(H36M_TO_J14)]

    def _true_joints(self, batch: HumanBatch) -> Tensor:
        """The 14 joints, of the true body where it is known, else as annotated."""
        annotated = batch["pose_3d"][:, list(J24_TO_J14), :3]
        known = batch["has_smpl"].bool()[:, None, None]
        return torch.where(known, self.evaluation_joints(batch["pose"], batch["betas"]), annotated)

    def _judge(self, batch: HumanBatch, regression: Regression, metrics: MetricCollection) -> None:
        """Adds the joints' errors of those whose joints are known."""
        known = (batch["has_smpl"] + batch["has_pose_3d"]).bool()
        if bool(known.any()):
            found = self.evaluation_joints(regression.rotmats, regression.betas)
            metrics.update(found[known], self._true_joints(batch)[known])

    def validation_step(self, batch: HumanBatch, batch_idx: int) -> None:
        """Errors of the joints."""
        regression = self(batch["image"])
        with full_precision(batch["image"]):
            self._judge(batch, regression, self.val_metrics)

    def test_step(self, batch: HumanBatch, batch_idx: int) -> Bodies:
        """Errors of joints and vertices."""
        regression = self(batch["image"])
        with full_precision(batch["image"]):
            self._test(batch, regression)
        return {"rotmats": regression.rotmats, "betas": regression.betas, "camera": regression.camera}

    def _test(self, batch: HumanBatch, regression: Regression) -> None:
        self._judge(batch, regression, self.test_metrics)
        known = batch["has_smpl"].bool()
        if bool(known.any()):
            truth = rotvec_to_rotmat(batch["pose"][known].unflatten(1, (-1, 3)))
            vertices = self._centred(regression.rotmats[known], regression.betas[known])
            self.test_vertices.update(vertices, self._centred(truth, batch["betas"][known]))
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if hasattr(data, "segmentation"):
            self._test_segmentation([data.segmentation(int(index)) for index in batch["index"]], regression)

    def _test_segmentation(self, labelled: list[Segmentation | None], regression: Regression) -> None:
        """Adds silhouettes and parts of those whose pictures are labelled."""
        labels = part_labels(self.bodies.body.lbs_weights)
        faces = self.bodies.body.faces.cpu().numpy()
        for row, shown in enumerate(labelled):
            if shown is not None:
                mesh = self._mesh(regression.rotmats[row : row + 1], regression.betas[row : row + 1])
                placed = mesh[0] + crop_translation(regression.camera[row : row + 1])
                self.test_segmentation.update(segment(placed.cpu().numpy(), faces, labels, shown), shown)

    def on_validation_epoch_end(self) -> None:
        """Logs the errors of the joints."""
        self.log_seen(dict(self.val_metrics.items()))

    def on_test_epoch_end(self) -> None:
        """Logs what there was truth for."""
        joints, vertices = dict(self.test_metrics.items()), dict(self.test_vertices.items())
        self.log_seen({**joints, **vertices, **self.test_segmentation.named()})

    def _mesh(self, rotmats: Tensor, betas: Tensor) -> Tensor:
        vertices: Tensor = self.bodies.body.to(rotmats.device)(rotmats[:, :1], rotmats[:, 1:], betas).vertices
        return vertices

    def _centred(self, rotmats: Tensor, betas: Tensor) -> Tensor:
        """Vertices about the pelvis of the H36M regressor."""
        pelvis = self.bodies.h36m.to(rotmats.device).state(rotmats, betas).joints[:, :1]
        return self._mesh(rotmats, betas) - pelvis

    def predict_step(self, batch: HumanBatch, batch_idx: int) -> Bodies:
        """Bodies."""
        regression = self(batch["image"])
        return {"rotmats": regression.rotmats, "betas": regression.betas, "camera": regression.camera}

    def configure_optimizers(self) -> Any:
        """Adam without weight decay, at a constant rate or with one cycle."""
        lr = self.hparams["lr"]
        optimizer = torch.optim.Adam(self.network.parameters(), lr=lr)
        if self.hparams["schedule"] == "constant":
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=max(steps, 2), pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # --- pictures and files -------------------------------------------------------------------------------------

    @torch.no_grad()
    def figures(self, batch: HumanBatch, output: Bodies) -> dict[str, Figure]:
        """Predictions over the images and from the side, and what SMPLify makes of them."""
        count = min(6, len(batch["image"]))
        rotmats, betas, camera = (output[name][:count] for name in ("rotmats", "betas", "camera"))
        keypoints = to_pixels(batch["keypoints"][:count])
        start = rotmat_to_rotvec(rotmats).flatten(1)
        translation = crop_translation(camera)
        fit = self.solver.with_settings(15, "gauss-newton", "visible")(start, betas, translation, keypoints)
        truth, known = self._true_joints(batch)[:count], (batch["has_smpl"] + batch["has_pose_3d"])[:count].tolist()
        errors = point_errors(self.evaluation_joints(rotmats, betas), truth, "procrustes").mean(1)
        after = point_errors(self.evaluation_joints(fit.pose, fit.betas), truth, "procrustes").mean(1)
        titles = [
            f"PA-MPJPE {1000 * float(a):.0f},\nfitted {1000 * float(b):.0f} mm" if there else ""
            for a, b, there in zip(errors, after, known, strict=True)
        ]
        columns = {
            "regressed": self._mesh(rotmats, betas),
            "fitted from there": self._mesh(rotvec_to_rotmat(fit.pose.unflatten(1, (-1, 3))), fit.betas),
        }
        drawn = figures.people(
            batch["image"][:count].permute(0, 2, 3, 1).cpu().numpy(),
            {name: vertices.cpu().numpy() for name, vertices in columns.items()},
            self.bodies.body.faces.cpu().numpy(),
            {"regressed": translation.cpu().numpy(), "fitted from there": fit.translation.cpu().numpy()},
            titles,
        )
        return {"people": drawn}

    @torch.no_grad()
    def space(self, batch: HumanBatch, output: Bodies) -> Space:
        """The first body regressed, and the true one where it is known."""
        bodies = [(self._mesh(output["rotmats"][:1], output["betas"][:1])[0].cpu().numpy(), FOUND)]
        if bool(batch["has_smpl"][0]):
            truth = rotvec_to_rotmat(batch["pose"][:1].unflatten(1, (-1, 3)))
            bodies.append((self._mesh(truth, batch["betas"][:1])[0].cpu().numpy(), TRUE))
        return side_by_side(bodies, self.bodies.body.faces.cpu().numpy())

    @torch.no_grad()
    def predict_file(
        self,
        input: Path,
        output: Path,
        box: tuple[float, float, float, float] | None = None,
        focal_length: float | None = None,
        crop_mode: CropMode = "exact",
    ) -> dict[str, Any]:
        """Finds the body of a person in a photograph.

        Args:
            input: the picture.
            output: .png for the picture with the body; .ply, .obj, .glb or .stl for the mesh, or .json for pose,
                shape and camera: then the picture with the body is written beside it.
            box: left, top, width and height of the person in pixels; the whole picture by default.
            focal_length: of the picture in pixels, for metric distances; by default the long one that is assumed.
            crop_mode: ``"legacy"`` for the official weights, see `zoo.humans.crops.legacy_crop`; ``"skimage"`` for
                those trained with the official code's branch for newer libraries.

        Raises:
            DataError: the picture can't be read, or the output's suffix is unknown.
        """
        check_output(output)
        picture = read_picture(input)
        height, width = picture.shape[:2]
        left, top, box_width, box_height = box or (0.0, 0.0, float(width), float(height))
        if box_width <= 0 or box_height <= 0:
            raise ConfigError(f"box should be left, top, width, height with positive sizes, not {box}.")
        centre = torch.tensor([[left + box_width / 2, top + box_height / 2]])
        side = torch.tensor([_BOX_MARGIN * max(box_width, box_height)])
        crop = take_crop(picture, centre[0].numpy(), float(side) / 200, self.hparams["img_size"], 0.0, crop_mode)
        image = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float().to(self.device) / 255
        regression = self(image)
        people = place_people(
            rotmat_to_rotvec(regression.rotmats).flatten(1),
            regression.betas,
            crop_translation(regression.camera),
            (centre, side, (width, height), focal_length or assumed_focal_length(side)),
            self.bodies.body,
            self.solver,
        )
        written = write_people(output, people, self.bodies.body.faces.numpy(), picture)
        facts = {"written": ", ".join(map(str, written))}
        if focal_length is not None:
            facts["distance"] = f"{people[0].translation[2]:.2f} m"
        return facts


def _shipped_prior() -> MaxMixturePrior:
    """The prior of the SMPLify weights that ship with the package."""
    from zoo.pretrained import network_weights

    tensors = network_weights(PRIOR_WEIGHTS)
    prior = MaxMixturePrior(len(tensors["prior.weights"]))
    prior.load_state_dict({name.removeprefix("prior."): value for name, value in tensors.items()})
    return prior
