"""What an anchor's kernel can do with its result while that is in cache."""

from __future__ import annotations

import math

from .graph import Graph
from .loops.ir import STACK_BYTES
from .ops import movement as mv
from .ops.base import Op
from .ops.blocked import BlockedConv
from .ops.conv import Conv
from .ops.window import Window
from .ops.winograd import WinogradConv
from .types import Shape, TensorType

_COLUMN_BYTES = 128
# Of a depthwise convolution that shares a kernel with the one before it.
_WIDEST_KERNEL = 7
# Bytes that no cache holds: to write them and to read them again costs more than computing some
# rows of a convolution twice.
_LARGE = 8 << 20


def can_pool(op: Op, window: Window, spatial: Shape) -> bool:
    """Whether an anchor's kernel can do the pooling of its result, of extents `spatial`, too."""
    if isinstance(op, WinogradConv):
        return op.holds(window)
    if isinstance(op, BlockedConv):
        if window.kernel[-1] > 1 or len(spatial) < 2 or op.has_small_groups:
            return False
        window, spatial = window.along(slice(-1)), spatial[:-1]
    return isinstance(op, Conv | BlockedConv) and fits_stack(window, spatial)


def can_convolve(op: Op, depthwise: BlockedConv, x: TensorType, w: TensorType) -> bool:
    """Whether an anchor's kernel can do the depthwise convolution of its result, too.

    Arguments:
        op: the anchor.
        depthwise: the depthwise convolution behind it.
        x, w: what that reads.
    """
    if not isinstance(op, BlockedConv) or x.size == 0:
        return False
    if op.is_depthwise or op.has_small_groups:
        return False
    block, panel, kernel = x.shape[-1], w.shape[-1], depthwise.weight[2:]
    if not isinstance(depthwise.convolution, Conv) or max(kernel) > _WIDEST_KERNEL:
        return False
    pointwise = op.convolution.window(op.weight[2:]).size == 1
    if not pointwise and x.nbytes < _LARGE:
        return False
    aligned = block > 1 and block == depthwise.block and panel % block == 0
    return aligned and fits_stack(depthwise.convolution.window(kernel), x.shape[2:-1])


def fits_stack(window: Window, spatial: Shape) -> bool:
    """Whether pooling can follow the convolution that gives `spatial` in one kernel.

    The rows of one row of windows must fit on the stack, two of the widest vectors deep.

    Arguments:
        window: of the pooling.
        spatial: extents of what is pooled.
    """
    columns = min(spatial[-1], window.outputs(spatial)[-1] * window.stride[-1] + window.reach[-1])
    return math.prod(window.reach[:-1]) * columns * _COLUMN_BYTES <= STACK_BYTES


def is_column_group(op: mv.Slice, shape: Shape, groups: int) -> bool:
    """Whether a slice of a matrix of this shape is one of so many equal parts of its columns."""
    rows, columns = shape
    size = columns // groups
    return op.size == (rows, size) and op.step == (1, 1) and op.start[1] % size == 0


def concat_part(graph: Graph, name: str) -> Shape | None:
    """The shape of what a concatenation puts side by side, if all of that has one shape."""
    shapes = {graph.type_of(v).shape for v in graph.inputs_of(name)}
    return shapes.pop() if len(shapes) == 1 else None
