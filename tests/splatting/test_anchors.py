"""Anchors and their decoder against the official numbers; files out and in; guards."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import zoo
from tests.goldens import load, relative_error, section
from zoo import weights
from zoo.errors import DataError, UnknownNameError, WeightsError
from zoo.splatting.gaussians import mean_square_distance
from zoo.splatting.momentum_gs.distillation import BlockWeights, consistency, update_teacher
from zoo.splatting.scaffold_gs import files
from zoo.splatting.scaffold_gs.anchors import ANCHOR_ROWS, AnchorState, automatic_voxel_size, initial_anchors, voxelise
from zoo.splatting.scaffold_gs.convert import decoder_arguments
from zoo.splatting.scaffold_gs.decoder import GaussianDecoder
from zoo.splatting.scaffold_gs.footprint import visible_anchors
from zoo.splatting.scaffold_gs.growth import Growth, adjust, collect

SYSTEM = "splatting-momentum-gs"
GOLDENS = Path(__file__).parents[1] / "goldens" / SYSTEM


def camera(golden: dict[str, Tensor], prefix: str = "cam/") -> tuple[Tensor, Tensor, int, int]:
    """World-to-camera matrix, intrinsics, width and height of an official camera."""
    part = section(golden, prefix)
    width, height = (int(n) for n in part["WH"])
    viewmat = part["world_view_transform"].mT.contiguous()
    fx, fy = (n / 2 / math.tan(float(part[f]) / 2) for n, f in ((width, "FoVx"), (height, "FoVy")))
    return viewmat, torch.tensor([[fx, 0, width / 2], [0, fy, height / 2], [0, 0, 1]]), width, height


def decoder_of(golden: dict[str, Tensor], prefix: str = "") -> GaussianDecoder:
    """The decoder with a golden's weights."""
    state = {
        k: v for k, v in section(golden, prefix).items() if k.startswith(("mlp_", "embedding_")) and "grad" not in k
    }
    decoder = GaussianDecoder(**decoder_arguments({**state, **{n: golden[n] for n in ("offset", "anchor_feat")}}))
    decoder.load_state_dict(state)
    return decoder


