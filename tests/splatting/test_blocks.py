"""Scenes in blocks: turns, the store, processes, resuming, merging, files, and every config."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import zoo
from tests.conftest import RunCommand
from tests.goldens import load
from zoo import weights
from zoo.config import compose
from zoo.data.blocks import BlockGrid, BlockSchedule, Partition, central_box, point_coverage, view_of
from zoo.data.procedural_city import procedural_city
from zoo.data.scene_views import Scene, view_batch
from zoo.engine.run import train
from zoo.errors import ConfigError, DataError, Interrupted, WeightsError
from zoo.ops.ssim import ssim
from zoo.pretrained import get_entry
from zoo.splatting.fly_through import interpolate
from zoo.splatting.gaussian_files import read_ply
from zoo.splatting.metrics import psnr
from zoo.splatting.momentum_gs.metrics import (
    AFTER,
    BEFORE,
    FINAL,
    Measured,
    color_corrected,
    forgetting,
    masked_psnr,
    near_border,
    staleness,
)
from zoo.splatting.momentum_gs.reconstruction import BlockReconstruction
from zoo.splatting.momentum_gs.store import BlockStore, block_file
from zoo.splatting.scaffold_gs import files
from zoo.splatting.scaffold_gs.anchors import AnchorState, initial_anchors
from zoo.splatting.space import MAX_POINTS

QUIET = ["callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}"]
TINY = [
    *("data.size=32", "data.points=1500", "data.positions=3", "model.voxel_size=0.3", "model.feat_dim=16"),
    *("data.iterations=12", "data.interval=4", "trainer.val_check_interval=null"),
]
GROWING = [
    *("model.grow_stop=100", "model.grow_start=1", "model.grow_interval=5", "model.grow_gradient=1e-5"),
    *("model.grow_init_factor=4", "model.weight_warmup=4"),
]


def same_weights(one: Path, other: Path) -> bool:
    """Whether two runs ended with the same bits."""
    ours, theirs = (weights.read(path / "model.safetensors")[0] for path in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


class TestSchedule:
    @given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 25), st.integers(1, 9), st.integers(0, 2))
    @settings(max_examples=60, deadline=None)
    def test_each_block_has_each_iteration_once(
        self, slots: int, group: int, iterations: int, interval: int, freeze: int
    ) -> None:
        schedule = BlockSchedule(slots * group, iterations, interval, group, freeze)
        seen = [(block, schedule.place(step)[2]) for step in range(len(schedule)) for block in schedule.group_of(step)]
        assert sorted(seen) == [(b, i + 1) for b in range(slots * group) for i in range(iterations)]
        ends = [step for step in range(len(schedule)) if schedule.ends_turn(step)]
        assert len(ends) == (schedule.rounds * slots if slots > 1 else schedule.rounds)
        owners = [schedule.owner(block, group) for block in range(slots * group)]
        for step in range(len(schedule)):
            assert sorted(owners[block] for block in schedule.group_of(step)) == list(range(group))

    def test_the_decoder_rests_at_the_end_and_never_wakes(self) -> None:
        schedule = BlockSchedule(4, 30, 10)
        frozen = [schedule.frozen(step) for step in range(len(schedule))]
        assert frozen == [False] * 90 + [True] * 30  # the first block's last turn still trains it
        assert not any(BlockSchedule(4, 30, 10, freeze_rounds=0).frozen(step) for step in range(120))
        assert not any(BlockSchedule(4, 30, 10, group=4).frozen(step) for step in range(30))

    def test_views_come_once_per_epoch(self) -> None:
        seen = [view_of(7, 3, 1, i + 1) for i in range(21)]
        assert all(sorted(seen[k : k + 7]) == list(range(7)) for k in (0, 7, 14))
        assert seen != [view_of(7, 3, 2, i + 1) for i in range(21)]

    def test_uneven_groups_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="groups of 3"):
            BlockSchedule(4, 10, 5, 3)
        with pytest.raises(ConfigError, match="shared by 2 processes"):
            BlockSchedule(4, 10, 5, 1).owner(0, 2)


class TestPartition:
    def test_cells_cover_infinity_once(self) -> None:
        grid = BlockGrid((-1.0, -2.0, 0.0), (1.0, 2.0, 3.0), (3, 2, 4))
        points = np.random.default_rng(0).standard_cauchy((2000, 3)) * 10
        inside = np.stack([grid.inside(points, block) for block in range(len(grid))], axis=1)
        assert (inside.sum(1) == 1).all()
        np.testing.assert_array_equal(inside.argmax(1), grid.block_of(points))
        wide = np.stack([grid.inside(points, block, 1.3) for block in range(len(grid))], axis=1)
        assert (wide >= inside).all()
        assert wide.sum() > inside.sum()

    def test_moving_scene_and_box_together_changes_nothing(self) -> None:
        points, shift = np.random.default_rng(1).normal(size=(500, 3)), np.array([5.0, -3.0, 2.0])
        grid = BlockGrid((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5), (2, 2, 2))
        moved = BlockGrid((4.5, -3.5, 1.5), (5.5, -2.5, 2.5), (2, 2, 2))
        np.testing.assert_array_equal(grid.block_of(points), moved.block_of(points + shift))

    def test_files_go_out_and_in_by_name(self, tmp_path: Path) -> None:
        grid = BlockGrid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (2, 1, 1))
        mask = np.array([[1, 0], [0, 1], [1, 1]], dtype=bool)
        Partition(grid, ["a", "b", "c"], mask).save(tmp_path / "p.npz")
        again = Partition.load(tmp_path / "p.npz", ["c", "a", "b"])
        assert again.grid == grid
        np.testing.assert_array_equal(again.mask, mask[[2, 0, 1]])
        np.save(tmp_path / "official.npy", mask)
        np.testing.assert_array_equal(Partition.load(tmp_path / "official.npy", ["a", "b", "c"], grid).mask, mask)
        # Official rows go by names without suffix: "a" is before "a-1", though "a.jpg" is after "a-1.jpg".
        again = Partition.load(tmp_path / "official.npy", ["a-1.jpg", "a.jpg", "b.jpg"], grid)
        np.testing.assert_array_equal(again.mask, mask[[1, 0, 2]])
        for name, names, reason in (
            ("p.npz", ["a", "z"], "does not know z"),
            ("official.npy", ["a", "b"], "for 2 views"),
            ("none.npz", ["a"], "There is no partition file"),
        ):
            with pytest.raises(DataError, match=reason):
                Partition.load(tmp_path / name, names, grid)
        with pytest.raises(DataError, match="how the scene was cut"):
            Partition.load(tmp_path / "official.npy", ["a", "b", "c"])
        with pytest.raises(DataError, match="No photograph shows block 1"):
            Partition(grid, ["a"], np.array([[True, False]])).checked()

    def test_points_tell_what_a_view_shows(self) -> None:
        grid = BlockGrid((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0), (2, 1, 1))
        points = np.array([[-0.2, 0, 1.0], [0.2, 0, 1.0], [0.3, 0, 1.0], [0.1, 0, -1.0], [9, 0, 1.0]])
        scene = Scene(
            *("s", ["v"], [np.zeros((10, 10, 3), np.uint8)], np.eye(4)[None]),
            *(np.array([[[10.0, 0, 5], [0, 10, 5], [0, 0, 1]]]), points, np.zeros((5, 3), np.uint8)),
        )
        np.testing.assert_allclose(point_coverage(grid, scene, [0]), [[1 / 3, 2 / 3]])
        low, high = central_box(points)
        assert (low <= high).all()


class TestCity:
    def test_views_surfaces_and_points_fit_together(self, in_tmp: Path) -> None:
        scene = procedural_city(32, 800, 0, 3)
        assert (len(scene.train_indices), len(scene.test_indices)) == (45, 45)
        assert len(scene.points) == 800
        for view in (0, 7, 50):
            surface = scene.surfaces[view].reshape(-1, 3).astype(float)
            solid = np.isfinite(surface).all(-1)
            local = surface[solid] @ scene.viewmats[view, :3, :3].T + scene.viewmats[view, :3, 3]
            pixels = (local @ scene.Ks[view].T)[:, :2] / local[:, 2:]
            rows, columns = np.divmod(np.flatnonzero(solid), 32)
            np.testing.assert_allclose(pixels, np.stack([columns, rows], 1) + 0.5, atol=1e-3)
            sky = scene.images[view].reshape(-1, 3)[~solid] / 255
            if len(sky):
                assert np.median(np.abs(sky - scene.background).max(1)) < 0.02
        grid = BlockGrid((-2.0, -2.0, -1.0), (2.0, 2.0, 2.0), (2, 2, 1))
        near = near_border(grid, scene.surfaces[20])
        surface = scene.surfaces[20]
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(near, (np.abs(surface[..., :2]) < 0.5).any(-1))


class TestStore:
    def states(self) -> list[AnchorState]:
        generator = np.random.default_rng(0)
        return [initial_anchors(generator.normal(size=(10 + i, 3)), 4, 2) for i in range(4)]

    def work(self, store: BlockStore) -> list[AnchorState]:
        for step in range(12):
            block = step % 4
            state = store.checkout(block)
            store.prefetch((block + 1) % 4)
            state.adam({"offset": torch.full_like(state.rows["offset"], step - 5.0)}, {"offset": 0.1})
            state.iteration += 1
        store.flush()
        return [store.peek(block) for block in store.blocks()]

    def test_blocks_come_back_as_they_went(self, tmp_path: Path) -> None:
        results = []
        for resident, folder in ((1, None), (2, None), (4, None), (1, tmp_path / "a"), (2, tmp_path / "b")):
            store = BlockStore("cpu", resident, folder)
            for block, state in enumerate(self.states()):
                store.add(block, state)
            results.append(self.work(store))
            assert store.peak_resident_bytes <= resident * max(s.nbytes for s in self.states())
            assert store.resident_bytes == 0
        for other in results[1:]:
            for one, two in zip(results[0], other, strict=True):
                assert all(torch.equal(v, two.tensors()[k]) for k, v in one.tensors().items())

    def test_a_lost_or_damaged_file_is_named(self, tmp_path: Path) -> None:
        store = BlockStore("cpu", 1, tmp_path)
        for block, state in enumerate(self.states()):
            store.add(block, state)
        block_file(tmp_path, 2).unlink()
        block_file(tmp_path, 3).write_bytes(b"nonsense")
        with pytest.raises(WeightsError, match=r"block_002.safetensors is gone"):
            store.checkout(2)
        with pytest.raises(WeightsError, match=r"block_003.safetensors is damaged"):
            store.checkout(3)


def test_staleness_and_forgetting() -> None:
    history = [
        *(Measured(10, 0, AFTER, 20.0, 0.5), Measured(20, 1, AFTER, 22.0, 0.5)),
        *(Measured(20, 0, BEFORE, 19.0, 0.5), Measured(30, 0, AFTER, 25.0, 0.5)),
        *(Measured(30, 1, BEFORE, 20.0, 0.5), Measured(40, 1, AFTER, 26.0, 0.5)),
        *(Measured(40, 0, FINAL, 24.5, 0.5), Measured(40, 1, FINAL, 26.0, 0.5)),
    ]
    assert staleness(history) == pytest.approx(0.5)  # of block 0: block 1 was trained last
    assert forgetting(history) == pytest.approx(1.5)
    assert staleness([]) == forgetting([]) == 0


def test_color_correction_is_the_official_one() -> None:
    golden = load("splatting-momentum-gs", "misc")
    a, b = (golden[f"img_{name}"].permute(1, 2, 0) for name in "ab")
    corrected = color_corrected(b, a)
    torch.testing.assert_close(corrected, golden["color_correct_b_to_a"].permute(1, 2, 0), rtol=0, atol=1e-4)
    assert float(psnr(corrected[None], a[None])) == pytest.approx(float(golden["psnr_after_cc"]), abs=1e-3)
    assert float(psnr(b[None], a[None])) == pytest.approx(float(golden["psnr_batched"]), abs=1e-4)
    assert float(ssim(b[None], a[None])) == pytest.approx(float(golden["ssim"]), abs=1e-5)
    channels = psnr(golden["img_b"].unsqueeze(-1), golden["img_a"].unsqueeze(-1))  # each for itself, as block weights
    torch.testing.assert_close(channels, golden["psnr_per_channel"].squeeze(1), rtol=0, atol=1e-4)


class TestRuns:
    def test_where_blocks_are_kept_changes_nothing(self, in_tmp: Path) -> None:
        """In memory or on disk, one or all on the device, with growth: the same bits."""
        for name, options in {"one": ["model.max_resident=1"], "disk": ["model.spill=true"]}.items():
            options = [*options, "model.crop_margin=0.5", f"run_dir={name}"]
            train(compose("splatting/momentum-gs", [*QUIET, *TINY, *GROWING, *options]))
        assert same_weights(Path("one"), Path("disk"))
        assert not list(Path("disk").glob("blocks/*/*"))

    def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
        self, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In the middle of a turn; a lost block and another number of blocks are named."""
        options = [*QUIET, *TINY, *GROWING]
        whole = train(compose("splatting/momentum-gs", [*options, "run_dir=whole"]))
        step = BlockReconstruction.training_step

        def stop(self: Any, batch: Any, batch_idx: int) -> None:
            step(self, batch, batch_idx)
            if batch_idx == 21:
                import signal

                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(BlockReconstruction, "training_step", stop)
        with pytest.raises(Interrupted):
            train(compose("splatting/momentum-gs", [*options, "run_dir=parts"]))
        monkeypatch.setattr(BlockReconstruction, "training_step", step)
        shutil.copytree("parts", "hole")
        next(Path("hole/checkpoints/blocks").glob("*/block_001.safetensors")).unlink()
        with pytest.raises(WeightsError, match=r"block_001.safetensors is gone"):
            train(compose("splatting/momentum-gs", [*options, "run_dir=hole"]), resume=True)
        with pytest.raises(WeightsError, match=r"loop.balance.quality(.|\n)*Resume with the model arguments"):
            train(compose("splatting/momentum-gs", [*options, "data.dims=[2,1,1]", "run_dir=hole"]), resume=True)
        parts = train(compose("splatting/momentum-gs", [*options, "run_dir=parts"]), resume=True)
        assert parts["metrics"] == whole["metrics"]
        assert same_weights(Path("whole"), Path("parts"))

    @pytest.mark.slow
    def test_two_processes_give_the_bits_of_one(self, zoo_command: RunCommand, tmp_path: Path) -> None:
        """Four blocks in groups of two, with growth, weights and teacher; and a run begun by one, ended by two."""
        options = ["config=splatting/momentum-gs", *QUIET, *TINY, *GROWING, "data.group=2", "trainer.accelerator=cpu"]
        for name, extra in (("one", []), ("two", ["trainer=ddp"])):
            done = zoo_command("zoo.train", *options, f"run_dir={name}", *extra)
            assert done.returncode == 0, done.stderr
        assert same_weights(tmp_path / "one", tmp_path / "two")

    @pytest.mark.slow
    @pytest.mark.parametrize(("config", "gain"), [("splatting/momentum-gs", 2.0), ("splatting/scaffold-gs", 2.0)])
    def test_every_config_gains_decibels(self, in_tmp: Path, config: str, gain: float) -> None:
        options = [*QUIET, "data.size=48", "data.points=5000", "data.positions=3", "model.voxel_size=0.16"]
        options += ["trainer.val_check_interval=null"]
        blocks = 4 if "momentum" in config else 1
        first = [*options, "data.iterations=1", "data.interval=1", "run_dir=before"]
        before = train(compose(config, first))["metrics"]
        length = 240 // blocks
        rest = [f"data.iterations={length}", f"data.interval={length // 3}", "run_dir=run"]
        after = train(compose(config, [*options, *rest]))["metrics"]
        assert after["test/psnr"] > max(before["test/psnr"] + gain, 17)
        assert after["test/psnr_corrected"] > after["test/psnr"]
        names = {path.stem for path in Path("run/figures").glob("*.png")}
        assert names >= {"views", "anchors", "training"}
        assert ({"borders", "blocks"} <= names) == (blocks > 1)

    def test_any_scene_is_one_block(self, in_tmp: Path) -> None:
        options = [*QUIET, "data.size=32", "data.views=16", "data.points=300", "trainer.val_check_interval=null"]
        options += ["model.grow_stop=60", "model.grow_start=10", "model.grow_interval=10", "model.grow_gradient=1e-5"]
        options += ["model.appearance_dim=4", "model.use_feat_bank=true", "model.add_color_dist=true"]
        with pytest.raises(ConfigError, match=r"model.appearances should be 16"):
            train(compose("splatting/scaffold-gs-scene", [*options, "run_dir=few"]))
        options.append("model.appearances=16")
        before = train(compose("splatting/scaffold-gs-scene", [*options, "trainer.max_steps=1", "run_dir=before"]))
        after = train(compose("splatting/scaffold-gs-scene", [*options, "trainer.max_steps=80", "run_dir=run"]))
        assert after["metrics"]["test/psnr"] > before["metrics"]["test/psnr"] + 2
        assert after["metrics"]["test/anchors"] > before["metrics"]["test/anchors"]

    def test_half_precision_trains(self, in_tmp: Path) -> None:
        options = ["trainer.precision=bf16-mixed", "data.iterations=2", "data.interval=1", "run_dir=run"]
        metrics = train(compose("splatting/momentum-gs", [*QUIET, *TINY, *options]))["metrics"]
        assert np.isfinite(list(metrics.values())).all()

    def test_decoders_must_be_one_or_as_many_as_blocks(self, in_tmp: Path) -> None:
        with pytest.raises(ConfigError, match=r"one per block, 4; it is 3"):
            train(compose("splatting/momentum-gs", [*QUIET, *TINY, "model.decoders=3", "run_dir=run"]))

    def test_data_without_a_scene_is_named(self, in_tmp: Path) -> None:
        with pytest.raises(ConfigError, match="needs a data module with a scene"):
            train(compose("splatting/scaffold-gs-scene", [*QUIET, "data={name: kat/digits}", "run_dir=run"]))


