"""How long ``import zoo`` takes, against an empty interpreter and against ``import torch``."""

from __future__ import annotations

import subprocess
import sys

from tools.benchmark.report import Report
from tools.benchmark.timing import interleaved


def run(repeats: int = 10) -> Report:
    """Starts fresh interpreters.

    Args:
        repeats: starts of each kind; the shortest counts.
    """

    def start(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True)

    work = {
        "import zoo": lambda: start("import zoo"),
        "empty interpreter": lambda: start("pass"),
        "import torch": lambda: start("import torch"),
    }
    times = interleaved(work, repeats, warmup=1)
    return Report("time to import", "import zoo", {name: {"seconds": value} for name, value in times.items()})
