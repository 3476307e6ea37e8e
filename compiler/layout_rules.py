"""What operations are on values in blocks of channels (`ops/blocked.py`).

A rule says which inputs come in blocks, what has to be a multiple of the block, and the operation
that then gives the result in blocks. An operation without a rule, or one that crosses channels in
another way than block by block, reads plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import singledispatch

from .ops import movement as mv
from .ops import pointwise as pw
from .ops import pool as pl
from .ops.base import Op
from .ops.blocked import blocked_shape
from .ops.indexing import Take
from .ops.reduce import Reduction
from .types import Shape, TensorType

Types = Sequence[TensorType]


class Way(Enum):
    """How an operation in blocks reads an input."""

    BLOCKED = "in blocks"
    SPREAD = "with an axis of extent 1 behind the others: it is the same for all channels"
    PLAIN = "as it is"


@dataclass(frozen=True)
class InBlocks:
    """An operation on values in blocks.

    Arguments:
        rank: of its inputs when they are plain; lower ones get axes of extent 1 in front.
        ways: of each input.
        op: the operation, for a block of so many channels.
        boundaries: what the block has to divide.
        keeps_channels: whether the results have channels.
    """

    rank: int
    ways: tuple[Way, ...]
    op: Callable[[int], Op]
    boundaries: tuple[int, ...] = ()
    keeps_channels: bool = True

    def leading(self, inputs: Types) -> list[int]:
        """The inputs in blocks of which there is most: their layout decides."""
        found = [i for i, way in enumerate(self.ways) if way is Way.BLOCKED]
        most = max((inputs[i].size for i in found), default=0)
        return [i for i in found if inputs[i].size == most and inputs[i].rank == self.rank]


@singledispatch
def in_blocks(op: Op, inputs: Types, outputs: Types) -> InBlocks | None:
    """The operation on values in blocks; None if there is none."""
    return None


def _always(op: Op) -> Callable[[int], Op]:
    return lambda size: op


def _ways(inputs: Types, result: TensorType) -> tuple[Way, ...] | None:
    """Of operands that are broadcast to the shape of the result."""
    if result.rank < 3 or result.shape[1] == 1:
        return None
    ways = []
    for x in inputs:
        shape = aligned_shape(x.shape, result.rank)
        if shape[1] > 1:
            ways.append(Way.BLOCKED)
        else:
            ways.append(Way.PLAIN if x.size == 1 and x.rank <= 1 else Way.SPREAD)
    return tuple(ways)


def aligned_shape(shape: Shape, rank: int) -> Shape:
    """With axes of extent 1 in front."""
    return (1,) * (rank - len(shape)) + shape


@in_blocks.register(pw.Pointwise)
@in_blocks.register(pw.Cast)
def _(op: Op, inputs: Types, outputs: Types) -> InBlocks | None:
    ways = _ways(inputs, outputs[0])
    return InBlocks(outputs[0].rank, ways, _always(op)) if ways else None


@in_blocks.register
def _(op: mv.Broadcast, inputs: Types, outputs: Types) -> InBlocks | None:
    ways = _ways(inputs, outputs[0])
    if ways is None:
        return None
    return InBlocks(len(op.shape), ways, lambda size: mv.Broadcast(blocked_shape(op.shape, size)))


@in_blocks.register
def _(op: Reduction, inputs: Types, outputs: Types) -> InBlocks | None:
    (x,) = inputs
    axes = (*op.axes, x.rank) if 1 in op.axes else op.axes
    return InBlocks(
        x.rank, (Way.BLOCKED,), _always(replace(op, axes=axes)), keeps_channels=1 not in op.axes
    )


@in_blocks.register
def _(op: pl.Pool, inputs: Types, outputs: Types) -> InBlocks | None:
    """A pooling over one more axis, the channels of a block, in windows of one."""
    if len(op.kernel) > 2:
        return None

    def extended(size: int) -> Op:
        longer = replace(
            op,
            kernel=(*op.kernel, 1),
            stride=(*op.stride, 1),
            padding=(*op.padding, (0, 0)),
            dilation=(*op.dilation, 1),
        )
        if isinstance(longer, pl.MaxPoolGradient | pl.SumPoolGradient):
            return replace(longer, spatial=(*longer.spatial, size))
        return longer

    return InBlocks(inputs[0].rank, (Way.BLOCKED,) * len(inputs), extended)


@in_blocks.register
def _(op: mv.Concat, inputs: Types, outputs: Types) -> InBlocks | None:
    if op.axis == 1 and any(x.shape[1] == 0 for x in inputs):
        return None
    boundaries = tuple(x.shape[1] for x in inputs) if op.axis == 1 else ()
    return InBlocks(inputs[0].rank, (Way.BLOCKED,) * len(inputs), _always(op), boundaries)


@in_blocks.register
def _(op: mv.Slice, inputs: Types, outputs: Types) -> InBlocks | None:
    if len(op.step) < 2 or op.step[1] != 1 or op.size[1] == 0:
        return None

    def of_blocks(size: int) -> Op:
        return mv.Slice(
            (op.start[0], op.start[1] // size, *op.start[2:], 0),
            blocked_shape(op.size, size),
            (*op.step, 1),
        )

    return InBlocks(len(op.size), (Way.BLOCKED,), of_blocks, (op.start[1], op.size[1]))


@in_blocks.register
def _(op: mv.Unslice, inputs: Types, outputs: Types) -> InBlocks | None:
    (x,) = inputs
    if len(op.step) < 2 or op.step[1] != 1 or x.shape[1] == 0:
        return None

    def of_blocks(size: int) -> Op:
        return mv.Unslice(
            blocked_shape(op.shape, size),
            (op.start[0], op.start[1] // size, *op.start[2:], 0),
            (*op.step, 1),
        )

    return InBlocks(x.rank, (Way.BLOCKED,), of_blocks, (op.start[1], x.shape[1], op.shape[1]))


@in_blocks.register
def _(op: mv.Pad, inputs: Types, outputs: Types) -> InBlocks | None:
    channels = op.padding[1] if len(op.padding) > 1 else (0, 0)
    if channels != (0, 0) and op.mode is not mv.PadMode.CONSTANT:
        return None

    def of_blocks(size: int) -> Op:
        before, after = channels
        pairs = (op.padding[0], (before // size, after // size), *op.padding[2:], (0, 0))
        return replace(op, padding=pairs)

    return InBlocks(inputs[0].rank, (Way.BLOCKED,), of_blocks, channels)


@in_blocks.register
def _(op: Take, inputs: Types, outputs: Types) -> InBlocks | None:
    """Along a spatial axis."""
    x, indices = inputs
    if op.axis < 2 or indices.rank != 1:
        return None
    return InBlocks(x.rank, (Way.BLOCKED, Way.PLAIN), _always(op))


@in_blocks.register
def _(op: mv.Reshape, inputs: Types, outputs: Types) -> InBlocks | None:
    """Of the spatial axes."""
    (x,), (y,) = inputs, outputs
    if min(x.rank, y.rank) < 3 or x.shape[:2] != y.shape[:2]:
        return None
    return InBlocks(x.rank, (Way.BLOCKED,), lambda size: mv.Reshape(blocked_shape(op.shape, size)))
