"""The CUDA kernel of furthest-point sampling: compiled for two generations of GPUs, and run as plain C++."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import ROOT
from tests.ops.emulation import emulated_library
from tests.ops.test_points import around, cloud, kernel
from zoo import ops
from zoo.ops import build

needs_nvcc = pytest.mark.skipif(build.find_nvcc() is None, reason="there is no nvcc")


@needs_nvcc
@pytest.mark.parametrize("architecture", ["80", "90"])
def test_registers(architecture: str, tmp_path: Path) -> None:
    """No kernel spills, and two blocks of it fit a multiprocessor."""
    nvcc = build.find_nvcc()
    assert nvcc is not None
    target = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
    options = ["-std=c++17", "-O3", "-Xcompiler", "-fPIC", "-Xptxas", "-v", target]
    command = [nvcc, *options, "-c", str(ROOT / "kernels/points/cuda.cu"), "-o", str(tmp_path / "cuda.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kernels = re.findall(
        r"(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers", done.stderr, re.DOTALL
    )
    assert len(kernels) == 2
    for stores, loads, registers in kernels:
        assert (int(stores), int(loads)) == (0, 0)
        assert int(registers) <= 64


@needs_nvcc
@pytest.mark.slow
def test_object_with_a_cuda_kernel_runs_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    built = build.build("points", build.find_toolchain(cuda=True)[0])
    assert built.devices == ("cpu", "cuda")
    script = f"""
import torch
from zoo.ops import points_op, points_reference
torch.ops.load_library({str(built.path)!r})
assert torch._C._dispatch_has_kernel_for_dispatch_key("zoo::furthest_points", "CUDA")
points = torch.randn(2, 50, 3)
assert torch.equal(points_op.furthest_points(points, 20, 0.1), points_reference.furthest_points(points, 20, 0.1))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernel as plain C++, with checks of alignment, bounds and overflow that abort the process."""
    return emulated_library("points", tmp_path_factory.mktemp("emulated"))


def emulate(library: ctypes.CDLL, points: Tensor, samples: int, skip: float) -> Tensor:
    """Samples in guarded memory: writing beside the indices or the distances is noticed."""
    clouds, count, _ = points.shape
    chosen = torch.full((clouds * samples + 2,), -7)
    distances = torch.full((clouds * count + 2,), -7.0, dtype=points.dtype)
    size = points.element_size()
    library.sample(
        ctypes.c_void_p(points.contiguous().data_ptr()),
        *(ctypes.c_int64(number) for number in (clouds, count, samples)),
        ctypes.c_double(skip),
        ctypes.c_bool(points.dtype == torch.float64),
        ctypes.c_void_p(distances.data_ptr() + size),
        ctypes.c_void_p(chosen.data_ptr() + 8),
    )
    for guarded in (chosen, distances):
        assert guarded[[0, -1]].tolist() == [-7, -7]
    return chosen[1:-1].unflatten(0, (clouds, samples))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("count", "samples"), [(1, 1), (5, 5), (31, 9), (513, 12), (1100, 25)])
@pytest.mark.parametrize("skip", [-1.0, 0.05])
def test_indices_are_the_reference_s(
    emulated: ctypes.CDLL, count: int, samples: int, skip: float, dtype: torch.dtype
) -> None:
    points = cloud(2, count, dtype)
    expected = ops.furthest_points(points, samples, skip, implementation="reference")
    assert torch.equal(emulate(emulated, points, samples, skip), expected)


def test_of_points_equally_far_the_first_is_taken(emulated: ctypes.CDLL) -> None:
    axis = torch.arange(10.0)
    grid = torch.cartesian_prod(axis, axis, axis)[torch.randperm(1000, generator=torch.Generator().manual_seed(1))]
    grid = grid[None] - 4.5
    expected = ops.furthest_points(grid, 40, implementation="reference")
    assert torch.equal(emulate(emulated, grid, 40, 0.0), expected)
    assert emulate(emulated, torch.zeros(1, 5, 3), 3, 1e-3).tolist() == [[0, 0, 0]]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_a_gpu(dtype: torch.dtype) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    points = cloud(3, 2000, dtype)
    expected = ops.furthest_points(points, 500, 0.05, implementation="reference")
    found = ops.furthest_points(points.cuda(), 500, 0.05, implementation="compiled")
    assert torch.equal(found.cpu(), expected)
    centres = points[:, :300]
    for order in ("nearest", "index"):
        expected = ops.ball_query(points, centres, 0.1, 12, order, implementation="reference")  # type: ignore[arg-type]
        assert torch.equal(ops.ball_query(points.cuda(), centres.cuda(), 0.1, 12, order).cpu(), expected)  # type: ignore[arg-type]
    offsets, neighbours = around(cloud(3, dtype=dtype))
    points_, table = kernel("orbit", "icosahedral", dtype)
    results = []
    for device in ("cpu", "cuda"):
        random = torch.Generator().manual_seed(1)
        features = torch.randn(3, 120, 60, 8, generator=random, dtype=dtype).to(device).requires_grad_()
        weight = torch.randn(4, 8, 13, generator=random, dtype=dtype).to(device).requires_grad_()
        rest = (tensor.to(device) for tensor in (offsets, neighbours, points_, table))
        out = ops.rotation_convolution(features, weight, *rest, 0.04)
        results.append([t.cpu() for t in (out, *torch.autograd.grad(out.square().sum(), (features, weight)))])
    for actual, expected in zip(*results, strict=True):
        assert (actual - expected).abs().max() < 1e-4 * expected.abs().max()
