"""What a value is: its element type and its shape. All shapes are static."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from .errors import DTypeError, ShapeError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Shape: TypeAlias = tuple[int, ...]


class DType(Enum):
    """Element types of values."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    BOOL = "bool"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy type of the same layout."""
        return np.dtype(self.value)

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return _SIZES[self]

    @property
    def is_float(self) -> bool:
        return self in (DType.FLOAT32, DType.FLOAT64)

    @property
    def is_integer(self) -> bool:
        return self in (DType.INT32, DType.INT64, DType.UINT8)

    @staticmethod
    def of(value: DType | DTypeLike) -> DType:
        """The DType of anything NumPy has a dtype for ("float32", np.float32, an array's dtype).

        Raises:
            DTypeError: when it is none of the supported types.
        """
        if isinstance(value, DType):
            return value
        try:
            return DType(np.dtype(value).name)
        except (TypeError, ValueError):
            supported = ", ".join(d.value for d in DType)
            raise DTypeError(f"dtype {value!r} is not supported; use one of {supported}") from None

    def __str__(self) -> str:
        return self.value


_SIZES = {
    DType.FLOAT32: 4,
    DType.FLOAT64: 8,
    DType.INT32: 4,
    DType.INT64: 8,
    DType.UINT8: 1,
    DType.BOOL: 1,
}


@dataclass(frozen=True)
class TensorType:
    """Shape and element type of a value.

    Arguments:
        shape: extents, outermost first; () is a scalar; an extent may be 0.
        dtype: element type.
    """

    shape: Shape
    dtype: DType = DType.FLOAT32

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.size

    def with_shape(self, shape: Shape) -> TensorType:
        return TensorType(tuple(shape), self.dtype)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(self.shape, dtype)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    @staticmethod
    def parse(text: str) -> TensorType:
        """The type that prints as `text`.

        Raises:
            DTypeError: no type prints like that.
        """
        match = re.fullmatch(r"(\w+)\[((?:\d+(?:, \d+)*)?)\]", text)
        if match is None:
            raise DTypeError(f"{text!r} is no type; write float32[64, 10]")
        shape = tuple(int(e) for e in match[2].split(", ") if e)
        return TensorType(shape, DType.of(match[1]))


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The common shape of NumPy broadcasting.

    Raises:
        ShapeError: naming the shapes that do not broadcast.
    """
    rank = max((len(s) for s in shapes), default=0)
    padded = [(1,) * (rank - len(s)) + tuple(s) for s in shapes]
    result = []
    for extents in zip(*padded, strict=True):
        wide = {e for e in extents if e != 1}
        if len(wide) > 1:
            listed = " and ".join(str(tuple(s)) for s in shapes)
            raise ShapeError(
                f"shapes {listed} do not broadcast: extents {sorted(wide)} clash; "
                "make them equal or 1"
            )
        result.append(wide.pop() if wide else 1)
    return tuple(result)


def row_major_strides(shape: Shape) -> Shape:
    """Distance in elements between neighbours along each axis of a contiguous array."""
    strides = []
    step = 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


def restrided(shape: Shape, strides: Shape, target: Shape) -> Shape | None:
    """Strides of the same elements under another shape; None if its axes have no strides.

    Arguments:
        shape: of an array, without axes of nothing.
        strides: of the array, in elements.
        target: as many elements, in the same order.
    """
    runs: list[list[int]] = []  # (extent, stride) of axes that are one, the innermost first
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent == 1:
            continue
        if runs and stride == runs[-1][0] * runs[-1][1]:
            runs[-1][0] *= extent
        else:
            runs.append([extent, stride])
    found: list[int] = []
    rest, step, following = 1, 1, iter(runs)
    for extent in reversed(target):
        if extent > 1 and rest == 1:
            rest, step = next(following)
        if rest % extent:
            return None
        found.append(step)
        step *= extent
        rest //= extent
    return tuple(reversed(found))


def normalize_axis(axis: int, rank: int) -> int:
    """Axis counted from the front; negative axes count from the end.

    Raises:
        ShapeError: when there is no such axis.
    """
    if not -rank <= axis < rank:
        raise ShapeError(f"axis {axis} does not exist in a value of rank {rank}")
    return axis % rank if rank else 0


def normalize_axes(axes: int | tuple[int, ...] | list[int] | None, rank: int) -> tuple[int, ...]:
    """Sorted axes counted from the front; None means all of them."""
    if axes is None:
        return tuple(range(rank))
    listed = (axes,) if isinstance(axes, int) else tuple(axes)
    if rank == 0 and listed in ((0,), (-1,)):
        return ()  # PyTorch takes a scalar for a vector here
    result = tuple(sorted(normalize_axis(a, rank) for a in listed))
    if len(set(result)) != len(result):
        raise ShapeError(f"axes {tuple(listed)} name an axis twice")
    return result
