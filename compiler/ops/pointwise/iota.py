"""Numbers of places: elements that are computed from nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import DTypeError, ShapeError
from ...types import Array, TensorType
from ..base import Op
from .base import SIGNED


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
        if self.type.dtype not in SIGNED:
            raise DTypeError(f"Iota gives signed numbers, not {self.type}")
        return (self.type,)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        shape = [1] * self.type.rank
        shape[self.axis] = -1
        line = np.arange(self.type.shape[self.axis], dtype=self.type.dtype.numpy).reshape(shape)
        return (np.broadcast_to(line, self.type.shape).copy(),)
