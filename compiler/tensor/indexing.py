"""Methods of tensors that look elements up, or put them, at places that are data themselves."""

from __future__ import annotations

from types import EllipsisType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..errors import ShapeError
from ..ops import indexing as ops
from ..ops import movement as mv
from ..ops.base import apply
from ..ops.scatter import GatherND, ScatterElements, ScatterMode
from ..types import Array, DType, broadcast_shapes, normalize_axis
from .promotion import Scalar, as_tensor, is_tensor

if TYPE_CHECKING:
    from .handle import Tensor

Places: TypeAlias = "Tensor | Array | list[int]"
Key: TypeAlias = "int | slice | EllipsisType | Places | range | None"


def getitem(self: Tensor, key: Key | tuple[Key, ...]) -> Tensor:
    """NumPy's indexing: integers, slices with steps, Ellipsis, None for a new axis, and tensors,
    arrays, ranges or lists of places along neighbouring axes.

    Raises:
        ShapeError: too many indices, one that leaves its axis, or one whose result would have a
            shape that depends on data, such as a mask.
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    if sum(k is Ellipsis for k in keys) > 1:
        raise ShapeError("an index has at most one Ellipsis")
    keys = [int(k) if isinstance(k, np.integer) else k for k in keys]
    keys = [list(k) if isinstance(k, range) else k for k in keys]
    used = sum(k is not None and k is not Ellipsis for k in keys)
    if used > self.rank:
        raise ShapeError(f"{used} indices for {self.type}")
    at = next((i for i, k in enumerate(keys) if k is Ellipsis), len(keys))
    keys[at : at + 1] = [slice(None)] * (self.rank - used)
    # Places by the axis they have once the rest is sliced: integers are gone, None has one.
    places: dict[int, Tensor] = {}
    basic: list[int | slice | None] = []
    for k in keys:
        if is_tensor(k) or isinstance(k, np.ndarray | list):
            axis = sum(not isinstance(b, int) for b in basic)
            places[axis] = as_tensor(k, self)
            basic.append(slice(None))
        elif k is None or isinstance(k, int | slice):
            basic.append(k)
        else:
            raise ShapeError(f"{k!r} cannot index {self.type}")
    x = _sliced(self, basic)
    return _looked_up(x, list(places), list(places.values())) if places else x


def _sliced(x: Tensor, keys: list[int | slice | None]) -> Tensor:
    parts: list[slice] = []
    shape: list[int] = []
    for k in keys:
        if k is None:
            shape.append(1)
            continue
        axis = len(parts)
        extent = x.shape[axis]
        if isinstance(k, slice):
            parts.append(k)
            shape.append(len(range(extent)[k]))
        else:
            if not -extent <= k < extent:
                raise ShapeError(f"index {k} leaves axis {axis} of {x.type}")
            parts.append(slice(k % extent, k % extent + 1))
    op = mv.slice_of(x.shape, parts)
    whole = op == mv.slice_of(x.shape, (slice(None),) * x.rank)
    return (x if whole else apply(op, x)).reshape(tuple(shape))


def _looked_up(x: Tensor, axes: list[int], places: list[Tensor]) -> Tensor:
    """Tensors of indices of neighbouring axes, as in NumPy."""
    if any(i.dtype is DType.BOOL for i in places):
        raise ShapeError(
            f"a mask of {x.type} gives a shape that depends on data; use where(mask, a, b) or "
            "masked_fill in its place"
        )
    first = axes[0]
    if axes != list(range(first, first + len(axes))):
        raise ShapeError(f"indices of the axes {axes} of {x.type}: they have to be neighbours")
    if len(places) == 1:
        return apply(ops.Take(first), x, places[0])
    common = broadcast_shapes(*(i.shape for i in places))
    each = ops.stack([i.cast(DType.INT64).broadcast_to(common) for i in places], -1)
    found = apply(GatherND(0), x.movedim(axes, list(range(len(axes)))), each)
    return found.movedim(list(range(len(common))), list(range(first, first + len(common))))


def gather(self: Tensor, dim: int, index: Tensor) -> Tensor:
    """self[…, index[…], …] along an axis; both have the same extents on all others."""
    return apply(ops.TakeAlongAxis(normalize_axis(dim, self.rank)), self, index)


def index_select(self: Tensor, dim: int, index: Places) -> Tensor:
    """The places of one axis that the indices name."""
    return apply(ops.Take(normalize_axis(dim, self.rank)), self, as_tensor(index, self))


def scatter(self: Tensor, dim: int, index: Tensor, src: Tensor | Scalar) -> Tensor:
    """The same, with elements of `src` at self[…, index[…], …] along an axis."""
    return _scattered(ScatterMode.NONE, self, dim, index, src)


def scatter_add(self: Tensor, dim: int, index: Tensor, src: Tensor | Scalar) -> Tensor:
    """The same, with elements of `src` added at self[…, index[…], …] along an axis."""
    return _scattered(ScatterMode.ADD, self, dim, index, src)


def _scattered(
    mode: ScatterMode, x: Tensor, dim: int, index: Tensor, src: Tensor | Scalar
) -> Tensor:
    updates = x.constant(src).broadcast_to(index.shape) if isinstance(src, Scalar) else src
    if updates.rank == index.rank:  # those that no index is for are left out
        updates = updates[tuple(slice(n) for n in index.shape)]
    op = ScatterElements(normalize_axis(dim, x.rank), mode)
    return apply(op, x, index, updates.cast(x.dtype))


def index_add(self: Tensor, dim: int, index: Places, source: Tensor) -> Tensor:
    """The same, with slices added at the places of one axis that the indices name."""
    axis = normalize_axis(dim, self.rank)
    op = ops.ScatterAdd(self.shape, axis)
    return self + apply(op, as_tensor(index, self), source)
