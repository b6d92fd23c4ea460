"""Processes of one run that somebody else starts together: ``srun`` on a SLURM cluster, or ``torchrun``.

Processes that Lightning starts itself (``trainer=ddp``) are not among them: they resume the run of the first.
"""

from __future__ import annotations

import os
from datetime import datetime

_RANKS = ("RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK", "LOCAL_RANK")


def is_main_process() -> bool:
    """False in all processes of a run but the first, however they were started."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


def started_together() -> bool:
    """Whether a launcher started several processes with this command."""
    return int(os.environ.get("SLURM_NTASKS", "1")) > 1 or "TORCHELASTIC_RUN_ID" in os.environ


def requeued() -> bool:
    """Whether SLURM has started this job before: its run is to go on."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


def run_id() -> str:
    """What tells a run from others of its config: the job where there is one, else the time.

    The processes of a job start at different moments, and a requeued job starts again, so the time would not do.
    """
    if started_together():
        names = ("SLURM_JOB_ID", "TORCHELASTIC_RUN_ID")
        return "job-" + next(os.environ[name] for name in names if name in os.environ)
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S_%f}"
