"""Tensors that are made of nothing but a shape and a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....compiler.tensor import Tensor
from ....compiler.types import DType
from ..table import dtype_of, graph, operator


def _filled(shape: Sequence[int], value: float, dtype: DType) -> Tensor:
    return graph().constant(value, dtype).broadcast_to(tuple(int(n) for n in shape))


@operator("zeros.default")
def _zeros(size: Sequence[int], *, dtype: Any = None, **options: Any) -> Tensor:
    return _filled(size, 0, DType.FLOAT32 if dtype is None else dtype_of(dtype))


@operator("ones.default")
def _ones(size: Sequence[int], *, dtype: Any = None, **options: Any) -> Tensor:
    return _filled(size, 1, DType.FLOAT32 if dtype is None else dtype_of(dtype))


@operator("full.default")
def _full(size: Sequence[int], value: float, *, dtype: Any = None, **options: Any) -> Tensor:
    if dtype is not None:
        return _filled(size, value, dtype_of(dtype))
    whole = DType.BOOL if isinstance(value, bool) else DType.INT64
    return _filled(size, value, DType.FLOAT32 if isinstance(value, float) else whole)


@operator("new_zeros.default")
def _new_zeros(x: Tensor, size: Sequence[int], *, dtype: Any = None, **options: Any) -> Tensor:
    return _filled(size, 0, x.dtype if dtype is None else dtype_of(dtype))


@operator("new_ones.default")
def _new_ones(x: Tensor, size: Sequence[int], *, dtype: Any = None, **options: Any) -> Tensor:
    return _filled(size, 1, x.dtype if dtype is None else dtype_of(dtype))


@operator("new_full.default")
def _new_full(
    x: Tensor, size: Sequence[int], value: float, *, dtype: Any = None, **options: Any
) -> Tensor:
    return _filled(size, value, x.dtype if dtype is None else dtype_of(dtype))


@operator("zeros_like.default")
def _zeros_like(x: Tensor, *, dtype: Any = None, **options: Any) -> Tensor:
    return _new_zeros(x, x.shape, dtype=dtype)


@operator("ones_like.default")
def _ones_like(x: Tensor, *, dtype: Any = None, **options: Any) -> Tensor:
    return _new_ones(x, x.shape, dtype=dtype)


@operator("full_like.default")
def _full_like(x: Tensor, value: float, *, dtype: Any = None, **options: Any) -> Tensor:
    return _new_full(x, x.shape, value, dtype=dtype)


@operator("scalar_tensor.default")
def _scalar(value: float, *, dtype: Any = None, **options: Any) -> Tensor:
    return _full((), value, dtype=dtype)


@operator("arange.default", "arange.start", "arange.start_step")
def _range(*bounds: float, dtype: Any = None, **options: Any) -> Tensor:
    kind = np.int64 if all(isinstance(b, int) for b in bounds) else np.float32
    wanted = kind if dtype is None else dtype_of(dtype).numpy
    return graph().constant(np.arange(*bounds).astype(wanted))


@operator("linspace.default")
def _spaced(start: float, end: float, steps: int, *, dtype: Any = None, **options: Any) -> Tensor:
    wanted = np.float32 if dtype is None else dtype_of(dtype).numpy
    return graph().constant(np.linspace(start, end, steps).astype(wanted))
