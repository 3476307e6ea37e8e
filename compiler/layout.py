"""Where values lie in blocks of channels.

Convolutions are fastest where a vector of neighbouring channels is one load: on values in blocks
(N, C / b, *spatial, b), with weights packed to match (`ops/blocked.py`). This pass turns
convolutions into those, and takes what follows on a convolution along (`layout_rules.py`), so that
values change their layout only where something reads them that knows no blocks.

A block is the largest power of two that divides the channels, up to the lanes of a vector. Values
that meet (operands of a sum, parts of a concatenation) have blocks of one size
(`layout_blocks.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .graph import Graph, Node, Value
from .layout_blocks import Blocks, are_small_groups, is_depthwise, merged_groups
from .layout_rules import InBlocks, Way, aligned_shape, in_blocks
from .llvm.target import Target
from .lower.blocked_conv import panel_width
from .ops import movement as mv
from .ops.base import apply
from .ops.blocked import (
    Block,
    BlockedConv,
    BlockedConvWeightGradient,
    Unblock,
    blocked_shape,
    plain_shape,
)
from .ops.conv import Conv, ConvInputGradient, ConvWeightGradient
from .ops.leaf import Leaf
from .ops.pointwise import Cast, Pointwise, Where
from .ops.reduce import Sum
from .passes.base import Pass
from .rewrite import Rewriter, rewrite
from .tensor import Tensor
from .types import Shape

# So many point nodes in a row are moved behind a reshape.
_DEPTH = 4


@dataclass(frozen=True)
class BlockChannels(Pass):
    """Puts convolutions and what follows on them into blocks of channels.

    Arguments:
        target: the machine, whose vectors the blocks fill.
    """

    target: Target

    def apply(self, graph: Graph) -> Graph:
        return rewrite(rewrite(graph, _Layout(self.target, Blocks(graph, self.target)).rule))


@dataclass
class _Layout:
    """One rewrite.

    Attributes:
        target: the machine.
        blocks: of what size values have their blocks, if they have any.
        twins: values of the new graph that are there in blocks, too.
    """

    target: Target
    blocks: Blocks
    twins: dict[Value, Tensor] = field(default_factory=dict)

    def rule(self, rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
        inputs = rewriter.inputs(node)
        if isinstance(node.op, ConvWeightGradient):
            return self._weight_gradient(rewriter, node, node.op, inputs)
        if isinstance(node.op, Conv | ConvInputGradient):
            return self._convolution(rewriter, node, node.op, inputs)
        form = in_blocks(node.op, [x.type for x in inputs], node.types)
        least = 1 if isinstance(node.op, Pointwise | Cast) else 2
        results = self._in_blocks(form, inputs, least) if form else None
        return [self._plain(y) for y in results] if results else None

    # -- layouts ----------------------------------------------------------------------------------

    def _size(self, x: Tensor) -> int:
        """The block in which a value is there; 0 if it is plain."""
        twin = self.twins.get(x.value)
        return 0 if twin is None else twin.shape[-1]

    def _wanted(self, x: Tensor, old: Value) -> int:
        """The block in which a convolution reads a value: as it is there, or as it would be."""
        return self._size(x) or self.blocks.of(old)

    def _plain(self, x: Tensor) -> Tensor:
        """The plain value, which remembers that it is there in blocks."""
        y = x.reshape(plain_shape(x.shape)) if _is_reshape(x.shape) else apply(Unblock(), x)
        self.twins[y.value] = x
        return y

    def _blocked(self, x: Tensor, size: int) -> Tensor:
        """A plain value in blocks."""
        if self._size(x) == size:
            return self.twins[x.value]
        producer = x.graph.producer(x.value)
        if isinstance(producer.op, mv.Broadcast):
            (source,) = (x.graph.tensor(v) for v in x.graph.inputs_of(producer.name))
            source = source.reshape(aligned_shape(source.shape, x.rank))
            one = source.shape[1] == 1
            spread = self._spread(source) if one else self._blocked(source, size)
            return spread.broadcast_to(blocked_shape(x.shape, size))
        if isinstance(producer.op, mv.Slice):
            (source,) = (x.graph.tensor(v) for v in x.graph.inputs_of(producer.name))
            form = in_blocks(producer.op, [source.type], producer.types)
            repeated = isinstance(source.graph.producer(source.value).op, mv.Broadcast)
            if form and repeated and not any(n % size for n in form.boundaries):
                return apply(form.op(size), self._blocked(source, size))
        shape = blocked_shape(x.shape, size)
        if not _is_reshape(shape):
            return apply(Block(size), x)
        computed = _computed(x, shape, _DEPTH)
        return x.reshape(shape) if computed is None else computed

    def _spread(self, x: Tensor) -> Tensor:
        return x.reshape((*x.shape, 1))

    # -- what follows on convolutions -------------------------------------------------------------

    def _in_blocks(
        self, form: InBlocks, inputs: Sequence[Tensor], least: int
    ) -> tuple[Tensor, ...] | None:
        leading = form.leading([x.type for x in inputs])
        sizes = [self._size(inputs[i]) for i in leading]
        fitting = [b for b in sizes if b >= least and not any(n % b for n in form.boundaries)]
        if not fitting:
            return None
        size = max(fitting, key=fitting.count)
        operands = [
            self._operand(x, way, form.rank, size) for x, way in zip(inputs, form.ways, strict=True)
        ]
        return operands[0].graph.apply(form.op(size), *operands)

    def _operand(self, x: Tensor, way: Way, rank: int, size: int) -> Tensor:
        if way is Way.PLAIN:
            return x
        x = x.reshape(aligned_shape(x.shape, rank)) if x.rank < rank else x
        return self._spread(x) if way is Way.SPREAD else self._blocked(x, size)

    # -- convolutions -----------------------------------------------------------------------------

    def _convolution(
        self,
        rewriter: Rewriter,
        node: Node,
        op: Conv | ConvInputGradient,
        inputs: Sequence[Tensor],
    ) -> Sequence[Tensor] | None:
        x, w = inputs
        lanes = self.target.lanes(x.dtype)
        read, written = (
            self._wanted(x, rewriter.old.inputs_of(node.name)[0]),
            self.blocks.of(Value(node.name)),
        )
        if is_depthwise(op, w.shape):
            return [self._gather(op, x, w, read, read)] if read > 1 else None
        if are_small_groups(op, w.shape, lanes) and read == written == lanes:
            return [self._gather(op, x, w, read, written)]
        many = merged_groups(op, w.shape, lanes)
        outer, inner = many * w.shape[0] // op.groups, many * w.shape[1]
        depth, channels = (inner, outer) if isinstance(op, Conv) else (outer, inner)
        if depth % read or channels % written:
            read = written = 1
        if channels < lanes and max(min(self._size(x), read), written) <= 1:
            return None
        whole = replace(op, groups=op.groups // many)
        return [self._gather(whole, x, _merged(w, op.groups, many), read, written)]

    def _gather(
        self,
        op: Conv | ConvInputGradient,
        x: Tensor,
        w: Tensor,
        read: int,
        written: int,
    ) -> Tensor:
        blocked, x = BlockedConv(op, w.shape, written), self._blocked(x, read)
        packed = apply(blocked.packing(panel_width(blocked, x.type, self.target)), w)
        return self._plain(apply(blocked, x, packed))

    def _weight_gradient(
        self, rewriter: Rewriter, node: Node, op: ConvWeightGradient, inputs: Sequence[Tensor]
    ) -> Sequence[Tensor] | None:
        if not any(map(self._size, inputs)):
            return None
        old = rewriter.old.inputs_of(node.name)
        sizes = [self._wanted(x, value) for x, value in zip(inputs, old, strict=True)]
        weight = node.types[0].shape
        lanes = self.target.lanes(inputs[0].dtype)
        apart = are_small_groups(op, weight, lanes) and sizes == [lanes, lanes]
        many = 1 if apart else merged_groups(op, weight, lanes)
        depth, channels = many * weight[1], many * weight[0] // op.groups
        if max(sizes) == 1:
            return None
        if is_depthwise(op, weight):
            if sizes[0] != sizes[1]:
                return None
        elif not apart and (depth % sizes[0] or channels % sizes[1]):
            return None
        operands = [self._blocked(x, b) for x, b in zip(inputs, sizes, strict=True)]
        whole = replace(op, groups=op.groups // many)
        y = apply(BlockedConvWeightGradient(whole), *operands)
        return [_diagonal(y, op.groups, many)]


def _is_reshape(shape: Sequence[int]) -> bool:
    """Whether a value of that shape in blocks lies in memory as the plain one does."""
    return shape[-1] == 1 or all(n == 1 for n in shape[2:-1])


def _computed(x: Tensor, shape: Shape, depth: int) -> Tensor | None:
    """What follows from leaves under another shape, so that it lines up with what reads it."""
    if x.type.size != math.prod(shape):
        return None
    node = x.graph.producer(x.value)
    operands = tuple(x.graph.tensor(v) for v in x.graph.inputs_of(node.name))
    if isinstance(node.op, Leaf):
        return x.reshape(shape)
    if isinstance(node.op, mv.Reshape):
        return _computed(operands[0], shape, depth)
    if not isinstance(node.op, Pointwise) or not depth:
        return None
    found = [y if y.type.size == 1 else _computed(y, shape, depth - 1) for y in operands]
    known = [y for y in found if y is not None]
    if len(known) < len(found):
        return None
    return apply(node.op, *known)


# -- groups of few channels ---------------------------------------------------------------------


def _merged(w: Tensor, groups: int, many: int) -> Tensor:
    """The weight of a convolution with `many` groups made one, zeros between them."""
    if many == 1:
        return w
    outer, inner, *kernel = w.shape
    parts = w.reshape((groups // many, many, outer // groups, 1, inner, *kernel))
    shape = (*parts.shape[:3], many, *parts.shape[4:])
    whole = apply(Where(), _own(w, many, len(shape)), parts, w.constant(0.0))
    return whole.broadcast_to(shape).reshape((outer, many * inner, *kernel))


def _diagonal(w: Tensor, groups: int, many: int) -> Tensor:
    """The weight of a convolution, from one with `many` groups made one."""
    if many == 1:
        return w
    outer, inner, *kernel = w.shape
    parts = w.reshape((groups // many, many, outer // groups, many, inner // many, *kernel))
    own = apply(Where(), _own(w, many, parts.rank), parts, w.constant(0.0))
    return apply(Sum((3,)), own).reshape((outer, inner // many, *kernel))


def _own(w: Tensor, many: int, rank: int) -> Tensor:
    """Where the output channels of a group meet the input channels of that group."""
    mask = np.eye(many, dtype=np.bool_)
    return w.graph.constant(mask.reshape((1, many, 1, many, *(1,) * (rank - 4))))
