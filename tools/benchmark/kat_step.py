"""A training step of KAT and of its equal ViT: what learnable activations cost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F

from tools.benchmark.report import Report
from tools.benchmark.timing import interleaved
from zoo.config import compose
from zoo.errors import ConfigError
from zoo.kat.kat.network import KAT
from zoo.kat.sizes import Size, resolve_size
from zoo.kat.vit.network import ViT

# Arguments of the network that the config kat/digits sets.
_DIGITS = ("img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads", "drop_path_rate")
_PAPER_SIZES: tuple[Size, ...] = ("tiny", "small", "base")


def run(sizes: str = "digits,tiny", batch_size: int = 0, repeats: int = 10, dtype: str = "float32") -> Report:
    """Times forward pass, loss, backward pass and AdamW of both networks in turns, on the GPU if there is one.

    Args:
        sizes: of digits (the config kat/digits) and the paper's tiny, small and base, with commas between.
        batch_size: images per step; 0 for 128, but 8 of the paper's sizes on a CPU.
        repeats: rounds that count; the shortest does.
        dtype: float32, or bfloat16 or float16 for autocast.
    """
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ConfigError(f"dtype={dtype}: use float32, bfloat16 or float16.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    report = Report(f"training step, {dtype}, {where}, images per second", reference="ViT")
    alone = device == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    for size in sizes.split(","):
        arguments = _arguments(size)
        images = batch_size or (8 if device == "cpu" and size != "digits" else 128)
        kat = _make_step(KAT(**arguments), arguments, images, device, getattr(torch, dtype))
        vit = _make_step(ViT(**arguments), arguments, images, device, getattr(torch, dtype))
        work = {"ViT": vit, "KAT": kat, "KAT, rationals in plain torch": _in_plain_torch(kat)}
        for name, seconds in interleaved(work, repeats, warmup=2, clock=clock).items():
            report.rows.setdefault(name, {})[f"{size}, batch {images}"] = images / seconds
    report.notes.append("forward, loss, backward and AdamW; shortest of the repeats, in turns; weights are random")
    report.notes.append("processor time" if alone else "wall-clock time")
    return report


def _arguments(size: str) -> dict[str, Any]:
    if size == "digits":
        model = compose("kat/digits", [])["model"]
        return {name: model[name] for name in _DIGITS}
    for known in _PAPER_SIZES:
        if size == known:
            common = {"img_size": 224, "patch_size": 16, "in_chans": 3, "num_classes": 1000}
            return {**common, **resolve_size(known, None, None, None, None)}
    raise ConfigError(f"sizes={size}: use {', '.join(('digits', *_PAPER_SIZES))}.")


def _make_step(
    network: torch.nn.Module, arguments: dict[str, Any], images: int, device: str, dtype: torch.dtype
) -> Callable[[], None]:
    network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters())
    pixels = torch.randn(images, arguments["in_chans"], arguments["img_size"], arguments["img_size"], device=device)
    label = torch.randint(arguments["num_classes"], (images,), device=device)

    def step() -> None:
        # float16 would need its loss scaled; the time is the same.
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = F.cross_entropy(network(pixels), label)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def _in_plain_torch(step: Callable[[], None]) -> Callable[[], None]:
    def run_step() -> None:
        with _reference_ops():
            step()

    return run_step


@contextmanager
def _reference_ops() -> Iterator[None]:
    before = os.environ.get("ZOO_OPS")
    os.environ["ZOO_OPS"] = "reference"
    try:
        yield
    finally:
        if before is None:
            del os.environ["ZOO_OPS"]
        else:
            os.environ["ZOO_OPS"] = before
