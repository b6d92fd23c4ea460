"""Several processes that a launcher starts together, as ``srun`` on a SLURM cluster does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import ROOT


def together(
    command: Sequence[str], folder: Path, job: int, count: int = 2, timeout: float = 300, **env: str
) -> list[subprocess.CompletedProcess[str]]:
    """Runs ``python COMMAND...`` in `count` processes that SLURM's variables tell of each other.

    Args:
        command: arguments of the interpreter.
        folder: the working directory.
        job: number of the job, of which Lightning makes the port where the processes meet.
        count: number of processes.
        timeout: seconds until all are stopped.
        env: further variables.
    """
    shared = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
        "SLURM_JOB_ID": str(job),
        "SLURM_JOB_NAME": "zoo",
        "SLURM_NTASKS": str(count),
        "SLURM_NTASKS_PER_NODE": str(count),
        "SLURM_NODEID": "0",
        "SLURM_JOB_NODELIST": "127.0.0.1",
        "SLURM_NODELIST": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        **env,
    }
    processes = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**shared, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        subprocess.CompletedProcess(list(command), process.returncode, *output)
        for process, output in zip(processes, outputs, strict=True)
    ]


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
    return port
