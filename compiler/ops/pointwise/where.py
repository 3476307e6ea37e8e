"""The choice between two values, element by element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import DTypeError
from ...types import Array, DType, TensorType, broadcast_shapes
from ..base import apply
from .base import Gradients, Pointwise, Signals, Tensors


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
