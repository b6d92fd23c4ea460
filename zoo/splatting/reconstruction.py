"""The LightningModule that all methods of the family share: Gaussians fitted to the photographs of one scene."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any, Protocol, TypedDict

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from zoo.data.scene_views import Scene, ViewBatch
from zoo.errors import ConfigError, DataError
from zoo.lpips import LPIPS
from zoo.module import ZooModule
from zoo.ops import native
from zoo.ops.spherical_harmonics import sh0_to_rgb
from zoo.ops.ssim import ssim
from zoo.ranges import check_ranges
from zoo.splatting import figures, fly_through
from zoo.splatting.exposure import Exposure
from zoo.splatting.fly_through import HasCameras
from zoo.splatting.gaussian_files import write_ply, write_splat
from zoo.splatting.gaussians import KEY_CAMERAS, PARAMETERS, GaussianModel, Rows
from zoo.splatting.metrics import ViewQuality
from zoo.splatting.space import centres
from zoo.splatting.strategies import Strategy
from zoo.viz.space import Space

# Of the options of all methods.
_RANGES = {
    "positive": (
        *("lr_means", "lr_means_final", "lr_exposure", "lr_exposure_final", "init_scale", "scale_pixels", "max_error"),
        *("scaling_factor", "error_tolerance", "fade"),
    ),
    "0 or more": (
        *("lr_means_hold", "lr_sh0", "lr_shN", "lr_opacities", "lr_scales", "lr_quats", "grow_grad2d", "grow_scale3d"),
        *("prune_scale3d", "start", "stop", "noise", "opacity_weight", "scale_weight", "min_parallax", "sh_ridge"),
        *("prune_stop",),
    ),
    "1 or more": (
        *("sh_every", "cap", "every", "reset_every", "random_points", "match_side", "planes", "min_agreeing"),
        *("num_refs", "nns_per_ref", "matches_per_ref", "budget", "prune_every"),
    ),
    "from 0 to 1": ("ssim_weight", "prune_opacity"),
    "between 0 and 1": ("init_opacity",),
    "from 0 to 3": ("sh_degree", "sh_fit_degree"),
}


class Rendering(TypedDict):
    """What a test or predict step gives: image (B, H, W, 3) in [0, 1], depth and alpha (B, H, W, 1)."""

    image: Tensor
    depth: Tensor
    alpha: Tensor


class HasScene(Protocol):
    """A data module of one scene."""

    scene: Scene


class Reconstruction(ZooModule):
    """Optimises Gaussians with Adam on 0.8 L1 + 0.2 (1 - SSIM), one random view at a time.

    A subclass saves its hyper-parameters, among them those below, calls `_build`, and says how the Gaussians begin
    (`initial_rows`) and how their set changes (`make_strategy`).

    Hyper-parameters:
        sh_degree: of the colours.
        sh_every: steps after which the next degree joins in.
        lr_means, lr_means_final: learning rates of the centres at the first and the last step, times the scene's
            extent; exponential between them.
        lr_means_hold: up to this step the centres' rate is that of this step.
        lr_sh0, lr_shN, lr_opacities, lr_scales, lr_quats: the others, constant.
        ssim_weight: of the structural part of the loss.
        rasterize_mode: see `zoo.ops.rasterize`.
        exposure: learn brightness and tint of each training view; held-out views are rendered without.
        lr_exposure, lr_exposure_final: learning rates of it at the first and the last step; exponential between them.
        lpips_backbone, lpips_heads: files for the test's LPIPS, see `zoo.lpips.LPIPS`; without them it is left out.

    Attributes:
        train_seconds, initialise_seconds: spent so far, without evaluation.
    """

    network: GaussianModel
    automatic_optimization = False

    @staticmethod
    def clock() -> float:
        """What the seconds of initialisation and training are read from; a benchmark may put another in its place."""
        return time.perf_counter()

    def _build(self) -> None:
        check_ranges(self.hparams, "model", _RANGES)
        self.network = GaussianModel(self.hparams["sh_degree"])
        backbone, heads = self.hparams["lpips_backbone"], self.hparams["lpips_heads"]
        lpips = LPIPS(backbone, heads) if backbone and heads else None
        self.val_metrics, self.test_metrics = ViewQuality("val/"), ViewQuality("test/", lpips)
        self.exposure: Exposure | None = None
        self.strategy: Strategy | None = None
        self.train_seconds = self.initialise_seconds = 0.0
        self.initial: Rows | None = None
        self._strategy_state: dict[str, Tensor] = {}

    @abstractmethod
    def initial_rows(self, scene: Scene) -> Rows:
        """The Gaussians to begin with."""

    @abstractmethod
    def make_strategy(self, scene: Scene, steps: int) -> Strategy:
        """How the set of Gaussians changes.

        Args:
            scene: the scene.
            steps: of the whole training.
        """

    @property
    def scene(self) -> Scene:
        """The scene of the run.

        Raises:
            ConfigError: the data module has none.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(getattr(data, "scene", None), Scene):
            raise ConfigError(f"{self.zoo_name} needs a data module with a scene, such as splatting/scene.")
        return data.scene

    def setup(self, stage: str) -> None:
        """Makes room for the exposure of every view, if it is to be learned."""
        if stage == "fit" and self.hparams["exposure"] and self.exposure is None:
            self.exposure = Exposure(len(self.scene.images), self.scene.train_indices)

    def on_fit_start(self) -> None:
        """Makes the Gaussians, unless a checkpoint or weights brought them.

        Raises:
            ConfigError: several processes, between which Gaussians that come and go would drift apart.
        """
        if self.trainer.world_size > 1:
            raise ConfigError(
                f"{self.zoo_name} is trained by one process, with trainer.devices=1: each would add and remove other "
                "Gaussians. splatting/momentum-gs shares a scene between processes."
            )
        scene = self.scene
        self.steps = int(self.trainer.estimated_stepping_batches)
        if self.device.type == "cpu" and not native.is_reference("auto"):
            native.covers("splat", self.device)  # built now, if need be, and not while the clock runs
        if len(self.network) == 0:
            start = self.clock()
            rows = self.initial_rows(scene)
            self.initialise_seconds = self.clock() - start
            self.network.set_rows(rows)
            remember_cameras(self.network, scene)
        self.strategy = self.make_strategy(scene, self.steps)
        if self._strategy_state:
            self.strategy.load_state_dict(self._strategy_state)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the strategy's memory and the clocks."""
        if self.strategy is not None:
            checkpoint["strategy"] = self.strategy.state_dict()
        checkpoint["seconds"] = [self.train_seconds, self.initialise_seconds]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes them up."""
        self._strategy_state = checkpoint.get("strategy", {})
        self.train_seconds, self.initialise_seconds = checkpoint.get("seconds", (0.0, 0.0))

    def forward(self, viewmats: Tensor, Ks: Tensor, width: int, height: int) -> Rendering:
        """Renders colours, expected depth and alpha for cameras (B, 4, 4), (B, 3, 3)."""
        image, alpha, _ = self.network(
            viewmats, Ks, width, height, rasterize_mode=self.hparams["rasterize_mode"], render_mode="RGB+ED"
        )
        return {"image": image[..., :3].clamp(0, 1), "depth": image[..., 3:], "alpha": alpha}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One Adam with a group per parameter."""
        groups = [{"params": [getattr(self.network, name)], "name": name} for name in PARAMETERS]
        if self.exposure is not None:
            groups.append({"params": [self.exposure.matrices], "name": "exposure"})
        return torch.optim.Adam(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-15, fused=True)

    def learning_rates(self, step: int, views: int = 1) -> dict[str, float]:
        """The rates at a step, for a number of views per step."""
        own = self.hparams
        means = self._decayed(max(step, own["lr_means_hold"]), own["lr_means"], own["lr_means_final"])
        rates = {"means": means * self.scene.extent}
        rates.update({name: own[f"lr_{name}"] for name in PARAMETERS if name != "means"})
        if self.exposure is not None:
            rates["exposure"] = self._decayed(step, own["lr_exposure"], own["lr_exposure_final"])
        return {name: rate * math.sqrt(views) for name, rate in rates.items()}

    def _decayed(self, step: int, first: float, last: float) -> float:
        part = min(step / max(self.steps, 1), 1.0)
        return math.exp((1 - part) * math.log(first) + part * math.log(last))

    def training_step(self, batch: ViewBatch, batch_idx: int) -> None:
        """Renders, compares, steps, and lets the strategy change the Gaussians."""
        assert self.strategy is not None
        start = self.clock()
        step = self.global_step
        optimizer: Any = self.optimizers()
        rates = self.learning_rates(step, len(batch["image"]))
        for group in optimizer.param_groups:
            group["lr"] = rates[group["name"]]
        target = batch["image"]
        height, width = target.shape[1:3]
        image, _, meta = self.network(
            batch["viewmat"],
            batch["K"],
            width,
            height,
            sh_degree=step // self.hparams["sh_every"],
            rasterize_mode=self.hparams["rasterize_mode"],
            absgrad=self.strategy.absgrad,
        )
        self.strategy.before_backward(meta)
        if self.exposure is not None:
            image = self.exposure(image, batch["index"])
        weight = self.hparams["ssim_weight"]
        loss = (1 - weight) * (image - target).abs().mean() + weight * (1 - ssim(image, target))
        penalty = self.strategy.penalty(self.network)
        self.manual_backward(loss if penalty is None else loss + penalty)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.strategy.after_step(step, self.network, optimizer.optimizer, meta, rates["means"])
        if len(self.network) == 0:
            raise ConfigError(
                f"All Gaussians were removed by step {step}: the learning rates are too high, or the cameras are wrong."
            )
        self.train_seconds += self.clock() - start
        if step % 10 == 0:
            values = {"train/loss": loss.detach(), "gaussians": float(len(self.network))}
            self.log_dict(values, prog_bar=True, batch_size=len(target))

    def _measure(self, batch: ViewBatch, metrics: ViewQuality) -> Rendering:
        height, width = batch["image"].shape[1:3]
        rendering = self(batch["viewmat"], batch["K"], width, height)
        metrics.measure(rendering["image"], batch["image"])
        self.log_dict(dict(metrics.items()), prog_bar=True, batch_size=len(batch["image"]))
        return rendering

    def validation_step(self, batch: ViewBatch, batch_idx: int) -> None:
        """Quality of the held-out views; the seconds and Gaussians spent on it."""
        self._measure(batch, self.val_metrics)
        self.log_dict({"seconds": self.train_seconds + self.initialise_seconds}, batch_size=1)

    def test_step(self, batch: ViewBatch, batch_idx: int) -> Rendering:
        """Quality of the held-out views; the renders are for the figures."""
        rendering = self._measure(batch, self.test_metrics)
        values = {"test/gaussians": float(len(self.network))}
        if self.train_seconds:
            values |= {"test/train_seconds": self.train_seconds, "test/init_seconds": self.initialise_seconds}
        self.log_dict(values, batch_size=len(batch["image"]))
        return rendering

    def predict_step(self, batch: ViewBatch, batch_idx: int) -> Rendering:
        """Renders."""
        height, width = batch["image"].shape[1:3]
        return self(batch["viewmat"], batch["K"], width, height)

    def figures(self, batch: ViewBatch, output: Rendering) -> dict[str, Figure]:
        """Renders beside photographs with errors and depth; the Gaussians themselves."""
        scene = self.scene
        indices = (scene.test_indices or scene.train_indices)[:4]
        return {
            "views": figures.views(self, scene, indices),
            "gaussians": figures.gaussians(self.network, scene),
        }

    def predict_file(
        self, input: Path, output: Path, frames: int = 120, width: int | None = None, fps: int = 24
    ) -> dict[str, Any]:
        """Renders a fly-through, or writes the Gaussians for other programs.

        Args:
            input: ``cameras`` for a way through the cameras of the training, ``turn`` for a circle about the scene,
                or a scene's folder, whose cameras are then rendered one by one.
            output: .mp4 or .gif for a film, .ply for the layout of 3DGS, .splat for web viewers; without a suffix a
                folder for the frames as PNG files.
            frames: of the film.
            width: of the film in pixels; None for that of the training images.
            fps: frames per second.

        Raises:
            DataError: the output's kind is not known, or there is nothing to render.
        """
        if len(self.network) == 0:
            raise DataError("These weights hold no Gaussians: train first.")
        rows = {name: value.cpu() for name, value in self.network.rows().items()}
        facts: dict[str, Any] = {"gaussians": len(self.network), "written": output}
        if output.suffix == ".ply":
            write_ply(output, rows)
            return facts
        if output.suffix == ".splat":
            write_splat(output, rows)
            return facts
        way = fly_through.cameras(self.network, input, frames, width)
        start = time.perf_counter()
        with torch.no_grad():
            pictures = [self(v.unsqueeze(0), k.unsqueeze(0), *way.size)["image"][0] for v, k in way]
        seconds = time.perf_counter() - start
        fly_through.write_film(output, [(255 * p.cpu()).round().byte().numpy() for p in pictures], fps)
        return {**facts, "frames": len(pictures), "frames per second rendered": round(len(pictures) / seconds, 1)}

    def space(self, batch: ViewBatch, output: Rendering) -> Space | None:
        """Centres and colours of Gaussians that are at least half opaque, as the first camera sees them."""
        network = self.network
        colours = sh0_to_rgb(network.sh0[:, 0])
        return centres(network.means, network.opacities.sigmoid(), colours, network.key_viewmats[0], least=0.5)

    def view(self, port: int = 8080) -> Any:
        """Starts the viewer in the browser; see `zoo.splatting.viewer.start`."""
        from zoo.splatting import viewer

        return viewer.start(self.network, port)


def remember_cameras(network: HasCameras, scene: Scene) -> None:
    """Keeps what a fly-through needs with the Gaussians."""
    train = scene.train_indices
    chosen = [train[i] for i in np.linspace(0, len(train) - 1, KEY_CAMERAS).round().astype(int)]
    height, width = scene.images[chosen[0]].shape[:2]
    network.key_viewmats.copy_(torch.from_numpy(scene.viewmats[chosen]))
    network.key_K.copy_(torch.from_numpy(scene.Ks[chosen[0]]))
    network.key_size.copy_(torch.tensor([width, height]))
    network.background.copy_(torch.tensor(scene.background))
