"""Reductions over axes."""

from __future__ import annotations

import math

import numpy as np

from ....compiler.ops.base import apply
from ....compiler.ops.indexing import ArgMax, ArgMin
from ....compiler.ops.topk import TopK
from ....compiler.tensor import Tensor
from ....compiler.types import DType, normalize_axes, normalize_axis
from ..call import Call, Result, operator


@operator(
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd",
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare",
)  # fmt: skip
def _reduce(call: Call) -> Result:
    x = call.x()
    given = call.given("axes", 1)
    if not given and call.flag("noop_with_empty_axes"):
        # Over no axes: each element is reduced by itself.
        return _reduced(call.operator, x, ())
    axes = normalize_axes(given or None, x.rank)
    y = _reduced(call.operator, x, axes)
    return y if call.flag("keepdims", True) else y.reshape(_dropped(x.shape, axes))


def _dropped(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for d, n in enumerate(shape) if d not in axes)


def _reduced(name: str, x: Tensor, axes: tuple[int, ...]) -> Tensor:
    dtype = x.dtype
    if name in ("ReduceMax", "ReduceMin"):
        return _extremum(x, axes, name == "ReduceMax")
    if name == "ReduceSum":
        return x.sum(axes, keepdims=True, dtype=dtype)
    if name == "ReduceProd":
        return x.prod(axes, keepdims=True, dtype=dtype)
    if name == "ReduceL1":
        return x.abs().sum(axes, keepdims=True, dtype=dtype)
    if name == "ReduceSumSquare":
        return (x * x).sum(axes, keepdims=True, dtype=dtype)
    if name == "ReduceMean":
        return x.mean(axes, keepdims=True) if dtype.is_float else _integer_mean(x, axes)
    x = x if dtype.is_float else x.cast(DType.FLOAT64)
    if name == "ReduceL2":
        y = (x * x).sum(axes, keepdims=True).sqrt()
    elif name == "ReduceLogSum":
        y = x.sum(axes, keepdims=True).log()
    else:
        y = _log_sum_exp(x, axes)
    return y.cast(dtype)


def _integer_mean(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    count = math.prod(x.shape[d] for d in axes)
    return (x.cast(DType.FLOAT64).sum(axes, keepdims=True) / float(count)).cast(x.dtype)


def _log_sum_exp(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    if not all(x.shape[d] for d in axes):
        return x.exp().sum(axes, keepdims=True).log()
    top = x.amax(axes, keepdim=True)
    # An infinite maximum is the result; subtracted from itself it would be NaN.
    finite = (top.abs() < math.inf).where(top, 0.0)
    return (x - finite).exp().sum(axes, keepdims=True).log() + finite


def _extremum(x: Tensor, axes: tuple[int, ...], largest: bool) -> Tensor:
    dtype = x.dtype
    if not all(x.shape[d] for d in axes):  # over nothing: the identity
        shape = tuple(1 if d in axes else n for d, n in enumerate(x.shape))
        return x.graph.constant(_identity(dtype, largest), dtype).broadcast_to(shape)
    if dtype is DType.BOOL:
        x = x.cast(DType.INT32)
    y = x.amax(axes, keepdim=True) if largest else x.amin(axes, keepdim=True)
    return y.cast(dtype)


def _identity(dtype: DType, largest: bool) -> float | int | bool:
    """What changes no maximum, or no minimum."""
    if dtype is DType.BOOL:
        return not largest
    if dtype.is_float:
        return -math.inf if largest else math.inf
    limits = np.iinfo(dtype.numpy)
    return int(limits.min if largest else limits.max)


@operator("ArgMax", "ArgMin")
def _argument(call: Call) -> Result:
    x = call.x()
    axis, keep = normalize_axis(call.integer("axis", 0), x.rank), call.flag("keepdims", True)
    kind = ArgMax if call.operator == "ArgMax" else ArgMin
    if not call.flag("select_last_index"):
        return call.apply(kind(axis, keep), x)
    last = x.shape[axis] - 1
    return last - apply(kind(axis, keep), x.slice_axis(axis, last, last + 1, -1))


@operator("TopK")
def _top_k(call: Call) -> Result:
    x = call.x()
    (k,) = call.given("k", 1) or (0,)
    axis = normalize_axis(call.integer("axis", -1), x.rank)
    return x.graph.apply(TopK(k, axis, call.flag("largest", True)), x)
