"""How many channels are in a block of each value, if it is in blocks at all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from .graph import Graph, Node, Value
from .layout_rules import Way, in_blocks
from .ops.blocked import Block, BlockedConv
from .ops.conv import Conv, Convolution, ConvWeightGradient
from .ops.indexing import Take
from .ops.movement import Broadcast, Concat, Pad, Slice, Unslice
from .ops.pointwise import Cast, Pointwise
from .ops.pool import Pool
from .ops.reduce import Reduction
from .ops.strassen import StrassenConv
from .ops.winograd import WinogradConv
from .types import Shape

if TYPE_CHECKING:
    from .llvm.target import Target

# Blocks of fewer channels are not worth their while, nor are vectors of as many lanes.
_LEAST = 4
# The longest row of a kernel of small groups: its weights are held in registers.
_LONGEST = 8
# Operations whose results are in the blocks in which they read.
_FOLLOWING = (
    Pointwise,
    Cast,
    Broadcast,
    Reduction,
    Pool,
    Concat,
    Slice,
    Unslice,
    Pad,
    Take,
)


class Blocks:
    """The blocks of the values of a graph.

    Values that some operation reads or gives side by side are of one class, whose block divides
    all their channels. Classes that have no block in common stay apart: whatever reads values of
    both changes the layout of one.
    """

    def __init__(self, graph: Graph, target: Target) -> None:
        self._graph = graph
        self._target = target
        self._above: dict[Value, Value] = {}
        self._common: dict[Value, int] = {}
        self._lanes: dict[Value, int] = {}
        for node in graph.nodes():
            for values, boundaries in self._related(node):
                self._join(values, boundaries)
        self._useful = {self._root(v) for n in graph.nodes() for v in self._read_in_blocks(n)}

    def of(self, value: Value) -> int:
        """Channels in a block of the value; 1 if it has none, or nothing would read them."""
        root = self._root(value)
        return self._possible(root) if root in self._useful else 1

    def _possible(self, root: Value) -> int:
        return self._block(self._common[root], self._lanes[root])

    def _block(self, common: int, lanes: int) -> int:
        block = math.gcd(common, lanes)
        return block if block >= min(_LEAST, lanes) else 1

    def _root(self, value: Value) -> Value:
        if value not in self._above:
            type = self._graph.type_of(value)
            self._above[value] = value
            self._common[value] = type.shape[1] if type.rank > 2 else 1
            wide = self._target.vector_bits // 8
            self._lanes[value] = wide // (type.dtype.size if type.dtype.is_float else 4)
        while self._above[value] != value:
            self._above[value] = self._above[self._above[value]]
            value = self._above[value]
        return value

    def _join(self, values: Sequence[Value], boundaries: Sequence[int]) -> None:
        """Makes values one class, unless that would leave one of them without a block."""
        roots = dict.fromkeys(self._root(v) for v in values)
        common = math.gcd(*boundaries, *(self._common[r] for r in roots))
        lanes = min(self._lanes[r] for r in roots)
        if self._block(common, lanes) == 1 < max(self._possible(r) for r in roots):
            return
        first, *others = roots
        self._common[first], self._lanes[first] = common, lanes
        for other in others:
            self._above[other] = first

    def _related(self, node: Node) -> Iterator[tuple[list[Value], Sequence[int]]]:
        """Values that should be of one class, and what their block should divide."""
        inputs = self._graph.inputs_of(node.name)
        types = [self._graph.type_of(v) for v in inputs]
        if isinstance(node.op, Convolution):
            yield from self._convolved(node, node.op, inputs)
            return
        form = in_blocks(node.op, types, node.types)
        if form is None:
            return
        values = [
            v
            for v, type, way in zip(inputs, types, form.ways, strict=True)
            if way is Way.BLOCKED and type.rank == form.rank
        ]
        if form.keeps_channels:
            values += self._graph.outputs_of(node.name)
        if values:
            yield values, form.boundaries

    def _read_in_blocks(self, node: Node) -> Sequence[Value]:
        """What a node reads in blocks, if there are any; point nodes do not care."""
        inputs = self._graph.inputs_of(node.name)
        if isinstance(node.op, Convolution):
            return inputs if isinstance(node.op, ConvWeightGradient) else inputs[:1]
        form = in_blocks(node.op, [self._graph.type_of(v) for v in inputs], node.types)
        if form is None or isinstance(node.op, Pointwise | Cast | Broadcast):
            return ()
        found = [v for v, w in zip(inputs, form.ways, strict=True) if w is Way.BLOCKED]
        sizes = [self._possible(self._root(v)) for v in found]
        return found if not any(n % b for n in form.boundaries for b in sizes) else ()

    def _convolved(
        self, node: Node, op: Convolution, inputs: Sequence[Value]
    ) -> Iterator[tuple[list[Value], Sequence[int]]]:
        result = Value(node.name)
        if isinstance(op, ConvWeightGradient):
            x, y = inputs
            weight = node.types[0].shape
        else:
            x, y = (inputs[0], result) if isinstance(op, Conv) else (result, inputs[0])
            weight = self._graph.type_of(inputs[1]).shape
        if is_depthwise(op, weight):
            yield [x, y], ()
        elif op.groups > 1:
            lanes = self._target.lanes(self._graph.type_of(x).dtype)
            if are_small_groups(op, weight, lanes):
                return
            many = merged_groups(op, weight, lanes)
            yield [x], (many * weight[1],)
            yield [y], (many * weight[0] // op.groups,)


def is_depthwise(op: Convolution, weight: Shape) -> bool:
    """Whether each group has one input and one output channel."""
    return weight[:2] == (op.groups, 1)


def are_small_groups(op: Convolution, weight: Shape, lanes: int) -> bool:
    """Whether several groups lie in a vector of as many channels in as out."""
    outer, inner = weight[0] // op.groups, weight[1]
    is_square = op.groups > 1 and outer == inner
    whole = lanes % max(1, inner) == weight[0] % lanes == 0
    is_short = weight[-1] <= _LONGEST and set(op.dilation) == {1}
    return is_square and 1 < inner < lanes and whole and is_short


def merged_groups(op: Convolution, weight: Shape, lanes: int) -> int:
    """How many neighbouring groups are computed as one.

    So many that their channels fill vectors, though most of their products are with zeros.
    """
    outer, inner = weight[0] // op.groups, weight[1]
    if op.groups == 1 or outer == inner == 1:
        return 1
    for many in (1, 2, 4):
        if op.groups % many == 0 and not (many * outer % lanes or many * inner % lanes):
            return many
    return 1


def channel_blocks(graph: Graph) -> Mapping[Value, int]:
    """Channels in a block, of the values of a graph after the layout pass that are in blocks."""
    found: dict[Value, int] = {}
    for node in graph.nodes():
        size = 1
        if isinstance(node.op, Block):
            size = node.op.size
        elif isinstance(node.op, BlockedConv | WinogradConv | StrassenConv):
            size = node.op.block
        elif isinstance(node.op, _FOLLOWING):
            size = max((found.get(v, 1) for v in graph.inputs_of(node.name)), default=1)
        for value, type in zip(graph.outputs_of(node.name), node.types, strict=True):
            if size > 1 and type.rank > 2 and type.shape[-1] == size:
                found[value] = size
    return found
