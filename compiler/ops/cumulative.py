"""Running sums, products and extrema along an axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import DTypeError, ShapeError
from ..types import DType
from .base import apply
from .composite import Composite
from .indexing import ScatterAddAlongAxis, TakeAlongAxis, own_indices
from .movement import Pad, PadMode
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


@dataclass(frozen=True)
class LogCumSumExp(Cumulative):
    """The logarithm of the running sum of exponentials (torch.logcumsumexp)."""

    identity: ClassVar[float] = -math.inf

    def combine(self, a: Tensor, b: Tensor) -> Tensor:
        return a.logaddexp(b)


@dataclass(frozen=True)
class CumExtremum(Composite, abstract=True):
    """Base: the extreme one of the elements up to each one, and where it is (int64), the last one
    of equals. NaN stays.

    Arguments:
        axis: counted from the front.
    """

    axis: int

    def better(self, a: Tensor, b: Tensor) -> Tensor:
        """The one of each two elements that stays."""
        raise NotImplementedError(f"{self.name} has no better")

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        if not 0 <= self.axis < x.rank:
            raise ShapeError(f"{self.name} has no axis {self.axis} in {x.type}")
        if x.dtype is DType.BOOL:
            raise DTypeError(f"{self.name} takes numbers, got {x.type}; cast first")
        best = self._scan(x, self.better)
        own = x.equal(best) | x.isnan() if x.dtype.is_float else x.equal(best)
        places = own_indices(x, self.axis, x.shape[self.axis], DType.INT64)
        indices = self._scan(own.where(places, 0), lambda a, b: a.maximum(b))
        return apply(TakeAlongAxis(self.axis), x, indices), indices

    def _scan(self, x: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """As in `Cumulative`; the first element, which all stretches have, moves in."""
        extent, reach = x.shape[self.axis], 1
        while reach < extent:
            pairs = tuple((reach, 0) if d == self.axis else (0, 0) for d in range(x.rank))
            kept = x.slice_axis(self.axis, 0, extent - reach)
            x = combine(apply(Pad(pairs, PadMode.EDGE), kept), x)
            reach *= 2
        return x

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (x,), (_, indices), (signal, _) = inputs, outputs, signals
        if signal is None:
            return (None,)
        return (apply(ScatterAddAlongAxis(x.shape, self.axis), indices, signal),)


@dataclass(frozen=True)
class CumMax(CumExtremum):
    """Running maximum (torch.cummax)."""

    def better(self, a: Tensor, b: Tensor) -> Tensor:
        return a.maximum(b)


@dataclass(frozen=True)
class CumMin(CumExtremum):
    """Running minimum (torch.cummin)."""

    def better(self, a: Tensor, b: Tensor) -> Tensor:
        return a.minimum(b)
