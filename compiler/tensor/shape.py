"""Methods of tensors that tell shapes, and that move elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from ..errors import ShapeError
from ..ops import indexing
from ..ops import movement as mv
from ..ops.base import apply
from ..types import Array, Shape, normalize_axes, normalize_axis
from .pointwise import choose
from .reduction import Axes, without

if TYPE_CHECKING:
    from .handle import Tensor


@overload
def size(self: Tensor) -> Shape: ...


@overload
def size(self: Tensor, dim: int) -> int: ...


def size(self: Tensor, dim: int | None = None) -> int | Shape:
    """Extent along one axis, or the shape."""
    return self.shape if dim is None else self.shape[normalize_axis(dim, self.rank)]


def numel(self: Tensor) -> int:
    """Number of elements."""
    return self.type.size


def extents(given: tuple[int | Shape, ...]) -> Shape:
    """`f(2, 3)` and `f((2, 3))` mean the same."""
    if len(given) == 1 and not isinstance(given[0], int):
        return tuple(int(e) for e in given[0])
    return tuple(int(e) for e in given if isinstance(e, int))


# -- other shapes ---------------------------------------------------------------------------------


def reshape(self: Tensor, *shape: int | Shape) -> Tensor:
    """Another shape of the same size; one extent may be -1."""
    wanted = extents(shape)
    if wanted.count(-1) == 1:
        known = -math.prod(wanted)
        rest = self.type.size // known if known else 0
        wanted = tuple(rest if e == -1 else e for e in wanted)
    return self if wanted == self.shape else apply(mv.Reshape(wanted), self)


def reshape_as(self: Tensor, other: Tensor) -> Tensor:
    """In another tensor's shape, of the same size."""
    return self.reshape(other.shape)


