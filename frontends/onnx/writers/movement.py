"""Values moved about, and made."""

from __future__ import annotations

import numpy as np

from ....compiler.ops.movement import Broadcast, Concat, Pad, Reshape, Slice, Transpose, Unslice
from ....compiler.ops.pointwise import Iota
from ....compiler.ops.reduce import Max, Min, Product, Reduction, Sum
from ....compiler.types import DType
from ..writer import Draft, Outputs, Ref, writes
from .convolution import pads

_BEFORE_THE_FIRST = -(2**62)


@writes(Reshape)
def _reshape(draft: Draft, op: Reshape, x: Ref) -> Outputs:
    return x if op.shape == x.shape else draft.reshaped(x, op.shape)


@writes(Transpose)
def _transpose(draft: Draft, op: Transpose, x: Ref) -> Outputs:
    return draft.node("Transpose", x, perm=op.permutation) if x.rank else x


@writes(Broadcast)
def _broadcast(draft: Draft, op: Broadcast, x: Ref) -> Outputs:
    return draft.node("Expand", x, draft.integers(*op.shape))


@writes(Slice)
def _slice(draft: Draft, op: Slice, x: Ref) -> Outputs:
    starts, ends, axes, steps = [], [], [], []
    for axis, (start, size, step) in enumerate(zip(op.start, op.size, op.step, strict=True)):
        if (start, size, step) == (0, x.shape[axis], 1):
            continue
        end = start + (size - 1) * step + (1 if step > 0 else -1) if size else start
        starts.append(start)
        ends.append(end if end >= 0 else _BEFORE_THE_FIRST)
        axes.append(axis)
        steps.append(step)
    if not axes:
        return x
    return draft.node("Slice", x, *(draft.integers(*n) for n in (starts, ends, axes, steps)))


@writes(Unslice)
def _unslice(draft: Draft, op: Unslice, x: Ref) -> Outputs:
    """Each element of the result takes one of x along each axis, or the zero put behind them."""
    y: Ref | str = x
    for axis, (extent, start, step) in enumerate(zip(op.shape, op.start, op.step, strict=True)):
        count = x.shape[axis]
        if (start, step, count) == (0, 1, extent):
            continue
        behind = tuple((0, int(d == axis)) for d in range(x.rank))
        padded = draft.node("Pad", y, draft.integers(*pads(behind)), draft.like(0, x))
        places = np.full(extent, count)
        places[start + step * np.arange(count)] = np.arange(count)
        y = draft.node("Gather", padded, draft.integers(*places), axis=axis)
    return y


@writes(Pad)
def _pad(draft: Draft, op: Pad, x: Ref) -> Outputs:
    if not any(map(any, op.padding)):
        return x
    return draft.node(
        "Pad", x, draft.integers(*pads(op.padding)), draft.like(op.value, x), mode=op.mode.value
    )


@writes(Concat)
def _concat(draft: Draft, op: Concat, *parts: Ref) -> Outputs:
    return draft.node("Concat", *parts, axis=op.axis)


@writes(Iota)
def _iota(draft: Draft, op: Iota) -> Outputs:
    line = [1] * op.type.rank
    line[op.axis] = op.type.shape[op.axis]
    numbers = draft.constant(np.arange(line[op.axis]).reshape(line), op.type.dtype)
    if tuple(line) == op.type.shape:
        return numbers
    return draft.node("Expand", numbers, draft.integers(*op.type.shape))


@writes(Sum, Product, Max, Min)
def _reduce(draft: Draft, op: Reduction, x: Ref) -> Outputs:
    if not op.axes:
        return x
    operators = {Sum: "ReduceSum", Product: "ReduceProd", Max: "ReduceMax", Min: "ReduceMin"}
    if x.type.dtype is DType.UINT8:
        return None
    return draft.node(operators[type(op)], x, draft.integers(*op.axes), keepdims=1)
