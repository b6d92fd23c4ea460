"""The CUDA kernels: compiled for two generations of GPUs, and run as plain C++ to test their arithmetic."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.conftest import ROOT
from tests.ops.cases import Case, magnitudes, make_case, rounding_error
from tests.ops.emulation import emulated_library
from zoo import ops
from zoo.ops import build

FORMATS = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
ROUNDING = {torch.float16: 2**-11 + 1e-6, torch.bfloat16: 2**-8 + 1e-6, torch.float32: 1e-6, torch.float64: 2e-15}
PLAN = ("packet", "tiles", "groups_per_tile", "tiles_per_group", "width", "height", "passes", "chunks")

needs_nvcc = pytest.mark.skipif(build.find_nvcc() is None, reason="there is no nvcc")


@needs_nvcc
@pytest.mark.parametrize("architecture", ["80", "90"])
def test_registers(architecture: str, tmp_path: Path) -> None:
    """No kernel spills, and four blocks of the backward kernel for the usual orders fit a multiprocessor."""
    nvcc = build.find_nvcc()
    assert nvcc is not None
    source = ROOT / "kernels/rational/cuda.cu"
    target = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
    options = ["-std=c++17", "-O3", "-Xcompiler", "-fPIC", "-Xptxas", "-v", target]
    command = [nvcc, *options, "-c", str(source), "-o", str(tmp_path / "cuda.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kernels = re.findall(
        r"Compiling entry function '(\S+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers",
        done.stderr,
        re.DOTALL,
    )
    assert len(kernels) == 2 * (10 + 10) + 2 * 2  # orders x (forward + backward) x formats and packets, and the end
    for name, stores, loads, registers in kernels:
        assert (int(stores), int(loads)) == (0, 0), name
        if "differentiate_kernelILi5ELi4E" in name and "ILi5ELi4Ed" not in name:
            assert int(registers) <= 64, name


@needs_nvcc
@pytest.mark.slow
def test_object_with_cuda_kernels_runs_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    toolchain, _ = build.find_toolchain(cuda=True)
    built = build.build("rational", toolchain)
    assert built.devices == ("cpu", "cuda")
    script = f"""
