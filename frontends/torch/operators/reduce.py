"""Reductions over axes, and running ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....compiler.tensor import Tensor
from ....compiler.types import DType
from ..table import dtype_of, enter_methods, operator

Axes = int | Sequence[int] | None

enter_methods("default dim", "argmax argmin max min")
enter_methods("default", "aminmax cummax cummin dist kthvalue logcumsumexp topk")
enter_methods("default dim", "median")


@operator("_cdist_forward.default")
def _distances(a: Tensor, b: Tensor, p: float, compute_mode: int | None = None) -> Tensor:
    return a.cdist(b, p)


@operator("_pdist_forward.default")
def _distances_of_pairs(x: Tensor, p: float = 2) -> Tensor:
    return x.pdist(p)


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


@operator("amax.default")
def _amax(x: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    return x.amax(_axes(dim), keepdim)


@operator("amin.default")
def _amin(x: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    return x.amin(_axes(dim), keepdim)


@operator("any.default", "any.dim", "any.dims")
def _any(x: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    return x.any(_axes(dim), keepdim)


@operator("all.default", "all.dim", "all.dims")
def _all(x: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    return x.all(_axes(dim), keepdim)


@operator("var.correction")
def _variance(
    x: Tensor, dim: Axes = None, *, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    less = 1 if correction is None else correction
    return x.var(_axes(dim), correction=less, keepdim=keepdim)


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
    return x.norm(ord, _axes(dim), keepdim)


@operator("logsumexp.default")
def _log_sum_exp(x: Tensor, dim: Axes, keepdim: bool = False) -> Tensor:
    return x.logsumexp(_axes(dim), keepdim)


@operator("cumsum.default")
def _running_sum(x: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    return _summable(x, dtype).cumsum(dim)


@operator("cumprod.default")
def _running_product(x: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    return _summable(x, dtype).cumprod(dim)
