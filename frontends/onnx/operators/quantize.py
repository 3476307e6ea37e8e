"""Numbers in 8 bits and back."""

from __future__ import annotations

import numpy as np

from ....compiler.errors import OnnxError
from ....compiler.ops.base import apply
from ....compiler.ops.linear import matmul
from ....compiler.ops.pointwise import Round
from ....compiler.tensor import Tensor
from ....compiler.types import DType, normalize_axis
from ..call import Call, Result, operator
from .conv import convolution


def _spread(parameter: Tensor, like: Tensor, axis: int, block: int) -> Tensor:
    """A scale or zero point in the rank of `like`: one of all, of an axis, or of its blocks."""
    if parameter.type.size == 1:
        return parameter.reshape((1,) * like.rank)
    if parameter.rank == 1:
        shape = tuple(n if d == axis else 1 for d, n in enumerate(like.shape))
        return parameter.reshape(shape)
    times = block or -(-like.shape[axis] // parameter.shape[axis])
    wide = parameter.unsqueeze(axis + 1)
    wide = wide.broadcast_to(wide.shape[: axis + 1] + (times,) + wide.shape[axis + 2 :])
    repeated = wide.flatten(axis, axis + 1)
    return repeated.slice_axis(axis, 0, like.shape[axis])


@operator("DequantizeLinear")
def _dequantize(call: Call) -> Result:
    scale = call.x(1)
    value = call.operand(0)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
        x = call.constant(value.astype(np.int64))
    else:
        x = call.x()
    axis = normalize_axis(call.integer("axis", 1), x.rank) if scale.type.size > 1 else 0
    block = call.integer("block_size", 0)
    y = x.cast(scale.dtype)
    if call.has(2):
        zero = call.operand(2)
        if isinstance(zero, np.ndarray):
            zero = call.constant(zero.astype(np.int64))
        y = y - _spread(call.importer.tensor(zero).cast(scale.dtype), x, axis, block)
    return y * _spread(scale, x, axis, block)


@operator("QuantizeLinear")
def _quantize(call: Call) -> Result:
    x, scale = call.x(0), call.x(1)
    zero = call.dtype(2) if call.has(2) else np.dtype(np.uint8)
    if zero != np.uint8 or call.integer("output_dtype", 0) not in (0, 2):
        raise OnnxError("it may only give uint8")
    x = x.cast(scale.dtype)
    axis = normalize_axis(call.integer("axis", 1), x.rank) if scale.type.size > 1 else 0
    block = call.integer("block_size", 0)
    y = apply(Round(), x / _spread(scale, x, axis, block))
    if call.has(2):
        y = y + _spread(call.x(2).cast(y.dtype), x, axis, block)
    return y.maximum(0.0).minimum(255.0).cast(DType.INT32).cast(DType.UINT8)


def _centred(call: Call, i: int, zero: int, axis: int) -> Tensor:
    """Input `i` less its zero point, as numbers whose products and sums are exact."""

    def exact(j: int) -> Tensor:
        value = call.operand(j)
        if isinstance(value, np.ndarray):
            return call.constant(value.astype(np.float64))
        return call.x(j).cast(DType.FLOAT64)

    x = exact(i)
    return x - _spread(exact(zero), x, normalize_axis(axis, x.rank), 0) if call.has(zero) else x


def _rounded(call: Call, y: Tensor, zero: int, like: int) -> Tensor:
    """Quotients as numbers of 8 bits around a zero point."""
    if call.dtype(zero if call.has(zero) else like) != np.uint8:
        raise OnnxError("it may only give uint8")
    y = apply(Round(), y)
    if call.has(zero):
        y = y + call.x(zero).reshape((1,) * y.rank).cast(y.dtype)
    return y.maximum(0.0).minimum(255.0).cast(DType.INT32).cast(DType.UINT8)


def _ratio(call: Call, like: Tensor, axis: int, *scales: int) -> Tensor:
    """The scales of both factors over the scale of the product."""
    first, second, product = (
        _spread(call.x(i).cast(DType.FLOAT64), like, normalize_axis(axis, like.rank), 0)
        for i in scales
    )
    return first * second / product


@operator("MatMulInteger")
def _matmul_integer(call: Call) -> Result:
    return matmul(_centred(call, 0, 2, -2), _centred(call, 1, 3, -1)).cast(DType.INT32)


@operator("QLinearMatMul")
def _qlinear_matmul(call: Call) -> Result:
    y = matmul(_centred(call, 0, 2, -2), _centred(call, 3, 5, -1))
    return _rounded(call, y * _ratio(call, y, -1, 1, 4, 6), 7, 0)


@operator("ConvInteger")
def _conv_integer(call: Call) -> Result:
    x, w = _centred(call, 0, 2, 1), _centred(call, 1, 3, 0)
    return call.apply(convolution(call, x, w), x, w).cast(DType.INT32)


@operator("QLinearConv")
def _qlinear_conv(call: Call) -> Result:
    x, w = _centred(call, 0, 2, 1), _centred(call, 3, 5, 0)
    bias = (call.x(8).cast(DType.FLOAT64),) if call.has(8) else ()
    y = call.apply(convolution(call, x, w), x, w, *bias)
    return _rounded(call, y * _ratio(call, y, 1, 1, 4, 6), 7, 0)
