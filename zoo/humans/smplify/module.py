"""SMPLify as a LightningModule: training fits the pose prior, testing fits bodies to keypoints."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection

from zoo.data.bodies import KeypointBatch, PoseBatch
from zoo.errors import ConfigError
from zoo.humans import figures
from zoo.humans.body_set import load_body_set
from zoo.humans.cameras import (
    FOCAL_LENGTH,
    IMG_RES,
    assumed_focal_length,
    full_image_translation,
    perspective_projection,
)
from zoo.humans.joints import H36M_TO_J14
from zoo.humans.metrics import MeanPointError, point_errors
from zoo.humans.results import Person, check_output, read_picture, write_people
from zoo.humans.smplify.keypoint_files import keypoint_box, read_keypoints
from zoo.humans.smplify.objective import CameraJoints
from zoo.humans.smplify.prior import MaxMixturePrior, load_prior
from zoo.humans.smplify.solver import Fit, Optimizer, SMPLify
from zoo.humans.space import FOUND, TRUE, side_by_side
from zoo.module import ZooModule
from zoo.registry import register_model
from zoo.viz.space import Space

# Lightning takes a fit without an optimizer for an oversight; here EM takes its place.
warnings.filterwarnings("ignore", message=".*this fit will run with no optimizer.*")


class Fitted(TypedDict):
    """What a test step gives: the fits, and the starts they came from (B, 72)."""

    fit: Fit
    start: Tensor
    start_translation: Tensor


@register_model("humans/smplify")
class SMPLifyModule(ZooModule):
    """Fits SMPL bodies to 2-D keypoints; what is trained is the mixture of Gaussians over poses, by EM.

    Args:
        components: Gaussians of the prior.
        optimizer: ``"adam"``, ``"lbfgs"`` or ``"gauss-newton"``, see `zoo.humans.smplify.solver.SMPLify`.
        steps: of each of the two stages.
        yaws: starts, degrees turned from facing the camera; the fit with the lowest objective is kept.
        camera_joints: see `zoo.humans.smplify.objective.camera_weights`.
        body: folder of the body model and its regressors, see `zoo.humans.body_set.load_body_set`; None for the
            stand-in.
        prior: file of a prior to begin with (``gmm_08.pkl``); None to train one.
    """

    network: SMPLify

    def __init__(
        self,
        components: int = 8,
        optimizer: Optimizer = "gauss-newton",
        steps: int = 15,
        yaws: tuple[float, ...] = (0.0, -65.0, 65.0),
        camera_joints: CameraJoints = "visible",
        body: str | None = None,
        prior: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if steps < 0 or not yaws:
            raise ConfigError(f"model.steps ({steps}) should be 0 or more, and model.yaws {yaws} name a start.")
        self.automatic_optimization = False
        self.bodies = load_body_set(body)
        own_prior = MaxMixturePrior(components) if prior is None else load_prior(prior)
        self.network = SMPLify(self.bodies.spin, own_prior, steps, optimizer, camera_joints)
        # Not submodules: they hold no weights, and follow the network's device where they are used.
        self.yaws = yaws
        metrics = MetricCollection(
            {"mpjpe": MeanPointError("none"), "pa_mpjpe": MeanPointError("procrustes"), "reprojection": MeanMetric()}
        )
        self.train_nll = MeanMetric()
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")

    def forward(self, keypoints: Tensor) -> Fit:
        """Fits from scratch to keypoints (B, 49, 3) in pixels of a 224 crop."""
        return self.network.from_scratch(keypoints, self.yaws)

    def configure_optimizers(self) -> None:
        """None: expectation maximisation sets the prior outright."""

    def training_step(self, batch: PoseBatch, batch_idx: int) -> None:
        """One step of expectation maximisation on all poses."""
        self.train_nll(self.network.prior.em_step(batch["body_pose"]))
        self.log("train/nll", self.train_nll, prog_bar=True, on_step=False, on_epoch=True)

    def evaluation_joints(self, pose: Tensor, betas: Tensor) -> Tensor:
        """The 14 joints of the literature, relative to the pelvis: (B, 14, 3) metres."""
        joints = self.bodies.h36m.to(pose.device)(pose[:, :3], pose[:, 3:], betas)
        return (joints - joints[:, :1])[:, list(H36M_TO_J14)]

    def _evaluate(self, batch: KeypointBatch, metrics: MetricCollection) -> Fitted:
        keypoints = to_pixels(batch["keypoints"])
        start, _, translation = self.network.start(keypoints)
        fit = self(keypoints)
        found = self.evaluation_joints(fit.pose, fit.betas)
        truth = self.evaluation_joints(batch["pose"], batch["betas"])
        for name, metric in metrics.items(keep_base=True):
            if name == "reprojection":
                metric.update(fit.score)
            else:
                metric.update(found, truth)
        self.log_dict(dict(metrics.items()), prog_bar=True, batch_size=len(keypoints))
        return {"fit": fit, "start": start, "start_translation": translation}

    def validation_step(self, batch: KeypointBatch, batch_idx: int) -> None:
        """Errors of the fits."""
        self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: KeypointBatch, batch_idx: int) -> Fitted:
        """Errors of the fits, and the fits for the figures."""
        return self._evaluate(batch, self.test_metrics)

    def predict_step(self, batch: KeypointBatch, batch_idx: int) -> Fit:
        """Fits."""
        fit: Fit = self(to_pixels(batch["keypoints"]))
        return fit

    @torch.no_grad()
    def figures(self, batch: KeypointBatch, output: Fitted) -> dict[str, Figure]:
        """Fits before and after, from the front and the side."""
        fit, count = output["fit"], min(4, len(batch["pose"]))
        keypoints = to_pixels(batch["keypoints"])[:count]
        body = self.bodies.body.to(fit.pose.device)

        def project(pose: Tensor, betas: Tensor, translation: Tensor) -> Tensor:
            joints = self.network.posed(pose[:count], betas[:count])
            centre = keypoints.new_full((2,), IMG_RES / 2)
            return perspective_projection(joints, None, translation[:count], FOCAL_LENGTH, centre)

        def mesh(pose: Tensor, betas: Tensor) -> Tensor:
            return body(pose[:count, :3], pose[:count, 3:], betas[:count]).vertices

        errors = point_errors(
            self.evaluation_joints(fit.pose, fit.betas),
            self.evaluation_joints(batch["pose"], batch["betas"]),
            "procrustes",
        ).mean(1)
        vertices = mesh(fit.pose, fit.betas) + fit.translation[:count].unsqueeze(1)
        drawn = figures.fits(
            keypoints.cpu().numpy(),
            project(output["start"], torch.zeros_like(fit.betas), output["start_translation"]).cpu().numpy(),
            project(fit.pose, fit.betas, fit.translation).cpu().numpy(),
            vertices.cpu().numpy(),
            mesh(batch["pose"], batch["betas"]).cpu().numpy(),
            body.faces.cpu().numpy(),
            [f"PA-MPJPE {1000 * float(error):.0f} mm" for error in errors[:count]],
        )
        return {"fits": drawn}

    @torch.no_grad()
    def space(self, batch: KeypointBatch, output: Fitted) -> Space:
        """The first fit and the true body."""
        fit = output["fit"]
        body = self.bodies.body.to(fit.pose.device)
        shown = ((fit.pose, fit.betas, FOUND), (batch["pose"], batch["betas"], TRUE))
        bodies = [
            (body(pose[:1, :3], pose[:1, 3:], betas[:1]).vertices[0].cpu().numpy(), colour)
            for pose, betas, colour in shown
        ]
        return side_by_side(bodies, body.faces.cpu().numpy())

    @torch.no_grad()
    def predict_file(
        self, input: Path, output: Path, image: Path | None = None, focal_length: float | None = None
    ) -> dict[str, Any]:
        """Fits bodies to the people of a keypoint file.

        Args:
            input: JSON of OpenPose (BODY_25) or in COCO's format (17 keypoints).
            output: .json for pose, shape and camera; .ply, .obj, .glb or .stl for the meshes; .png for the
                picture with the bodies.
            image: the picture the keypoints were found in: an overlay is written too.
            focal_length: of the picture in pixels, for metric distances; by default the long one that the fit assumes.

        Raises:
            DataError: a file can't be read or has another layout.
        """
        check_output(output)
        keypoints = read_keypoints(input)
        picture = None if image is None else read_picture(image)
        centre, side = keypoint_box(keypoints)
        if picture is not None:
            width, height = picture.shape[1], picture.shape[0]
        else:  # unknown: the camera is as good as any that looks straight at the people
            width, height = (round(2 * float(centre[:, k].mean())) for k in (0, 1))
        focal = focal_length or assumed_focal_length(side)
        crop = keypoints.clone()
        crop[..., :2] = (keypoints[..., :2] - centre.unsqueeze(1)) * (IMG_RES / side)[:, None, None] + IMG_RES / 2
        crop = torch.where(keypoints[..., 2:] > 0, crop, torch.zeros_like(crop))
        fit = self(crop)
        people = place_people(
            fit.pose,
            fit.betas,
            fit.translation,
            (centre, side, (width, height), focal),
            self.bodies.body,
            self.network,
            fit.score,
        )
        written = write_people(output, people, self.bodies.body.faces.numpy(), picture)
        scores = [round(float(score), 2) for score in fit.score]
        return {"people": len(people), "reprojection": scores, "written": ", ".join(map(str, written))}


def to_pixels(keypoints: Tensor) -> Tensor:
    """Keypoints in [-1, 1] as pixels of a 224 crop; confidences stay."""
    return torch.cat([(keypoints[..., :2] + 1) * (IMG_RES / 2), keypoints[..., 2:]], -1)


def place_people(
    pose: Tensor,
    betas: Tensor,
    translation: Tensor,
    box: tuple[Tensor, Tensor, tuple[int, int], float],
    body: Any,
    network: SMPLify,
    score: Tensor | None = None,
) -> list[Person]:
    """Bodies of crops in the camera of the full picture.

    Args:
        pose, betas: (N, 72) and (N, 10).
        translation: (N, 3) of the crops' cameras.
        box: centres (N, 2) and sides (N,) of the crops, width and height of the picture, its focal length.
        body, network: for meshes and joints.
        score: (N,) of the fits.
    """
    centre, side, size, focal = box
    camera = torch.cat([2 * FOCAL_LENGTH / (IMG_RES * translation[:, 2:]), translation[:, :2]], 1)
    full = full_image_translation(camera, centre, side, torch.tensor(size, dtype=torch.float32), focal)
    vertices = body(pose[:, :3], pose[:, 3:], betas, full).vertices
    joints = network.posed(pose, betas) + full.unsqueeze(1)
    arrays = [t.cpu().numpy().astype(np.float64) for t in (pose, betas, full, vertices, joints)]
    return [
        Person(p, b, t, float(focal), v, j, None if score is None else float(score[k]))
        for k, (p, b, t, v, j) in enumerate(zip(*arrays, strict=True))
    ]
