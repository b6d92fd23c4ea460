"""What a module does with a merged scene: rendering, measuring, pictures, films and files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import MetricCollection

from zoo.data.blocks import BlockGrid, Partition
from zoo.data.scene_readers import read_scene
from zoo.data.scene_views import Scene, ViewBatch, camera_centres
from zoo.errors import ConfigError, DataError
from zoo.module import ZooModule
from zoo.ops.spherical_harmonics import rgb_to_sh0
from zoo.splatting import figures as scene_figures
from zoo.splatting import fly_through
from zoo.splatting.gaussian_files import write_ply
from zoo.splatting.gaussians import Rows
from zoo.splatting.metrics import ViewQuality, psnr
from zoo.splatting.momentum_gs import figures as block_figures
from zoo.splatting.momentum_gs.metrics import Measured, color_corrected, masked_psnr, near_border
from zoo.splatting.momentum_gs.partition import block_scores
from zoo.splatting.reconstruction import Rendering
from zoo.splatting.scaffold_gs.files import write_folder
from zoo.splatting.scaffold_gs.network import AnchorModel


class Rendered(ZooModule):
    """A scene of anchors as `AnchorModel` holds it, in use."""

    network: AnchorModel
    val_metrics: ViewQuality
    test_metrics: ViewQuality
    part_metrics: MetricCollection
    history: list[Measured]

    @property
    def scene(self) -> Scene:
        """The scene of the run."""
        raise ConfigError("There is no run.")

    def block_metrics(self) -> dict[str, float]:
        """Metrics of the training by blocks."""
        return {}

    def forward(self, viewmats: Tensor, Ks: Tensor, width: int, height: int) -> Rendering:
        """Renders colours, expected depth and alpha for cameras (B, 4, 4), (B, 3, 3)."""
        with torch.no_grad():
            image, depth, alpha = self.network(viewmats, Ks, width, height)
        return {"image": image.clamp(0, 1), "depth": depth, "alpha": alpha}

    def _measure(self, batch: ViewBatch, metrics: ViewQuality) -> Rendering:
        height, width = batch["image"].shape[1:3]
        rendering = self(batch["viewmat"], batch["K"], width, height)
        metrics.measure(rendering["image"], batch["image"])
        self.log_dict(dict(metrics.items()), prog_bar=True, batch_size=len(batch["image"]))
        return rendering

    def validation_step(self, batch: ViewBatch, batch_idx: int) -> None:
        """Quality of the merged scene on held-out views."""
        self._measure(batch, self.val_metrics)

    def test_step(self, batch: ViewBatch, batch_idx: int) -> Rendering:
        """Quality on held-out views: overall, with colours corrected, at the borders of blocks and within them."""
        rendering = self._measure(batch, self.test_metrics)
        image, target = rendering["image"][0], batch["image"][0]
        parts = self.part_metrics
        parts["corrected"].update(psnr(color_corrected(image, target).unsqueeze(0), batch["image"][:1]))
        measured = {"test/psnr_corrected": parts["corrected"]}
        surfaces = getattr(self.scene, "surfaces", [])
        grid = self.grid()
        if surfaces and grid is not None:
            surface = surfaces[int(batch["index"][0])]
            near = near_border(grid, surface)
            for name, mask in (("border", near), ("interior", np.isfinite(surface).all(-1) & ~near)):
                quality = masked_psnr(image, target, mask)
                if quality is not None:
                    parts[name].update(quality)
                measured[f"test/psnr_{name}"] = parts[name]
        self.log_dict(measured, on_step=False, on_epoch=True, batch_size=1)
        self.log_dict({"test/anchors": float(len(self.network)), **self.block_metrics()}, batch_size=1)
        return rendering

    def predict_step(self, batch: ViewBatch, batch_idx: int) -> Rendering:
        """Renders."""
        height, width = batch["image"].shape[1:3]
        return self(batch["viewmat"], batch["K"], width, height)

    def grid(self) -> BlockGrid | None:
        """The blocks that the scene was made of; None for a single one."""
        low, high = (tuple(float(x) for x in row) for row in self.network.box)
        nx, ny, nz = (int(n) for n in self.network.dims)
        return BlockGrid(low, high, (nx, ny, nz)) if nx * ny * nz > 1 else None  # type: ignore[arg-type]

    def figures(self, batch: ViewBatch, output: Rendering) -> dict[str, Figure]:
        """Renders beside photographs; the anchors by block; views over the cuts; quality of the blocks over time."""
        scene, grid = self.scene, self.grid()
        held_out = scene.test_indices or scene.train_indices
        drawn = {"views": scene_figures.views(self, scene, held_out[:4])}
        drawn["anchors"] = block_figures.block_map(self.network, scene, grid)
        if grid is not None and getattr(scene, "surfaces", []):
            chosen = block_figures.border_views(scene, grid, held_out)
            drawn["borders"] = block_figures.borders({str(self.zoo_name): self}, scene, grid, chosen)
        if self.history:
            drawn["blocks"] = block_figures.block_quality(self.history)
        return drawn

    def predict_file(
        self,
        input: Path,
        output: Path,
        frames: int = 120,
        width: int | None = None,
        fps: int = 24,
        official: bool = False,
        dims: tuple[int, int, int] = (2, 2, 1),
        box: tuple[float, float, float, float, float, float] | None = None,
        threshold: float = 0.05,
    ) -> dict[str, Any]:
        """Renders a fly-through of the merged scene, writes it for other programs, or cuts it into blocks.

        Args:
            input: ``cameras`` for a way through the cameras of the training, ``turn`` for a circle about the scene,
                or a scene's folder, whose cameras are then rendered one by one.
            output: .mp4 or .gif for a film; without a suffix a folder for the frames as PNG files; .ply for plain
                Gaussians in the layout of 3DGS, as the nearest camera of the training sees them; .npz for a partition
                of the photographs of `input` (a scene's folder), which takes this model for the coarse one.
            frames: of the film.
            width: of the film in pixels; None for that of the training images.
            fps: frames per second.
            official: write the folder `output` as the official code does: point_cloud.ply and three networks.
            dims: blocks of the partition along x, y and z.
            box: of the partition: xmin, ymin, zmin, xmax, ymax, zmax; None for the official rule.
            threshold: a photograph belongs to a block without which 1 - SSIM of its render is above this.

        Raises:
            DataError: the output's kind is not known, or there is nothing to render.
        """
        if len(self.network) == 0:
            raise DataError("These weights hold no anchors: train first.")
        facts: dict[str, Any] = {"anchors": len(self.network), "written": output}
        if official:
            if len(self.network.decoders) > 1:
                raise DataError("The official layout has one decoder; these weights have one per block.")
            write_folder(output, self.network.rows(), self.network.decoder(0))
            return facts
        if output.suffix == ".ply":
            rows = plain_gaussians(self.network)
            write_ply(output, rows)
            return {**facts, "gaussians": len(rows["means"])}
        if output.suffix == ".npz":
            return {**facts, **self._write_partition(input, output, dims, box, threshold)}
        # Aerial cameras look at no common point: the circle is about the middle of the scene.
        middle = self.network.anchor.median(0).values.double().cpu().numpy()
        way = fly_through.cameras(self.network, input, frames, width, middle)
        start = time.perf_counter()
        pictures = [self(v.unsqueeze(0), k.unsqueeze(0), *way.size)["image"][0] for v, k in way]
        seconds = time.perf_counter() - start
        fly_through.write_film(output, [(255 * p.cpu()).round().byte().numpy() for p in pictures], fps)
        return {**facts, "frames": len(pictures), "frames per second rendered": round(len(pictures) / seconds, 1)}

    def _write_partition(
        self,
        source: Path,
        output: Path,
        dims: tuple[int, int, int],
        box: tuple[float, float, float, float, float, float] | None,
        threshold: float,
    ) -> dict[str, Any]:
        from zoo.data.blocks import automatic_box

        scene = read_scene(source, test_every=0)
        if box is None:
            low, high = automatic_box(scene.viewmats, self.network.anchor.double().cpu().numpy())
        else:
            low, high = np.array(box[:3]), np.array(box[3:])
        corners = [(float(c[0]), float(c[1]), float(c[2])) for c in (low, high)]
        grid = BlockGrid(corners[0], corners[1], dims)
        cameras = [
            (torch.from_numpy(v).float(), torch.from_numpy(K).float(), image.shape[1], image.shape[0])
            for v, K, image in zip(scene.viewmats, scene.Ks, scene.images, strict=True)
        ]
        mask = (block_scores(self.network, grid, cameras) > threshold) | grid.centres_inside(scene.centres)
        Partition(grid, scene.names, mask).checked().save(output)
        return {"photographs": len(mask), "of each block": mask.sum(0).tolist()}


@torch.no_grad()
def plain_gaussians(network: AnchorModel) -> Rows:
    """All anchors as Gaussians of one colour from all sides: as the nearest remembered camera sees each of them."""
    viewmats = network.key_viewmats.double().cpu().numpy()
    centres = torch.from_numpy(camera_centres(viewmats)).to(network.anchor)
    nearest = torch.cdist(network.anchor, centres).argmin(1)
    parts = []
    for block in range(len(network.decoders)):
        own = (
            (network.block == block) if len(network.decoders) > 1 else torch.ones_like(network.block, dtype=torch.bool)
        )
        rows = {name: value[own] for name, value in network.rows().items()}
        parts.append(network.decoder(block)(rows, centres[nearest[own]]))
    means, quats, scales, opacities, colors = (torch.cat([part[i] for part in parts]).cpu() for i in range(5))
    return {
        "means": means,
        "scales": scales.log(),
        "quats": quats,
        "opacities": opacities.clamp(1e-6, 1 - 1e-6).logit(),
        "sh0": rgb_to_sh0(colors).unsqueeze(1),
        "shN": torch.zeros(len(means), 0, 3),
    }
