"""Training and evaluating networks that find a body in a point cloud: ArtEq and its rivals."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from zoo.data.body_clouds import CONDITIONS, CloudBatch
from zoo.errors import ConfigError
from zoo.humans.arteq import figures
from zoo.humans.arteq.losses import BodyState, LossWeights, losses, total
from zoo.humans.arteq.muon import Muon
from zoo.humans.arteq.network import NUM_PARTS, ArtEqOutput
from zoo.humans.arteq.parts import EMPTY_PARTS, body_rotations, global_rotations
from zoo.humans.arteq.registration import Registered, Registration
from zoo.humans.arteq.scans import read_points, write_prediction
from zoo.humans.body import Body, load_body
from zoo.humans.metrics import MeanPointError
from zoo.humans.render import upright
from zoo.humans.rotations import rotmat_to_rotvec, rotvec_to_rotmat
from zoo.humans.space import FOUND, TRUE, side_by_side
from zoo.module import ZooModule
from zoo.viz.space import Space

OptimizerName = Literal["adam", "muon"]
Schedule = Literal["constant", "cosine"]
# Share of the steps in which the learning rate rises.
_RISE = 0.1


class FoundBodies(TypedDict):
    """What a test or predict step gives.

    Keys:
        pose: (B, 22, 3, 3) global rotations of the parts.
        betas: (B, 10).
        segmentation: (B, N, 22) probability of each part.
    """

    pose: Tensor
    betas: Tensor
    segmentation: Tensor


def thin_body(body: Body, step: int) -> Body:
    """The body with every `step`-th vertex and those that count as joints: for losses, which need no more."""
    if step == 1:
        return body
    thin = copy.deepcopy(body)
    kept = torch.cat([torch.arange(0, len(body.v_template), step), body.extra_joints_idxs]).unique()
    thin.v_template, thin.shapedirs = body.v_template[kept], body.shapedirs[kept]
    thin.lbs_weights, thin.J_regressor = body.lbs_weights[kept], body.J_regressor[:, kept]
    thin.posedirs = body.posedirs.unflatten(1, (-1, 3))[:, kept].flatten(1)
    thin.extra_joints_idxs = torch.searchsorted(kept, body.extra_joints_idxs)
    return thin


class CloudRegression(ZooModule):
    """Losses, metrics and files of a network that gives `ArtEqOutput`.

    What training is to do stands in the hyper-parameters, see `zoo.humans.arteq.module.ArtEq`, and `refine`
    and `views`, the registration that evaluation puts after the network.

    Args:
        network: takes points (B, N, 3) and, optionally, a segmentation to gather features with.
        weights: of the losses.
        markers: numbers of vertices with a loss of their own.
        vertex_step: losses take every so many vertices.
        body, gender: see `zoo.humans.body.load_body`.

    Raises:
        ConfigError: losses that need all vertices do not get them.
    """

    def __init__(
        self,
        network: nn.Module,
        weights: LossWeights,
        markers: tuple[int, ...],
        vertex_step: int,
        body: str | None,
        gender: str,
    ) -> None:
        super().__init__()
        if vertex_step > 1 and (weights.normals or markers):
            raise ConfigError(
                "Losses of normals and markers need all vertices: give model.vertex_step=1, or "
                "model.normals_weight=0 and no markers."
            )
        self.network, self.loss_weights = network, weights
        self.body = load_body(body, gender)
        self.loss_body = thin_body(self.body, vertex_step)
        self.train_metrics = nn.ModuleDict({"loss": MeanMetric(), "accuracy": MeanMetric()})
        self.val_metrics, self.test_metrics = self._metrics(), self._metrics()

    @staticmethod
    def _metrics() -> nn.ModuleDict:
        """By name: errors in cm, neither turned nor moved towards the truth, and the share of points named rightly."""
        made: dict[str, Metric] = {}
        for condition in CONDITIONS:
            suffix = f"_{condition}" if condition else ""
            made[f"v2v{suffix}"] = MeanPointError("none", scale=100.0)
            made[f"mpjpe{suffix}"] = MeanPointError("none", scale=100.0)
            made[f"part_accuracy{suffix}"] = MeanMetric()
        return nn.ModuleDict(made)

    def forward(self, points: Tensor) -> ArtEqOutput:
        """Bodies in clouds (B, N, 3), metres."""
        output: ArtEqOutput = self.network(points)
        return output

    @torch.no_grad()
    def fit(self, points: Tensor, rounds: int = 10, views: int = 6) -> tuple[Registered, Tensor]:
        """Bodies in clouds (B, N, 3), registered to them, and the probability (B, N, 22) of each part.

        Args:
            points: metres, about the origin.
            rounds: of registration; 0 only places what the network finds.
            views: rotations of the clouds that the network sees, see
                `zoo.humans.arteq.registration.Registration.best_of_views`.

        Raises:
            ConfigError: fewer rounds than none, or no view.
        """
        if rounds < 0 or views < 1:
            raise ConfigError(f"refine should be 0 or more and views 1 or more, not {rounds} and {views}.")
        registration = Registration(self.body.to(points.device))
        # A few at a time: derivatives of all points are large.
        parts = [registration.best_of_views(self, chunk, rounds, views) for chunk in points.split(8)]
        bodies, segmentations = zip(*parts, strict=True)
        return Registered(*map(torch.cat, zip(*bodies, strict=True))), torch.cat(segmentations)

    def _found(self, points: Tensor) -> FoundBodies:
        """What errors, pictures and files are made of: in single precision, whatever the network ran in."""
        rounds, views = self.hparams["refine"], self.hparams["views"]
        if not rounds:
            output = self(points)
            pose, betas, segmentation = (x.float() for x in (output.pose, output.betas, output.segmentation))
            return {"pose": pose, "betas": betas, "segmentation": segmentation}
        bodies, segmentation = self.fit(points, rounds, views)
        return {"pose": bodies.rotations, "betas": bodies.betas, "segmentation": segmentation}

    def _state(self, body: Body, rotations: Tensor, betas: Tensor) -> BodyState:
        """The body with the parts' rotations (B, 22, 3, 3)."""
        local = body_rotations(rotations)
        posed = body.to(rotations.device)(local[:, :1], local[:, 1:], betas)
        return BodyState(rotations, betas, posed.vertices, posed.joints)

    def _truth(self, body: Body, batch: CloudBatch) -> BodyState:
        local = rotvec_to_rotmat(batch["pose"].unflatten(1, (-1, 3)))
        return self._state(body, global_rotations(local), batch["betas"])

    def training_step(self, batch: CloudBatch, batch_idx: int) -> Tensor:
        """The losses of section 3.4 of the paper."""
        own, labels = self.hparams, batch["labels"]
        given = None
        if self.current_epoch + batch_idx / self.trainer.num_training_batches < own["segmentation_warmup"]:
            given = F.one_hot(labels, NUM_PARTS).to(batch["points"])
        output: ArtEqOutput = self.network(batch["points"], given)
        truth = self._truth(self.loss_body, batch)
        rotations = output.pose
        if not own["train_feet"]:
            feet = torch.zeros(NUM_PARTS, dtype=torch.bool, device=rotations.device)
            feet[list(EMPTY_PARTS)] = True
            rotations = torch.where(feet[:, None, None], truth.rotations, rotations)
        found = self._state(self.loss_body, rotations, output.betas)
        terms = losses(
            output,
            found,
            truth,
            (batch["points"], labels),
            self.body.faces.long() if self.loss_weights.normals else None,
            torch.tensor(own["markers"], device=labels.device) if own["markers"] else None,
            own["first_pose_only"],
        )
        loss = total(terms, self.loss_weights)
        self.train_metrics["loss"](loss.detach())
        self.train_metrics["accuracy"]((output.logits.argmax(-1) == labels).float())
        self.log("train/loss", self.train_metrics["loss"], prog_bar=True, on_step=False, on_epoch=True)  # type: ignore[arg-type]
        self.log("train/part_accuracy", self.train_metrics["accuracy"], on_step=False, on_epoch=True)  # type: ignore[arg-type]
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Gradients that are no numbers count as zero, as in the official code."""
        for parameter in self.network.parameters():
            if parameter.grad is not None:
                torch.nan_to_num_(parameter.grad, nan=0.0, posinf=0.0, neginf=0.0)

    def _evaluate(self, batch: CloudBatch, metrics: nn.ModuleDict) -> FoundBodies:
        bodies = self._found(batch["points"])
        found, truth = self._state(self.body, bodies["pose"], bodies["betas"]), self._truth(self.body, batch)
        right = (bodies["segmentation"].argmax(-1) == batch["labels"]).float().mean(1)
        for number, condition in enumerate(CONDITIONS):
            rows, suffix = batch["condition"] == number, f"_{condition}" if condition else ""
            if not bool(rows.any()):
                continue
            metrics[f"v2v{suffix}"].update(found.vertices[rows], truth.vertices[rows])  # type: ignore[operator]
            metrics[f"mpjpe{suffix}"].update(found.joints[rows], truth.joints[rows])  # type: ignore[operator]
            metrics[f"part_accuracy{suffix}"].update(right[rows])  # type: ignore[operator]
        return bodies

    def validation_step(self, batch: CloudBatch, batch_idx: int) -> None:
        """Errors of vertices, joints and parts."""
        self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: CloudBatch, batch_idx: int) -> FoundBodies:
        """Errors of vertices, joints and parts."""
        return self._evaluate(batch, self.test_metrics)

    def on_validation_epoch_end(self) -> None:
        """Logs the errors of the conditions there were."""
        self.log_seen(self.val_metrics, "val/")  # type: ignore[arg-type]

    def on_test_epoch_end(self) -> None:
        """Logs the errors of the conditions there were."""
        self.log_seen(self.test_metrics, "test/")  # type: ignore[arg-type]

    def predict_step(self, batch: CloudBatch, batch_idx: int) -> FoundBodies:
        """Bodies."""
        return self._found(batch["points"])

    def configure_optimizers(self) -> Any:
        """Adam or Muon, at a constant rate (the paper's), or up in the first tenth of the steps and down a cosine."""
        optimizer: torch.optim.Optimizer
        lr, decay = self.hparams["lr"], self.hparams["weight_decay"]
        if not (lr >= 0 and decay >= 0):
            raise ConfigError(f"model.lr and model.weight_decay should be 0 or more, not {lr} and {decay}.")
        if self.hparams["optimizer"] == "muon":
            optimizer = Muon(self.network, lr, weight_decay=decay)
        else:
            # One pass over all parameters: a tenth of a step's time with networks this small. In mixed precision
            # Lightning refuses to clip the gradients of a fused optimizer.
            fused = self.trainer.precision == "32-true"
            optimizer = torch.optim.AdamW(self.network.parameters(), lr, weight_decay=decay, fused=fused)
        if self.hparams["schedule"] == "constant":
            return optimizer
        steps = max(1, int(self.trainer.estimated_stepping_batches))

        def factor(step: int) -> float:
            done = step / steps
            fall = (done - _RISE) / (1 - _RISE)
            return done / _RISE if fall < 0 else 0.5 + 0.5 * math.cos(math.pi * fall)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @torch.no_grad()
    def figures(self, batch: CloudBatch, output: FoundBodies) -> dict[str, Figure]:
        """Clouds coloured by their true and found parts, and both bodies."""
        count = min(4, len(batch["points"]))
        part = {name: value[:count] for name, value in batch.items()}  # type: ignore[index]
        truth = self._truth(self.body, part)  # type: ignore[arg-type]
        found = self._state(self.body, output["pose"][:count], output["betas"][:count])
        errors = 100 * (found.vertices - truth.vertices).norm(dim=-1).mean(1)
        names = [CONDITIONS[int(number)].replace("_", ", ") or "upright" for number in part["condition"]]
        drawn = figures.clouds(
            part["points"].cpu().numpy(),
            part["labels"].cpu().numpy(),
            output["segmentation"][:count].argmax(-1).cpu().numpy(),
            truth.vertices.cpu().numpy(),
            found.vertices.cpu().numpy(),
            self.body.faces.cpu().numpy(),
            [f"{name}\nV2V {float(error):.1f} cm" for name, error in zip(names, errors, strict=True)],
        )
        return {"clouds": drawn}

    @torch.no_grad()
    def space(self, batch: CloudBatch, output: FoundBodies) -> Space:
        """The first cloud, coloured by its found parts, on the found body, and the true body."""
        truth = self._truth(self.body, batch).vertices[0]
        found = self._state(self.body, output["pose"], output["betas"]).vertices[0]
        bodies = [(upright(vertices.cpu().numpy()), colour) for vertices, colour in ((found, FOUND), (truth, TRUE))]
        space = side_by_side(bodies, self.body.faces.cpu().numpy())
        parts = output["segmentation"][0].argmax(-1).cpu().numpy()
        return Space(
            np.concatenate([space.points, upright(batch["points"][0].cpu().numpy())]),
            np.concatenate([space.colours, figures.part_colours(parts)]),
            space.faces,
        )

    @torch.no_grad()
    def predict_file(
        self,
        input: Path,
        output: Path,
        points: int | None = None,
        seed: int = 0,
        refine: int = 10,
        views: int = 6,
    ) -> dict[str, Any]:
        """Finds the body in a scan of a person, in metres, wherever it stands and however it lies.

        Args:
            input: a ``.ply``, ``.obj``, ``.pcd``, ``.npy``, ``.npz`` or ``.xyz`` file; a mesh is sampled.
            output: a mesh file (``.ply``, ``.obj``, ``.glb``, ``.stl``). Beside it, ``<output>.json`` has pose, shape
                and translation, ``<output>.parts.ply`` the points coloured by their parts.
            points: at most so many are used; None for the model's ``scan_points``.
            seed: of their choice.
            refine: rounds of registration after the network; 0, with one view, for what it found alone.
            views: rotations of the scan that the network sees, of which the body that fits best is kept.

        Raises:
            DataError: the input can't be read or has too few points, or the output's suffix is none of these.
        """
        count = self.hparams["scan_points"] if points is None else points
        cloud = torch.from_numpy(read_points(input, count, seed)).to(self.device)
        centre = cloud.mean(0)
        (rotations, betas, shift), segmentation = self.fit((cloud - centre)[None], refine, views)
        state, translation = self._state(self.body, rotations, betas), shift + centre
        local = rotmat_to_rotvec(body_rotations(rotations)).flatten(1)
        numbers = {
            "pose": local[0].tolist(),
            "betas": betas[0].tolist(),
            "translation": translation[0].tolist(),
            "joints": (state.joints + translation.unsqueeze(1))[0].tolist(),
        }
        vertices = (state.vertices + translation.unsqueeze(1))[0].cpu().numpy()
        parts = segmentation[0].argmax(-1).cpu().numpy()
        colours = figures.part_colours(parts)
        written = write_prediction(
            output, vertices, self.body.faces.cpu().numpy(), numbers, cloud.cpu().numpy(), colours
        )
        return {"points": len(cloud), "written": ", ".join(map(str, written))}
