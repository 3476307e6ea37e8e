"""The largest elements along an axis, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DTypeError, ShapeError
from ..types import Array, DType
from .base import apply
from .composite import Composite
from .indexing import TakeAlongAxis, own_indices
from .pointwise import Gradients, IsNaN, Signals, Tensors

if TYPE_CHECKING:
    from ..tensor import Tensor


@dataclass(frozen=True)
class TopK(Composite):
    """The k largest elements along an axis and their indices (int64), the largest first.

    Of equal elements the one with the lower index comes first; NaN counts as larger than every
    number. (torch.topk, ONNX: TopK.) Each element's rank is the number of elements before it, so
    the work grows with the square of the extent; it is the same for any number of threads.

    Arguments:
        k: how many, at most the extent.
        axis: counted from the front.
        largest: whether the largest or the smallest.
    """

    k: int
    axis: int
    largest: bool = True

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        if not 0 <= self.axis < x.rank or not 0 <= self.k <= x.shape[self.axis]:
            raise ShapeError(f"TopK finds no {self.k} elements along axis {self.axis} of {x.type}")
        if x.dtype is DType.BOOL:
            raise DTypeError(f"TopK takes numbers, got {x.type}; cast first")
        rank = self._ranks(x).unsqueeze(self.axis)
        places = own_indices(rank, self.axis, self.k, DType.INT32)
        numbers = own_indices(rank, self.axis + 1, x.shape[self.axis], DType.INT32)
        found = rank.equal(places).where(numbers, numbers.constant(0))
        indices = found.sum(self.axis + 1, dtype=DType.INT32).cast(DType.INT64)
        return apply(TakeAlongAxis(self.axis), x, indices), indices

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (x,), (_, indices), (signal, _) = inputs, outputs, signals
        if signal is None:
            return (None,)
        from .indexing import ScatterAddAlongAxis

        return (apply(ScatterAddAlongAxis(x.shape, self.axis), indices, signal),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        (x,) = inputs
        key = x.astype(np.float64) if x.dtype.kind == "f" else x.astype(np.int64)
        if self.largest:  # NaN sorts last: reversed twice, so that ties keep their order
            order = np.argsort(np.flip(key, self.axis), axis=self.axis, kind="stable")
            order = key.shape[self.axis] - 1 - np.flip(order, self.axis)
        else:
            order = np.argsort(key, axis=self.axis, kind="stable")
        indices = np.take(order, np.arange(self.k), axis=self.axis)
        return np.take_along_axis(x, indices, self.axis), indices.astype(np.int64)

    def _ranks(self, x: Tensor) -> Tensor:
        """How many elements come before each one (int32)."""
        one, other = x.unsqueeze(self.axis + 1), x.unsqueeze(self.axis)
        before = other > one if self.largest else other < one
        equal = one.equal(other)
        if x.dtype.is_float:
            nan_one, nan_other = apply(IsNaN(), one), apply(IsNaN(), other)
            first, second = (nan_other, nan_one) if self.largest else (nan_one, nan_other)
            before = before | (first & ~second)
            equal = equal | (nan_one & nan_other)
        extent = x.shape[self.axis]
        own = own_indices(one, self.axis, extent, DType.INT32)
        theirs = own_indices(one, self.axis + 1, extent, DType.INT32)
        return (before | (equal & (theirs < own))).sum(self.axis + 1, dtype=DType.INT32)
