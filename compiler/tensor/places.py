"""Further methods of tensors that move elements, or put them at places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ShapeError, UsageError
from ..ops.base import apply
from ..ops.movement import Concat
from ..ops.scatter import ScatterElements, ScatterMode
from ..types import DType, Shape, normalize_axis
from . import shape
from .indexing import Places
from .pointwise import choose
from .promotion import Scalar, as_tensor

if TYPE_CHECKING:
    from .handle import Tensor


# -- diagonals ------------------------------------------------------------------------------------


def diag_embed(self: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices, along two new axes, with the last axis on a diagonal."""
    count = self.shape[-1] + abs(offset)
    places = np.full((count, count), self.shape[-1])
    own = np.arange(self.shape[-1])
    places[own + max(-offset, 0), own + max(offset, 0)] = own
    zero = self.constant(0).broadcast_to((*self.shape[:-1], 1))
    whole = apply(Concat(self.rank - 1), self, zero).index_select(-1, places)
    return whole.movedim((-2, -1), (dim1, dim2))


def diag(self: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix; or the matrix that has a vector on its diagonal."""
    if self.rank == 1:
        return diag_embed(self, diagonal)
    if self.rank == 2:
        return shape.diagonal(self, diagonal)
    raise ShapeError(f"diag takes a vector or a matrix, got {self.type}")


def diagflat(self: Tensor, offset: int = 0) -> Tensor:
    """The matrix that has all elements on its diagonal."""
    return diag_embed(self.reshape(-1), offset)


# -- parts ----------------------------------------------------------------------------------------


def tensor_split(
    self: Tensor, indices_or_sections: int | Sequence[int], dim: int = 0
) -> tuple[Tensor, ...]:
    """Parts along an axis: so many, the first ones larger by 1 where they are not equal; or cut at
    the places given.
    """
    axis = normalize_axis(dim, self.rank)
    ends = np.array_split(np.arange(self.shape[axis]), indices_or_sections)
    return shape.split(self, [len(part) for part in ends], axis)


def hsplit(self: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """`tensor_split` along axis 1, or that of a vector."""
    return tensor_split(self, indices_or_sections, 1 if self.rank > 1 else 0)


def vsplit(self: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """`tensor_split` along axis 0."""
    return tensor_split(self, indices_or_sections, 0)


def take(self: Tensor, index: Places) -> Tensor:
    """Elements by their numbers in row-major order."""
    return self.reshape(-1)[as_tensor(index, self)]


def take_along_dim(self: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """self[…, indices[…], …] along an axis, broadcast on all others; of all in row-major order
    without one.
    """
    if dim is None:
        return self.reshape(-1).gather(0, indices.reshape(-1))
    axis = normalize_axis(dim, self.rank)
    rest = (tuple(1 if d == axis else n for d, n in enumerate(x.shape)) for x in (self, indices))
    common = np.broadcast_shapes(*rest)
    own, theirs = (
        x.broadcast_to((*common[:axis], x.shape[axis], *common[axis + 1 :]))
        for x in (self, indices)
    )
    return own.gather(axis, theirs)


# -- in other places ------------------------------------------------------------------------------


def fliplr(self: Tensor) -> Tensor:
    """Columns, axis 1, in the opposite order."""
    return self.flip(1)


def flipud(self: Tensor) -> Tensor:
    """Rows, axis 0, in the opposite order."""
    return self.flip(0)


def ravel(self: Tensor) -> Tensor:
    """All elements along one axis."""
    return self.reshape(-1)


def rot90(self: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Turned by k right angles, from the first of two axes towards the second."""
    a, b = (normalize_axis(d, self.rank) for d in dims)
    turns = {0: lambda: self, 1: lambda: self.transpose(a, b).flip(a)}
    turns |= {2: lambda: self.flip(a, b), 3: lambda: self.transpose(a, b).flip(b)}
    return turns[k % 4]()


# -- with others in their place -------------------------------------------------------------------


def index_fill(self: Tensor, dim: int, index: Places, value: Scalar) -> Tensor:
    """The same, with a value at the places of one axis that the indices name."""
    axis = normalize_axis(dim, self.rank)
    own = self.graph.constant(np.arange(self.shape[axis]))
    index = as_tensor(index, self).reshape(-1)
    index = (index < 0).where(index + self.shape[axis], index)
    hit = own.unsqueeze(1).equal(index).any(1)
    hit = hit.reshape((-1, *(1,) * (self.rank - 1 - axis)))
    return choose(hit, self.constant(value), self)


def index_copy(self: Tensor, dim: int, index: Places, source: Tensor) -> Tensor:
    """The same, with slices of another tensor at the places of one axis that the indices name."""
    axis = normalize_axis(dim, self.rank)
    index = as_tensor(index, self).reshape((-1, *(1,) * (self.rank - 1 - axis)))
    return self.scatter(axis, index.broadcast_to(source.shape), source)


_REDUCTIONS = {
    "sum": ScatterMode.ADD,
    "prod": ScatterMode.MULTIPLY,
    "amax": ScatterMode.MAXIMUM,
    "amin": ScatterMode.MINIMUM,
}


def scatter_reduce(
    self: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """The same, joined at self[…, index[…], …] along an axis with elements of `src`.

    Arguments:
        reduce: "sum", "prod", "mean", "amax" or "amin".
        include_self: whether what is there already counts.
    """
    axis = normalize_axis(dim, self.rank)
    src = src[tuple(slice(n) for n in index.shape)]

    def joined(mode: ScatterMode, x: Tensor, updates: Tensor) -> Tensor:
        return apply(ScatterElements(axis, mode), x, index, updates)

    if reduce == "mean":
        ones = src.constant(1).broadcast_to(index.shape)
        own = self.constant(int(include_self)).broadcast_to(self.shape)
        count = joined(ScatterMode.ADD, own, ones).maximum(1)
        total = scatter_reduce(self, axis, index, src, "sum", include_self=include_self)
        return total / count if self.dtype.is_float else total // count
    if reduce not in _REDUCTIONS:
        known = ", ".join((*_REDUCTIONS, "mean"))
        raise UsageError(f"scatter_reduce knows {known}, not {reduce!r}")
    start = self
    if not include_self:
        # Sums and products begin with what changes nothing, extrema with one of their elements.
        neutral = {"sum": 0, "prod": 1}
        first = src.constant(neutral[reduce]).broadcast_to(src.shape) if reduce in neutral else src
        start = joined(ScatterMode.NONE, self, first)
    return joined(_REDUCTIONS[reduce], start, src)


def select_scatter(self: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """The same, with another tensor at one place of an axis."""
    axis = normalize_axis(dim, self.rank)
    place = index % self.shape[axis]
    return slice_scatter(self, src.unsqueeze(axis), axis, place, place + 1)


def slice_scatter(
    self: Tensor,
    src: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Tensor:
    """The same, with another tensor at a slice of an axis."""
    axis = normalize_axis(dim, self.rank)
    index = np.arange(self.shape[axis])[start:end:step]
    return index_copy(self, axis, index, src)


# -- new ones of the same type --------------------------------------------------------------------


def new_full(self: Tensor, size: Sequence[int], fill_value: Scalar, dtype: Any = None) -> Tensor:
    """A tensor of this one's dtype, one number everywhere."""
    wanted = self.dtype if dtype is None else DType.of(dtype)
    return self.graph.constant(fill_value, wanted).broadcast_to(tuple(size))


def new_zeros(self: Tensor, *size: int | Shape, dtype: Any = None) -> Tensor:
    """A tensor of this one's dtype, 0 everywhere."""
    return new_full(self, shape.extents(size), 0, dtype)


def new_empty(self: Tensor, *size: int | Shape, dtype: Any = None) -> Tensor:
    """A tensor of this one's dtype, with any numbers in it."""
    return new_zeros(self, *size, dtype=dtype)


def new_ones(self: Tensor, *size: int | Shape, dtype: Any = None) -> Tensor:
    """A tensor of this one's dtype, 1 everywhere."""
    return new_full(self, shape.extents(size), 1, dtype)


def new_tensor(self: Tensor, data: object, dtype: Any = None) -> Tensor:
    """Numbers as a constant of this tensor's dtype."""
    return self.graph.constant(data, self.dtype if dtype is None else DType.of(dtype))
