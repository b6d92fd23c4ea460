"""The LightningModule that Scaffold-GS and Momentum-GS share: anchors in one block or many, fitted to photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection

from zoo.data.blocks import BlockGrid, BlockSchedule, BlockView, Partition
from zoo.data.city import BlockData
from zoo.data.scene_views import Scene, ViewBatch, scene_extent, view_batch
from zoo.errors import ConfigError
from zoo.module import ZooModule
from zoo.ops.ssim import ssim
from zoo.ranges import check_ranges
from zoo.splatting.metrics import ViewQuality, psnr
from zoo.splatting.momentum_gs import exchange
from zoo.splatting.momentum_gs.metrics import AFTER, BEFORE, FINAL, Measured, forgetting, staleness
from zoo.splatting.momentum_gs.rendering import Rendered
from zoo.splatting.momentum_gs.step import Outcome, View, Weights
from zoo.splatting.momentum_gs.store import BlockStore, block_file, load_state, save_state
from zoo.splatting.momentum_gs.training import BlockLoop, Rates, render_state
from zoo.splatting.reconstruction import remember_cameras
from zoo.splatting.scaffold_gs.anchors import AnchorState, automatic_voxel_size, initial_anchors, voxelise
from zoo.splatting.scaffold_gs.growth import Growth, adjust, collect
from zoo.splatting.scaffold_gs.network import AnchorModel
from zoo.splatting.space import centres
from zoo.viz.space import Space

Batch = list[BlockView] | ViewBatch

_RANGES = {
    "positive": ("radius", "lr_decay", "weight_sigma", "near_plane"),
    "0 or more": (
        *("appearance_dim", "consistency", "consistency_ramp", "weight_warmup", "voxel_size", "crop_margin"),
        *("grow_start", "grow_stop", "grow_gradient", "volume_weight"),
        *(f"lr_{name}" for name in Rates.__dataclass_fields__),
    ),
    "1 or more": (
        *("feat_dim", "n_offsets", "appearances", "decoders", "ratio", "max_resident"),
        *("grow_interval", "grow_levels", "grow_init_factor", "grow_hierarchy_factor", "grow_cap"),
    ),
    "from 0 to 1": ("teacher_momentum", "grow_success", "grow_min_opacity", "ssim_weight"),
}


class BlockReconstruction(Rendered, ZooModule):
    """Optimises blocks of anchors in turns, with one decoder for all (or one each).

    Only decoders and teachers are parameters. The blocks live in a `BlockStore`, from which one or a few at a time
    come to the device; `network` holds the merged scene from the first validation on. Blocks are spread over processes;
    the result does not depend on their number.

    A subclass saves its hyper-parameters, which are listed in `zoo.splatting.momentum_gs.module.MomentumGS`, and calls
    `_build`.

    Attributes:
        history: quality of blocks before and after their turns.
    """

    automatic_optimization = False
    loop: BlockLoop
    store: BlockStore

    def _build(self, **decoder: Any) -> None:
        own = self.hparams
        check_ranges(own, "model", _RANGES)
        if own["use_feat_bank"] and own["feat_dim"] % 4:
            raise ConfigError(f"model.feat_dim should be a multiple of 4 for a feature bank, not {own['feat_dim']}.")
        self.network = AnchorModel(own.get("decoders", 1), own["raster"], own["near_plane"], **decoder)
        self.val_metrics, self.test_metrics = ViewQuality("val/"), ViewQuality("test/")
        names = ("corrected", "border", "interior")
        self.part_metrics = MetricCollection({n: MeanMetric() for n in names}, compute_groups=False)
        self.history: list[Measured] = []
        self._restored: dict[str, Any] = {}
        self._growth: Growth | None = None
        self._anchors = 0

    def option(self, name: str, default: Any = None) -> Any:
        """A hyper-parameter, or the default where the model has no such thing."""
        return self.hparams.get(name, default)

    # What the run trains on

    @property
    def scene(self) -> Scene:
        """The scene of the run.

        Raises:
            ConfigError: the data module has none.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(getattr(data, "scene", None), Scene):
            raise ConfigError(f"{self.zoo_name} needs a data module with a scene, such as splatting/city.")
        return cast(Scene, data.scene)

    @property
    def blocks(self) -> BlockData | None:
        """The data module, if it deals blocks."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return data if isinstance(data, BlockData) else None

    @property
    def schedule(self) -> BlockSchedule:
        """Which blocks take a step when; without blocks, one for all steps."""
        if self.blocks is not None:
            return self.blocks.schedule
        steps = int(self.trainer.estimated_stepping_batches)
        return BlockSchedule(1, steps, steps, freeze_rounds=0)

    @property
    def partition(self) -> Partition:
        """Which photographs belong to which block; without blocks, all to one."""
        if self.blocks is not None:
            return self.blocks.partition
        names = [self.scene.names[i] for i in self.scene.train_indices]
        grid = BlockGrid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1, 1, 1))
        return Partition(grid, names, np.ones((len(names), 1), dtype=bool))

    def setup(self, stage: str) -> None:
        """Makes decoder, teacher and optimiser ready for the number of blocks."""
        if stage != "fit":
            return
        scene, count = self.scene, self.schedule.blocks
        decoders = len(self.network.decoders)
        if decoders not in (1, count):
            raise ConfigError(f"model.decoders should be 1 or, one per block, {count}; it is {decoders}.")
        own = self.hparams
        if own["appearance_dim"] and own["appearances"] < len(scene.names):
            raise ConfigError(f"model.appearances should be {len(scene.names)} or more, one per photograph.")
        rates: dict[str, Any] = {
            name: tuple(own[f"lr_{name}"]) if isinstance(own[f"lr_{name}"], list | tuple) else own[f"lr_{name}"]
            for name in Rates.__dataclass_fields__
        }
        self.loop = BlockLoop(
            self.network,
            count,
            self.option("teacher_momentum", 0.0),
            self.option("weight_sigma") or 1.0,
            Rates(**rates),
            self.option("decoder_optimizer", "shared"),
        )
        remember_cameras(self.network, scene)
        grid = self.partition.grid
        self.network.box.copy_(torch.tensor([grid.low, grid.high]) if count > 1 else torch.zeros(2, 3))
        self.network.dims.copy_(torch.tensor(grid.dims))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam of the decoder; the anchors' is part of each block."""
        return self.loop.optimizer

    def on_fit_start(self) -> None:
        """Makes the blocks of this process, or takes them up from a checkpoint."""
        scene, schedule = self.scene, self.schedule
        processes, rank = self.trainer.world_size, self.trainer.global_rank
        folder = self._root / "blocks" / f"rank_{rank}" if self.option("spill", False) else None
        self.store = BlockStore(self.device, self.option("max_resident", 1), folder)
        own = [b for b in range(schedule.blocks) if schedule.owner(b, processes) == rank]
        size = self.hparams["voxel_size"] or automatic_voxel_size(scene.points)
        growth = {name.removeprefix("grow_"): value for name, value in self.hparams.items() if name.startswith("grow_")}
        self._growth = Growth(size, **growth) if self.hparams["grow_stop"] else None
        for block in own:
            self.store.add(block, self._restored_block(block) if self._restored else self._first_block(block, size))

    @property
    def _seed(self) -> int:
        return int(getattr(self.trainer.datamodule, "seed", 0))  # type: ignore[attr-defined]

    @property
    def _root(self) -> Path:
        return Path(self.trainer.default_root_dir)

    def _first_block(self, block: int, size: float) -> AnchorState:
        """The anchors that a block begins with."""
        scene, partition = self.scene, self.partition
        points = scene.points
        if not len(points):
            raise ConfigError(f"{self.zoo_name} begins with the points of a scene; {scene.name} has none.")
        margin = self.option("crop_margin")
        if margin is not None:
            points = points[partition.grid.inside(points, block, 1 + margin)]
        state = initial_anchors(
            voxelise(points, size, self.hparams["ratio"]), self.hparams["feat_dim"], self.hparams["n_offsets"]
        )
        train = np.array(scene.train_indices)
        own = self.option("radius")
        state.radius = own if own else scene_extent(scene.centres[train[partition.views(block)]])
        return state

    # The step

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One view for each block whose turn it is."""
        views = batch if isinstance(batch, list) else [self._single(batch)]
        schedule, own = self.schedule, self.hparams
        step = batch_idx if isinstance(batch, list) else self.global_step
        _, _, iteration = schedule.place(step)
        group, frozen = schedule.group_of(step), schedule.frozen(step)
        starts = step > 0 and schedule.ends_turn(step - 1) and iteration > 1
        if starts and schedule.slots > 1:
            self._measure_blocks(step, group, BEFORE)
        members = [(view["block"], lambda b=view["block"]: self.store.checkout(b), _view(view)) for view in views]
        result = self.loop.step(
            members,
            iteration,
            Weights(
                own["ssim_weight"],
                own["volume_weight"],
                0.0 if frozen else self._consistency(iteration / schedule.iterations),
                self.option("detach_teacher", False),
            ),
            balance=bool(self.option("weight_sigma")) and iteration > self.option("weight_warmup", 0),
            part=iteration / (own["lr_decay"] * schedule.iterations),
            learn_decoder=not frozen,
            group=group,
            reduce=exchange.summed if self.trainer.world_size > 1 else None,
            optimizer=self.optimizers(),
            after=self._densify,
        )
        if schedule.slots > 1 and schedule.ends_turn(step):
            self._measure_blocks(step + 1, group, AFTER)
            self._bring_next(step + 1)
        if step % 10 == 0:
            losses = {f"train/{k}": torch.stack([r[k] for r in result.losses]).mean() for k in ("total", "consistency")}
            self.log_dict({**losses, "anchors": float(self._anchors)}, prog_bar=True, batch_size=1)

    def _single(self, batch: ViewBatch) -> BlockView:
        steps = int(self.trainer.estimated_stepping_batches)
        return {**batch, "block": 0, "iteration": self.global_step + 1, "iterations": steps, "frozen": False}

    def _consistency(self, part: float) -> float:
        """The weight of the consistency loss at a part of the training."""
        first, last = self.option("consistency_ramp", (0.0, 0.0))
        whole = float(self.option("consistency", 0.0))
        return whole * min(max((part - first) / (last - first), 0.0), 1.0) if last > first else whole

    def _densify(self, block: int, state: AnchorState, outcome: Outcome) -> None:
        self._anchors = len(state)
        growth = self._growth
        if growth is None or not growth.collects(state.iteration):
            return
        decoded, shown = outcome.decoded, outcome.shown
        pull = outcome.pull[shown].norm(dim=1)
        collect(state, outcome.visible, decoded.raw_opacities, decoded.selected[shown], pull)
        if growth.adjusts(state.iteration):
            generator = np.random.default_rng([self._seed, block, state.iteration])
            slots = len(state) * state.n_offsets
            draws = generator.random((growth.levels, slots), dtype=np.float32)
            adjust(state, growth, list(torch.from_numpy(draws).to(self.device)))

    # Quality of blocks

    def _measure_blocks(self, step: int, blocks: list[int], when: int) -> None:
        """Adds the quality of blocks on some of their own photographs to the history, on all processes."""
        values = torch.zeros(len(blocks), 2, dtype=torch.float64)
        for row, block in zip(values, blocks, strict=True):
            if block in self.store:
                row[:] = self._block_quality(block)
        if self.trainer.world_size > 1:
            values = exchange.summed(values.to(self.device)).cpu()
        for block, (quality, similarity) in zip(blocks, values.tolist(), strict=True):
            self.history.append(Measured(step, block, when, quality, similarity))
            if when == AFTER:
                self.loop.balance.measured(block, quality, similarity)

    def _block_quality(self, block: int) -> Tensor:
        """PSNR and SSIM of a block alone on every fifth of its photographs, of which at most 16 are taken."""
        scene = self.scene
        own = self.partition.views(block)[::5]
        own = own[np.linspace(0, len(own) - 1, min(len(own), 16)).round().astype(int)]
        state, decoder = self.store.checkout(block), self.network.decoder(block)
        values = []
        for place in own:
            batch = view_batch(scene, [scene.train_indices[place]])
            view = _view(batch, self.device)
            image = render_state(self.network, decoder, state, view).clamp(0, 1)
            values.append(torch.stack([psnr(image, view.image)[0], ssim(image, view.image)]))
        return torch.stack(values).double().mean(0).cpu()

    def _bring_next(self, step: int) -> None:
        if step < len(self.schedule):
            for block in self.schedule.group_of(step):
                if block in self.store:
                    self.store.prefetch(block)

    # Merging, validation, checkpoints

    @torch.no_grad()
    def merge(self) -> None:
        """Puts into `network` the anchors of each block that lie in its cell, from all processes."""
        grid, schedule = self.partition.grid, self.schedule
        parts: list[dict[str, Tensor]] = []
        for block in range(schedule.blocks):
            rows = self.store.peek(block).rows if block in self.store else None
            if self.trainer.world_size > 1:
                rows = exchange.shared(rows, schedule.owner(block, self.trainer.world_size))
            assert rows is not None
            if schedule.blocks > 1:
                inside = torch.from_numpy(grid.block_of(rows["anchor"].double().numpy()) == block)
                rows = {name: value[inside] for name, value in rows.items()}
            parts.append(rows)
        block_ids = torch.cat([torch.full((len(rows["anchor"]),), b) for b, rows in enumerate(parts)])
        self.network.set_rows({name: torch.cat([r[name] for r in parts]) for name in parts[0]}, block_ids)

    def on_validation_start(self) -> None:
        """Merges what there is."""
        if self.trainer.state.fn == "fit":
            self.merge()

    def on_train_end(self) -> None:
        """Measures every block with the final decoder, and merges."""
        if self.schedule.slots > 1:
            self._measure_blocks(len(self.schedule), list(range(self.schedule.blocks)), FINAL)
        self.merge()

    def on_fit_end(self) -> None:
        """Leaves no blocks behind on disk: the checkpoint has them."""
        self.store.close()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Writes the blocks beside the checkpoint, each process its own, and the merged scene into it."""
        if not hasattr(self, "store"):
            return
        folder = self._root / "checkpoints" / "blocks"
        name = f"step_{self.global_step:07d}"
        for block in self.store.blocks():
            save_state(block_file(folder / name, block), self.store.peek(block))
        self.merge()
        rows = {**self.network.rows(), "block": self.network.block}
        checkpoint["state_dict"] |= {f"network.{key}": value for key, value in rows.items()}
        checkpoint["blocks"] = {"folder": name}
        checkpoint["history"] = [list(one) for one in self.history]
        self.trainer.strategy.barrier()
        if self.trainer.is_global_zero:
            exchange.remove_old(folder, keep=2)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up the history, and remembers where the blocks are."""
        self._restored = checkpoint["blocks"]
        self.history = [
            Measured(int(step), int(block), int(when), quality, similarity)
            for step, block, when, quality, similarity in checkpoint["history"]
        ]

    def _restored_block(self, block: int) -> AnchorState:
        folder = self._root / "checkpoints" / "blocks" / self._restored["folder"]
        return load_state(block_file(folder, block))

    @torch.no_grad()
    def space(self, batch: ViewBatch, output: Any) -> Space | None:
        """All anchors' Gaussians for a camera in the middle of all, as the first one is turned."""
        network, viewmats = self.network, self.network.key_viewmats
        if len(network) == 0:
            return None
        places = -(viewmats[:, :3, :3].mT @ viewmats[:, :3, 3:]).squeeze(-1)
        decoded = network.decode_all(places.mean(0).to(network.means))
        # Anchors share a surface among many faint Gaussians: at 0.5 a city's ground is missing.
        return centres(decoded.means, decoded.opacities, decoded.colors, viewmats[0], least=0.3)

    def block_metrics(self) -> dict[str, float]:
        """Staleness and forgetting (dB), where blocks took turns."""
        if not any(one.when == FINAL for one in self.history):
            return {}
        return {"test/staleness": staleness(self.history), "test/forgetting": forgetting(self.history)}


def _view(batch: Any, device: torch.device | None = None) -> View:
    image, viewmat, K = (batch[key] if device is None else batch[key].to(device) for key in ("image", "viewmat", "K"))
    return View(image, viewmat[0], K[0], int(batch["index"][0]))
