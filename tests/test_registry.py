"""Names, look-up, near matches, and what is imported when."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import pytorch_lightning as pl
from torch import nn

import zoo
from zoo import registry
from zoo.errors import ConfigError, UnknownNameError
from zoo.module import ZooModule
from zoo.signature import check_choices, describe, parameters, type_hints


def test_lists_by_glob() -> None:
    assert {"kat/kat", "kat/vit"} <= set(zoo.list_models())
    assert zoo.list_models("kat/v*") == ["kat/vit"]
    assert zoo.list_models("nothing/*") == []
    assert "kat/digits" in zoo.list_data("kat/*")


def test_unknown_name_names_near_matches() -> None:
    with pytest.raises(UnknownNameError, match=r"no model 'kat/kta'.*'kat/kat'"):
        zoo.create_model("kat/kta")
    with pytest.raises(UnknownNameError, match=r"no data module 'digits'.*'kat/digits'"):
        zoo.create_data("digits")


def test_unknown_argument_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"kat/kat has no argument 'embed_dimm'.*'embed_dim'"):
        zoo.create_model("kat/kat", embed_dimm=3)


@pytest.mark.parametrize(
    ("create", "name", "arguments", "message"),
    [
        (zoo.create_model, "kat/kat", {"mlp_init": "offical"}, "mlp_init should be 'variance_preserving' | 'official'"),
        (zoo.create_model, "kat/kat", {"size": "huge"}, "kat/kat.size should be 'tiny' | 'small' | 'base', not 'huge'"),
        (zoo.create_model, "pinn/quantum-well", {"energy": "free"}, "should be 'rayleigh' | 'trainable' | 'fixed'"),
    ],
)
def test_a_value_that_is_none_of_the_choices_is_refused(
    create: Any, name: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        create(name, **arguments)


def test_listing_imports_no_torch_and_look_up_only_its_module() -> None:
    """In a fresh interpreter."""
    code = (
        "import sys, zoo; zoo.list_models(); zoo.list_data(); zoo.list_weights(); assert 'torch' not in sys.modules;"
        "from zoo.registry import get_class; get_class('model', 'kat/gr-kan');"
        "loaded = [m for m in sys.modules if m.startswith('zoo.') and m.endswith('.module')];"
        "assert loaded == ['zoo.module', 'zoo.kat.gr_kan.module'] or sorted(loaded) == "
        "['zoo.kat.gr_kan.module', 'zoo.module'], loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


@pytest.mark.parametrize("kind", ["model", "data"])
def test_every_registered_class_keeps_the_contract(kind: registry.Kind) -> None:
    names = zoo.list_models() if kind == "model" else zoo.list_data()
    assert names
    for name in names:
        cls = registry.get_class(kind, name)
        assert cls.zoo_name == name
        assert issubclass(cls, ZooModule if kind == "model" else pl.LightningDataModule)
        assert (cls.__doc__ or "").strip(), f"{name} has no docstring"
        for parameter in parameters(cls).values():
            assert parameter.annotation is not parameter.empty, f"{name}: {parameter.name} has no type"


def test_every_model_builds_from_its_defaults_and_has_a_card() -> None:
    for name in zoo.list_models():
        module = zoo.create_model(name)
        assert isinstance(module.network, nn.Module)
        # A network whose size is data, a cloud of Gaussians say, begins empty.
        assert sum(p.numel() for p in module.network.parameters()) > 0 or hasattr(module.network, "fit_to")
        card = registry.module_file("model", name).with_name("README.md")
        assert card.is_file(), f"{name} has no model card"


def test_names_are_kebab_case() -> None:
    for bad in ("kat", "Kat/kat", "kat/my_model", "kat//x", "/kat/x"):
        with pytest.raises(ValueError, match="no registry name"):
            registry.register_model(bad)


def test_a_name_is_given_once() -> None:
    registry.get_class("model", "kat/kat")

    class Other(ZooModule):
        """Another class under a taken name."""

    with pytest.raises(ValueError, match="registered twice"):
        registry.register_model("kat/kat")(Other)


def test_official_checkpoints_of_an_unpublished_model() -> None:
    with pytest.raises(UnknownNameError, match="no official checkpoints"):
        zoo.convert_official("kat/gr-kan", {})


def test_plugins_are_found(tmp_path: Path) -> None:
    """A package outside this one adds a model through its entry point."""
    package = tmp_path / "someones_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "models.py").write_text(
        "from torch import nn\nfrom zoo import register_model\nfrom zoo.module import ZooModule\n"
        "@register_model('mine/net')\nclass Net(ZooModule):\n    'Mine.'\n"
        "    def __init__(self, width: int = 3) -> None:\n"
        "        super().__init__()\n        self.network = nn.Linear(width, 1)\n"
    )
    info = tmp_path / "someones_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: someones-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo.plugins]\nmodels = someones_package.models\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import zoo;"
        "assert 'mine/net' in zoo.list_models();"
        "assert zoo.create_model('mine/net', width=4).network.in_features == 4"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


@pytest.mark.parametrize(
    ("create", "name", "arguments", "message"),
    [
        (zoo.create_model, "mri/recurrentvarnet", {"opening_iterations": -1}, "0 or more"),
        (zoo.create_model, "mri/recurrentvarnet", {"closing_iterations": -2}, "0 or more"),
        (zoo.create_model, "mri/recurrentvarnet", {"num_steps": 0}, "num_steps should be positive, not 0"),
        (zoo.create_model, "mri/recurrentvarnet", {"initializer_channels": (4, 4)}, "as many positive numbers"),
        (zoo.create_model, "mri/rim", {"length": -1}, "length should be positive"),
        (zoo.create_model, "mri/rim", {"cell": "gru", "conv_kernels": (4, 3, 3)}, "odd"),
        (zoo.create_model, "mri/varnet", {"pools": 0}, "pools should be positive"),
        (zoo.create_model, "mri/diffusion", {"noise_emphasis": 0.0}, "positive"),
        (zoo.create_model, "mri/diffusion", {"residual_std": float("nan")}, "positive"),
        (zoo.create_data, "mri/phantom", {"train_volumes_3d": -1}, "0 or more"),
        (zoo.create_data, "mri/phantom", {"coils": 0}, r"data\.coils \(0\) and data\.slices \(5\) should be 1 or more"),
        (zoo.create_data, "mri/phantom", {"snr": (float("nan"), 30.0)}, r"data\.snr should be two positive numbers"),
        (zoo.create_data, "mri/phantom", {"taper": 0.0}, r"data\.taper should be positive, or null"),
        (zoo.create_data, "mri/phantom", {"eval_batch_size": 0}, r"data\.eval_batch_size \(0\)"),
        (zoo.create_data, "mri/kspace", {"root": ".", "coils": 0}, r"data\.coils \(0\)"),
        (zoo.create_data, "humans/body-clouds", {"mixed": float("nan")}, "from 0 to 1"),
        (zoo.create_model, "splatting/3dgs", {"init_opacity": 1.0}, r"model\.init_opacity should be between 0 and 1"),
        (zoo.create_model, "splatting/3dgs", {"sh_degree": 4}, r"model\.sh_degree should be from 0 to 3, not 4"),
        (zoo.create_model, "splatting/edgs", {"nns_per_ref": 0}, "1 or more"),
        (zoo.create_model, "splatting/edgs", {"lr_means": float("inf")}, "positive"),
        (zoo.create_model, "splatting/momentum-gs", {"lr_mlp_cov": (0.004, -1.0)}, r"lr_mlp_cov should be 0 or more"),
        (zoo.create_model, "splatting/momentum-gs", {"use_feat_bank": True, "feat_dim": 30}, "multiple of 4"),
        (zoo.create_model, "splatting/scaffold-gs", {"n_offsets": 0}, "1 or more"),
        (zoo.create_data, "splatting/scene", {"test_every": -1}, "0 or more"),
        (zoo.create_data, "splatting/scene", {"views": 1}, "2 or more"),
        (zoo.create_data, "splatting/city", {"size": 0}, "1 or more"),
    ],
)
def test_impossible_numbers_are_named(create: Any, name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create(name, **arguments)


@pytest.mark.parametrize("kind", ["model", "data"])
def test_impossible_choices_are_named(kind: registry.Kind) -> None:
    """From Python as from configs: whatever lists its values in its signature takes no other."""
    choices = 0
    for name in zoo.list_models() if kind == "model" else zoo.list_data():
        cls = registry.get_class(kind, name)
        for option, hint in type_hints(cls).items():
            if "'" in describe(hint):
                choices += 1
                wrong = ["nonsense"] if describe(hint).startswith("tuple") else "nonsense"
                with pytest.raises(ConfigError, match=rf"{name}\.{option} should be .*'.*, not .*nonsense"):
                    check_choices(cls, {option: wrong}, name)
    assert choices > 20


def test_possible_choices_pass() -> None:
    assert zoo.create_model("kat/gr-kan", activation=np.str_("gelu")).hparams["activation"] == "gelu"
    with pytest.raises(ConfigError, match=r"kat/gr-kan\.activation should be 'rational' \| .*, not None"):
        zoo.create_model("kat/gr-kan", activation=None)

    def function(
        order: Literal[0, 1], kinds: tuple[Literal["a", "b"], ...], other: Literal["c"] | None, free: float | str
    ) -> None: ...

    def check(**arguments: Any) -> None:
        check_choices(function, arguments, "f")

    check(order=1, kinds=["a", "b", "a"], other=None, free="d")
    check(order=0, kinds=(), other="c", free=np.float32(2))
    for wrong in ({"order": 2}, {"order": "1"}, {"order": [0]}, {"kinds": ["a", "c"]}, {"other": "d"}):
        with pytest.raises(ConfigError, match=f"f.{next(iter(wrong))} should be"):
            check(**wrong)
