"""Activation functions: PyTorch's formulas, also at kinks, infinities and NaN."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from ..errors import ShapeError
from .base import apply
from .composite import Composite
from .pointwise import (
    Erf,
    Exp,
    Expm1,
    Gradients,
    Log1p,
    Sigmoid,
    Signals,
    Tensors,
    require_float,
)

if TYPE_CHECKING:
    from ..tensor import Tensor


@dataclass(frozen=True)
class Activation(Composite, abstract=True):
    """Base: each element of y is `formula` of the same element of x."""

    def formula(self, x: Tensor) -> Tensor:
        """Y from x."""
        raise NotImplementedError(f"{self.name} has no formula")

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        require_float(self, x)
        return (self.formula(x),)


@dataclass(frozen=True)
class Sloped(Activation, abstract=True):
    """Base: an activation whose own derivative is shorter or safer than its formula's."""

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        """dy/dx at each element, from the input and the output."""
        raise NotImplementedError(f"{self.name} has no derivative")

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,) = signals
        return (signal * self.derivative(inputs[0], outputs[0]) if signal is not None else None,)


# -- piecewise linear -----------------------------------------------------------------------------


@dataclass(frozen=True)
class LeakyRelu(Sloped):
    """x where x > 0, else slope * x (ONNX: LeakyRelu)."""

    slope: float = 0.01

    def formula(self, x: Tensor) -> Tensor:
        return (x > 0.0).where(x, x * self.slope)

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return (x > 0.0).where(x.constant(1.0), x.constant(self.slope))


@dataclass(frozen=True)
class PRelu(Composite):
    """x where x > 0, else weight * x; x is (N, C, *), weight (C,), (1,) or a scalar.

    He et al., Delving deep into rectifiers, 2015 (ONNX: PRelu).
    """

    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, weight = inputs
        require_float(self, x, weight)
        return ((x > 0.0).where(x, self._aligned(x, weight) * x),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,), (x, weight) = signals, inputs
        if signal is None:
            return (None, None)
        slope = self._aligned(x, weight)
        to_slope = (x > 0.0).where(0.0, signal * x).sum_to(slope.shape)
        return (x > 0.0).where(signal, slope * signal), to_slope.reshape(weight.shape)

    def _aligned(self, x: Tensor, weight: Tensor) -> Tensor:
        """The weight in the rank of x, its channels on axis 1."""
        if weight.type.size == 1:
            return weight.reshape((1,) * x.rank)
        if x.rank < 2 or weight.shape != (x.shape[1],):
            raise ShapeError(
                f"the weight of PRelu is one number or one a channel of {x.type}, got {weight.type}"
            )
        return weight.reshape((1, *weight.shape) + (1,) * (x.rank - 2))


@dataclass(frozen=True)
class Bounded(Activation, abstract=True):
    """Base: x held between two bounds; the lower one gives way where they cross.

    Arguments:
        low: lower bound, None for none.
        high: upper bound, None for none.
    """

    low: float | None = None
    high: float | None = None

    def formula(self, x: Tensor) -> Tensor:
        if self.low is not None:
            x = x.maximum(self.low)
        return x if self.high is None else x.minimum(self.high)

    def inside(self, x: Tensor) -> list[Tensor]:
        """Conditions that all hold where x is let through."""
        raise NotImplementedError(f"{self.name} has no inside")

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,) = signals
        if signal is not None:
            for condition in self.inside(inputs[0]):
                signal = condition.where(signal, 0.0)
        return (signal,)


@dataclass(frozen=True)
class Clip(Bounded):
    """x held between two bounds; the derivative on a bound is 1 (torch.clamp, ONNX: Clip)."""

    def inside(self, x: Tensor) -> list[Tensor]:
        above = [] if self.low is None else [x >= self.low]
        return above + ([] if self.high is None else [x <= self.high])


@dataclass(frozen=True)
class HardTanh(Bounded):
    """x held between two bounds; the derivative on a bound is 0 (ReLU6 is HardTanh(0, 6))."""

    low: float | None = -1.0
    high: float | None = 1.0

    def inside(self, x: Tensor) -> list[Tensor]:
        above = [] if self.low is None else [x > self.low]
        return above + ([] if self.high is None else [x < self.high])


@dataclass(frozen=True)
class HardSigmoid(Activation):
    """relu6(x + 3) / 6"""

    def formula(self, x: Tensor) -> Tensor:
        return apply(HardTanh(0.0, 6.0), x + 3.0) / 6.0


@dataclass(frozen=True)
class HardSwish(Activation):
    """x * relu6(x + 3) / 6 (Howard et al., Searching for MobileNetV3, 2019)."""

    def formula(self, x: Tensor) -> Tensor:
        return x * apply(HardTanh(0.0, 6.0), x + 3.0) / 6.0


# -- smooth ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Elu(Sloped):
    """x where x > 0, else alpha * (e**x - 1) (Clevert et al., 2015; ONNX: Elu)."""

    alpha: float = 1.0

    def formula(self, x: Tensor) -> Tensor:
        return (x > 0.0).where(x, self.alpha * apply(Expm1(), self._negative_part(x)))

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return (x > 0.0).where(1.0, self.alpha * apply(Exp(), self._negative_part(x)))

    def _negative_part(self, x: Tensor) -> Tensor:
        """Where the exponential is not wanted it must not overflow: 0 * inf spoils derivatives."""
        return (x > 0.0).where(0.0, x)


