"""Primitives that compute each element from the elements at the same place, with NumPy
broadcasting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import DTypeError, ShapeError
from ..types import Array, DType, TensorType, broadcast_shapes
from .base import Op, apply

if TYPE_CHECKING:
    from ..tensor import Tensor

_ANY = frozenset(DType)
_NUMBERS = frozenset(d for d in DType if d is not DType.BOOL)
_SIGNED = frozenset({DType.FLOAT32, DType.FLOAT64, DType.INT32, DType.INT64})
_FLOATS = frozenset({DType.FLOAT32, DType.FLOAT64})
_INTEGERS = frozenset({DType.INT32, DType.INT64, DType.UINT8})
_BITS = _INTEGERS | {DType.BOOL}

Gradients = Sequence["Tensor | None"]
Tensors = tuple["Tensor", ...]
Signals = tuple["Tensor | None", ...]


def require_float(op: Op, *inputs: Tensor) -> None:
    """
    Raises:
        DTypeError: when an input of `op` is not of floats.
    """
    for x in inputs:
        if not x.dtype.is_float:
            raise DTypeError(f"{op.name} takes floats, got {x.type}; cast first")


@dataclass(frozen=True)
class Pointwise(Op, abstract=True):
    """Base of the pointwise primitives: inputs of one dtype, broadcast against each other."""

    dtypes: ClassVar[frozenset[DType]] = _ANY

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        dtype = self._common_dtype(inputs)
        return (TensorType(broadcast_shapes(*(t.shape for t in inputs)), self.result_dtype(dtype)),)

    def result_dtype(self, dtype: DType) -> DType:
        """Dtype of the output for inputs of `dtype`."""
        return dtype

    def _common_dtype(self, inputs: Sequence[TensorType]) -> DType:
        dtypes = {t.dtype for t in inputs}
        if len(dtypes) != 1:
            listed = ", ".join(str(t) for t in inputs)
            raise DTypeError(f"{self.name} takes one dtype, got {listed}; cast one side")
        (dtype,) = dtypes
        if dtype not in self.dtypes:
            wanted = ", ".join(sorted(d.value for d in self.dtypes))
            raise DTypeError(f"{self.name} takes {wanted}, got {dtype}")
        return dtype

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        with np.errstate(all="ignore"):
            result = np.asarray(self.compute(*inputs))
        dtype = self.result_dtype(DType.of(inputs[-1].dtype))
        return (result.astype(dtype.numpy, copy=False),)

    def compute(self, *inputs: Array) -> Array:
        """The NumPy meaning; the result is cast to the output's dtype."""
        raise NotImplementedError


# -- unary ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unary(Pointwise, abstract=True):
    """One input; `gradient` is the signal times `derivative`."""

    dtypes: ClassVar[frozenset[DType]] = _FLOATS

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        """dy/dx at each element, from the input and the output."""
        raise NotImplementedError

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,) = signals
        return (signal * self.derivative(inputs[0], outputs[0]) if signal is not None else None,)


@dataclass(frozen=True)
class Negate(Unary):
    """-x"""

    dtypes: ClassVar[frozenset[DType]] = _SIGNED

    def compute(self, *inputs: Array) -> Array:
        return np.asarray(-inputs[0])

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        return (-signals[0] if signals[0] is not None else None,)


@dataclass(frozen=True)
class Abs(Unary):
    """|x|; its derivative at 0 is 0."""

    dtypes: ClassVar[frozenset[DType]] = _SIGNED

    def compute(self, *inputs: Array) -> Array:
        return np.abs(inputs[0])

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return apply(Sign(), x)


@dataclass(frozen=True)
class Sign(Unary):
    """-1, 0 or 1."""

    dtypes: ClassVar[frozenset[DType]] = _SIGNED
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

    dtypes: ClassVar[frozenset[DType]] = _SIGNED

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

    dtypes: ClassVar[frozenset[DType]] = _BITS
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


# -- binary ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Binary(Pointwise, abstract=True):
    """Two inputs of one dtype; `partials` are the signals before broadcasting is undone."""

    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    dtypes: ClassVar[frozenset[DType]] = _NUMBERS

    def partials(self, a: Tensor, b: Tensor, y: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Give d loss / d a and d loss / d b, in the output's shape."""
        raise NotImplementedError

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

    dtypes: ClassVar[frozenset[DType]] = _FLOATS

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

    dtypes: ClassVar[frozenset[DType]] = _FLOATS

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

    dtypes: ClassVar[frozenset[DType]] = _ANY
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

    dtypes: ClassVar[frozenset[DType]] = _BITS
    differentiable: ClassVar[bool] = False

    def compute(self, *inputs: Array) -> Array:
        return np.bitwise_and(inputs[0], inputs[1])


@dataclass(frozen=True)
class Or(Binary):
    """Logical or of booleans, bits of integers."""

    dtypes: ClassVar[frozenset[DType]] = _BITS
    differentiable: ClassVar[bool] = False

    def compute(self, *inputs: Array) -> Array:
        return np.bitwise_or(inputs[0], inputs[1])


@dataclass(frozen=True)
class Xor(Binary):
    """Exclusive or of booleans, bits of integers."""

    dtypes: ClassVar[frozenset[DType]] = _BITS
    differentiable: ClassVar[bool] = False

    def compute(self, *inputs: Array) -> Array:
        return np.bitwise_xor(inputs[0], inputs[1])


@dataclass(frozen=True)
class Where(Pointwise):
    """a where the condition (bool) holds, else b."""

    arity: ClassVar[tuple[int, int | None]] = (3, 3)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        condition, a, b = inputs
        if condition.dtype is not DType.BOOL:
            raise DTypeError(f"the condition of Where is bool, got {condition.dtype}")
        dtype = self._common_dtype((a, b))
        return (TensorType(broadcast_shapes(*(t.shape for t in inputs)), dtype),)

    def compute(self, *inputs: Array) -> Array:
        return np.where(*inputs)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,) = signals
        if signal is None:
            return (None, None, None)
        condition, a, b = inputs
        zero = signal.constant(0.0)
        to_a = apply(Where(), condition, signal, zero).sum_to(a.shape)
        to_b = apply(Where(), condition, zero, signal).sum_to(b.shape)
        return (None, to_a, to_b)


@dataclass(frozen=True)
class Iota(Op):
    """Each element's own index along `axis` (ONNX: Range, broadcast)."""

    type: TensorType
    axis: int
    arity: ClassVar[tuple[int, int | None]] = (0, 0)
    differentiable: ClassVar[bool] = False

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        if not 0 <= self.axis < self.type.rank:
            raise ShapeError(f"Iota has no axis {self.axis} in {self.type}")
        if self.type.dtype not in _SIGNED:
            raise DTypeError(f"Iota gives signed numbers, not {self.type}")
        return (self.type,)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        shape = [1] * self.type.rank
        shape[self.axis] = -1
        line = np.arange(self.type.shape[self.axis], dtype=self.type.dtype.numpy).reshape(shape)
        return (np.broadcast_to(line, self.type.shape).copy(),)
