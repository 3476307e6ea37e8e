"""Running sums and products along an axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import ShapeError
from .base import apply
from .composite import Composite
from .movement import Pad
from .pointwise import Gradients, Signals, Tensors

if TYPE_CHECKING:
    from ..tensor import Tensor


@dataclass(frozen=True)
class Cumulative(Composite, abstract=True):
    """Base: element i combines the elements up to i, in log2(extent) steps that each reach twice
    as far (Hillis and Steele, Data parallel algorithms, 1986).

    Arguments:
        axis: counted from the front.
        exclusive: element i leaves itself out; the first is the identity.
        reverse: from the end to the front.
    """

    axis: int
    exclusive: bool = False
    reverse: bool = False
    identity: ClassVar[float] = 0.0

    def combine(self, a: Tensor, b: Tensor) -> Tensor:
        """What two neighbouring stretches give together."""
        raise NotImplementedError(f"{self.name} has no combine")

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        if not 0 <= self.axis < x.rank:
            raise ShapeError(f"{self.name} has no axis {self.axis} in {x.type}")
        if self.exclusive:
            x = self._shifted(x, 1)
        reach = 1
        while reach < x.shape[self.axis]:
            x = self.combine(self._shifted(x, reach), x)
            reach *= 2
        return (x,)

    def _shifted(self, x: Tensor, by: int) -> Tensor:
        """Each element `by` places on, in the direction of the sum; the identity moves in."""
        extent = x.shape[self.axis]
        by = min(by, extent)
        start, pair = (by, (0, by)) if self.reverse else (0, (by, 0))
        kept = x.slice_axis(self.axis, start, extent - by)
        padding = tuple(pair if d == self.axis else (0, 0) for d in range(x.rank))
        return apply(Pad(padding, value=self.identity), kept)


@dataclass(frozen=True)
class CumSum(Cumulative):
    """Running sum (numpy.cumsum, ONNX: CumSum)."""

    def combine(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,) = signals
        back = CumSum(self.axis, self.exclusive, not self.reverse)
        return (apply(back, signal) if signal is not None else None,)


@dataclass(frozen=True)
class CumProd(Cumulative):
    """Running product (numpy.cumprod, ONNX: CumProd)."""

    identity: ClassVar[float] = 1.0

    def combine(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b
