"""What moves elements, takes some of them, or puts some in their place."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ....compiler.ops.base import apply
from ....compiler.ops.indexing import Take
from ....compiler.ops.scatter import GatherND
from ....compiler.tensor import Tensor
from ....compiler.types import DType, normalize_axis
from ...nn.functional import shape
from ..table import OPERATORS, graph, operator, refuse_unless

Sizes = Sequence[int]


# -- shapes ---------------------------------------------------------------------------------------


@operator("view.default", "reshape.default", "_unsafe_view.default")
def _reshape(x: Tensor, size: Sizes) -> Tensor:
    return x.reshape(tuple(size))


@operator("flatten.using_ints")
def _flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    return x.flatten(start_dim, end_dim)


@operator("unflatten.int")
def _unflatten(x: Tensor, dim: int, sizes: Sizes) -> Tensor:
    return shape.unflatten(x, dim, tuple(sizes))


@operator("unsqueeze.default")
def _unsqueeze(x: Tensor, dim: int) -> Tensor:
    return x.unsqueeze(dim)


@operator("squeeze.default", "squeeze.dim", "squeeze.dims")
def _squeeze(x: Tensor, dim: int | Sizes | None = None) -> Tensor:
    return x.squeeze(tuple(dim) if isinstance(dim, Sequence) else dim)


@operator("permute.default")
def _permute(x: Tensor, dims: Sizes) -> Tensor:
    return x.permute(tuple(dims))


@operator("transpose.int")
def _transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    return x.transpose(dim0, dim1)


@operator("t.default", "numpy_T.default")
def _reversed_axes(x: Tensor) -> Tensor:
    return x.permute(tuple(reversed(range(x.rank))))


@operator("movedim.int", "movedim.intlist")
def _move_axes(x: Tensor, source: int | Sizes, destination: int | Sizes) -> Tensor:
    places = list(range(x.rank))
    pairs = zip(_several(destination, x.rank), _several(source, x.rank), strict=True)
    moved = dict(sorted(pairs))
    rest = iter(d for d in places if d not in moved.values())
    return x.permute(tuple(moved[d] if d in moved else next(rest) for d in places))


def _several(axes: int | Sizes, rank: int) -> list[int]:
    return [normalize_axis(d, rank) for d in ([axes] if isinstance(axes, int) else axes)]


@operator("expand.default", "broadcast_to.default")
def _expand(x: Tensor, size: Sizes, *, implicit: bool = False) -> Tensor:
    lead = len(size) - x.rank
    kept = (1,) * lead + x.shape
    return x.broadcast_to(tuple(k if n == -1 else n for n, k in zip(size, kept, strict=True)))


@operator("expand_as.default")
def _expand_as(x: Tensor, other: Tensor) -> Tensor:
    return x.broadcast_to(other.shape)


@operator("repeat.default")
def _repeat(x: Tensor, repeats: Sizes) -> Tensor:
    x = x.reshape((1,) * (len(repeats) - x.rank) + x.shape)
    for axis, times in enumerate(repeats):
        x = shape.cat([x] * times, axis) if times != 1 else x
    return x


@operator("repeat_interleave.self_int")
def _repeat_each(x: Tensor, repeats: int, dim: int | None = None) -> Tensor:
    x, axis = (x.reshape(-1), 0) if dim is None else (x, normalize_axis(dim, x.rank))
    places = np.repeat(np.arange(x.shape[axis]), repeats)
    return apply(Take(axis), x, graph().constant(places))


# -- joining and cutting --------------------------------------------------------------------------


@operator("cat.default")
def _concatenate(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    # An empty tensor of one axis goes with anything.
    return shape.cat([t for t in tensors if t.shape != (0,)] or tensors[:1], dim)


@operator("stack.default")
def _stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    return shape.stack(tensors, dim)


@operator("split.Tensor", "split_with_sizes.default")
def _split(x: Tensor, size: int | Sizes, dim: int = 0) -> tuple[Tensor, ...]:
    return shape.split(x, size, dim)


@operator("chunk.default")
def _chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    return shape.chunk(x, chunks, dim)


@operator("unbind.int")
def _unbind(x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    return tuple(_select(x, dim, i) for i in range(x.shape[dim]))


@operator("select.int")
def _select(x: Tensor, dim: int, index: int) -> Tensor:
    axis = normalize_axis(dim, x.rank)
    return x[(slice(None),) * axis + (index,)]


@operator("slice.Tensor")
def _slice(
    x: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    axis = normalize_axis(dim, x.rank)
    end = None if end is not None and end >= sys.maxsize else end
    return x[(slice(None),) * axis + (slice(start, end, step),)]


@operator("narrow.default")
def _narrow(x: Tensor, dim: int, start: int, length: int) -> Tensor:
    return x.slice_axis(normalize_axis(dim, x.rank), start, length)


@operator("select_scatter.default")
def _put_one(x: Tensor, part: Tensor, dim: int, index: int) -> Tensor:
    return _put(x, part.unsqueeze(dim), dim, range(x.shape[dim])[index], 1)


@operator("slice_scatter.default")
def _put_slice(
    x: Tensor,
    part: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Tensor:
    places = range(x.shape[dim])[start:end]
    refuse_unless(step == 1, f"assigning to slices in steps of {step}")
    return _put(x, part, dim, places.start, len(places))


def _put(x: Tensor, part: Tensor, dim: int, start: int, size: int) -> Tensor:
    """The tensor with a part of it in place of its own elements."""
    axis = normalize_axis(dim, x.rank)
    rest = x.shape[axis] - start - size
    before, after = x.slice_axis(axis, 0, start), x.slice_axis(axis, start + size, rest)
    return shape.cat([p for p in (before, part.cast(x.dtype), after) if p.shape[axis]], axis)


@operator("flip.default")
def _flip(x: Tensor, dims: Sizes) -> Tensor:
    axes = {normalize_axis(d, x.rank) for d in dims}
    return x[tuple(slice(None, None, -1 if d in axes else 1) for d in range(x.rank))]


@operator("roll.default")
def _roll(x: Tensor, shifts: Sizes, dims: Sizes = ()) -> Tensor:
    if not dims:
        return _roll(x.reshape(-1), shifts, [0]).reshape(x.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        axis = normalize_axis(dim, x.rank)
        extent = x.shape[axis]
        cut = (extent - shift) % extent if extent else 0
        if cut:
            tail = x.slice_axis(axis, cut, extent - cut)
            x = shape.cat([tail, x.slice_axis(axis, 0, cut)], axis)
    return x


# -- padding --------------------------------------------------------------------------------------


@operator("pad.default")
def _pad(x: Tensor, pad: Sizes, mode: str = "constant", value: float | None = None) -> Tensor:
    return shape.pad(x, tuple(pad), mode, value or 0.0)


@operator("constant_pad_nd.default")
def _pad_constant(x: Tensor, pad: Sizes, value: float = 0.0) -> Tensor:
    return shape.pad(x, tuple(pad), value=value)


def _padded(mode: str) -> Any:
    return lambda x, pad: shape.pad(x, tuple(pad), mode)


OPERATORS.update(
    {
        f"aten.{kind}_pad{rank}d.default": _padded(mode)
        for kind, mode in (("reflection", "reflect"), ("replication", "replicate"))
        for rank in (1, 2, 3)
    }
)


# -- indices --------------------------------------------------------------------------------------


@operator("embedding.default")
def _embedding(
    weight: Tensor,
    indices: Tensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    return shape.embedding(indices, weight, None if padding_idx == -1 else padding_idx)


@operator("gather.default")
def _gather(x: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    return shape.gather(x, dim, index)


@operator("index_select.default")
def _index_select(x: Tensor, dim: int, index: Tensor) -> Tensor:
    return apply(Take(normalize_axis(dim, x.rank)), x, index)


@operator("index.Tensor")
def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """Tensors of indices of neighbouring axes, as in NumPy; None for axes that are kept whole."""
    axes = [d for d, index in enumerate(indices) if index is not None]
    given = [index for index in indices if index is not None]
    refuse_unless(all(i.dtype is not DType.BOOL for i in given), "indexing by masks")
    first = axes[0]
    refuse_unless(axes == list(range(first, axes[-1] + 1)), "indexing axes that are no neighbours")
    if len(given) == 1:
        return apply(Take(first), x, given[0])
    extents = np.broadcast_shapes(*(i.shape for i in given))
    places = shape.stack([i.cast(DType.INT64).broadcast_to(extents) for i in given], -1)
    last = range(axes[-1] + 1, x.rank)
    found = apply(GatherND(0), x.permute((*axes, *range(first), *last)), places)
    count = len(extents)
    kept = range(count, count + first)
    return found.permute((*kept, *range(count), *range(count + first, found.rank)))


@operator("one_hot.default")
def _one_hot(x: Tensor, num_classes: int = -1) -> Tensor:
    refuse_unless(num_classes > 0, "one_hot without num_classes, which depends on the numbers,")
    return shape.one_hot(x, num_classes)
