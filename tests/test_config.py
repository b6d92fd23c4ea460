"""Composing and checking configs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from zoo.config import (
    TOP_KEYS,
    compose,
    compose_run,
    compose_weights,
    hydra_override,
    list_configs,
    plain,
    resolve,
    save,
)
from zoo.errors import ConfigError, UnknownNameError, ZooError
from zoo.predict import parse_options
from zoo.signature import check_arguments, describe


def test_every_shipped_config_resolves() -> None:
    assert "kat/digits" in list_configs()
    for name in list_configs():
        config = resolve(compose(name))
        assert config.config == name
        assert str(config.run_dir).startswith(f"runs/{name}/")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.embed_dimm=3", r"model has no argument 'embed_dimm'. Did you mean 'embed_dim'"),
        ("model.lr=abc", r"model.lr should be float, not 'abc' \(str\)"),
        ("model.depth=1.5", r"model.depth should be int \| null, not 1.5"),
        ("model.depth=true", r"model.depth should be int"),
        ("model.size=huge", r"model.size should be 'tiny' \| 'small' \| 'base', not 'huge'"),
        ("model.pixel_mean=[a]", r"model.pixel_mean.0 should be tuple\[float, ...\]"),
        ("model.lr=???", r"'model.lr' has no value. Give it on the command line: model.lr="),
        ("model.lr=${nowhere.at_all}", r"'model.lr' can't be resolved: Interpolation key 'nowhere.at_all' not found"),
        ("model.name=kat/kta", r"no model 'kat/kta'. Did you mean 'kat/kat'"),
        ("model=7", r"model should be a mapping"),
        ("model.name=7", r"model.name should be the name of a registered model"),
        ("data.name=kat/digit", r"no data module 'kat/digit'. Did you mean 'kat/digits'"),
        ("trainr.max_epochs=1", r"no key 'trainr' in a config. Did you mean 'trainer'"),
        ("modell=1", r"no key 'modell' in a config. Did you mean 'model'"),
        ("trainer.max_epoch=1", r"trainer has no argument 'max_epoch'. Did you mean 'max_epochs'"),
        ("trainer.max_epochs=1.5", r"trainer.max_epochs should be int"),
        ("trainer.logger=true", r"trainer.logger is decided by the logger: section"),
        ("trainer=gpu2", r"Could not find 'trainer/gpu2'(.|\n)*ddp"),
        ("callbacks.early_stoping.patience=3", r"no 'early_stoping'. Did you mean 'early_stopping'"),
        ("callbacks.early_stopping.patience=3", r"early_stopping needs a value for 'monitor'"),
        ("callbacks.model_checkpoint=3", r"should be a mapping of arguments or null"),
        ("logger.tensorbord={}", r"no 'tensorbord'. Did you mean 'tensorboard'"),
        ("seed=a", r"seed should be an int"),
        ("seed=-1", r"seed should be an int from 0"),
        ("model.lr=[1", r"input"),
        ("rival.embed_dimm=3", r"rival has no argument 'embed_dimm'"),
    ],
)
def test_a_wrong_override_is_named_before_any_work(override: str, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        resolve(compose("kat/digits", [override]))


def test_arguments_the_file_does_not_mention_can_be_given() -> None:
    config = resolve(compose("kat/digits", ["model.qk_norm=true", "trainer.limit_train_batches=3"]))
    assert config.model.arguments["qk_norm"] is True
    assert config.trainer["limit_train_batches"] == 3


def test_lists_become_tuples_and_ints_pass_for_floats() -> None:
    config = resolve(compose("kat/digits", ["model.lr=1", "model.pixel_mean=[0, 1]"]))
    assert config.model.arguments["pixel_mean"] == (0, 1)
    assert isinstance(config.model.arguments["pixel_mean"], tuple)


def test_components_can_be_switched_off_and_added() -> None:
    config = resolve(
        compose("kat/digits", ["logger.tensorboard=null", "callbacks.early_stopping={monitor: val/loss, patience: 2}"])
    )
    assert config.logger["tensorboard"] is None
    assert config.callbacks["early_stopping"] == {"monitor": "val/loss", "patience": 2}


def test_unknown_config_names_near_matches() -> None:
    with pytest.raises(UnknownNameError, match=r"no config 'kat/digit'. Did you mean 'kat/digits'"):
        compose("kat/digit")
    with pytest.raises(UnknownNameError, match=r"no config file nowhere\.yaml"):
        compose("nowhere.yaml")


def test_a_config_of_ones_own(in_tmp: Path) -> None:
    (in_tmp / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [/base, _self_]\nmodel: {name: kat/gr-kan}\ndata: {name: kat/function}\n"
    )
    config = resolve(compose("./mine.yaml", ["trainer=ddp"]))
    assert config.config == "mine"
    assert config.trainer["strategy"] == "ddp"


def test_a_config_that_is_no_yaml(in_tmp: Path) -> None:
    (in_tmp / "mine.yaml").write_text("model: [\n")
    with pytest.raises(ConfigError, match="YAML"):
        compose("./mine.yaml")


def test_a_saved_config_composes_to_itself(in_tmp: Path) -> None:
    config = compose("kat/digits", ["run_dir=runs/a", "trainer.max_epochs=7", "callbacks.early_stopping=null"])
    save(config, Path("runs/a"))
    again = compose_run(Path("runs/a"))
    assert plain(again) == plain(config)
    ddp = resolve(compose_run(Path("runs/a"), ["trainer=ddp", "model.lr=0.5", "run_dir=elsewhere"]))
    assert ddp.trainer["strategy"] == "ddp"
    assert ddp.model.arguments["lr"] == 0.5
    assert ddp.run_dir == Path("elsewhere")


def test_a_folder_without_a_run() -> None:
    with pytest.raises(ConfigError, match="is no run folder"):
        compose_run(Path("nowhere"))


# Keys and values a person might type, right and wrong; none may end in anything but a ZooError.
KEYS = st.sampled_from(
    [*TOP_KEYS, "model.lr", "data.batch_size", "trainer.max_epochs", "callbacks.x.y", "foo", "a.b.c"]
)
VALUES = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.floats(allow_nan=True).map(str),
    st.text(alphabet="abz09._-[]{}:,'\"${} \\=#", max_size=12),
    st.sampled_from(["null", "true", "[]", "{}", "???", "${seed}", "${model}"]),
)


@settings(deadline=None)
@given(st.lists(st.tuples(KEYS, VALUES), max_size=2))
def test_any_override_composes_or_is_refused_readably(pairs: list[tuple[str, str]]) -> None:
    try:
        config = compose("kat/function-fit", [f"{key}={value}" for key, value in pairs])
        resolve(config)
    except ZooError as error:
        assert str(error).strip()


@given(st.text(max_size=30))
def test_hydra_override_never_crashes(text: str) -> None:
    try:
        assert hydra_override(text).endswith(text)
    except ConfigError as error:
        assert "Did you mean" in str(error) or "Known" in str(error)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True),
        st.one_of(st.integers(-1000, 1000), st.booleans(), st.none(), st.from_regex(r"[a-z]{1,8}", fullmatch=True)),
        max_size=4,
    )
)
def test_key_value_pairs_survive_parsing(values: dict[str, object]) -> None:
    written = [
        f"{k}={'null' if v is None else str(v).lower() if isinstance(v, bool) else v}" for k, v in values.items()
    ]
    expected = {k: OmegaConf.to_object(OmegaConf.from_dotlist([o]))[k] for k, o in zip(values, written, strict=True)}
    assert parse_options(written) == expected


def test_checked_function_arguments() -> None:
    def predict(input: Path, output: Path, kind: Literal["a", "b"] = "a", scale: float | None = None) -> None: ...

    checked = check_arguments(predict, {"input": "x", "output": "y", "scale": 2}, "predict")
    assert checked == {"input": Path("x"), "output": Path("y"), "scale": 2}
    with pytest.raises(ConfigError, match=r"predict needs a value for 'output' \(Path\)"):
        check_arguments(predict, {"input": "x"}, "predict")
    with pytest.raises(ConfigError, match=r"predict.kind should be 'a' \| 'b', not 'c'"):
        check_arguments(predict, {"input": "x", "output": "y", "kind": "c"}, "predict")


def test_types_are_described_as_people_write_them() -> None:
    assert describe(float | None) == "float | null"
    assert describe(tuple[int, ...]) == "tuple[int, ...]"
    assert describe(Literal["a", "b"]) == "'a' | 'b'"


def test_weights_of_a_rival_are_tested_as_such() -> None:
    config = compose_weights("kat/digits", "kat/vit", ["data.batch_size=7"])
    assert config.model.name == "kat/vit"
    assert config.rival is None
    assert config.data.batch_size == 7
    assert compose_weights("kat/digits", "kat/kat").model.name == "kat/kat"
