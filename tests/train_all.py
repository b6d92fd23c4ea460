"""Trains every model of the registry for two steps, in bfloat16 and on two processes: ``python -m tests.train_all``.

One interpreter does it for all, since starting one takes longer than the steps. Each model's line of output is the same
in both processes.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

import zoo
from tests.small import small
from zoo.config import compose, list_configs, resolve
from zoo.engine.run import train
from zoo.errors import ConfigError, DataError

# What a model's share of the work needs to be one for each process.
SHARES = {
    "splatting/3dgs": ["data.batch_size=2"],
    "splatting/edgs": ["data.batch_size=2"],
    "splatting/momentum-gs": ["data.group=2"],
    "splatting/scaffold-gs": ["data.dims=[2,1,1]", "data.group=2"],
}
OPTIONS = [
    *("trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=bf16-mixed", "trainer.max_steps=2"),
    *("trainer.limit_test_batches=1", "trainer.limit_val_batches=1"),
    *("callbacks.test_figures=null", "callbacks.rich_model_summary=null"),
]
# Models of which all configs want data that do not ship.
# Models that several processes can't train, and say so.
ALONE = {"humans/smplify", "splatting/3dgs", "splatting/edgs"}
BORROWED = {"operators/fno-kairos": "operators/fno", "operators/unet": "operators/fno"}


def config_of(model: str) -> Any:
    """A small config that trains `model` on data that ship."""
    if model in BORROWED:
        config = compose(BORROWED[model], [*small(BORROWED[model]), *OPTIONS])
        config.model, config.rival = {"name": model}, None
        return config
    own = [name for name in list_configs() if name == model]
    for name in [*own, *list_configs()]:
        config = compose(name, [*small(name), *OPTIONS, *SHARES.get(model, [])])
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


def main(names: list[str]) -> None:
    """Trains them and prints their metrics and the sum of their weights."""
    for name in names or zoo.list_models():
        config = config_of(name)
        config.run_dir = f"runs/{name}"
        try:
            metrics = train(config)["metrics"]
        except ConfigError as error:
            assert name in ALONE, error
            assert "trainer.devices=1" in str(error)
            metrics = {}
        else:
            assert name not in ALONE
            torch.distributed.barrier()
        same = {key: value for key, value in metrics.items() if not key.endswith(("_ms", "_s"))}  # but for timings
        print(json.dumps({"model": name, "metrics": same}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
