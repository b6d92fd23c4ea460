"""MRI: held-out samples of a real brain slice, predicted by a network, by its refinement and by classical methods.

A fifth of the acquired samples outside the centre is held out, see `zoo.mri.real_slice`. No training data of the
slice's kind are involved: the refinement uses the slice's own other samples (`zoo.mri.refinement`).
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from torch import Tensor

import zoo
from tools.benchmark.report import Report
from zoo.data.kspace import KSpaceBatch
from zoo.mri.real_slice import HeldOut, draw, evaluate
from zoo.mri.refinement import Refinement
from zoo.viz.save import save_figures


def run(weights: str = "mri/recurrentvarnet-phantom", refine_steps: int = 200, seeds: tuple[int, ...] = (0,)) -> Report:
    """Holds out, asks all of them and draws the first answer.

    Args:
        weights: name of pretrained weights of a network of the family.
        refine_steps: training on the slice's own samples in the refinement; 0 for its other part alone.
        seeds: of what is held out; the errors are means over them.
    """
    module: Any = zoo.load_pretrained(weights)
    name = f"network, {refine_steps} steps on the slice" if refine_steps else "network, mirrored and closed"
    refinement, learned = Refinement(refine_steps), dict[str, Tensor]()

    def alone(module: Any, batch: KSpaceBatch) -> Tensor:
        learned["kspace"] = refinement.learned(module, batch)
        return learned["kspace"]

    def averaged(module: Any, batch: KSpaceBatch) -> Tensor:
        return refinement.average(learned["kspace"], batch)

    refinements = {name: alone, "averaged with wavelets": averaged}
    results = [evaluate(module, refinements=refinements, seed=seed) for seed in seeds]
    report = Report(f"held-out samples of the real slice, {weights}", reference=name)
    for method in results[0].errors:
        errors = [result.errors[method] for result in results]
        report.rows[method] = {"squared error over energy": statistics.mean(errors)}
        report.notes.append(f"{method}: " + ", ".join(f"{error:.4f}" for error in errors))
    report.figures = _draw(results[0])
    return report


def _draw(result: HeldOut) -> list[Path]:
    return save_figures({"mri-real-slice": draw(result)}, Path("runs", "benchmark"))
