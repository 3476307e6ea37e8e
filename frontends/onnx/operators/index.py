"""Gathering and scattering."""

from __future__ import annotations

import numpy as np

from ....compiler.errors import OnnxError
from ....compiler.ops import scatter as sc
from ....compiler.ops.indexing import Take, TakeAlongAxis
from ....compiler.tensor import Tensor
from ....compiler.types import DType, normalize_axis
from ..call import Call, Result, operator


def _indices(x: Tensor) -> Tensor:
    return x if x.dtype in (DType.INT32, DType.INT64) else x.cast(DType.INT64)


@operator("Gather")
def _gather(call: Call) -> Result:
    x = call.x()
    axis = normalize_axis(call.integer("axis", 0), x.rank)
    return call.apply(Take(axis), x, _indices(call.x(1)))


@operator("GatherElements")
def _gather_elements(call: Call) -> Result:
    x = call.x()
    axis = normalize_axis(call.integer("axis", 0), x.rank)
    return call.apply(TakeAlongAxis(axis), x, _indices(call.x(1)))


@operator("GatherND")
def _gather_nd(call: Call) -> Result:
    return call.apply(sc.GatherND(call.integer("batch_dims", 0)), call.x(0), _indices(call.x(1)))


def _reduction(call: Call) -> sc.ScatterMode:
    name = call.text("reduction", "none")
    try:
        return sc.ScatterMode(name)
    except ValueError:
        raise OnnxError(f"the reduction {name!r} is not supported") from None


@operator("ScatterND")
def _scatter_nd(call: Call) -> Result:
    x, indices, updates = call.all()
    return call.apply(sc.ScatterND(_reduction(call)), x, _indices(indices), updates)


@operator("ScatterElements", "Scatter")
def _scatter_elements(call: Call) -> Result:
    x, indices, updates = call.all()
    axis = normalize_axis(call.integer("axis", 0), x.rank)
    return call.apply(sc.ScatterElements(axis, _reduction(call)), x, _indices(indices), updates)


@operator("Compress")
def _compress(call: Call) -> Result:
    x = call.x()
    (chosen,) = np.nonzero(call.known(1))
    if "axis" not in call.attributes:
        x, axis = x.reshape(-1), 0
    else:
        axis = normalize_axis(call.integer("axis"), x.rank)
    return call.apply(Take(axis), x, call.constant(chosen))


@operator("NonZero")
def _nonzero(call: Call) -> Result:
    return np.array(np.nonzero(call.known(0)), np.int64)


@operator("TensorScatter")
def _tensor_scatter(call: Call) -> Result:
    """A cache with new rows from a place on that each batch has for itself."""
    cache, update = call.x(0), call.x(1)
    axis = normalize_axis(call.integer("axis", -2), cache.rank)
    if axis == 0 or update.rank != cache.rank:
        raise OnnxError(f"{update.type} cannot be written into {cache.type} along axis {axis}")
    call.importer.check_made(*update.shape)
    shape = tuple(update.shape[d] if d == axis else 1 for d in range(cache.rank))
    place = call.constant(np.arange(update.shape[axis]).reshape(shape), DType.INT64)
    if call.has(2):
        first = _indices(call.x(2)).cast(DType.INT64)
        place = place + first.reshape((-1, *(1 for _ in shape[1:])))
    if call.text("mode", "linear") == "circular":
        place = place % cache.shape[axis]
    return call.apply(sc.ScatterElements(axis), cache, place.broadcast_to(update.shape), update)
