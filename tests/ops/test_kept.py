"""What is made once and kept serves every later call, whatever the first one came from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zoo.ops.kept import kept


class Scaled(nn.Module):
    """Multiplies by the numbers 0 to n - 1, which are kept; `made` hears of each n."""

    def __init__(self, made: list[int]) -> None:
        super().__init__()

        @kept(maxsize=4)
        def numbers(count: int) -> Tensor:
            made.append(count)
            if count > 5:
                raise ValueError("too many")
            values = torch.arange(count, dtype=torch.float32)
            assert int(values.sum()) == count * (count - 1) // 2  # a tensor with numbers, not one that is traced
            return values

        self.numbers = numbers
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * self.numbers(x.shape[-1])


def test_it_is_made_once_for_each_size() -> None:
    made: list[int] = []
    scaled = Scaled(made)
    for size in (2, 3, 2, 3):
        assert scaled(torch.ones(size)).tolist() == list(range(size))
    assert made == [2, 3]
    with pytest.raises(ValueError, match="too many"):
        scaled(torch.ones(6))


def test_made_under_inference_mode_it_takes_part_in_gradients() -> None:
    made: list[int] = []
    scaled = Scaled(made)
    with torch.inference_mode():
        scaled(torch.ones(3))
    scaled(torch.ones(3)).sum().backward()
    assert scaled.weight.grad == 3
    assert made == [3]


@pytest.mark.parametrize("batches", ["one", "any"])
def test_made_by_an_export_it_holds_numbers(batches: str) -> None:
    made: list[int] = []
    scaled, x = Scaled(made), torch.ones(2, 3)
    free = ({0: torch.export.Dim.AUTO},) if batches == "any" else None
    program = torch.export.export(scaled, (x,), dynamic_shapes=free, strict=False)
    assert torch.equal(program.module()(x), torch.tensor([[0.0, 1.0, 2.0]] * 2))
    assert torch.equal(scaled(x), program.module()(x))
    assert made == [3]


def test_it_can_be_compiled() -> None:
    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * twos(x.shape[-1])

    compiled = torch.compile(Doubled(), backend="eager", fullgraph=True)
    assert compiled(torch.ones(3)).tolist() == [2.0] * 3


@kept(maxsize=4)
def twos(count: int) -> Tensor:
    return torch.full((count,), 2.0)
