"""MRI: speed at identical outputs, memory, the classical methods against sigpy's, and their weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

import zoo
from tools.benchmark.report import Report
from tools.benchmark.rivals.recurrentvarnet import reconstruct
from tools.benchmark.timing import interleaved
from zoo.errors import ConfigError
from zoo.mri.baselines import L1Wavelet, SenseCG, TotalVariation, tuned
from zoo.mri.masks import MaskFunction
from zoo.mri.metrics import psnr
from zoo.mri.operators import normalize_maps, rss
from zoo.mri.phantom import generate
from zoo.mri.recurrentvarnet.convert import export_official
from zoo.mri.recurrentvarnet.network import RecurrentVarNet
from zoo.mri.unet import SensitivityRefinement

Part = Literal["speed", "memory", "classical", "tune"]
# (coils, height, width, steps, channels, layers) of a small, a middle and a published size.
SIZES = {
    "small": (6, 96, 96, 4, 16, 2),
    "middle": (8, 128, 128, 5, 32, 3),
    "paper": (12, 218, 170, 8, 128, 4),
}


def run(part: Part = "speed", size: str = "small", repeats: int = 10) -> Report:
    """One of four measurements.

    Args:
        part: "speed" times ours against the plain formulas and, if fastmri is installed, our VarNet against
            fastMRI's; "memory" counts what a backward pass keeps, with and without checkpoints per step;
            "classical" compares with sigpy; "tune" looks for the weights of the classical methods.
        size: "small", "middle" or "paper", for speed and memory.
        repeats: timed rounds; the shortest counts.
    """
    if size not in SIZES:
        raise ConfigError(f"size should be one of {', '.join(SIZES)}, not '{size}'.")
    if part == "speed":
        return _speed(size, repeats)
    if part == "memory":
        return _memory(size)
    return _classical(repeats) if part == "classical" else _tune()


def _network(size: str, **more: Any) -> RecurrentVarNet:
    _, _, _, steps, channels, layers = SIZES[size]
    torch.manual_seed(0)
    return RecurrentVarNet(steps, channels, layers, sensitivity_filters=8, **more)


def _problem(size: str) -> tuple[Tensor, Tensor, Tensor]:
    """Masked k-space, mask and coil maps of one random slice."""
    coils, height, width = SIZES[size][:3]
    generator = torch.Generator().manual_seed(0)
    kspace, raw = (torch.randn(1, coils, height, width, dtype=torch.complex64, generator=generator) for _ in range(2))
    mask = torch.from_numpy(MaskFunction("equispaced", (4.0,), (0.08,))((height, width), 0).mask)[None, None]
    return torch.where(mask, kspace, 0), mask, normalize_maps(raw)


def _speed(size: str, repeats: int) -> Report:
    threads = torch.get_num_threads()
    report = Report(f"RecurrentVarNet, one slice of size '{size}', fp32, {threads} threads", reference="plain formulas")
    network = _network(size)
    kspace, mask, maps = _problem(size)
    assert isinstance(network.sensitivity_model, SensitivityRefinement)
    unet = network.sensitivity_model.unet
    official = {name: tensor.clone().requires_grad_() for name, tensor in export_official(network)["model"].items()}
    pairs = torch.view_as_real(kspace), mask.unsqueeze(-1), torch.view_as_real(maps)

    def plain() -> Tensor:
        return reconstruct(official, unet, *pairs)

    def ours() -> Tensor:
        return network(kspace, mask, maps)

    with torch.no_grad():
        difference = (torch.view_as_real(ours()) - plain()).abs().max() / plain().abs().max()
        report.notes.append(f"largest difference of the outputs: {float(difference):.1e} of the largest value")
    _time(report, {"ours": ours, "plain formulas": plain}, repeats)
    _fastmri(report, repeats)
    return report


def _clock() -> Callable[[], float]:
    """Processor time on one thread, which other programs do not disturb; else the clock on the wall."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def _time(report: Report, contenders: dict[str, Callable[[], Tensor]], repeats: int) -> None:
    def forward(function: Callable[[], Tensor]) -> Callable[[], object]:
        def work() -> object:
            with torch.no_grad():
                return function()

        return work

    def both(function: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: function().abs().sum().backward()

    for key, wrap in (("forward s", forward), ("forward+backward s", both)):
        work = {name: wrap(function) for name, function in contenders.items()}
        times = interleaved(work, repeats, clock=_clock())
        for name, seconds in times.items():
            report.rows.setdefault(name, {})[key] = seconds


def _fastmri(report: Report, repeats: int) -> None:
    """Our VarNet against the one of the package fastmri, at the same weights."""
    try:
        from fastmri.models.varnet import VarNet
    except ModuleNotFoundError:
        report.notes.append("fastmri is not installed: no comparison with its VarNet")
        return
    arguments = {"num_cascades": 4, "chans": 6, "pools": 3, "sens_chans": 4, "sens_pools": 3}
    torch.manual_seed(0)
    theirs = VarNet(**arguments)
    ours = zoo.create_model("mri/varnet", **arguments).network
    ours.load_state_dict(zoo.convert_official("mri/varnet", theirs.state_dict()))
    kspace, _, _ = _problem("small")
    drawn = MaskFunction("equispaced", (4.0,), (0.08,))((kspace.shape[-2], kspace.shape[-1]), 0)
    mask, acs = (torch.from_numpy(m)[None, None] for m in (drawn.mask, drawn.acs))
    masked = torch.where(mask, kspace, 0)
    pairs, lines = torch.view_as_real(masked), mask[..., :1, :].unsqueeze(-1)
    center = int(acs[0, 0, 0].sum())

    def peer() -> Tensor:
        return theirs(pairs, lines, num_low_frequencies=center)

    def mine() -> Tensor:
        from zoo.mri.fourier import ifft2

        return rss(ifft2(ours(masked, mask, acs)))

    with torch.no_grad():
        difference = float((mine() - peer()).abs().max() / peer().abs().max())
    _time(report, {"our VarNet": mine, "fastmri's VarNet": peer}, repeats)
    ratios = [report.rows["fastmri's VarNet"][key] / report.rows["our VarNet"][key] for key in report.rows["ours"]]
    report.notes.append(
        f"VarNet (4 cascades, 6 channels) at 6 x 96 x 96, same weights, outputs {difference:.1e} apart: "
        f"ours is {ratios[0]:.2f} times as fast forward and {ratios[1]:.2f} times with the backward pass"
    )


def _memory(size: str) -> Report:
    report = Report(f"what a backward pass of size '{size}' keeps", reference="no checkpoints")
    kspace, mask, maps = _problem(size)
    for name, checkpoint_steps in (("no checkpoints", False), ("checkpoint per step", True)):
        kept: dict[int, int] = {}

        def pack(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        network = _network(size, checkpoint_steps=checkpoint_steps)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = network(kspace, mask, maps).abs().sum()
        report.rows[name] = {"MiB": sum(kept.values()) / 2**20}
        loss.backward()
    report.notes.append(
        "bytes of the tensors that autograd holds after the forward pass of one slice, weights included"
    )
    return report


def _slices(numbers: range, rate: float) -> list[dict[str, Tensor]]:
    """Middle slices of training brains, undersampled, with ESPIRiT maps."""
    from zoo.data.kspace import single_rates
    from zoo.mri.pipeline import Preparation, RawSlice, as_batch
    from zoo.mri.sensitivity import calibration_maps

    preparation = Preparation()
    (function,) = single_rates("equispaced", (rate,), ({4.0: 0.08, 8.0: 0.04}[rate],))
    samples = []
    for number in numbers:
        scan = generate((0, 0, number), ("T1", "T2", "PD", "FLAIR")[number % 4], slices=1)
        kspace, padding = preparation.clean(RawSlice(scan.kspace[0]))
        sample = as_batch(preparation(kspace, padding, function((96, 96), number), (96, 96)))
        sample["maps"] = calibration_maps(sample["masked_kspace"], sample["acs_mask"])
        samples.append(sample)
    return samples


def _mean_psnr(method: Callable[..., Tensor], samples: list[dict[str, Tensor]]) -> float:
    values = []
    for sample in samples:
        image = method(sample["masked_kspace"], sample["sampling_mask"], sample["maps"]).abs()
        values.append(float(psnr(image, sample["target"], sample["target"].max())))
    return statistics.mean(values)


def _tune() -> Report:
    report = Report("classical methods on four training brains, by weight", reference="zero-filled")
    weights = (0.0015, 0.003, 0.0075, 0.015, 0.03, 0.06)
    for rate in (4.0, 8.0):
        samples = _slices(range(4), rate)
        report.rows.setdefault("zero-filled", {})[f"{rate:g}x PSNR"] = _mean_psnr(tuned("zero-filled", rate), samples)
        for method in (SenseCG, L1Wavelet, TotalVariation):
            for weight in weights:
                name = f"{method.__name__} {weight:g}"
                report.rows.setdefault(name, {})[f"{rate:g}x PSNR"] = _mean_psnr(method(weight), samples)
    return report


def _classical(repeats: int) -> Report:
    """Ours against sigpy's on the same maps, each at the best of its weights on these slices."""
    import numpy as np

    try:
        from sigpy.mri.app import EspiritCalib, L1WaveletRecon, SenseRecon
    except ModuleNotFoundError:
        raise ConfigError("This part compares with sigpy: pip install sigpy.") from None
    report = Report(
        "classical methods at 4x on four training brains, best of a grid of weights", reference="ours: SENSE"
    )
    samples = _slices(range(4), 4.0)

    def theirs(app: Any, weight: float, **options: Any) -> Callable[..., Tensor]:
        def method(kspace: Tensor, mask: Tensor, maps: Tensor) -> Tensor:
            arrays = (kspace[0].numpy(), maps[0].numpy())
            image = app(*arrays, lamda=weight, weights=mask[0, 0].numpy(), show_pbar=False, **options).run()
            return torch.from_numpy(np.asarray(image))[None]

        return method

    grid = (0.0015, 0.003, 0.0075, 0.015, 0.03)
    contenders: dict[str, Callable[[float], Callable[..., Tensor]]] = {
        "ours: SENSE": SenseCG,
        "sigpy: SENSE": lambda w: theirs(SenseRecon, w, max_iter=30),
        "ours: L1-wavelet": L1Wavelet,
        "sigpy: L1-wavelet": lambda w: theirs(L1WaveletRecon, w * _unit(samples), max_iter=100),
    }
    work: dict[str, Callable[[], object]] = {}
    one = samples[0]["masked_kspace"], samples[0]["sampling_mask"], samples[0]["maps"]
    for name, make in contenders.items():
        quality = {weight: _mean_psnr(make(weight), samples) for weight in grid}
        best = max(quality, key=lambda w: quality[w])
        report.rows[name] = {"PSNR": quality[best]}
        report.notes.append(f"{name}: weight {best:g}")
        work[name] = partial(make(best), *one)

    from zoo.mri.sensitivity import espirit

    lines = int(samples[0]["acs_mask"][0, 0, 0].sum())
    work["ours: ESPIRiT"] = lambda: espirit(one[0], samples[0]["acs_mask"])
    work["sigpy: ESPIRiT"] = lambda: EspiritCalib(one[0][0].numpy(), calib_width=lines, show_pbar=False).run()
    for name, seconds in interleaved(work, repeats, warmup=1, clock=_clock()).items():
        report.rows.setdefault(name, {})["seconds"] = seconds
    return report


def _unit(samples: list[dict[str, Tensor]]) -> float:
    """sigpy's weights are in the units of the data; ours in those of the image without regularisation."""
    return float(samples[0]["target"].max())
