"""The folder a run leaves behind, and the summary in it::

config.yaml         the resolved config
metrics.csv         every logged metric
tensorboard/        the same as TensorBoard events
checkpoints/        last.ckpt (to resume), best.ckpt (by the monitored metric)
figures/*.png       pictures of the test
model.safetensors   the final (best) weights
summary.json        metrics, wall time, environment, git revision
rival/              the same of the rival model, where the config has one
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import zoo
from zoo import assets
from zoo.errors import ConfigError
from zoo.files import write_json


@dataclass(frozen=True)
class RunFolder:
    """Paths in a run folder.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """The checkpoint to resume from."""
        return self.checkpoints / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        """The checkpoint with the best monitored metric."""
        return self.checkpoints / "best.ckpt"

    @property
    def weights(self) -> Path:
        """The final weights."""
        return self.path / "model.safetensors"

    @property
    def figures(self) -> Path:
        """Folder of the pictures."""
        return self.path / "figures"

    @property
    def space(self) -> Path:
        """What of the test can be turned about, see `zoo.viz.space.Space`."""
        return self.figures / "space.npz"

    @property
    def summary(self) -> Path:
        """What came out."""
        return self.path / "summary.json"

    @property
    def rival(self) -> RunFolder:
        """The rival model's run."""
        return RunFolder(self.path / "rival")

    def require_new(self) -> None:
        """Raises `ConfigError` if a run is already in here."""
        if self.config.exists():
            raise ConfigError(
                f"{self.path} already holds a run. Go on with it by resume={self.path}, or choose another run_dir."
            )

    def read_summary(self) -> dict[str, Any]:
        """The summary of a finished run.

        Raises:
            ConfigError: there is none, or it is damaged.
        """
        try:
            summary: dict[str, Any] = json.loads(self.summary.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"{self.path} has no summary.json: the run was not finished. Go on with it by resume={self.path}"
            ) from None
        except ValueError as error:
            raise ConfigError(f"{self.summary} is damaged ({error}).") from None
        return summary

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes ``summary.json`` with the environment and the git revision added."""
        write_json(self.summary, {**summary, "environment": environment(), "git_revision": git_revision()})


def environment() -> dict[str, Any]:
    """What a reader needs to compare a measurement: versions, processor, threads, accelerator."""
    import torch

    packages = ("torch", "pytorch-lightning", "numpy")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "zoo": zoo.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def git_revision() -> str | None:
    """Commit of the checkout that `zoo` runs from, with ``-dirty`` for uncommitted changes; None elsewhere."""
    if not (assets.path() / ".git").exists():
        return None
    command = ["git", "-C", str(assets.path()), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
