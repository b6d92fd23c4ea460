"""The ImageNet and CIFAR paths, on small files in those layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import zoo
from tests.conftest import RunCommand
from zoo.config import compose, compose_run
from zoo.data.augment import OPERATIONS, rand_augment, random_erase, random_resized_crop, resize_and_crop
from zoo.data.cifar import read_cifar
from zoo.data.loading import EpochIndex
from zoo.engine.run import train
from zoo.errors import DataError, WeightsError
from zoo.kat import fit_rational, replace_mlp
from zoo.kat.checkpoints import adapt
from zoo.kat.layers import GRKAN, Rational
from zoo.kat.mixing import mix
from zoo.kat.vit.network import ViT
from zoo.pretrained import load_module
from zoo.weights import save

QUIET = ["callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}"]


def picture(generator: np.random.Generator, width: int = 40, height: int = 30) -> Image.Image:
    coarse = generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def fake_imagenet(tmp_path: Path) -> Path:
    """Two classes, six training and two validation JPEGs each, one of them grey."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for name in ("n01440764", "n02102040"):
            folder = tmp_path / "imagenet" / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                image = picture(generator)
                (image.convert("L") if k == 0 else image).save(folder / f"{k}.JPEG")
    return tmp_path / "imagenet"


def recipe(root: Path, *more: str) -> list[str]:
    """The shipped recipe, made small: its data path, mixing, averaging and mixed precision stay on."""
    model = ["img_size=32", "patch_size=8", "num_classes=2", "embed_dim=16", "depth=2", "num_heads=2"]
    data = [f"root={root}", "img_size=32", "batch_size=4", "num_workers=0"]
    trainer = ["max_epochs=2", "precision=bf16-mixed"]
    sections = {"model": model, "data": data, "trainer": trainer}
    return [*QUIET, *(f"{key}.{value}" for key, values in sections.items() for value in values), *more]


@pytest.mark.slow
def test_the_recipe_runs_and_resumes(fake_imagenet: Path, in_tmp: Path) -> None:
    summary = train(compose("kat/imagenet-tiny", recipe(fake_imagenet, "run_dir=run")))
    assert 0 <= summary["metrics"]["test/accuracy"] <= 1
    averaged = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    name = "network.head.weight"
    assert not torch.equal(averaged["state_dict"][name], averaged["current_model_state"][name])
    longer = train(compose_run(Path("run"), ["trainer.max_epochs=3"]), resume=True)
    assert longer["epochs"] == 3


def test_without_the_data_the_card_is_shown(in_tmp: Path) -> None:
    for config, title in (("kat/imagenet-tiny", "ImageNet-1k"), ("kat/cifar10", "CIFAR-10")):
        with pytest.raises(
            DataError, match=rf"{title}(.|\n)*data\.root is not set(.|\n)*licence(.|\n)*data\.root=/path"
        ):
            train(compose(config, QUIET))
        assert not Path("runs").exists()


def test_a_damaged_picture_names_itself(fake_imagenet: Path) -> None:
    file = fake_imagenet / "train/n01440764/3.JPEG"
    file.write_bytes(file.read_bytes()[:200])
    data = zoo.create_data("kat/imagefolder", root=fake_imagenet, img_size=32)
    data.setup("fit")
    with pytest.raises(DataError, match=r"3\.JPEG can't be read as a picture"):
        data.train[3]


