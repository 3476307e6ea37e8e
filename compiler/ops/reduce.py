"""Primitives that reduce over axes. Reduced axes stay, with extent 1: whatever reads the result
then lines up with what was reduced. Dropping them is a Reshape, which costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import DTypeError, ShapeError
from ..types import Array, DType, TensorType
from .base import Op, apply
from .pointwise import Equal, Gradients, Signals, Tensors, Where

if TYPE_CHECKING:
    from ..tensor import Tensor


@dataclass(frozen=True)
class Reduction(Op, abstract=True):
    """Base of the reductions.

    Arguments:
        axes: sorted, counted from the front; none leaves every element as it is.
    """

    axes: tuple[int, ...]

    has_identity: ClassVar[bool] = True

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = inputs
        if x.dtype is DType.BOOL:
            raise DTypeError(f"{self.name} takes numbers, got bool; cast first")
        if list(self.axes) != sorted(set(self.axes)):
            raise ShapeError(f"the axes of {self.name} are sorted, each once, got {self.axes}")
        for axis in self.axes:
            if not 0 <= axis < x.rank:
                raise ShapeError(f"{self.name} has no axis {axis} in {x}")
            if x.shape[axis] == 0 and not self.has_identity:
                raise ShapeError(f"{self.name} over the empty axis {axis} of {x} has no value")
        shape = tuple(1 if d in self.axes else n for d, n in enumerate(x.shape))
        return (x.with_shape(shape),)


@dataclass(frozen=True)
class Sum(Reduction):
    """Sum over axes; 0 over empty ones."""

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        (x,) = inputs
        with np.errstate(all="ignore"):
            return (np.sum(x, axis=self.axes, keepdims=True, dtype=x.dtype),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,) = signals
        return (signal.broadcast_to(inputs[0].shape) if signal is not None else None,)


@dataclass(frozen=True)
class Product(Reduction):
    """Product over axes; 1 over empty ones.

    The gradient is exact with zeros among the factors, the gradient of the gradient without them.
    """

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        (x,) = inputs
        with np.errstate(all="ignore"):
            return (np.prod(x, axis=self.axes, keepdims=True, dtype=x.dtype),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,), (x,) = signals, inputs
        if signal is None:
            return (None,)
        one, zero = x.constant(1.0), x.constant(0.0)
        is_zero = x.equal(0.0)
        zeros = apply(Sum(self.axes), apply(Where(), is_zero, one, zero))
        others = apply(Product(self.axes), apply(Where(), is_zero, one, x))
        without_zeros = outputs[0] / apply(Where(), is_zero, one, x)
        at_only_zero = apply(Where(), is_zero, others, zero)
        some = apply(Where(), zeros.equal(1.0), at_only_zero, zero)
        return (signal * apply(Where(), zeros.equal(0.0), without_zeros, some),)


@dataclass(frozen=True)
class Extremum(Reduction, abstract=True):
    """Base of max and min; NaN if any element is. Ties share the signal evenly."""

    has_identity: ClassVar[bool] = False

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,), (x,) = signals, inputs
        if signal is None:
            return (None,)
        one, zero = x.constant(1.0), x.constant(0.0)
        winners: Tensor = apply(Where(), apply(Equal(), x, outputs[0]), one, zero)
        return (winners * (signal / apply(Sum(self.axes), winners)),)


@dataclass(frozen=True)
class Max(Extremum):
    """Largest element over axes."""

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        with np.errstate(invalid="ignore"):
            return (np.max(inputs[0], axis=self.axes, keepdims=True),)


@dataclass(frozen=True)
class Min(Extremum):
    """Smallest element over axes."""

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        with np.errstate(invalid="ignore"):
            return (np.min(inputs[0], axis=self.axes, keepdims=True),)
