"""Operators whose representation is the block of modes that their network keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

from torch import Tensor

from zoo.operators.operator import FieldOperator


class SpectralNetwork(Protocol):
    """A network that works on kept modes; see `zoo.operators.t1.network.T1`."""

    def coefficients(self, x: Tensor) -> Tensor:
        """Fields -> kept modes."""

    def field(self, block: Tensor, space: Sequence[int]) -> Tensor:
        """Kept modes -> fields."""

    def process(self, block: Tensor, space: Sequence[int]) -> Tensor:
        """The network on kept modes."""


class SpectralOperator(FieldOperator):
    """A `FieldOperator` that transforms once: training loss and roll-out stay in the spectrum."""

    @property
    def _spectral(self) -> SpectralNetwork:
        return cast(SpectralNetwork, self.network)

    def encode(self, field: Tensor) -> Tensor:
        """Fields (..., *space) -> kept modes (..., *modes)."""
        return self._spectral.coefficients(field)

    def decode(self, z: Tensor, space: Sequence[int]) -> Tensor:
        """Kept modes -> fields."""
        return self._spectral.field(z, space)

    def apply_network(self, z: Tensor, space: Sequence[int]) -> Tensor:
        """The network, kept modes to kept modes."""
        return self._spectral.process(z, space)
