"""Trains every model of the registry for two steps, in bfloat16 and on two processes: ``python -m tests.train_all``.

One interpreter does it for all, since starting one takes longer than the steps. Each model's line of output is the same
in both processes.
"""

from __future__ import annotations

import json
import sys

import torch

import zoo
from tests.small import config_of
from zoo.engine.run import train
from zoo.errors import ConfigError

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
# Models that several processes can't train, and say so.
ALONE = {"humans/smplify", "splatting/3dgs", "splatting/edgs"}


def main(names: list[str]) -> None:
    """Trains them and prints their metrics and the sum of their weights."""
    for name in names or zoo.list_models():
        config = config_of(name, [*OPTIONS, *SHARES.get(name, [])])
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