import torch
from zoo import ops
torch.ops.load_library({str(built.path)!r})
x = torch.randn(4, 16)
a, b = torch.randn(1, 6), torch.randn(8, 4)
assert torch.allclose(torch.ops.zoo.rational(x, a, b, 1), ops.rational(x, a, b, implementation="reference"), rtol=1e-5)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels as plain C++, with checks of alignment, bounds and overflow that abort the process."""
    loaded = emulated_library("rational", tmp_path_factory.mktemp("emulated"))
    loaded.new_problem.restype = ctypes.c_void_p
    loaded.workspace_bytes.restype = ctypes.c_int64
    return loaded


@dataclass
class Emulation:
    """A problem set up in guarded memory: reading beside a tensor gives NaN, writing beside it is noticed."""

    library: ctypes.CDLL
    case: Case
    offset: int = 0  # of each row's start in its allocation, in numbers: how well it is aligned
    padding: int = 0  # between rows of input and upstream gradient

    def __post_init__(self) -> None:
        case = self.case
        rows, columns = case.x.reshape(-1, case.x.shape[-1]).shape
        self.x, self.grad = (self._guarded(t.reshape(rows, columns), self.padding) for t in (case.x, case.grad))
        self.out = self._guarded(torch.zeros(rows, columns, dtype=case.x.dtype), 0)
        self.numerator, self.denominator = (self._guarded(t, 0) for t in (case.numerator, case.denominator))
        self.da, self.db = (self._guarded(torch.zeros_like(t), 0) for t in (case.numerator, case.denominator))
        groups = max(len(case.numerator), len(case.denominator))
        tensors = (self.x, self.grad, self.out, self.numerator, self.denominator, self.da, self.db)
        stride = columns + self.padding
        self.problem = ctypes.c_void_p(
            self.library.new_problem(
                (ctypes.c_int64 * 3)(rows, groups, columns // groups),
                FORMATS[case.x.dtype],
                (ctypes.c_void_p * 7)(*[t.data_ptr() for t in tensors]),
                (ctypes.c_int64 * 2)(stride, stride),
                (ctypes.c_int64 * 4)(*case.numerator.shape, *case.denominator.shape),
            )
        )

    def _guarded(self, t: Tensor, padding: int) -> Tensor:
        stride = t.shape[1] + padding
        guard = 64
        memory = torch.full((2 * guard + len(t) * stride,), float("nan"), dtype=t.dtype)
        view = memory.as_strided(t.shape, (stride, 1), guard + self.offset)
        return view.copy_(t)

    def plan(self) -> dict[str, int]:
        values = (ctypes.c_int64 * len(PLAN))()
        self.library.describe_plan(self.problem, values)
        return dict(zip(PLAN, values, strict=True))

    def run(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """y, dx, da, db."""
        self.library.evaluate(self.problem)
        y = self.out.clone()
        size = self.library.workspace_bytes(self.problem)
        workspace = torch.full((size + 64,), 0xFF, dtype=torch.uint8)  # NaN, where it is not written
        self.library.differentiate(self.problem, ctypes.c_void_p(workspace.data_ptr()))
        assert (workspace[size:] == 0xFF).all()
        for written in (self.out, self.da, self.db):
            memory = torch.empty(0, dtype=written.dtype).set_(written.untyped_storage())
            inside = torch.zeros(len(memory), dtype=torch.bool)
            inside.as_strided(written.shape, written.stride(), written.storage_offset()).fill_(True)
            assert memory[~inside].isnan().all()
        shape = self.case.x.shape
        return y.reshape(shape), self.out.clone().reshape(shape), self.da.clone(), self.db.clone()

    def check(self) -> None:
        scales = magnitudes(self.case)
        values = zip(self.run(), self.case.run_in_double(), scales, strict=True)
        for k, (actual, expected, scale) in enumerate(values):
            tolerance = ROUNDING[self.case.x.dtype] if k < 2 else max(2e-15, min(ROUNDING[self.case.x.dtype], 2e-6))
            floor = 2**-14 if self.case.x.dtype == torch.float16 and k < 2 else 0
            assert rounding_error(actual, expected, scale.clamp_min(floor)) <= tolerance, k

    def __del__(self) -> None:
        self.library.delete_problem(self.problem)


@pytest.mark.parametrize(
    ("shape", "groups", "dtype", "plan"),
    [
        # The layouts of KAT: several groups in a tile, a thread to a packet of a row.
        ((45, 768), 8, torch.float32, {"packet": 4, "groups_per_tile": 8, "width": 192, "height": 1, "tiles": 1}),
        ((9, 3072), 8, torch.float32, {"packet": 4, "groups_per_tile": 2, "width": 192, "tiles": 4}),
        ((70, 192), 8, torch.bfloat16, {"packet": 8, "groups_per_tile": 8, "width": 24, "height": 10}),
        ((300, 48), 8, torch.float16, {"packet": 2, "width": 24, "height": 10, "chunks": 4}),
        # A group wider than a block.
        ((11, 2 * 1300), 2, torch.float32, {"packet": 4, "groups_per_tile": 1, "tiles_per_group": 2, "tiles": 4}),
        ((9, 3072), 8, torch.bfloat16, {"packet": 8, "groups_per_tile": 4, "width": 192, "tiles": 2}),
        # Groups that no packet divides; the last tile is not full.
        ((20, 7 * 45), 7, torch.float32, {"packet": 1, "groups_per_tile": 4, "tiles": 2}),
        ((3, 300), 300, torch.bfloat16, {"packet": 1, "groups_per_tile": 150, "tiles": 2}),
        # More passes than the smallest number, so that the rows of a block are not all taken.
        ((9000, 8), 1, torch.float64, {"packet": 2, "width": 4, "height": 64, "passes": 8, "chunks": 18}),
    ],
)
def test_layouts(
    emulated: ctypes.CDLL, shape: tuple[int, int], groups: int, dtype: torch.dtype, plan: dict[str, int]
) -> None:
    emulation = Emulation(emulated, make_case(shape, groups, dtype=dtype))
    actual = emulation.plan()
    assert {name: actual[name] for name in plan} == plan
    emulation.check()


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_shape(emulated: ctypes.CDLL, data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, 12))
    rows, length = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 60))
    orders = data.draw(st.tuples(st.integers(0, 7), st.integers(1, 7)))
    dtype = data.draw(st.sampled_from(list(FORMATS)))
    case = make_case((rows, groups * length), groups, orders, dtype, shared_numerator=data.draw(st.booleans()))
    Emulation(emulated, case, data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))).check()


@pytest.mark.parametrize(("offset", "padding"), [(0, 0), (1, 0), (0, 1), (4, 4), (2, 8)])
def test_packets_are_aligned(emulated: ctypes.CDLL, offset: int, padding: int) -> None:
    """A packet as large as the memory's alignment allows; the checked build aborts at a misaligned access."""
    emulation = Emulation(emulated, make_case((12, 64), 4, dtype=torch.bfloat16), offset, padding)
    address, stride = emulation.x.data_ptr(), emulation.x.stride(0) * 2
    aligned = address % 16 == 0 and stride % 16 == 0
    assert emulation.plan()["packet"] == (8 if aligned else 1 if (offset | padding) % 2 else 2)
    emulation.check()


