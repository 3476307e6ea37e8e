"""Pooling."""

from __future__ import annotations

import math

import numpy as np

from ....compiler.errors import OnnxError
from ....compiler.ops import pool as pl
from ....compiler.ops.base import apply, apply_all
from ....compiler.ops.movement import Pad
from ....compiler.ops.window import Window
from ....compiler.tensor import Tensor
from ....compiler.types import DType
from ..call import Call, Result, operator
from .conv import automatic_padding


def _window(call: Call, x: Tensor) -> Window:
    """The windows, with the padding that lets a partly outside last one count in ceil_mode."""
    kernel = call.integers("kernel_shape")
    if len(kernel) != x.rank - 2:
        raise OnnxError(f"kernel_shape {kernel} does not fit {x.type}")
    stride = call.integers("strides", (1,) * len(kernel))
    dilation = call.integers("dilations", (1,) * len(kernel))
    padding = automatic_padding(call, x.shape[2:], kernel, stride, dilation)
    return Window(kernel, stride, padding, dilation)


def _widened(call: Call, x: Tensor, window: Window) -> Window:
    return window.rounded_up(x.shape[2:]) if call.flag("ceil_mode") else window


@operator("MaxPool")
def _max_pool(call: Call) -> Result:
    x = call.x()
    dtype = x.dtype
    if not dtype.is_float:
        x = x.cast(DType.FLOAT64)
    w = _widened(call, x, _window(call, x))
    y, position = apply_all(pl.MaxPool(w.kernel, w.stride, w.padding, w.dilation), x)
    if not call.wants(1):
        return y.cast(dtype)
    spatial = x.shape[2:]
    op = pl.MaxPoolIndices(spatial, w.kernel, w.stride, w.padding, w.dilation)
    inside = apply(op, position)
    if call.integer("storage_order", 0):
        inside = _column_major(inside, spatial)
    planes = np.arange(math.prod(x.shape[:2])).reshape(x.shape[:2] + (1,) * len(spatial))
    return y.cast(dtype), inside + call.constant(planes * math.prod(spatial), DType.INT64)


def _column_major(indices: Tensor, spatial: tuple[int, ...]) -> Tensor:
    """Row-major numbers of pixels as column-major ones."""
    result, step = None, math.prod(spatial)
    for extent in reversed(spatial):
        step //= extent
        place = indices % extent * step
        result = place if result is None else result + place
        indices = indices // extent
    assert result is not None
    return result


@operator("AveragePool")
def _average_pool(call: Call) -> Result:
    x = call.x()
    exact = _window(call, x)
    include = call.flag("count_include_pad")
    if set(exact.dilation) == {1}:
        op = pl.AvgPool(exact.kernel, exact.stride, exact.padding, call.flag("ceil_mode"), include)
        return call.apply(op, x)
    w = _widened(call, x, exact)
    total = apply(pl.SumPool(w.kernel, w.stride, w.padding, w.dilation), x)
    counts = np.ones(())
    for axis, (extent, (low, high)) in enumerate(zip(x.shape[2:], exact.padding, strict=True)):
        places = w.places(axis, extent)
        first, last = (-low, extent + high) if include else (0, extent)
        along = ((places >= first) & (places < last)).sum(axis=1)
        counts = np.multiply.outer(counts, along)
    return total * call.constant(1.0 / np.maximum(counts, 1), x.dtype)


@operator("LpPool")
def _lp_pool(call: Call) -> Result:
    x, p = call.x(), call.number("p", 2) if call.version < 2 else float(call.integer("p", 2))
    w = _widened(call, x, _window(call, x))
    powers = x * x if p == 2 else x.abs() ** p
    total = apply(pl.SumPool(w.kernel, w.stride, w.padding, w.dilation), powers)
    return total.sqrt() if p == 2 else total ** (1.0 / p)


@operator("GlobalAveragePool")
def _global_average(call: Call) -> Result:
    x = call.x()
    return x.mean(tuple(range(2, x.rank)), keepdims=True)


@operator("GlobalMaxPool")
def _global_max(call: Call) -> Result:
    x = call.x()
    return x.amax(tuple(range(2, x.rank)), keepdim=True)


@operator("GlobalLpPool")
def _global_lp(call: Call) -> Result:
    x, p = call.x(), float(call.integer("p", 2))
    return (x.abs() ** p).sum(tuple(range(2, x.rank)), keepdims=True) ** (1.0 / p)


@operator("MaxUnpool")
def _max_unpool(call: Call) -> Result:
    """The indices count through the whole value, those of the compiler through a plane."""
    x, indices = call.x(0), call.x(1)
    kernel = call.integers("kernel_shape")
    stride = call.integers("strides", (1,) * len(kernel))
    pads = call.integers("pads", (0,) * (2 * len(kernel)))
    spatial = tuple(
        (n - 1) * s - low - high + k
        for n, s, k, low, high in zip(
            x.shape[2:], stride, kernel, pads[: len(kernel)], pads[len(kernel) :], strict=True
        )
    )
    within = indices % math.prod(spatial)
    if not call.has(2):
        return call.apply(pl.MaxUnpool(spatial), x, within)
    # A larger output has further rows and columns behind what the windows cover.
    wanted = tuple(int(n) for n in call.known(2))
    y = call.apply(pl.MaxUnpool(spatial), x, within)
    padding = tuple((0, n - m) for n, m in zip(wanted, y.shape, strict=True))
    return call.apply(Pad(padding), y)