def test_folders_define_the_classes(fake_imagenet: Path) -> None:
    data = zoo.create_data("kat/imagefolder", root=fake_imagenet, img_size=32, erase=0.0)
    data.setup("fit")
    assert data.train.classes == ["n01440764", "n02102040"]
    assert [int(data.train[k]["label"]) for k in (0, 5, 6, 11)] == [0, 0, 1, 1]
    sample = data.train[EpochIndex(1, 0)]["image"]
    assert sample.shape == (3, 32, 32)
    assert 0 <= sample.min() <= sample.max() <= 1
    assert torch.equal(sample, data.train[EpochIndex(1, 0)]["image"])
    assert not torch.equal(sample, data.train[EpochIndex(1, 1)]["image"])
    (fake_imagenet / "val/n99999999").mkdir()
    with pytest.raises(DataError, match="classes that the training folder lacks: n99999999"):
        data.setup("fit")


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (300, 8), (32, 32)])
def test_views_have_the_asked_size(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    image = picture(generator, *size)
    assert resize_and_crop(image, 24).size == (24, 24)
    assert random_resized_crop(image, 24, generator).size == (24, 24)


def test_evaluation_view_is_centred() -> None:
    """A mirror-symmetric picture has a mirror-symmetric view."""
    half = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    image = Image.fromarray(np.concatenate([half, half[:, ::-1]], axis=1))
    view = np.asarray(resize_and_crop(image, 28)).astype(int)
    assert np.abs(view - view[:, ::-1]).max() <= 2


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_keep_size_and_depend_on_magnitude(name: str) -> None:
    image = picture(np.random.default_rng(1))
    weak, strong = (np.asarray(OPERATIONS[name](image, m, 1)).astype(int) for m in (0.1, 0.9))
    assert weak.shape == strong.shape == (30, 40, 3)
    if name in ("auto_contrast", "equalize", "invert"):
        assert (weak == strong).all()
    else:
        original = np.asarray(image).astype(int)
        assert np.abs(strong - original).mean() > np.abs(weak - original).mean()


def test_rand_augment_is_drawn_from_its_generator() -> None:
    image = picture(np.random.default_rng(1))
    views = [np.asarray(rand_augment(image, np.random.default_rng(seed))) for seed in (5, 5, 6, 7, 8)]
    assert (views[0] == views[1]).all()
    assert any((views[0] != view).any() for view in views[2:])


def test_erasing_changes_one_box() -> None:
    image = np.random.default_rng(0).random((3, 32, 32), dtype=np.float32)
    assert random_erase(image, np.random.default_rng(0), 0.0) is image
    erased = random_erase(image, np.random.default_rng(0), 1.0)
    rows, columns = np.nonzero((erased != image).any(0))
    area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert len(rows) == pytest.approx(area, rel=0.01)
    assert 0.01 * 1024 < area < 0.36 * 1024
    assert 0 <= erased.min() <= erased.max() <= 1


@given(mixup=st.sampled_from([0.0, 0.8]), cutmix=st.sampled_from([0.0, 1.0]), seed=st.integers(0, 10_000))
def test_blended_targets_are_the_blended_pixels_share(mixup: float, cutmix: float, seed: int) -> None:
    torch.manual_seed(seed)
    label = torch.tensor([0, 1, 2, 3])
    image = torch.eye(4).view(4, 4, 1, 1).expand(4, 4, 9, 8)  # channel k is 1 where the pixel comes from class k
    mixed, target = mix(image, label, 4, mixup, cutmix)
    assert torch.allclose(target.sum(1), torch.ones(4))
    assert torch.allclose(mixed.mean((2, 3)), target, atol=1e-5)
    if not mixup and not cutmix:
        assert torch.equal(target, torch.eye(4))


class TestCIFAR:
    def write(self, root: Path, name: str, count: int, label_bytes: int) -> np.ndarray:
        records = np.random.default_rng(len(name)).integers(0, 256, (count, label_bytes + 3072), dtype=np.uint8)
        records[:, :label_bytes] %= 10
        (root / name).write_bytes(records.tobytes())
        return records

    @pytest.mark.parametrize(("variant", "label_bytes"), [("cifar10", 1), ("cifar100", 2)])
    def test_reads_the_binary_layout(self, tmp_path: Path, variant: str, label_bytes: int) -> None:
        names = [f"data_batch_{k}.bin" for k in range(1, 6)] if label_bytes == 1 else ["train.bin"]
        test = "test_batch.bin" if label_bytes == 1 else "test.bin"
        records = [self.write(tmp_path, name, 7, label_bytes) for name in names]
        self.write(tmp_path, test, 4, label_bytes)
        data = zoo.create_data("kat/cifar", root=tmp_path, variant=variant, augment=0.0, flip=False)
        data.setup("fit")
        assert len(data.train) == 7 * len(names)
        assert len(data.test) == 4
        sample = data.train[7 * len(names) - 1]
        last = records[-1][-1]
        assert int(sample["label"]) == last[label_bytes - 1]
        assert torch.equal((sample["image"][2, 31] * 255).round().byte(), torch.from_numpy(last[-32:]))

    def test_truncated_file_is_named(self, tmp_path: Path) -> None:
        self.write(tmp_path, "train.bin", 3, 2)
        file = tmp_path / "train.bin"
        file.write_bytes(file.read_bytes()[:-5])
        with pytest.raises(DataError, match=r"train\.bin has 9217 bytes, no multiple of 3074"):
            read_cifar(file, 2)
        file.write_bytes(b"")
        with pytest.raises(DataError, match="has 0 bytes"):
            read_cifar(file, 2)


class TestReplaceMLP:
    def test_function_is_preserved(self) -> None:
        torch.manual_seed(0)
        network = ViT(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=5).eval()
        image = torch.rand(4, 3, 32, 32)
        before, weights = network(image), network.blocks[0].mlp.fc1.weight
        assert replace_mlp(network) is network
        assert all(isinstance(block.mlp, GRKAN) for block in network.blocks)
        assert network.blocks[0].mlp.fc1.weight is weights
        assert not network.blocks[0].mlp.training
        assert (network(image) - before).abs().max() < 0.01 * before.abs().max()
        network(image).sum().backward()
        assert network.blocks[1].mlp.act2.weight_denominator.grad is not None

    def test_sequential_mlps_and_other_activations(self) -> None:
        """torchvision's layout; the fit of tanh is good to 4e-5."""
        model = nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 4))})
        model.eval()
        x = torch.randn(10, 8).clamp(-1, 1)
        before = model["mlp"](x)
        replace_mlp(model, num_groups=4)
        assert torch.allclose(model["mlp"](x), before, atol=1e-3)
        assert model["mlp"].drop1.p == 0.1

    def test_what_can_not_be_replaced(self) -> None:
        with pytest.raises(ValueError, match="no MLP that is known"):
            replace_mlp(nn.Linear(3, 3))
        with pytest.raises(ValueError, match="8 groups do not divide the 6 and 16 channels"):
            replace_mlp(nn.ModuleList([nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 6))]))


