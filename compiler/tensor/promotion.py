"""Operands of several kinds as tensors of one dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypeGuard

import numpy as np

from ..errors import ShapeError
from ..types import Array, DType

if TYPE_CHECKING:
    from .handle import Tensor

Scalar: TypeAlias = bool | int | float

_PROMOTION = (
    DType.BOOL,
    DType.UINT8,
    DType.INT32,
    DType.INT64,
    DType.FLOAT32,
    DType.FLOAT64,
)


def is_tensor(x: object) -> TypeGuard[Tensor]:
    """Whether it is a handle on a value."""
    from .handle import Tensor

    return isinstance(x, Tensor)


def promote(*operands: Tensor | Scalar, like: Tensor | None = None) -> tuple[Tensor, ...]:
    """Operands as tensors of one dtype: the widest of the tensors', floats before integers.

    Arguments:
        operands: tensors and Python scalars; a float scalar makes integers float32. Tensors of rank
            0 count beside others only where they are of a wider kind, floats beside integers.
        like: gives the graph when all operands are scalars.
    """
    tensors = [x for x in operands if not isinstance(x, Scalar)]
    scalars = [x for x in operands if isinstance(x, Scalar)]
    anchor = tensors[0] if tensors else like
    if anchor is None:
        raise ShapeError("at least one operand must be a tensor")
    dtypes = [t.dtype for t in tensors]
    if any(isinstance(s, float) for s in scalars) and not any(d.is_float for d in dtypes):
        dtypes.append(DType.FLOAT32)
    elif not dtypes or (
        DType.BOOL in dtypes
        and len(set(dtypes)) == 1
        and any(not isinstance(s, bool) for s in scalars)
    ):
        dtypes.append(DType.INT64)
    dtype = max(dtypes, key=_PROMOTION.index)
    leading = [t.dtype for t in tensors if t.rank]
    if leading:
        widest = max(leading, key=_PROMOTION.index)
        dtype = widest if _kind(widest) is _kind(dtype) else dtype
    return tuple(
        anchor.graph.constant(x, dtype) if isinstance(x, Scalar) else x.cast(dtype)
        for x in operands
    )


def _kind(dtype: DType) -> type:
    return float if dtype.is_float else bool if dtype is DType.BOOL else int


def constant(array: Array, like: Tensor) -> Tensor:
    """An array as a constant; floats are of the tensor's precision, as Python's floats are."""
    dtype = DType.of(array.dtype)
    if dtype.is_float:
        dtype = like.dtype if like.dtype.is_float else DType.FLOAT32
    return like.graph.constant(array, dtype)


def as_tensor(x: Tensor | Array | Scalar | list[int], like: Tensor) -> Tensor:
    """An operand beside a tensor, as one of the same graph."""
    return x if is_tensor(x) else constant(np.asarray(x), like)


def as_float(x: Tensor) -> Tensor:
    """Integers and truths as float32, floats as they are."""
    return x if x.dtype.is_float else x.cast(DType.FLOAT32)
