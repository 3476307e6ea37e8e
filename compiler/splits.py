"""Operations in parts: which axes of inputs may be cut so that the output falls into parts, too.

    op(x, w)  is  op(x[0], w), op(x[1], w), …  side by side, or added,  for parts x[i] of x

The other way round than `batching.py`, which makes one operation of those of all steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .ops.base import Op
from .ops.conv import Conv, ConvInputGradient, ConvWeightGradient
from .ops.linear import Linear, MatMul
from .ops.movement import Broadcast, Concat, Reshape, Slice, Transpose
from .ops.pointwise import Cast, Pointwise
from .ops.reduce import Reduction, Sum
from .types import TensorType


@dataclass(frozen=True)
class Split:
    """A way to compute an operation in parts.

    Arguments:
        inputs: for each input the axis that it is cut along; None: each part reads all of it.
        output: the axis along which the results lie side by side; None: they are added.
    """

    inputs: tuple[int | None, ...]
    output: int | None


def splits(op: Op, inputs: Sequence[TensorType], output: TensorType) -> Iterator[Split]:
    """The ways to compute an operation in parts; none for an operation that is not known."""
    match op:
        case Pointwise() | Cast():
            for d in range(output.rank):
                yield Split(tuple(_aligned(x, output, d) for x in inputs), d)
        case Linear():
            rest = (None,) * (len(inputs) - 1)
            for d in range(output.rank - 1):
                yield Split((d, *rest), d)
        case MatMul() if output.rank == 2:
            yield Split((0, None), 0)
            yield Split((None, 1), 1)
            yield Split((1, 0), None)
        case Conv() | ConvInputGradient():
            yield Split((0,) + (None,) * (len(inputs) - 1), 0)
        case ConvWeightGradient():
            yield Split((0, 0), None)
        case Transpose(permutation):
            for d, source in enumerate(permutation):
                yield Split((source,), d)
        case Reshape():
            yield from _of_reshape(inputs[0].shape, output.shape)
        case Broadcast():
            for d in range(output.rank):
                axis = _aligned(inputs[0], output, d)
                if axis is not None:
                    yield Split((axis,), d)
        case Slice(start, size, step):
            for d, extent in enumerate(inputs[0].shape):
                if (start[d], size[d], step[d]) == (0, extent, 1):
                    yield Split((d,), d)
        case Concat(axis):
            for d in range(output.rank):
                if d != axis:
                    yield Split((d,) * len(inputs), d)
        case Reduction(axes):
            for d in range(inputs[0].rank):
                if d not in axes:
                    yield Split((d,), d)
                elif isinstance(op, Sum):
                    yield Split((d,), None)


def _aligned(x: TensorType, output: TensorType, d: int) -> int | None:
    """The axis of an operand that becomes an output's axis; None where it is repeated."""
    axis = d - output.rank + x.rank
    return axis if axis >= 0 and x.shape[axis] == output.shape[d] else None


def _of_reshape(before: Sequence[int], after: Sequence[int]) -> Iterator[Split]:
    """Axes with the same elements before them: what is behind moves from one to the other."""
    starts = {math.prod(before[:a]): a for a in range(len(before)) if before[a] > 1}
    for b in range(len(after)):
        a = starts.get(math.prod(after[:b]))
        if a is not None and after[b] > 1:
            yield Split((a,), b)


def resized(op: Op, axis: int | None, extent: int) -> Op:
    """The operation whose output has another extent along an axis."""
    match op:
        case Reshape(shape) | Broadcast(shape):
            return replace(op, shape=_with(shape, axis, extent))
        case Slice(size=size):
            return replace(op, size=_with(size, axis, extent))
    return op


def _with(shape: tuple[int, ...], axis: int | None, extent: int) -> tuple[int, ...]:
    return tuple(extent if d == axis else n for d, n in enumerate(shape))
