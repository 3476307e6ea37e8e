"""Values that come from attributes and shapes."""

from __future__ import annotations

import numpy as np

from ....compiler.errors import OnnxError
from ....compiler.ops.indexing import own_indices
from ....compiler.tensor import Tensor, choose
from ....compiler.types import DType, normalize_axis
from ..call import Call, Result, operator
from ..proto import element_type, numpy_dtype


@operator("Constant")
def _constant(call: Call) -> Result:
    attributes = call.attributes
    if "value" in attributes:
        return np.asarray(attributes["value"])
    for name, dtype in (("value_float", np.float32), ("value_int", np.int64)):
        for key in (name, f"{name}s"):
            if key in attributes:
                return np.asarray(attributes[key], dtype)
    raise OnnxError("a constant of this kind is not supported")


@operator("ConstantOfShape")
def _constant_of_shape(call: Call) -> Result:
    value = np.asarray(call.attributes.get("value", np.zeros(1, np.float32))).reshape(-1)[0]
    shape = [int(n) for n in call.known(0)]
    if min(shape, default=0) < 0:
        raise OnnxError(f"there is no shape {tuple(shape)}")
    return call.filled(shape, value, DType.of(value.dtype))


@operator("Shape")
def _shape(call: Call) -> Result:
    shape = np.array(call.shape(), np.int64)
    end = call.attributes.get("end")
    return shape[call.integer("start", 0) : end]


@operator("Size")
def _size(call: Call) -> Result:
    return np.array(np.prod(call.shape(), dtype=np.int64))


@operator("Range")
def _range(call: Call) -> Result:
    start, limit, step = (call.known(i).reshape(-1)[0] for i in range(3))
    if step == 0:
        raise OnnxError("its delta is 0")
    count = max(int(np.ceil((limit - start) / step)), 0)
    dtype = np.asarray(start).dtype
    call.importer.check_made(count)
    return np.asarray(start + np.arange(count, dtype=dtype) * step, dtype)


@operator("EyeLike")
def _eye(call: Call) -> Result:
    rows, columns = call.shape()
    element = call.integer("dtype", element_type(call.dtype(0)))
    call.importer.check_made(rows, columns)
    return np.eye(rows, columns, call.integer("k", 0), dtype=numpy_dtype(element))


@operator("OneHot")
def _one_hot(call: Call) -> Result:
    indices, values = call.x(0), call.x(2)
    depth = int(call.known(1).reshape(-1)[0])
    axis = normalize_axis(call.integer("axis", -1), indices.rank + 1)
    if not indices.dtype.is_integer or indices.dtype is DType.UINT8:
        indices = indices.cast(DType.INT64)
    indices = (indices < 0).where(indices + depth, indices).unsqueeze(axis)
    hit = indices.equal(own_indices(indices, axis, depth, indices.dtype))
    return choose(hit, values[1], values[0])


@operator("Trilu")
def _trilu(call: Call) -> Result:
    x = call.x()
    k = int(call.known(1).reshape(-1)[0]) if call.has(1) else 0
    rows, columns = (own_indices(x, x.rank - 2 + i, x.shape[-2 + i], DType.INT64) for i in (0, 1))
    distance = columns - rows
    upper = call.flag("upper", True)
    kept = distance >= k if upper else distance <= k
    return choose(kept, x, zero_of(x))


def zero_of(x: Tensor) -> Tensor:
    """A scalar zero of the dtype of x."""
    return x.graph.constant(0, x.dtype)
