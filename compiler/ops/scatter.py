"""Gathering and scattering by tuples of indices, and scattering into given data.

All are said with the primitives of `indexing.py`, whose rules for indices hold: below 0 they count
from the end, outside they are clamped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import DTypeError, ShapeError
from ..types import DType, Shape, row_major_strides
from .base import apply
from .composite import Composite
from .indexing import ScatterAdd, Take
from .pointwise import Where
from .pool import MaxUnpool

if TYPE_CHECKING:
    from ..tensor import Tensor


class ScatterMode(Enum):
    """What becomes of an element that an update falls on."""

    NONE = "none"
    ADD = "add"
    MULTIPLY = "mul"
    MAXIMUM = "max"
    MINIMUM = "min"


@dataclass(frozen=True)
class GatherND(Composite):
    """Elements or slices of x at tuples of indices (ONNX: GatherND).

    Inputs are x and indices (…, n): the last axis holds places along n axes of x, from
    `batch_axes` on; the axes before are the same in both.

    Arguments:
        batch_axes: leading axes that x and the indices share.
    """

    batch_axes: int = 0
    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, indices = inputs
        b = self.batch_axes
        lead = x.shape[:b]
        if indices.rank <= b or indices.shape[:b] != lead or x.rank < b + indices.shape[-1]:
            raise ShapeError(f"{self} takes no elements at {indices.type} of {x.type}")
        n = indices.shape[-1]
        tail = x.shape[b + n :]
        places = linear_places(indices, x.shape[b : b + n])
        extent = math.prod(x.shape[b : b + n])
        if b:
            batches = math.prod(lead)
            first = x.graph.constant(np.arange(batches) * extent, DType.INT64)
            places = places + first.reshape(lead + (1,) * (places.rank - b))
            extent *= batches
        rows = x.reshape((extent, *tail))
        return (apply(Take(0), rows, places),)


@dataclass(frozen=True)
class ScatterND(Composite):
    """x with slices at tuples of indices replaced by, or joined with, updates (ONNX: ScatterND).

    Inputs are x, indices (…, n) and updates of the shape (…, *x.shape[n:]). Of several
    replacements of one place the last one in row-major order stays.

    Arguments:
        mode: how an update and what is there become one.
    """

    mode: ScatterMode = ScatterMode.NONE
    arity: ClassVar[tuple[int, int | None]] = (3, 3)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, indices, updates = inputs
        n = indices.shape[-1] if indices.rank else 0
        if not 0 < n <= x.rank or updates.shape != indices.shape[:-1] + x.shape[n:]:
            raise ShapeError(
                f"{self} takes no updates {updates.type} at {indices.type} of {x.type}"
            )
        places = linear_places(indices, x.shape[:n]).reshape(-1)
        rows = math.prod(x.shape[:n])
        columns = math.prod(x.shape[n:])
        flat = scattered(
            self.mode, x.reshape((rows, columns)), places, updates.reshape((-1, columns))
        )
        return (flat.reshape(x.shape),)


@dataclass(frozen=True)
class ScatterElements(Composite):
    """x with x[i, indices[i, j, k], k] replaced by, or joined with, updates[i, j, k], for axis 1.

    Inputs are x, indices and updates of the shape of the indices (torch.scatter, ONNX:
    ScatterElements). Of several replacements of one place the last one in row-major order stays.

    Arguments:
        axis: counted from the front.
        mode: how an update and what is there become one.
    """

    axis: int
    mode: ScatterMode = ScatterMode.NONE
    arity: ClassVar[tuple[int, int | None]] = (3, 3)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, indices, updates = inputs
        fits = x.rank == indices.rank and 0 <= self.axis < x.rank
        if not fits or updates.shape != indices.shape:
            raise ShapeError(
                f"{self} takes no updates {updates.type} at {indices.type} of {x.type}"
            )
        places = self._places(x.shape, indices).reshape(-1)
        flat = scattered(self.mode, x.reshape((-1, 1)), places, updates.reshape((-1, 1)))
        return (flat.reshape(x.shape),)

    def _places(self, shape: Shape, indices: Tensor) -> Tensor:
        """Row-major numbers of the elements that are written."""
        strides = row_major_strides(shape)
        own = np.zeros(indices.shape, np.int64)
        for d, places in enumerate(np.indices(indices.shape, sparse=True)):
            if d != self.axis:
                own = own + places * strides[d]
        along = inside(indices.cast(DType.INT64), shape[self.axis])
        return along * strides[self.axis] + indices.graph.constant(own)


def scattered(mode: ScatterMode, x: Tensor, places: Tensor, updates: Tensor) -> Tensor:
    """The rows of x (R, C) at places (N,), replaced by, or joined with, updates (N, C)."""
    if updates.dtype is not x.dtype:
        raise DTypeError(f"updates {updates.type} are written into {x.type}; cast one")
    if not updates.type.size:
        return x
    if mode is ScatterMode.ADD:
        return x + apply(ScatterAdd(x.shape, 0), places, updates)
    if mode is not ScatterMode.NONE:
        return _reduced(mode, x, places, updates)
    # Which update stays at each place, counted from 1; then every place looks its own one up.
    count, rows = places.shape[0], x.shape[0]
    numbers = x.graph.constant(np.arange(1, count + 1).reshape(1, 1, -1), DType.FLOAT64)
    last = apply(MaxUnpool((rows,)), numbers, places.reshape((1, 1, -1)))
    winner = last.reshape(-1).cast(DType.INT64)
    chosen = apply(Take(0), updates, (winner - 1).maximum(0))
    return apply(Where(), (winner > 0).unsqueeze(1), chosen, x)


def linear_places(indices: Tensor, shape: Shape) -> Tensor:
    """Row-major numbers from tuples of indices (…, n) into `shape` of n extents."""
    wide = indices.cast(DType.INT64)
    total = None
    for axis, (extent, step) in enumerate(zip(shape, row_major_strides(shape), strict=True)):
        part = inside(wide[..., axis], extent) * step
        total = part if total is None else total + part
    if total is None:
        return wide.graph.constant(0, DType.INT64).broadcast_to(indices.shape[:-1])
    return total


def inside(indices: Tensor, extent: int) -> Tensor:
    """Indices from 0 on: negative ones count from the end, those outside are clamped."""
    if extent < 1 and indices.type.size:
        raise ShapeError(f"{indices.type} indexes an empty axis")
    return (indices < 0).where(indices + extent, indices).maximum(0).minimum(extent - 1)


def _reduced(mode: ScatterMode, x: Tensor, places: Tensor, updates: Tensor) -> Tensor:
    """Every row looks at all updates (R * N * C operations, but nothing is stored)."""
    rows = x.graph.constant(np.arange(x.shape[0]).reshape(-1, 1), places.dtype)
    hit = places.unsqueeze(0).equal(rows).unsqueeze(2)
    if mode is ScatterMode.MULTIPLY:
        return x * hit.where(updates.unsqueeze(0), x.constant(1)).prod(1, dtype=x.dtype)
    candidates = hit.where(updates.unsqueeze(0), x.unsqueeze(1))
    if mode is ScatterMode.MAXIMUM:
        return x.maximum(candidates.amax(1))
    return x.minimum(candidates.amin(1))
