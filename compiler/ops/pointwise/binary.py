"""Primitives of two inputs: arithmetic, comparisons, logic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...types import Array, DType
from ..base import apply
from .base import ANY, BITS, FLOATS, NUMBERS, Gradients, Pointwise, Signals, Tensors
from .unary import Log
from .where import Where

if TYPE_CHECKING:
    from ...tensor import Tensor


@dataclass(frozen=True)
class Binary(Pointwise, abstract=True):
    """Two inputs of one dtype; `partials` are the signals before broadcasting is undone."""

    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    dtypes: ClassVar[frozenset[DType]] = NUMBERS

    def partials(self, a: Tensor, b: Tensor, y: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Give d loss / d a and d loss / d b, in the output's shape."""
        raise NotImplementedError(f"{self.name} has no partials")

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,) = signals
        if signal is None:
            return (None, None)
        both = self.partials(inputs[0], inputs[1], outputs[0], signal)
        return tuple(p.sum_to(x.shape) for p, x in zip(both, inputs, strict=True))


@dataclass(frozen=True)
class Add(Binary):
    """a + b"""

    def compute(self, *inputs: Array) -> Array:
        return np.add(inputs[0], inputs[1])

    def partials(self, a: Tensor, b: Tensor, y: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        return signal, signal


@dataclass(frozen=True)
class Subtract(Binary):
    """a - b"""

    def compute(self, *inputs: Array) -> Array:
        return np.subtract(inputs[0], inputs[1])

    def partials(self, a: Tensor, b: Tensor, y: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        return signal, -signal


@dataclass(frozen=True)
class Multiply(Binary):
    """a * b"""

    def compute(self, *inputs: Array) -> Array:
        return np.multiply(inputs[0], inputs[1])

    def partials(self, a: Tensor, b: Tensor, y: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        return signal * b, signal * a


@dataclass(frozen=True)
class Divide(Binary):
    """a / b"""

    dtypes: ClassVar[frozenset[DType]] = FLOATS

    def compute(self, *inputs: Array) -> Array:
        return np.divide(inputs[0], inputs[1])

    def partials(self, a: Tensor, b: Tensor, y: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        return signal / b, -(signal * y) / b


@dataclass(frozen=True)
class FloorDivide(Binary):
    """Floor of a / b. Integers divided by 0 give 0, the least one by -1 gives itself."""

    differentiable: ClassVar[bool] = False

    def compute(self, *inputs: Array) -> Array:
        return np.floor_divide(inputs[0], inputs[1])


@dataclass(frozen=True)
class Remainder(Binary):
    """a - floor(a / b) * b, with the sign of b; integers divided by 0 give 0."""

    def compute(self, *inputs: Array) -> Array:
        return np.remainder(inputs[0], inputs[1])

    def partials(self, a: Tensor, b: Tensor, y: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        return signal, -signal * apply(FloorDivide(), a, b)


@dataclass(frozen=True)
class Power(Binary):
    """a ** b. The derivative with respect to b is 0 where a = 0 and b >= 0, and NaN where a < 0."""

    dtypes: ClassVar[frozenset[DType]] = FLOATS

    def compute(self, *inputs: Array) -> Array:
        return np.power(inputs[0], inputs[1])

    def partials(self, a: Tensor, b: Tensor, y: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        zero = a.constant(0.0)
        base = apply(Where(), b.equal(0.0), zero, b * apply(Power(), a, b - 1.0))
        exponent = apply(Where(), a.equal(0.0) & (b >= 0.0), zero, y * apply(Log(), a))
        return signal * base, signal * exponent


@dataclass(frozen=True)
class Maximum(Binary):
    """The larger one; NaN if either is. A tie gives half of the signal to each side."""

    def compute(self, *inputs: Array) -> Array:
        return np.maximum(inputs[0], inputs[1])

    def partials(self, a: Tensor, b: Tensor, y: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        return _shared_by_winner(a > b, a < b, signal)


@dataclass(frozen=True)
class Minimum(Binary):
    """The smaller one; NaN if either is. A tie gives half of the signal to each side."""

    def compute(self, *inputs: Array) -> Array:
        return np.minimum(inputs[0], inputs[1])

    def partials(self, a: Tensor, b: Tensor, y: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        return _shared_by_winner(a < b, a > b, signal)


def _shared_by_winner(first: Tensor, second: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
    zero = signal.constant(0.0)
    half = signal * 0.5
    to_first = apply(Where(), first, signal, apply(Where(), second, zero, half))
    to_second = apply(Where(), second, signal, apply(Where(), first, zero, half))
    return to_first, to_second


@dataclass(frozen=True)
class Compare(Binary, abstract=True):
    """Base of the comparisons; the result is bool, comparisons with NaN are false."""

    dtypes: ClassVar[frozenset[DType]] = ANY
    differentiable: ClassVar[bool] = False

    def result_dtype(self, dtype: DType) -> DType:
        return DType.BOOL


@dataclass(frozen=True)
class Equal(Compare):
    """a == b"""

    def compute(self, *inputs: Array) -> Array:
        return np.equal(inputs[0], inputs[1])


@dataclass(frozen=True)
class NotEqual(Compare):
    """a != b, true for NaN"""

    def compute(self, *inputs: Array) -> Array:
        return np.not_equal(inputs[0], inputs[1])


@dataclass(frozen=True)
class Less(Compare):
    """a < b"""

    def compute(self, *inputs: Array) -> Array:
        return np.less(inputs[0], inputs[1])


@dataclass(frozen=True)
class LessEqual(Compare):
    """a <= b"""

    def compute(self, *inputs: Array) -> Array:
        return np.less_equal(inputs[0], inputs[1])


@dataclass(frozen=True)
class Greater(Compare):
    """a > b"""

    def compute(self, *inputs: Array) -> Array:
        return np.greater(inputs[0], inputs[1])


@dataclass(frozen=True)
class GreaterEqual(Compare):
    """a >= b"""

    def compute(self, *inputs: Array) -> Array:
        return np.greater_equal(inputs[0], inputs[1])


@dataclass(frozen=True)
class And(Binary):
    """Logical and of booleans, bits of integers."""

    dtypes: ClassVar[frozenset[DType]] = BITS
    differentiable: ClassVar[bool] = False

    def compute(self, *inputs: Array) -> Array:
        return np.bitwise_and(inputs[0], inputs[1])


@dataclass(frozen=True)
class Or(Binary):
    """Logical or of booleans, bits of integers."""

    dtypes: ClassVar[frozenset[DType]] = BITS
    differentiable: ClassVar[bool] = False

    def compute(self, *inputs: Array) -> Array:
        return np.bitwise_or(inputs[0], inputs[1])


@dataclass(frozen=True)
class Xor(Binary):
    """Exclusive or of booleans, bits of integers."""

    dtypes: ClassVar[frozenset[DType]] = BITS
    differentiable: ClassVar[bool] = False

    def compute(self, *inputs: Array) -> Array:
        return np.bitwise_xor(inputs[0], inputs[1])