def flatten(self: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes `start_dim` to `end_dim` (both included) as one."""
    if self.rank == 0:
        return self.reshape(1)
    first, last = normalize_axis(start_dim, self.rank), normalize_axis(end_dim, self.rank)
    merged = math.prod(self.shape[first : last + 1])
    return self.reshape(self.shape[:first] + (merged,) + self.shape[last + 1 :])


def unflatten(self: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One axis as several; one of their extents may be -1."""
    axis = normalize_axis(dim, self.rank)
    inner = tuple(int(n) for n in sizes)
    if inner.count(-1) == 1:
        known = -math.prod(inner)
        inner = tuple(self.shape[axis] // known if n == -1 and known else n for n in inner)
    if math.prod(inner) != self.shape[axis]:
        raise ShapeError(f"axis {axis} of {self.type} cannot be unflattened to {tuple(sizes)}")
    return self.reshape(self.shape[:axis] + inner + self.shape[axis + 1 :])


def unsqueeze(self: Tensor, dim: int) -> Tensor:
    """A new axis of extent 1."""
    d = normalize_axis(dim, self.rank + 1)
    return self.reshape(self.shape[:d] + (1,) + self.shape[d:])


def squeeze(self: Tensor, dim: Axes = None) -> Tensor:
    """Without axes of extent 1 (all of them, or those named that have extent 1)."""
    named = normalize_axes(dim, self.rank)
    return without(self, tuple(d for d in named if self.shape[d] == 1))


def itself(self: Tensor) -> Tensor:
    """The same: tensors do not change, and the compiler chooses where values lie in memory."""
    return self


# -- orders of axes -------------------------------------------------------------------------------


def permute(self: Tensor, *dims: int | Shape) -> Tensor:
    """Axes in another order."""
    order = tuple(normalize_axis(a, self.rank) for a in extents(dims))
    return self if order == tuple(range(self.rank)) else apply(mv.Transpose(order), self)


def transpose(self: Tensor, dim0: int = -2, dim1: int = -1) -> Tensor:
    """Two axes exchanged; the last two by default."""
    order = list(range(self.rank))
    a, b = normalize_axis(dim0, self.rank), normalize_axis(dim1, self.rank)
    order[a], order[b] = order[b], order[a]
    return self.permute(tuple(order))


def t(self: Tensor) -> Tensor:
    """All axes in the opposite order: a matrix transposed."""
    return self.permute(tuple(reversed(range(self.rank))))


def movedim(self: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Some axes at other places, the others in their order."""
    pairs = zip(_several(destination), _several(source), strict=True)
    moved = {normalize_axis(to, self.rank): normalize_axis(d, self.rank) for to, d in pairs}
    rest = iter(d for d in range(self.rank) if d not in moved.values())
    return self.permute(tuple(moved[d] if d in moved else next(rest) for d in range(self.rank)))


def _several(axes: int | Sequence[int]) -> tuple[int, ...]:
    return (axes,) if isinstance(axes, int) else tuple(axes)


# -- repetition -----------------------------------------------------------------------------------


def broadcast_to(self: Tensor, *shape: int | Shape) -> Tensor:
    """The same elements for every place along new axes, and along those of extent 1."""
    wanted = extents(shape)
    return self if wanted == self.shape else apply(mv.Broadcast(wanted), self)


def expand(self: Tensor, *shape: int | Shape) -> Tensor:
    """`broadcast_to` where -1 keeps an extent."""
    wanted = extents(shape)
    if len(wanted) < self.rank:
        raise ShapeError(f"expand takes {self.rank} extents or more for {self.type}, got {wanted}")
    kept = (1,) * (len(wanted) - self.rank) + self.shape
    return self.broadcast_to(tuple(k if n == -1 else n for n, k in zip(wanted, kept, strict=True)))


def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """Broadcast to another tensor's shape."""
    return self.broadcast_to(other.shape)


def repeat(self: Tensor, *repeats: int | Shape) -> Tensor:
    """The whole so many times along each axis, new ones in front (numpy.tile)."""
    times = extents(repeats)
    if len(times) < self.rank:
        raise ShapeError(f"repeat takes {self.rank} numbers or more for {self.type}, got {times}")
    x = self.reshape((1,) * (len(times) - self.rank) + self.shape)
    for axis, n in enumerate(times):
        x = apply(mv.Concat(axis), *[x] * n) if n > 1 else x.slice_axis(axis, 0, n * x.shape[axis])
    return x


def tile(self: Tensor, *dims: int | Shape) -> Tensor:
    """As `repeat`, once along first axes that are not named."""
    times = extents(dims)
    return self.repeat((1,) * (self.rank - len(times)) + times)


def repeat_interleave(self: Tensor, repeats: int, dim: int | None = None) -> Tensor:
    """Each element so many times, one after the other (numpy.repeat)."""
    x, axis = (self.reshape(-1), 0) if dim is None else (self, normalize_axis(dim, self.rank))
    head, tail = x.shape[: axis + 1], x.shape[axis + 1 :]
    each = x.unsqueeze(axis + 1).broadcast_to((*head, repeats, *tail))
    return each.flatten(axis, axis + 1)


# -- parts ----------------------------------------------------------------------------------------


def slice_axis(self: Tensor, axis: int, start: int, size: int, step: int = 1) -> Tensor:
    """`size` elements of one axis from `start` in steps of `step`."""
    if size and (start, size, step) == (0, self.shape[axis], 1):
        return self
    whole = mv.slice_of(self.shape, (slice(None),) * self.rank)
    return apply(
        mv.Slice(
            whole.start[:axis] + (start,) + whole.start[axis + 1 :],
            whole.size[:axis] + (size,) + whole.size[axis + 1 :],
            whole.step[:axis] + (step,) + whole.step[axis + 1 :],
        ),
        self,
    )


def narrow(self: Tensor, dim: int, start: int, length: int) -> Tensor:
    """So many elements of one axis from a start on."""
    axis = normalize_axis(dim, self.rank)
    start += self.shape[axis] if start < 0 else 0
    if not 0 <= start <= start + length <= self.shape[axis]:
        raise ShapeError(f"elements {start} to {start + length} leave axis {axis} of {self.type}")
    return self.slice_axis(axis, start, length)


def select(self: Tensor, dim: int, index: int) -> Tensor:
    """One place of an axis, which goes."""
    return self[(slice(None),) * normalize_axis(dim, self.rank) + (index,)]


def split(self: Tensor, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Parts along an axis: of one extent, or of the extents given."""
    return indexing.split(self, split_size, dim)


def chunk(self: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most so many parts of equal extent along an axis, the last one perhaps smaller."""
    return indexing.chunk(self, chunks, dim)


def unbind(self: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """All places of an axis, which goes."""
    return tuple(self.select(dim, i) for i in range(self.size(dim)))


def unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of an axis, each on a new last axis."""
    axis = normalize_axis(dimension, self.rank)
    count = (self.shape[axis] - size) // step + 1
    if size > self.shape[axis] or step < 1:
        raise ShapeError(f"no windows of {size} in steps of {step} in axis {axis} of {self.type}")
    places = np.arange(count)[:, None] * step + np.arange(size)
    windows = apply(indexing.Take(axis), self, self.graph.constant(places))
    return windows.movedim(axis + 1, -1)


# -- other places ---------------------------------------------------------------------------------


def flip(self: Tensor, *dims: int | Shape) -> Tensor:
    """The elements of some axes in the opposite order."""
    axes = normalize_axes(extents(dims), self.rank)
    return self[tuple(slice(None, None, -1 if d in axes else 1) for d in range(self.rank))]


def roll(
    self: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None
) -> Tensor:
    """Elements moved on along axes, those that leave coming in again; of all as one without any."""
    if dims is None:
        return self.reshape(-1).roll(shifts, 0).reshape(self.shape)
    x = self
    for shift, dim in zip(_several(shifts), _several(dims), strict=True):
        axis = normalize_axis(dim, x.rank)
        extent = x.shape[axis]
        cut = -shift % extent if extent else 0
        if cut:
            tail = x.slice_axis(axis, cut, extent - cut)
            x = apply(mv.Concat(axis), tail, x.slice_axis(axis, 0, cut))
    return x


def tril(self: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of each matrix, 0 above it."""
    return _triangle(np.tril, self, diagonal)


def triu(self: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of each matrix, 0 below it."""
    return _triangle(np.triu, self, diagonal)


def _triangle(of: Callable[[Array, int], Array], x: Tensor, diagonal: int) -> Tensor:
    if x.rank < 2:
        raise ShapeError(f"triangles are of matrices, not of {x.type}")
    kept = of(np.ones(x.shape[-2:], bool), diagonal)
    return choose(x.graph.constant(kept), x, x.constant(0))


def diagonal(self: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The elements at equal places of two axes, on a new last axis."""
    x = self.movedim((dim1, dim2), (-2, -1))
    rows, columns = x.shape[-2:]
    first = max(-offset, 0), max(offset, 0)
    count = max(min(rows - first[0], columns - first[1]), 0)
    places = (np.arange(count) + first[0]) * columns + np.arange(count) + first[1]
    return apply(indexing.Take(x.rank - 2), x.flatten(-2, -1), self.graph.constant(places))
