"""What pointwise primitives share: one dtype, broadcasting, a NumPy meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...errors import DTypeError
from ...types import Array, DType, TensorType, broadcast_shapes
from ..base import Op

if TYPE_CHECKING:
    from ...tensor import Tensor

ANY = frozenset(DType)
NUMBERS = frozenset(d for d in DType if d is not DType.BOOL)
SIGNED = frozenset({DType.FLOAT32, DType.FLOAT64, DType.INT32, DType.INT64})
FLOATS = frozenset({DType.FLOAT32, DType.FLOAT64})
INTEGERS = frozenset({DType.INT32, DType.INT64, DType.UINT8})
BITS = INTEGERS | {DType.BOOL}

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

    dtypes: ClassVar[frozenset[DType]] = ANY

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
        raise NotImplementedError(f"{self.name} has no compute")
