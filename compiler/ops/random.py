"""Random numbers from a counter: a seed and a step number give the same ones in every run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import DTypeError, ShapeError
from ..types import Array, DType, TensorType
from .base import Op, apply
from .composite import Composite
from .pointwise import Cos, Gradients, Signals, Tensors, require_float

if TYPE_CHECKING:
    from ..tensor import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
_WORD = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox(counter: tuple[Array, ...], key: tuple[int, int]) -> tuple[Array, ...]:
    """Philox4x32-10.

    Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC'11, section 3.3.

    Arguments:
        counter: four arrays of 32-bit words, as uint64.
        key: two 32-bit words.

    Returns:
        Four arrays of 32-bit words, as uint64.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (
            (p1 >> _HALF) ^ c1 ^ np.uint64(k0),
            p1 & _WORD,
            (p0 >> _HALF) ^ c3 ^ np.uint64(k1),
            p0 & _WORD,
        )
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


@dataclass(frozen=True)
class Philox(Op):
    """Uniform floats in [0, 1), multiples of 2**-24, by Philox4x32-10.

    Inputs are seed and step, int64 of shape (). Element i (in row-major order) is the first of the
    four output words, without its low 8 bits, for the counter (i, i >> 32, step, stream) and the
    key (seed, seed >> 32), each cut to 32 bits. Both float types give the same numbers.

    Arguments:
        type: shape and float dtype of the result.
        stream: tells uses of the same seed and step apart.
    """

    type: TensorType
    stream: int = 0
    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    differentiable: ClassVar[bool] = False

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        _check_counters(self.name, inputs)
        if not self.type.dtype.is_float:
            raise DTypeError(f"Philox gives floats, not {self.type}")
        if not 0 <= self.stream < 2**32:
            raise ShapeError(f"the stream of Philox is a 32-bit number, got {self.stream}")
        return (self.type,)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        seed, step = (int(x) & 0xFFFFFFFFFFFFFFFF for x in inputs)
        index = np.arange(self.type.size, dtype=np.uint64)
        constant = np.zeros_like(index)
        counter = (
            index & _WORD,
            index >> _HALF,
            constant + np.uint64(step & 0xFFFFFFFF),
            constant + np.uint64(self.stream),
        )
        word = philox(counter, (seed & 0xFFFFFFFF, seed >> 32))[0]
        uniform = (word >> np.uint64(8)).astype(np.float64) * 2.0**-24
        return (uniform.reshape(self.type.shape).astype(self.type.dtype.numpy),)


def _check_counters(name: str, inputs: tuple[TensorType, ...]) -> None:
    for counter in inputs:
        if counter != TensorType((), DType.INT64):
            raise DTypeError(f"seed and step of {name} are int64[], got {counter}")


def uniform(like: TensorType, stream: int, seed: Tensor, step: Tensor) -> Tensor:
    """Uniform floats in [0, 1) of a type."""
    return apply(Philox(like, stream), seed, step)


@dataclass(frozen=True)
class RandomNormal(Composite):
    """Standard normal floats from two uniform ones each (Box and Muller, 1958).

    Inputs are seed and step, as of Philox.

    Arguments:
        type: shape and float dtype of the result.
        stream: below 2**31; the second uniform comes from `stream + 2**31`.
    """

    type: TensorType
    stream: int = 0
    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    differentiable: ClassVar[bool] = False

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if not 0 <= self.stream < 2**31:
            raise ShapeError(f"the stream of RandomNormal is a 31-bit number, got {self.stream}")
        radius = (-2.0 * (1.0 - uniform(self.type, self.stream, *inputs)).log()).sqrt()
        angle = (2.0 * math.pi) * uniform(self.type, self.stream + 2**31, *inputs)
        return (radius * apply(Cos(), angle),)


@dataclass(frozen=True)
class Dropout(Composite):
    """Each element is 0 with probability p, else divided by 1 - p (Srivastava et al., 2014).

    Inputs are x, seed and step. Nothing is kept for the gradient: it draws the same numbers again.

    Arguments:
        p: from 0 to 1, rounded up to a multiple of 2**-24.
        stream: tells the dropouts of a network apart.
        shared_axes: along these axes all elements share their fate; for whole channels of
            (N, C, H, W) they are (2, 3).
    """

    p: float = 0.5
    stream: int = 0
    shared_axes: tuple[int, ...] = ()
    arity: ClassVar[tuple[int, int | None]] = (3, 3)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, seed, step = inputs
        require_float(self, x)
        _check_counters(self.name, (seed.type, step.type))
        if not 0.0 <= self.p <= 1.0:
            raise ShapeError(f"the p of Dropout is a probability, got {self.p}")
        if any(not 0 <= axis < x.rank for axis in self.shared_axes):
            raise ShapeError(f"Dropout has no axes {self.shared_axes} in {x.type}")
        return (self._masked(x, seed, step),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,), (_, seed, step) = signals, inputs
        return (self._masked(signal, seed, step) if signal is not None else None, None, None)

    def _masked(self, x: Tensor, seed: Tensor, step: Tensor) -> Tensor:
        if self.p == 0.0:
            return x
        if self.p == 1.0:
            return x.constant(0.0).broadcast_to(x.shape)
        shape = tuple(1 if d in self.shared_axes else n for d, n in enumerate(x.shape))
        numbers = uniform(x.type.with_shape(shape), self.stream, seed, step)
        # Exact in both float types, so that they drop the same elements.
        threshold = math.ceil(self.p * 2.0**24) * 2.0**-24
        return (numbers >= threshold).where(x * (1.0 / (1.0 - self.p)), 0.0)