def test_same_bits_in_every_run(emulated: ctypes.CDLL) -> None:
    emulation = Emulation(emulated, make_case((100, 96), 8))
    first, second = emulation.run(), emulation.run()
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.fixture
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    return torch.device("cuda")


def on(device: torch.device, case: Case) -> Case:
    return Case(*(t.to(device) for t in (case.x, case.numerator, case.denominator, case.grad)), case.dim)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", list(FORMATS))
@pytest.mark.parametrize(
    ("shape", "groups", "dim"),
    [
        ((128, 197, 768), 8, -1),
        ((8, 197, 3072), 8, -1),
        ((64, 197, 192), 8, -1),
        ((4, 48, 56, 56), 8, 1),
        ((3, 7), 7, -1),
    ],
)
def test_on_a_gpu(gpu: torch.device, shape: tuple[int, ...], groups: int, dim: int, dtype: torch.dtype) -> None:
    case = on(gpu, make_case(shape, groups, dtype=dtype, dim=dim))
    results = case.run(implementation="compiled")
    for k, (actual, expected, scale) in enumerate(zip(results, case.run_in_double(), magnitudes(case), strict=True)):
        floor = 2**-14 if dtype == torch.float16 and k < 2 else 0
        tolerance = ROUNDING[dtype] * 2 if k < 2 else 1e-5
        assert rounding_error(actual, expected, scale.clamp_min(floor)) <= tolerance
    for _ in range(10):
        assert all(torch.equal(one, other) for one, other in zip(results, case.run(), strict=True))


@pytest.mark.gpu
def test_streams_graphs_and_autocast_on_a_gpu(gpu: torch.device) -> None:
    case = on(gpu, make_case((64, 197, 192), 8))
    expected = case.run()
    with torch.cuda.stream(torch.cuda.Stream()):
        actual = case.run()
    torch.cuda.synchronize()
    assert all(torch.equal(one, other) for one, other in zip(actual, expected, strict=True))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = case.run()
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(one, other) for one, other in zip(captured, expected, strict=True))
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert ops.rational(case.x, case.numerator, case.denominator).dtype == torch.bfloat16


@pytest.mark.gpu
def test_more_than_2_31_elements_on_a_gpu(gpu: torch.device) -> None:
    x = torch.randn(2**31 // 64 + 3, 64, device=gpu, dtype=torch.bfloat16)
    a, b = torch.randn(1, 6, device=gpu), torch.randn(8, 4, device=gpu)
    y = ops.rational(x, a, b)
    torch.testing.assert_close(y[-5:], ops.rational(x[-5:], a, b))
