"""Operations that read or write at places given by data."""

from __future__ import annotations

from ....compiler.ops.cumulative import CumSum
from ....compiler.ops.indexing import (
    ArgMax,
    ArgMin,
    ScatterAdd,
    ScatterAddAlongAxis,
    Take,
    TakeAlongAxis,
)
from ....compiler.ops.scatter import GatherND, ScatterElements, ScatterMode, ScatterND
from ....compiler.ops.topk import TopK
from ....compiler.types import DType
from ..writer import Draft, Outputs, Ref, writes


@writes(Take)
def _take(draft: Draft, op: Take, x: Ref, indices: Ref) -> Outputs:
    return draft.node("Gather", x, indices, axis=op.axis)


@writes(TakeAlongAxis)
def _take_along_axis(draft: Draft, op: TakeAlongAxis, x: Ref, indices: Ref) -> Outputs:
    return draft.node("GatherElements", x, indices, axis=op.axis)


def _zeros(draft: Draft, shape: tuple[int, ...], like: Ref) -> str:
    return draft.node("Expand", draft.like(0, like), draft.integers(*shape))


@writes(ScatterAdd)
def _scatter_add(draft: Draft, op: ScatterAdd, indices: Ref, updates: Ref) -> Outputs:
    if op.axis != 0:
        return None
    places: Ref | str = indices
    if indices.type.dtype is not DType.INT64:
        places = draft.node("Cast", indices, to=7)
    places = draft.reshaped(places, (*indices.shape, 1))
    zeros = _zeros(draft, op.shape, updates)
    return draft.node("ScatterND", zeros, places, updates, reduction="add")


@writes(ScatterAddAlongAxis)
def _scatter_add_along(
    draft: Draft, op: ScatterAddAlongAxis, indices: Ref, updates: Ref
) -> Outputs:
    zeros = _zeros(draft, op.shape, updates)
    return draft.node("ScatterElements", zeros, indices, updates, axis=op.axis, reduction="add")


def _reduction(mode: ScatterMode) -> str | None:
    return None if mode is ScatterMode.NONE else mode.value


@writes(GatherND)
def _gather_nd(draft: Draft, op: GatherND, x: Ref, indices: Ref) -> Outputs:
    if indices.type.dtype is not DType.INT64:
        return None
    return draft.node("GatherND", x, indices, batch_dims=op.batch_axes)


@writes(ScatterND)
def _scatter_nd(draft: Draft, op: ScatterND, x: Ref, indices: Ref, updates: Ref) -> Outputs:
    if indices.type.dtype is not DType.INT64:
        return None
    return draft.node("ScatterND", x, indices, updates, reduction=_reduction(op.mode))


@writes(ScatterElements)
def _scatter_elements(
    draft: Draft, op: ScatterElements, x: Ref, indices: Ref, updates: Ref
) -> Outputs:
    reduction = _reduction(op.mode)
    return draft.node("ScatterElements", x, indices, updates, axis=op.axis, reduction=reduction)


@writes(ArgMax, ArgMin)
def _arg(draft: Draft, op: ArgMax | ArgMin, x: Ref) -> Outputs:
    return draft.node(op.name, x, axis=op.axis, keepdims=int(op.keepdims))


@writes(TopK)
def _topk(draft: Draft, op: TopK, x: Ref) -> Outputs:
    return draft.nodes(
        2, "TopK", x, draft.integers(op.k), axis=op.axis, largest=int(op.largest), sorted=1
    )


@writes(CumSum)
def _cumsum(draft: Draft, op: CumSum, x: Ref) -> Outputs:
    axis = draft.constant(op.axis, DType.INT64)
    return draft.node("CumSum", x, axis, exclusive=int(op.exclusive), reverse=int(op.reverse))
