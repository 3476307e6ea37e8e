"""Tensors that are made of nothing but a shape and a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ....compiler.tensor import Tensor
from ....compiler.types import DType
from ...nn.functional import combine, create
from ..table import dtype_of, graph, operator


def _wanted(dtype: Any, otherwise: DType | None) -> DType | None:
    """The dtype that PyTorch gives, if it gives one."""
    return otherwise if dtype is None else dtype_of(dtype)


def _enter(function: Callable[..., Any], default: DType | None, *names: str) -> None:
    """Enters a function of ours, whose results have the default dtype where none is given."""

    @operator(*names)
    def make(*arguments: Any, dtype: Any = None, **options: Any) -> Tensor:
        made: Tensor = function(*arguments, dtype=_wanted(dtype, default))
        return made


def _enter_new(function: Callable[..., Any], name: str) -> None:
    """Enters a function of ours, whose results have another tensor's dtype where none is given."""

    @operator(name)
    def make(x: Tensor, *arguments: Any, dtype: Any = None, **options: Any) -> Tensor:
        made: Tensor = function(*arguments, dtype=_wanted(dtype, x.dtype))
        return made


@operator("full.default")
def _full(size: Sequence[int], value: float, *, dtype: Any = None, **options: Any) -> Tensor:
    whole = DType.BOOL if isinstance(value, bool) else DType.INT64
    own = DType.FLOAT32 if isinstance(value, float) else whole
    made: Tensor = create.full(tuple(size), value, _wanted(dtype, own) or own)
    return made


@operator("fill.Scalar", "fill.Tensor", "copy.default")
def _with(x: Tensor, values: Tensor | float, non_blocking: bool = False) -> Tensor:
    given = values.cast(x.dtype) if isinstance(values, Tensor) else x.constant(values)
    return given.broadcast_to(x.shape)


@operator("scalar_tensor.default")
def _scalar(value: float, *, dtype: Any = None, **options: Any) -> Tensor:
    return _full((), value, dtype=dtype)


# What is in empty ones is overwritten, or never told.
_enter(create.zeros, DType.FLOAT32, "zeros.default", "empty.memory_format")
_enter(create.ones, DType.FLOAT32, "ones.default")
_enter(create.linspace, DType.FLOAT32, "linspace.default")
_enter(create.arange, None, "arange.default", "arange.start", "arange.start_step")
_enter(create.full_like, None, "full_like.default")
_enter(create.zeros_like, None, "zeros_like.default", "empty_like.default")
_enter(create.ones_like, None, "ones_like.default")
_enter_new(create.full, "new_full.default")
_enter_new(create.zeros, "new_zeros.default")
_enter_new(create.ones, "new_ones.default")


@operator("tril_indices.default")
def _lower(row: int, col: int, offset: int = 0, **options: Any) -> Tensor:
    return graph().constant(combine.tril_indices(row, col, offset))


@operator("triu_indices.default")
def _upper(row: int, col: int, offset: int = 0, **options: Any) -> Tensor:
    return graph().constant(combine.triu_indices(row, col, offset))
