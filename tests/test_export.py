"""Networks leave as programs of torch.export that give the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import zoo
from tests.conftest import RunCommand
from tools.export import export, main, network_inputs
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


def test_what_can_t_be_exported_says_so(in_tmp: Path) -> None:
    module, data = zoo.create_model("pinn/conditional-well"), zoo.create_data("pinn/wells", test_wells=4)
    with pytest.raises(ConfigError, match="nothing to export"):
        network_inputs(module, data)


def test_the_command(zoo_command: RunCommand, tmp_path: Path) -> None:
    done = zoo_command("tools.export", "weights=kat/digits", "output=digits.pt2")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "digits.pt2").is_file()
    with pytest.raises(ConfigError, match=r"should end in \.pt2"):
        main(["weights=kat/digits", "output=digits.bin"])