class TestFromViT:
    def test_timm_layout_becomes_a_kat_that_computes_the_same(self) -> None:
        torch.manual_seed(0)
        arguments = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
        vit = zoo.create_model("kat/vit", **arguments).network.eval()
        assert zoo.convert_official("kat/vit", vit.state_dict()).keys() == vit.state_dict().keys()
        kat = zoo.create_model("kat/kat", **arguments, act_init="gelu").network.eval()
        kat.load_state_dict(zoo.convert_official("kat/kat", vit.state_dict()))
        image = torch.rand(2, 3, 16, 16)
        assert (kat(image) - vit(image)).abs().max() < 0.02 * vit(image).abs().max()

    def test_flax_arrays(self) -> None:
        """Written from a network by the rule that AugReg's files follow, and read back."""
        vit = ViT(img_size=16, patch_size=8, embed_dim=32, depth=1, num_heads=2, num_classes=5)
        state = vit.state_dict()
        block = "Transformer/encoderblock_0"
        arrays = {
            "cls": state["cls_token"],
            "embedding/kernel": state["patch_embed.proj.weight"].permute(2, 3, 1, 0),
            "embedding/bias": state["patch_embed.proj.bias"],
            "Transformer/posembed_input/pos_embedding": state["pos_embed"],
            "Transformer/encoder_norm/scale": state["norm.weight"],
            "Transformer/encoder_norm/bias": state["norm.bias"],
            "head/kernel": state["head.weight"].T,
            "head/bias": state["head.bias"],
        }
        for ours, theirs in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            arrays[f"{block}/{theirs}/scale"] = state[f"blocks.0.{ours}.weight"]
            arrays[f"{block}/{theirs}/bias"] = state[f"blocks.0.{ours}.bias"]
        for ours, theirs in (("fc1", "Dense_0"), ("fc2", "Dense_1")):
            arrays[f"{block}/MlpBlock_3/{theirs}/kernel"] = state[f"blocks.0.mlp.{ours}.weight"].T
            arrays[f"{block}/MlpBlock_3/{theirs}/bias"] = state[f"blocks.0.mlp.{ours}.bias"]
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for name, weight, bias in zip(
            ("query", "key", "value"),
            state["blocks.0.attn.qkv.weight"].chunk(3),
            state["blocks.0.attn.qkv.bias"].chunk(3),
            strict=True,
        ):
            arrays[f"{attention}/{name}/kernel"] = weight.T.reshape(32, 2, 16)
            arrays[f"{attention}/{name}/bias"] = bias.reshape(2, 16)
        arrays[f"{attention}/out/kernel"] = state["blocks.0.attn.proj.weight"].T.reshape(2, 16, 32)
        arrays[f"{attention}/out/bias"] = state["blocks.0.attn.proj.bias"]
        converted = zoo.convert_official("kat/vit", {name: a.numpy() for name, a in arrays.items()})
        assert converted.keys() == state.keys()
        assert all(torch.equal(converted[name], state[name]) for name in state)

    def test_positions_are_resized_and_a_foreign_head_left_out(self) -> None:
        small = ViT(img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2, num_classes=5)
        large = ViT(img_size=64, patch_size=8, embed_dim=32, depth=1, num_heads=2, num_classes=3)
        with torch.no_grad():
            ramp = torch.linspace(0, 1, 4).view(4, 1, 1).expand(4, 4, 32).reshape(1, 16, 32)
            small.pos_embed[:, 1:] = ramp
        adapted = adapt(small.state_dict(), large)
        large.load_state_dict(adapted)
        assert torch.equal(large.pos_embed[:, 0], small.pos_embed[:, 0])
        rows = large.pos_embed[0, 1:].detach().view(8, 8, 32)
        assert (rows.diff(dim=0) > -1e-6).all()
        assert rows.diff(dim=1).abs().max() < 1e-5
        same = adapt(small.state_dict(), small)
        assert all(torch.equal(same[name], tensor) for name, tensor in small.state_dict().items())


