"""Networks leave as programs of torch.export that give the same numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from tests.conftest import RunCommand
from tests.small import config_of
from tools.export import export, inputs_of, main
from zoo.config import resolve
from zoo.errors import ConfigError

MRI: dict[str, Any] = {
    "test_volumes": 1,
    "slices": 1,
    "size": (48, 40),
    "accelerations": (4,),
    "center_fractions": (0.1,),
}


@pytest.mark.parametrize(
    ("weights", "data", "arguments", "any_batch"),
    [
        ("kat/digits", "kat/digits", {}, True),
        ("mri/recurrentvarnet-phantom", "mri/phantom", MRI, True),
        ("mri/diffusion-regression", "mri/phantom", MRI, True),
        ("humans/spin-rendered", "humans/rendered-people", {"train_size": 2, "val_size": 2, "test_size": 2}, False),
        ("humans/arteq-standin", "humans/body-clouds", {"test_size": 2, "points": 256}, False),
    ],
)
def test_a_program_gives_the_network_s_numbers(
    in_tmp: Path, weights: str, data: str, arguments: dict[str, Any], any_batch: bool
) -> None:
    exported = export(zoo.load_pretrained(weights), zoo.create_data(data, **arguments), Path("a.pt2"))
    assert exported.difference < 1e-4
    assert (exported.batch_size is None) == any_batch


OPERATORS = ("t1", "t1u", "t1u-plus", "fno", "fno-kairos", "ffno", "unet")


@pytest.mark.parametrize("model", [*(f"operators/{name}" for name in OPERATORS), "mri/no-varnet"])
def test_so_does_one_of_a_network_whose_bases_follow_its_input_s_size(in_tmp: Path, model: str) -> None:
    checked = resolve(config_of(model))
    module = zoo.create_model(checked.model.name, **checked.model.arguments)
    exported = export(module, zoo.create_data(checked.data.name, **checked.data.arguments), Path("a.pt2"))
    assert exported.difference < 1e-4
    assert exported.batch_size is None


RUN = """
import sys, torch
sys.modules["zoo"] = None  # an import would fail
fields = torch.load("fields.pt")
torch.save(torch.export.load("t1.pt2").module()(fields, 1), "states.pt")
"""


def test_t1_s_program_takes_fields_and_needs_no_zoo(in_tmp: Path) -> None:
    """The whole map, normalisation included, for another number of fields than it was made with."""
    module = zoo.create_model(
        "operators/t1", modes=8, width=4, signal_resolution=(16, 16), head_init="scaled", input_mean=(2.0,)
    ).eval()
    data = zoo.create_data("operators/darcy", train_size=2, val_size=1, test_size=2, batch_size=2, resolution=16)
    export(module, data, Path("t1.pt2"))
    fields = torch.randn(5, 1, 16, 16)
    torch.save(fields, "fields.pt")
    subprocess.run([sys.executable, "-c", RUN], check=True)
    with torch.no_grad():
        torch.testing.assert_close(torch.load("states.pt"), module(fields))


def test_what_can_t_be_exported_says_so(in_tmp: Path) -> None:
    module, data = zoo.create_model("pinn/conditional-well"), zoo.create_data("pinn/wells", test_wells=4)
    with pytest.raises(ConfigError, match="nothing to export"):
        inputs_of(module, data)


def test_the_command(zoo_command: RunCommand, tmp_path: Path) -> None:
    done = zoo_command("tools.export", "weights=kat/digits", "output=digits.pt2")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "digits.pt2").is_file()
    with pytest.raises(ConfigError, match=r"should end in \.pt2"):
        main(["weights=kat/digits", "output=digits.bin"])
