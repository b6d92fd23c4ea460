"""Configs with little data and little work, for tests that are about something else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import zoo
from zoo.config import compose, list_configs, resolve
from zoo.errors import DataError

# What makes a config's data and work small; by data module, family or config, each adding to the one before.
SMALL = {
    "humans/body-clouds": [
        "data.bodies=8",
        "data.val_size=2",
        "data.test_size=2",
        "data.points=256",
        "data.batch_size=2",
    ],
    "humans/keypoints": ["data.poses=32", "data.val_size=2", "data.test_size=4", "data.batch_size=16"],
    "humans/rendered-people": ["data.train_size=8", "data.val_size=2", "data.test_size=4", "data.batch_size=4"],
    "humans/motion-pairs": [
        "data.pairs=16",
        "data.batch_size=8",
        "data.motions=2",
        "data.test_size=4",
        "data.val_size=2",
    ],
    "splatting/city": [
        "data.size=24",
        "data.points=600",
        "data.positions=3",
        "data.iterations=2",
        "data.interval=1",
        "model.voxel_size=0.4",
        "trainer.max_steps=-1",
    ],
    "kat/function": ["data.steps_per_epoch=2", "data.test_points=100"],
    "mri/phantom": [
        *("data.train_volumes=2", "data.val_volumes=1", "data.test_volumes=1", "data.slices=1", "data.size=[40,36]"),
        "model.baselines=[zero-filled]",
    ],
    "mri/recurrentvarnet": ["model.real_slice=false", "data.train_volumes_3d=1", "data.size_3d=[64,56]"],
    "mri/rim": ["model.real_slice=false"],
    "mri/varnet": ["model.real_slice=false"],
    "mri/diffusion": ["model.steps=1", "model.n_samples=2", "model.model_channels=8", "model.norm_groups=4"],
    "mri/diffusion-rival": ["model.steps=1", "model.n_samples=2", "model.model_channels=8", "model.norm_groups=4"],
    "mri/no-varnet": ["data.size=[96,96]"],
    "mri/no-varnet-rival": ["data.size=[96,96]"],
    "operators/navier-stokes": [
        "data.train_size=2",
        "data.val_size=2",
        "data.test_size=2",
        "data.batch_size=2",
        "data.final_time=2.0",
    ],
    "operators/burgers": ["data.train_size=4", "data.val_size=2", "data.test_size=2", "data.batch_size=2"],
    "operators/darcy": ["data.train_size=4", "data.val_size=2", "data.test_size=2", "data.batch_size=2"],
    "splatting/scene": ["data.size=48", "data.views=16", "data.points=200"],
    "splatting": ["trainer.val_check_interval=null"],
    "splatting/edgs": ["model.budget=500"],
    "splatting/edgs-buddha": ["model.budget=500"],
    "pinn/wells": ["data.test_wells=8", "model.hidden=[8]", "model.iterations=2"],
    "kat/digits": ["trainer.limit_test_batches=1", "trainer.limit_val_batches=1"],
}
# Models of which all configs want data that do not ship, and a config of another model that will do.
BORROWED = {"operators/fno-kairos": "operators/fno", "operators/unet": "operators/fno"}
QUIET = ["callbacks.progress_bar=null", "logger.tensorboard=null"]


def small(config: str) -> list[str]:
    keys = (compose(config).data.name, config.split("/")[0], config)
    return [*QUIET, *(option for key in keys for option in SMALL.get(key, []))]


def config_of(model: str, options: Sequence[str] = ()) -> Any:
    """A small config, with `options`, that trains `model` on data that ship."""
    if model in BORROWED:
        config = compose(BORROWED[model], [*small(BORROWED[model]), *options])
        config.model, config.rival = {"name": model}, None
        return config
    family = [name for name in list_configs() if name.split("/")[0] == model.split("/")[0]]
    for name in sorted(family, key=lambda name: name != model):  # first the model's own
        config = compose(name, [*small(name), *options])
        for part in ("model", "rival"):
            if config.get(part) is not None and config[part].name == model and ships(config):
                config.model, config.rival = config[part], None
                return config
    raise AssertionError(f"no config trains {model}")


def ships(config: Any) -> bool:
    """Whether the data are made here or lie in the package, instead of in a folder of the user."""
    data = resolve(config).data
    try:
        zoo.create_data(data.name, **data.arguments)
    except DataError:
        return False
    return True