_LOST = """
import sys, torch, torch.distributed as dist
from zoo.errors import ZooError
from zoo.splatting.momentum_gs.exchange import summed
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
assert summed(torch.ones(3)).tolist() == [2, 2, 2]
if rank == 1:
    import os
    os._exit(1)
try:
    summed(torch.ones(3))
except ZooError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_killed_process_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _LOST]
    other = subprocess.Popen([*command, "1", str(tmp_path / "meet")])
    done = subprocess.run([*command, "0", str(tmp_path / "meet")], capture_output=True, text=True, timeout=120)
    assert other.wait(60) == 1
    assert "Another process of this run is gone" in done.stdout, done.stderr
    assert "resume=" in done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run with a decoder per block."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        options = ["model.decoders=4", "model.consistency=0", "data.freeze_rounds=0", "run_dir=run"]
        train(compose("splatting/momentum-gs", [*QUIET, *TINY, *options]))
    return folder / "run"


class TestUse:
    def test_each_block_is_decoded_by_its_own(self, trained: Path) -> None:
        from zoo.pretrained import load_module

        network: Any = load_module(trained).network
        view = (network.key_viewmats[5], network.key_K, *(int(n) for n in network.key_size))
        whole = network.decode(*view)
        block = int(network.block[0])
        rows, ids = network.rows(), network.block
        network.set_rows({n: v[ids == block] for n, v in rows.items()}, ids[ids == block])
        part = network.decode(*view)
        assert 0 < len(part.means) < len(whole.means)
        assert bool((whole.means[:, None] == part.means[None, :20]).all(-1).any(0).all())

    def test_films_and_files(self, trained: Path, in_tmp: Path) -> None:
        from zoo.pretrained import load_module

        module: Any = load_module(trained)
        assert module.predict_file(Path("cameras"), Path("a.gif"), frames=3, width=24)["frames"] == 3
        with Image.open("a.gif") as film:
            assert film.size == (24, 24)
        facts = module.predict_file(Path("turn"), Path("a.ply"))
        assert len(read_ply(Path("a.ply"))["means"]) == facts["gaussians"] > 100
        with pytest.raises(DataError, match="has one decoder"):
            module.predict_file(Path("turn"), Path("official"), official=True)
        with pytest.raises(DataError, match="no anchors"):
            zoo.create_model("splatting/momentum-gs").predict_file(Path("turn"), Path("a.gif"))  # type: ignore[operator]

    def test_a_way_through_cameras_at_one_place_is_smooth(self) -> None:
        viewmats = procedural_city(24, 200, 0, 2).viewmats[:10]
        way = interpolate(viewmats, 200)
        assert np.isfinite(way).all()
        np.testing.assert_allclose(way[[0, -1]], viewmats[[0, -1]], atol=1e-6)
        assert np.abs(np.diff(way[:, :3, :3], axis=0)).max() < 0.2

    def test_the_official_folder(self, in_tmp: Path) -> None:
        golden = load("splatting-momentum-gs", "checkpoint_expected")
        module: Any = zoo.create_model("splatting/scaffold-gs")
        official = {n: v for n, v in golden.items() if not n.startswith(("cam/", "out/"))}
        weights.load_into(module.network, zoo.convert_official("splatting/scaffold-gs", official), "golden")
        module.predict_file(Path("turn"), Path("iteration_60000"), official=True)
        again = files.read_folder(Path("iteration_60000"))
        assert all(torch.equal(again[n], v) for n, v in official.items())


def test_the_whole_city_can_be_turned_about() -> None:
    """Also what the first camera, which looks down, does not see; no more than a page can hold."""
    module: Any = zoo.load_pretrained("splatting/momentum-city")
    space = module.space({}, {})
    assert 10_000 < len(space.points) <= MAX_POINTS
    assert (np.ptp(space.points, 0)[:2] > 10).all()
    assert 0 <= space.colours.min() < space.colours.max() <= 1
    module.network.set_rows({name: value[:0] for name, value in module.network.rows().items()})
    assert module.space({}, {}) is None


def test_shipped_weights_render_the_city_as_recorded() -> None:
    entry = get_entry("splatting/momentum-city")
    module: Any = zoo.load_pretrained("splatting/momentum-city")
    scene, grid = procedural_city(96), module.grid()
    found: dict[str, list[float]] = {"psnr": [], "border": []}
    for index in scene.test_indices:
        batch = view_batch(scene, [index])
        image = module(batch["viewmat"], batch["K"], 96, 96)["image"]
        found["psnr"].append(float(psnr(image, batch["image"])[0]))
        border = masked_psnr(image[0], batch["image"][0], near_border(grid, scene.surfaces[index]))
        found["border"] += [] if border is None else [border]
    assert np.mean(found["psnr"]) == pytest.approx(entry.metrics["test/psnr"], abs=0.05)
    assert np.mean(found["border"]) == pytest.approx(entry.metrics["test/psnr_border"], abs=0.05)
