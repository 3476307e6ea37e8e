"""Reductions over axes, and running ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ....compiler.ops.base import apply
from ....compiler.ops.cumulative import CumProd, CumSum
from ....compiler.ops.indexing import ArgMax, ArgMin
from ....compiler.ops.topk import TopK
from ....compiler.tensor import Tensor
from ....compiler.types import DType, normalize_axes, normalize_axis
from ...nn.functional import shape
from ..table import dtype_of, operator, refuse_unless

Axes = int | Sequence[int] | None


def _axes(dim: Axes) -> Any:
    """None and no axes mean all of them."""
    return (tuple(dim) or None) if isinstance(dim, Sequence) else dim


def _summable(x: Tensor, dtype: Any) -> Tensor:
    if dtype is not None:
        return x.cast(dtype_of(dtype))
    return x if x.dtype.is_float else x.cast(DType.INT64)


@operator("sum.default", "sum.dim_IntList")
def _sum(x: Tensor, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    return _summable(x, dtype).sum(_axes(dim), keepdim)


@operator("mean.default", "mean.dim")
def _mean(x: Tensor, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    return _summable(x, dtype).mean(_axes(dim), keepdim)


@operator("prod.default", "prod.dim_int")
def _product(x: Tensor, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    return _summable(x, dtype).prod(_axes(dim), keepdim)


@operator("amax.default", "max.default")
def _amax(x: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    return x.max(_axes(dim), keepdim)


@operator("amin.default", "min.default")
def _amin(x: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    return x.min(_axes(dim), keepdim)


@operator("max.dim")
def _max_along(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return x.max(dim, keepdim), shape.argmax(x, dim, keepdim)


@operator("min.dim")
def _min_along(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return x.min(dim, keepdim), _argmin(x, dim, keepdim)


@operator("argmax.default")
def _argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    return _argument(ArgMax, x, dim, keepdim)


@operator("argmin.default")
def _argmin(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    return _argument(ArgMin, x, dim, keepdim)


def _argument(kind: type[ArgMax] | type[ArgMin], x: Tensor, dim: int | None, keep: bool) -> Tensor:
    if dim is not None:
        return apply(kind(normalize_axis(dim, x.rank), keep), x)
    flat = apply(kind(0, False), x.reshape(-1))
    return flat.reshape((1,) * x.rank) if keep else flat


@operator("any.default", "any.dim", "any.dims")
def _any(x: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    return x.not_equal(0).cast(DType.INT32).max(_axes(dim), keepdim).not_equal(0)


@operator("all.default", "all.dim", "all.dims")
def _all(x: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    return x.not_equal(0).cast(DType.INT32).min(_axes(dim), keepdim).not_equal(0)


@operator("var.correction")
def _variance(
    x: Tensor, dim: Axes = None, *, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    axes = normalize_axes(_axes(dim), x.rank)
    count = math.prod(x.shape[d] for d in axes) - (1 if correction is None else correction)
    centred = x - x.mean(axes, keepdims=True)
    return (centred * centred).sum(axes, keepdim) * (1 / count if count > 0 else math.nan)


@operator("std.correction")
def _deviation(x: Tensor, dim: Axes = None, **options: Any) -> Tensor:
    return _variance(x, dim, **options).sqrt()


@operator("var_mean.correction")
def _moments(
    x: Tensor, dim: Axes = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    variance = _variance(x, dim, correction=correction, keepdim=keepdim)
    return variance, x.mean(_axes(dim), keepdim)


@operator("linalg_vector_norm.default")
def _norm(
    x: Tensor, ord: float = 2, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    axes = _axes(dim)
    if ord == math.inf:
        return x.abs().max(axes, keepdim)
    refuse_unless(ord in (1, 2), f"the vector norm of order {ord}")
    return x.abs().sum(axes, keepdim) if ord == 1 else (x * x).sum(axes, keepdim).sqrt()


@operator("logsumexp.default")
def _log_sum_exp(x: Tensor, dim: Axes, keepdim: bool = False) -> Tensor:
    axes = _axes(dim)
    top = x.max(axes, keepdims=True).detach()
    total = (x - top).exp().sum(axes, keepdims=True).log() + top
    return total if keepdim else total._drop(normalize_axes(axes, x.rank))


@operator("cumsum.default")
def _running_sum(x: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    return apply(CumSum(normalize_axis(dim, x.rank), False, False), _summable(x, dtype))


@operator("cumprod.default")
def _running_product(x: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    return apply(CumProd(normalize_axis(dim, x.rank), False, False), _summable(x, dtype))


@operator("topk.default")
def _top_k(
    x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Tensor, ...]:
    return x.graph.apply(TopK(k, normalize_axis(dim, x.rank), largest), x)