@dataclass(frozen=True)
class Selu(Activation):
    """Elu scaled so that activations normalise themselves (Klambauer et al., 2017; ONNX: Selu)."""

    def formula(self, x: Tensor) -> Tensor:
        return 1.0507009873554805 * apply(Elu(1.6732632423543772), x)


@dataclass(frozen=True)
class Softplus(Sloped):
    """log(1 + e**(beta * x)) / beta, and x itself where beta * x > threshold."""

    beta: float = 1.0
    threshold: float = 20.0

    def formula(self, x: Tensor) -> Tensor:
        z = x * self.beta
        soft = (z.maximum(0.0) + apply(Log1p(), (-z.abs()).exp())) / self.beta
        return soft if math.isinf(self.threshold) else (z > self.threshold).where(x, soft)

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        z = x * self.beta
        soft = z.sigmoid()
        return soft if math.isinf(self.threshold) else (z > self.threshold).where(1.0, soft)


class GeluForm(Enum):
    """How the normal distribution in Gelu is computed."""

    NONE = "none"
    TANH = "tanh"


@dataclass(frozen=True)
class Gelu(Sloped):
    """x * P(Z <= x) of a standard normal Z (Hendrycks and Gimpel, 2016; ONNX: Gelu).

    Arguments:
        approximate: by erf, or by tanh(sqrt(2 / pi) * (x + 0.044715 x**3)).
    """

    approximate: GeluForm = GeluForm.NONE

    def formula(self, x: Tensor) -> Tensor:
        return x * self._probability(x)

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        if self.approximate is GeluForm.TANH:
            t = self._tanh(x)
            inner = math.sqrt(2.0 / math.pi) * (1.0 + 3.0 * 0.044715 * (x * x))
            density = 0.5 * (1.0 - t * t) * inner
        else:
            density = (x * x * -0.5).exp() * (1.0 / math.sqrt(2.0 * math.pi))
        return self._probability(x) + x * density

    def _probability(self, x: Tensor) -> Tensor:
        if self.approximate is GeluForm.TANH:
            return 0.5 * (1.0 + self._tanh(x))
        return 0.5 * (1.0 + apply(Erf(), x * math.sqrt(0.5)))

    def _tanh(self, x: Tensor) -> Tensor:
        return (math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x))).tanh()


@dataclass(frozen=True)
class Silu(Activation):
    """x * sigmoid(x), also called swish."""

    def formula(self, x: Tensor) -> Tensor:
        return x * x.sigmoid()


@dataclass(frozen=True)
class Mish(Activation):
    """x * tanh(softplus(x)) (Misra, 2019; ONNX: Mish)."""

    def formula(self, x: Tensor) -> Tensor:
        return x * apply(Softplus(), x).tanh()


@dataclass(frozen=True)
class Softsign(Sloped):
    """x / (1 + |x|)"""

    def formula(self, x: Tensor) -> Tensor:
        return x / (x.abs() + 1.0)

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        d = x.abs() + 1.0
        return 1.0 / (d * d)


@dataclass(frozen=True)
class LogSigmoid(Sloped):
    """log(sigmoid(x)), finite where sigmoid(x) would round to 0."""

    def formula(self, x: Tensor) -> Tensor:
        return x.minimum(0.0) - apply(Log1p(), (-x.abs()).exp())

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        return apply(Sigmoid(), -x)


# -- over an axis ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class AlongAxis(Composite, abstract=True):
    """Base of the normalised exponentials.

    Arguments:
        axis: the axis they sum over, counted from the front.
    """

    axis: int

    def formula(self, shifted: Tensor) -> Tensor:
        """Y from x minus its maximum, which keeps the exponentials below 1."""
        raise NotImplementedError(f"{self.name} has no formula")

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        require_float(self, x)
        if not 0 <= self.axis < x.rank:
            raise ShapeError(f"{self.name} has no axis {self.axis} in {x.type}")
        if x.shape[self.axis] == 0:
            return (x,)
        return (self.formula(x - x.amax(self.axis, keepdim=True)),)


@dataclass(frozen=True)
class Softmax(AlongAxis):
    """exp(x) / sum(exp(x)) along an axis (ONNX: Softmax)."""

    def formula(self, shifted: Tensor) -> Tensor:
        e = shifted.exp()
        return e * (1.0 / e.sum(self.axis, keepdims=True))

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,), (y,) = signals, outputs
        if signal is None:
            return (None,)
        return (y * (signal - (signal * y).sum(self.axis, keepdims=True)),)


@dataclass(frozen=True)
class LogSoftmax(AlongAxis):
    """log(softmax(x)) along an axis (ONNX: LogSoftmax)."""

    def formula(self, shifted: Tensor) -> Tensor:
        return shifted - shifted.exp().sum(self.axis, keepdims=True).log()

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,), (y,) = signals, outputs
        if signal is None:
            return (None,)
        return (signal - y.exp() * signal.sum(self.axis, keepdims=True),)
