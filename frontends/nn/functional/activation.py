"""Activation functions, element by element or along an axis. `inplace` is taken and means nothing:
the compiler decides what is written where.
"""

from __future__ import annotations

from ....compiler.ops import activation as ops
from ....compiler.ops import shrink
from ....compiler.ops.indexing import own_indices
from ....compiler.ops.pointwise import Relu, Sigmoid, Tanh
from ....compiler.tensor import Tensor, as_float
from ....compiler.types import DType, normalize_axis
from ..context import emit
from .create import uniform


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0)"""
    return emit(Relu(), input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """Elementwise x where x > 0, else negative_slope * x."""
    return emit(ops.LeakyRelu(float(negative_slope)), input)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """Elementwise x where x > 0, else weight * x, with one weight (1,) or one a channel (C,)."""
    return emit(ops.PRelu(), input, weight)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6)"""
    return hardtanh(input, 0.0, 6.0)


def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """Elementwise x between two bounds."""
    return emit(ops.HardTanh(float(min_val), float(max_val)), input)


def clamp(input: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """Elementwise x between two bounds, of which one may be missing."""
    low, high = (None if bound is None else float(bound) for bound in (min, max))
    return emit(ops.Clip(low, high), input)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """Elementwise x where x > 0, else alpha * (exp(x) - 1)."""
    return emit(ops.Elu(float(alpha)), input)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """A scaled elu that normalises itself."""
    return emit(ops.Selu(), input)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """Elementwise x times the probability of a normal number below x; "tanh" approximates it."""
    return emit(ops.Gelu(ops.GeluForm(approximate)), input)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """Elementwise x * sigmoid(x)"""
    return emit(ops.Silu(), input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """Elementwise x * tanh(softplus(x))"""
    return emit(ops.Mish(), input)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x > threshold."""
    return emit(ops.Softplus(float(beta), float(threshold)), input)


def softsign(input: Tensor) -> Tensor:
    """Elementwise x / (1 + |x|)"""
    return emit(ops.Softsign(), input)


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x))"""
    return emit(Sigmoid(), as_float(input))


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x))"""
    return emit(ops.LogSigmoid(), input)


def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return emit(Tanh(), as_float(input))


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """relu6(x + 3) / 6"""
    return emit(ops.HardSigmoid(), input)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """Elementwise x * relu6(x + 3) / 6"""
    return emit(ops.HardSwish(), input)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """Elementwise x where x > threshold, else a value."""
    return emit(shrink.Threshold(float(threshold), float(value)), input)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """Elementwise x where |x| > lambd, else 0."""
    return emit(shrink.HardShrink(float(lambd)), input)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """Elementwise x moved by lambd towards 0, at which it stays."""
    return emit(shrink.SoftShrink(float(lambd)), input)


def tanhshrink(input: Tensor) -> Tensor:
    """Elementwise x - tanh(x)."""
    return emit(shrink.TanhShrink(), input)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """Elementwise x where x > 0, else alpha * (exp(x / alpha) - 1)."""
    return emit(shrink.Celu(float(alpha)), input)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half of an axis times the sigmoid of the second."""
    return emit(shrink.Glu(normalize_axis(dim, input.rank)), input)


def gumbel_softmax(logits: Tensor, tau: float = 1.0, hard: bool = False, dim: int = -1) -> Tensor:
    """Random choices that gradients flow through (Jang et al., 2017): softmax of the logits with
    Gumbel's noise, over tau.

    Arguments:
        hard: exactly one is 1, the others are 0; gradients are those of the soft choice.
    """
    exponential = -(1.0 - uniform(logits)).log()
    noise = -exponential.maximum(2.0**-25).log()
    soft = ((logits + noise) * (1.0 / tau)).softmax(dim)
    if not hard:
        return soft
    axis = normalize_axis(dim, logits.rank)
    numbers = own_indices(logits, axis, logits.shape[axis], DType.INT64)
    chosen = soft.argmax(axis, keepdim=True).equal(numbers).cast(soft.dtype)
    return chosen + (soft - soft.detach())


def softmax(input: Tensor, dim: int | None = None) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`; by default 0 for ranks 0, 1 and 3, else 1."""
    return emit(ops.Softmax(_axis(input, dim)), input)


def log_softmax(input: Tensor, dim: int | None = None) -> Tensor:
    """log(softmax(x)) along `dim`; by default 0 for ranks 0, 1 and 3, else 1."""
    return emit(ops.LogSoftmax(_axis(input, dim)), input)


def softmin(input: Tensor, dim: int | None = None) -> Tensor:
    """softmax(-x)"""
    return softmax(-input, dim)


def _axis(x: Tensor, dim: int | None) -> int:
    if dim is None:
        dim = 0 if x.rank in (0, 1, 3) else 1
    return normalize_axis(dim, x.rank)


__all__ = [
    "celu",
    "clamp",
    "elu",
    "gelu",
    "glu",
    "gumbel_softmax",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "log_softmax",
    "logsigmoid",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
]