class TestFineTuning:
    def test_training_starts_from_weights_of_other_classes(self, in_tmp: Path) -> None:
        small = ["model.depth=1", "trainer.max_epochs=1", "rival=null"]
        train(compose("kat/digits", [*QUIET, *small, "run_dir=first"]))
        second = [*small, "weights=first", "model.num_classes=12", "model.lr=0.0", "run_dir=second"]
        train(compose("kat/digits", [*QUIET, *second]))
        first, other = (load_module(name).network.state_dict() for name in ("first", "second"))
        assert other.pop("head.weight").shape == (12, 48)
        assert all(torch.equal(first[name], other[name]) for name in other if name != "head.bias")

    def test_weights_of_another_architecture_are_named(self, in_tmp: Path) -> None:
        save(zoo.create_model("kat/gr-kan"), "mlp.safetensors")
        with pytest.raises(WeightsError, match=r"mlp\.safetensors does not fit"):
            train(compose("kat/digits", [*QUIET, "weights=mlp.safetensors"]))

    def test_an_official_checkpoint_for_another_image_size(self, zoo_command: RunCommand, tmp_path: Path) -> None:
        shape = {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
        torch.save(ViT(img_size=16, num_classes=5, **shape).state_dict(), tmp_path / "vit.pth")
        arguments = [f"{name}={value}" for name, value in {**shape, "img_size": 32, "num_classes": 3}.items()]
        files = ["input=vit.pth", "output=kat.safetensors"]
        done = zoo_command("tools.convert", "model=kat/kat", *files, *arguments)
        assert done.returncode == 0, done.stderr
        module = load_module(tmp_path / "kat.safetensors")
        assert module.network(torch.rand(1, 3, 32, 32)).shape == (1, 3)


def test_a_rational_can_be_fitted_to_any_function() -> None:
    coefficients, error = fit_rational(np.sin, starts=2)
    assert error < 5e-3
    x = torch.linspace(-3, 3, 500, dtype=torch.float64).unsqueeze(1)
    layer = Rational(coefficients, 1).double()
    assert (layer(x) - torch.sin(x)).abs().max() < 1.01 * error + 1e-6
    with pytest.raises(ValueError, match="finite"):
        fit_rational(np.log)
