"""Primitives of one input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...types import Array, DType, TensorType
from ..base import Op, apply
from .base import BITS, FLOATS, SIGNED, Gradients, Pointwise, Signals, Tensors
from .where import Where

if TYPE_CHECKING:
    from ...tensor import Tensor


@dataclass(frozen=True)
class Unary(Pointwise, abstract=True):
    """One input; `gradient` is the signal times `derivative`."""

    dtypes: ClassVar[frozenset[DType]] = FLOATS

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        """dy/dx at each element, from the input and the output."""
        raise NotImplementedError(f"{self.name} has no derivative")

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,) = signals
        return (signal * self.derivative(inputs[0], outputs[0]) if signal is not None else None,)


@dataclass(frozen=True)
class Negate(Unary):
    """-x"""

    dtypes: ClassVar[frozenset[DType]] = SIGNED

    def compute(self, *inputs: Array) -> Array:
        return np.asarray(-inputs[0])

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        return (-signals[0] if signals[0] is not None else None,)


@dataclass(frozen=True)
class Abs(Unary):
    """|x|; its derivative at 0 is 0."""

    dtypes: ClassVar[frozenset[DType]] = SIGNED

    def compute(self, *inputs: Array) -> Array:
        return np.abs(inputs[0])

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return apply(Sign(), x)


@dataclass(frozen=True)
class Sign(Unary):
    """-1, 0 or 1."""

    dtypes: ClassVar[frozenset[DType]] = SIGNED
    differentiable: ClassVar[bool] = False

    def compute(self, *inputs: Array) -> Array:
        return np.sign(inputs[0])


@dataclass(frozen=True)
class Exp(Unary):
    """e**x"""

    def compute(self, *inputs: Array) -> Array:
        return np.exp(inputs[0])

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return y


@dataclass(frozen=True)
class Expm1(Unary):
    """e**x - 1, accurate near 0."""

    def compute(self, *inputs: Array) -> Array:
        return np.expm1(inputs[0])

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return y + 1.0


@dataclass(frozen=True)
class Log(Unary):
    """Natural logarithm; NaN below 0, -inf at 0."""

    def compute(self, *inputs: Array) -> Array:
        return np.log(inputs[0])

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return 1.0 / x


@dataclass(frozen=True)
class Log1p(Unary):
    """log(1 + x), accurate near 0."""

    def compute(self, *inputs: Array) -> Array:
        return np.log1p(inputs[0])

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return 1.0 / (x + 1.0)


@dataclass(frozen=True)
class Sqrt(Unary):
    """Square root; NaN below 0."""

    def compute(self, *inputs: Array) -> Array:
        return np.sqrt(inputs[0])

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return 0.5 / y


@dataclass(frozen=True)
class Sin(Unary):
    """Sine of radians."""

    def compute(self, *inputs: Array) -> Array:
        return np.sin(inputs[0])

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return apply(Cos(), x)


@dataclass(frozen=True)
class Cos(Unary):
    """Cosine of radians."""

    def compute(self, *inputs: Array) -> Array:
        return np.cos(inputs[0])

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return -apply(Sin(), x)


@dataclass(frozen=True)
class Tanh(Unary):
    """Hyperbolic tangent."""

    def compute(self, *inputs: Array) -> Array:
        return np.tanh(inputs[0])

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return 1.0 - y * y


@dataclass(frozen=True)
class Sigmoid(Unary):
    """1 / (1 + e**-x)"""

    def compute(self, *inputs: Array) -> Array:
        x = inputs[0]
        tail = np.exp(-np.abs(x))
        return np.asarray(np.where(x >= 0, 1.0, tail) / (1.0 + tail))

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return y * (1.0 - y)


@dataclass(frozen=True)
class Erf(Unary):
    """Gauss error function, 2/sqrt(pi) times the integral of exp(-t*t) from 0 to x."""

    def compute(self, *inputs: Array) -> Array:
        return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(inputs[0]))

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return (2.0 / math.sqrt(math.pi)) * apply(Exp(), -(x * x))


@dataclass(frozen=True)
class Relu(Unary):
    """max(x, 0); NaN stays NaN, the derivative at 0 is 0."""

    dtypes: ClassVar[frozenset[DType]] = SIGNED

    def compute(self, *inputs: Array) -> Array:
        return np.maximum(inputs[0], np.zeros((), inputs[0].dtype))

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        if signals[0] is None:
            return (None,)
        return (apply(Where(), outputs[0] > 0.0, signals[0], signals[0].constant(0.0)),)


@dataclass(frozen=True)
class Floor(Unary):
    """Largest integer not above x."""

    differentiable: ClassVar[bool] = False

    def compute(self, *inputs: Array) -> Array:
        return np.floor(inputs[0])


@dataclass(frozen=True)
class Ceil(Unary):
    """Smallest integer not below x."""

    differentiable: ClassVar[bool] = False

    def compute(self, *inputs: Array) -> Array:
        return np.ceil(inputs[0])


@dataclass(frozen=True)
class Round(Unary):
    """Nearest integer, halves to even."""

    differentiable: ClassVar[bool] = False

    def compute(self, *inputs: Array) -> Array:
        return np.rint(inputs[0])


@dataclass(frozen=True)
class IsNaN(Unary):
    """Whether x is not a number."""

    differentiable: ClassVar[bool] = False

    def result_dtype(self, dtype: DType) -> DType:
        return DType.BOOL

    def compute(self, *inputs: Array) -> Array:
        return np.isnan(inputs[0])


@dataclass(frozen=True)
class Not(Unary):
    """Logical not of booleans, bits flipped of integers."""

    dtypes: ClassVar[frozenset[DType]] = BITS
    differentiable: ClassVar[bool] = False

    def compute(self, *inputs: Array) -> Array:
        return np.invert(inputs[0])


@dataclass(frozen=True)
class Cast(Op):
    """The same values in another dtype. Floats to integers round towards 0, to bool is `!= 0`.

    What NaN and numbers outside of an integer type become is not specified.
    """

    dtype: DType

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return (inputs[0].with_dtype(self.dtype),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        with np.errstate(all="ignore"):
            return (inputs[0].astype(self.dtype.numpy),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,) = signals
        if signal is None or not (inputs[0].dtype.is_float and self.dtype.is_float):
            return (None,)
        return (apply(Cast(inputs[0].dtype), signal),)