def leaves(golden: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The anchors, to be differentiated."""
    return {name: golden[prefix + name].clone().requires_grad_() for name in ANCHOR_ROWS}


@pytest.mark.parametrize("file", ["decode_v0", "decode_v1"])
def test_decoding_is_the_official_one(file: str) -> None:
    golden = load(SYSTEM, file)
    decoder, rows, visible = decoder_of(golden), leaves(golden), golden["visible_mask"]
    seen = {name: value[visible] for name, value in rows.items()}
    image = int(golden["cam/uid"]) if decoder.embedding_appearance is not None else None
    out = decoder(seen, golden["cam/camera_center"], image)
    parts = {"xyz": out.means, "color": out.colors, "scaling": out.scales, "rot": out.quats}
    parts["opacity"] = out.opacities.unsqueeze(1)
    for name, value in parts.items():
        torch.testing.assert_close(value, golden[f"out/{name}"], rtol=1e-5, atol=1e-6)
    assert torch.equal(golden["out/mask"].nonzero().squeeze(1), out.selected)
    columns = torch.cat([parts[n] for n in ("xyz", "color", "opacity", "scaling", "rot")], dim=1)
    loss = (columns * golden["loss_col_weights"]).sum()
    loss.backward()
    grads = {**{n: v.grad for n, v in rows.items()}, **{n: p.grad for n, p in decoder.named_parameters()}}
    expected = section(golden, "grad/")
    assert {n for n, g in grads.items() if g is not None} == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(grads[name], value, rtol=1e-4, atol=2e-5)


def test_consistency_is_the_official_one() -> None:
    golden = load(SYSTEM, "consistency")
    student, teacher = decoder_of(golden, "student/"), decoder_of(golden, "teacher/")
    for detach, prefix in ((False, "grad/"), (True, "alt_detached_grad/")):
        rows = leaves(golden)
        student.zero_grad()
        seen = {name: value[golden["visible_mask"]] for name, value in rows.items()}
        inputs = student.inputs(seen["anchor"], seen["anchor_feat"], golden["cam/camera_center"])
        losses = consistency(teacher, inputs, seen, student.decode(inputs, seen), detach)
        names = {"color": "color", "rotation": "rot", "scaling": "scaling", "opacity": "opacity"}
        for ours, theirs in names.items():
            torch.testing.assert_close(losses[ours], golden[f"out/{theirs}_loss"], rtol=1e-5, atol=0)
        torch.stack(list(losses.values())).sum().backward()
        grads = {**{n: v.grad for n, v in rows.items()}, **{n: p.grad for n, p in student.named_parameters()}}
        for name, value in section(golden, prefix).items():
            torch.testing.assert_close(grads[name], value, rtol=1e-3, atol=1e-6)


def test_teacher_and_block_weights_are_the_official_ones() -> None:
    golden = load(SYSTEM, "ema_weight")

    def net(name: str) -> torch.nn.Sequential:
        net = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
        net.load_state_dict(section(golden, f"ema/{name}/"))
        return net

    teacher = net("teacher0")
    for step in range(1, 7):
        update_teacher(teacher, net(f"student{step}"), float(golden["ema/m"]))
        for name, value in net(f"teacher{step}").named_parameters():
            torch.testing.assert_close(teacher.get_parameter(name), value, rtol=0, atol=1e-6)

    per_rank, world = int(golden["w/blocks_per_rank"]), int(golden["w/world"])
    balance = BlockWeights(per_rank * world, float(golden["w/sigma"]))
    expected = golden["w/weight"]
    for round_, slots in enumerate(expected):
        for block, (psnr, ssim) in enumerate(zip(golden["w/psnr"][round_], golden["w/ssim"][round_], strict=True)):
            balance.measured(block, float(psnr), float(ssim))
        for slot, iterations in enumerate(slots):
            group = [rank * per_rank + slot for rank in range(world)]
            for values in iterations:
                balance.advance(group)
                assert [balance(b) for b in group] == pytest.approx(values.tolist(), abs=1e-5)


@pytest.mark.parametrize("tag", ["a", "auto", "ratio2"])
def test_anchors_begin_as_the_official_ones(tag: str) -> None:
    golden = load(SYSTEM, "init")
    part, points = section(golden, f"{tag}/"), golden["points"].double().numpy()
    size = float(part["voxel_size_in"])
    distances = torch.from_numpy(mean_square_distance(points)).float()
    torch.testing.assert_close(distances, golden["dist_mean3nn_sq"], rtol=1e-5, atol=1e-8)
    points = points[:: int(part["ratio"])]
    size = size if size > 0 else automatic_voxel_size(points, squared=True)
    assert size == pytest.approx(float(part["voxel_size"]), rel=1e-4)
    state = initial_anchors(voxelise(points, float(part["voxel_size"])))
    torch.testing.assert_close(state.rows["anchor"], part["anchor"], rtol=0, atol=1e-6)
    torch.testing.assert_close(state.rows["scaling"], part["scaling"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state.rows["opacity"], part["opacity"])
    torch.testing.assert_close(state.rows["rotation"], part["rotation"])
    assert list(state.rows["offset"].shape) == part["offset_shape"].tolist()


def test_growth_is_the_official_one() -> None:
    golden = load(SYSTEM, "grow")
    adam = section(golden, "before/adam/")
    moments = {n: (adam[f"{n}/exp_avg"].clone(), adam[f"{n}/exp_avg_sq"].clone()) for n in ANCHOR_ROWS}
    state = AnchorState({n: golden[f"before/{n}"] for n in ANCHOR_ROWS}, moments)
    growth = Growth(
        voxel_size=float(golden["voxel_size"]),
        interval=int(golden["check_interval"]),
        gradient=float(golden["grad_threshold"]),
        success=float(golden["success_threshold"]),
        min_opacity=float(golden["min_opacity"]),
        levels=int(golden["update_depth"]),
        init_factor=int(golden["update_init_factor"]),
        hierarchy_factor=int(golden["update_hierachy_factor"]),
    )
    for step in range(int(golden["T"])):
        seen = section(golden, f"stat{step}/")
        raw = seen["neural_opacity"].squeeze(1)
        shown = seen["update_filter"]
        slots = (raw > 0).nonzero().squeeze(1)[shown]
        pull = seen["viewspace_grad"][shown, :2].norm(dim=1)
        collect(state, seen["visible_mask"].nonzero().squeeze(1), raw, slots, pull)
    names = {"opacity_accum": "opacity_accum", "anchor_denom": "anchor_demon"}
    names |= {"gradient_accum": "offset_gradient_accum", "offset_denom": "offset_denom"}
    for ours, theirs in names.items():
        torch.testing.assert_close(state.statistics[ours], golden[f"mid/{theirs}"].squeeze(1), rtol=1e-5, atol=1e-6)
    adjust(state, growth, [golden[f"rand{i}"] for i in range(3)])
    for name in ANCHOR_ROWS:
        torch.testing.assert_close(state.rows[name], golden[f"after/{name}"], rtol=1e-5, atol=1e-6)
        for moment, key in zip(state.moments[name], ("exp_avg", "exp_avg_sq"), strict=True):
            torch.testing.assert_close(moment, golden[f"after/adam/{name}/{key}"], rtol=0, atol=0)
    for ours, theirs in names.items():
        torch.testing.assert_close(state.statistics[ours], golden[f"after/{theirs}"].squeeze(1), rtol=1e-5, atol=1e-6)


class TestFiles:
    def test_official_folder_is_read_and_rendered(self) -> None:
        golden = load(SYSTEM, "checkpoint_expected")
        tensors = files.read_folder(GOLDENS / "checkpoint" / "point_cloud" / "iteration_60000")
        assert all(torch.equal(tensors[n], v) for n, v in golden.items() if n in tensors)
        assert set(tensors) == {n for n in golden if not n.startswith(("cam/", "out/"))}
        for name in ("splatting/momentum-gs", "splatting/scaffold-gs"):
            module: Any = zoo.create_model(name, raster="classic", near_plane=0.2)
            weights.load_into(module.network, zoo.convert_official(name, tensors), "official")
            viewmat, K, width, height = camera(golden)
            seen = visible_anchors(module.network.rows(), viewmat, K, width, height, 0.2)
            assert torch.equal(seen, golden["out/visible_mask"].nonzero().squeeze(1))
            image = module(viewmat.unsqueeze(0), K.unsqueeze(0), width, height)["image"][0]
            torch.testing.assert_close(image.permute(2, 0, 1), golden["out/image"], rtol=0, atol=1e-5)
            # Without the original's tile bounds the picture is the same to a few hundredths.
            module.network.raster = "zoo"
            image = module(viewmat.unsqueeze(0), K.unsqueeze(0), width, height)["image"][0]
            assert (image.permute(2, 0, 1) - golden["out/image"]).abs().mean() < 1e-3

    def test_official_folder_goes_out_and_in(self, tmp_path: Path) -> None:
        source = GOLDENS / "checkpoint" / "point_cloud" / "iteration_60000"
        tensors = files.read_folder(source)
        module: Any = zoo.create_model("splatting/momentum-gs")
        weights.load_into(module.network, zoo.convert_official("splatting/momentum-gs", tensors), "official")
        files.write_folder(tmp_path, module.network.rows(), module.network.decoder(0))
        again = files.read_folder(tmp_path)
        assert set(again) == set(tensors)
        assert all(torch.equal(again[n], tensors[n]) for n in tensors)
        ours, theirs = ((f / files.PLY).read_bytes().split(b"end_header\n", 1)[1] for f in (tmp_path, source))
        assert ours == theirs

    def test_the_converter_takes_the_folder(self, tmp_path: Path) -> None:
        from tools.convert import main
        from zoo.pretrained import load_module

        source = GOLDENS / "checkpoint" / "point_cloud" / "iteration_60000"
        target = tmp_path / "scene.safetensors"
        main(["model=splatting/momentum-gs", f"input={source}", f"output={target}"])
        module: Any = load_module(target)
        assert torch.equal(module.network.offset, load(SYSTEM, "checkpoint_expected")["offset"])
        with pytest.raises(UnknownNameError, match="are files"):
            main(["model=splatting/3dgs", f"input={source}", f"output={target}"])

    def test_optional_networks_go_out_and_in(self, tmp_path: Path) -> None:
        golden = load(SYSTEM, "decode_v1")
        rows = {n: golden[n] for n in ANCHOR_ROWS}
        files.write_folder(tmp_path, rows, decoder_of(golden))
        again = files.read_folder(tmp_path)
        assert all(torch.equal(again[n], golden[n]) for n in again)
        state = zoo.convert_official("splatting/momentum-gs", again)
        assert "decoders.0.mlp_feature_bank.0.weight" in state

    def test_bad_files_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no file"):
            files.read_folder(tmp_path)
        (tmp_path / files.PLY).write_bytes(b"ply\nnonsense")
        with pytest.raises(DataError, match="be read as anchors"):
            files.read_folder(tmp_path)
        with pytest.raises(WeightsError, match="lacks offset"):
            zoo.convert_official("splatting/momentum-gs", {"anchor": torch.zeros(1, 3)})
        golden = load(SYSTEM, "checkpoint_expected")
        official = {n: v for n, v in golden.items() if not n.startswith(("cam/", "out/"))}
        for content, reason in (
            ({"other": {"a": torch.zeros(1)}}, "what is 'other'"),
            (torch.zeros(3), "not a Tensor"),
            ({**official, "anchor": "text"}, "'anchor' in the checkpoint is no tensor"),
            ({**official, "offset": torch.zeros(30, 30)}, "do not fit together"),
            ({**official, "anchor_feat": torch.zeros(30)}, "do not fit together"),
            ({**official, "mlp_cov.0.weight": torch.zeros(32, 99)}, "do not fit together"),
        ):
            with pytest.raises(WeightsError, match=reason):
                zoo.convert_official("splatting/momentum-gs", content)


class TestGrowth:
    def state(self, count: int = 20) -> AnchorState:
        generator = np.random.default_rng(0)
        state = initial_anchors(generator.normal(size=(count, 3)), 4, 3)
        state.rows["anchor_feat"] += torch.arange(count).unsqueeze(1)
        return state

    def test_nothing_seen_changes_nothing(self) -> None:
        state = self.state()
        adjust(state, Growth(0.1), [torch.rand(60) for _ in range(3)])
        assert len(state) == 20

    def test_everything_may_go(self) -> None:
        state = self.state()
        state.statistics["anchor_denom"] += 100
        adjust(state, Growth(0.1), [torch.rand(60) for _ in range(3)])
        assert len(state) == 0
        adjust(state, Growth(0.1), [torch.rand(0) for _ in range(3)])

    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 2**31), st.floats(0.002, 0.03))
    def test_grown_anchors_share_no_cell(self, seed: int, size: float) -> None:
        state = self.state()
        torch.manual_seed(seed)
        state.rows["offset"] += torch.randn(20, 3, 3)
        state.statistics["offset_denom"] += 100
        state.statistics["gradient_accum"] += 1
        growth = Growth(size, init_factor=16)
        adjust(state, growth, [torch.rand(60) for _ in range(3)])
        new = state.rows["anchor"][20:]
        assert len(new) > 0
        assert len(torch.unique((new / size).round(), dim=0)) == len(new)
        assert all(len(v) in (len(state), 3 * len(state)) for v in state.statistics.values())
        assert all(len(a) == len(state) for pair in state.moments.values() for a in pair)

    def test_a_fine_grid_over_a_wide_scene(self) -> None:
        """Kilometres in cells of less than a millimetre, more than 64 bits count: anchors grow where they should."""
        generator = np.random.default_rng(0)
        state = initial_anchors(np.concatenate([generator.normal(0, 20, (18, 3)), np.diag([4e3, -4e3, 4e3])]), 4, 3)
        state.rows["offset"] += torch.from_numpy(generator.normal(0, 0.1, (21, 3, 3))).float()
        places = state.rows["anchor"].unsqueeze(1) + state.rows["offset"] * state.rows["scaling"][:, None, :3].exp()
        state.statistics["offset_denom"] += 100
        state.statistics["gradient_accum"] += 1
        adjust(state, Growth(1e-4), [torch.ones(63) for _ in range(3)])
        distances = torch.cdist(state.rows["anchor"][21:].double(), places.view(-1, 3).double())
        assert distances.amin(1).max() < 0.02  # every new anchor is where a slot asked for one,
        assert distances.amin(0).max() < 0.02  # and every slot has got one

    def test_states_survive_being_tensors(self) -> None:
        state = self.state()
        state.iteration, state.radius = 7, 2.5
        again = AnchorState.from_tensors(state.copied("cpu").tensors())
        assert (again.iteration, again.radius) == (7, 2.5)
        assert all(torch.equal(v, again.tensors()[k]) for k, v in state.tensors().items())
        state.rows["anchor"] += 1
        assert not torch.equal(state.rows["anchor"], again.rows["anchor"])


def test_adam_is_torchs() -> None:
    state = initial_anchors(np.random.default_rng(0).normal(size=(9, 3)), 4, 3)
    twin = torch.nn.Parameter(state.rows["offset"].clone())
    optimizer = torch.optim.Adam([twin], lr=0.02, eps=1e-15)
    for step in range(4):
        gradient = torch.randn(9, 3, 3, generator=torch.Generator().manual_seed(step))
        state.adam({"offset": gradient}, {"offset": 0.02})
        twin.grad = gradient
        optimizer.step()
    assert relative_error(state.rows["offset"], twin.data) < 1e-6
