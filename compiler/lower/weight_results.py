"""Where the sums go that a gradient by a convolution's weight is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from ..graph import Graph, Value
from ..group import Group
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, ReduceOp, Space
from ..types import Shape
from .anchored import Anchored
from .binding import Binding
from .epilogue import store_results
from .index import Index
from .space import aligned_values, is_rigid
from .tile import Span

Starts = Mapping[str, Expr]
Lengths = Mapping[str, int]


@dataclass
class WeightResults(Anchored):
    """The results of a kernel, (K, C / groups, *kernel), by output channel and *row*: the number
    of an input channel and tap, row-major.

    Arguments:
        is_flat: whether the values of the group are indexed as (K, rows); see `flat_shapes`.
        parts: sums for each result, which are added at the end; the epilogue follows then.
    """

    is_flat: bool
    parts: int

    @cached_property
    def partial(self) -> Buffer | None:
        """The sums of all parts, (parts, K, rows)."""
        if self.parts == 1:
            return None
        shape = (self.parts, self.shape[0], math.prod(self.shape[1:]))
        return self.binding.local("partial", shape, self.dtype, Space.SCRATCH)

    def put(self, x: Expr, part: Expr, channel: Expr, row: Expr) -> ir.Block:
        """Stores the sum of a part."""
        if self.partial is None:
            return self._store(x, channel, row)
        return (ir.Store(self.partial, (part, channel, row), x),)

    def changed(self, part: Expr) -> list[tuple[Buffer, Index]]:
        """What is written, or read to be written back, by channel and row: buffers, and what
        stands before these in an index. None if results have more axes.
        """
        if self.partial is not None:
            return [(self.partial, (part,))]
        shape = (self.shape[0], math.prod(self.shape[1:]))
        for buffers in (self.binding.inputs, self.binding.outputs):
            found = [buffer for buffer in buffers.values() if buffer.shape == shape]
            if found:
                return [(buffer, ()) for buffer in found]
        return []

    def row_loop(self, row: ir.Var, count: int, body: ir.Block) -> ir.Block:
        """A loop over neighbouring rows: in lanes if they are neighbours in memory."""
        if self.is_flat:
            return (ir.For(row, count, body, LoopKind.VECTOR, self.lanes),)
        return (ir.For(row, count, body),)

    def combine(self) -> ir.Block:
        """Adds the sums of all parts, in order."""
        if self.partial is None:
            return ()
        parts, channels, rows = self.partial.shape
        part, channel, row = (self.binding.var(hint) for hint in ("part", "k", "r"))
        total = self.binding.local("total", (), self.dtype, Space.REGISTER)
        add = ir.Accumulate(total, (), ReduceOp.ADD, ir.Load(self.partial, (part, channel, row)))
        body: ir.Block = (
            ir.Alloc(total),
            ir.Store(total, (), ir.Const(0.0, self.dtype)),
            ir.For(part, parts, (add,)),
            *self._store(ir.Load(total, ()), channel, row),
        )
        return (ir.For(channel, channels, self.row_loop(row, rows, body), LoopKind.PARALLEL),)

    def _store(self, x: Expr, channel: Expr, row: Expr) -> ir.Block:
        index: Index = (channel, row)
        if not self.is_flat:
            rest = row
            inner: list[Expr] = []
            for extent in reversed(self.shape[2:]):
                inner.append(rest % extent)
                rest = rest // extent
            index = (channel, rest, *reversed(inner))
        return store_results(self.binding, {self.result: x}, index)


def over_spans(
    binding: Binding,
    spans: Mapping[str, Sequence[Span]],
    body: Callable[[Starts, Lengths], ir.Block],
    kind: LoopKind = LoopKind.SERIAL,
) -> ir.Block:
    """Loops over blocks along some axes, by name, the first outermost.

    Each combination of lengths is a nest of its own. What starts in one place only has no loop.
    """
    result: ir.Block = ()
    for combination in product(*spans.values()):
        loops: list[tuple[ir.Var, int]] = []
        starts: dict[str, Expr] = {}
        for name, span in zip(spans, combination, strict=True):
            starts[name] = ir.index(span.start)
            if span.count > 1:
                var = binding.var(name)
                loops.append((var, span.count))
                starts[name] = var * span.length + span.start
        if kind is LoopKind.PARALLEL and not loops:
            loops.append((binding.var("task"), 1))
        lengths = {n: s.length for n, s in zip(spans, combination, strict=True)}
        result += ir.loop_nest(tuple(loops), body(starts, lengths), kind)
    return result


def flat_shapes(graph: Graph, group: Group, result: Value) -> dict[Value, Shape] | None:
    """Shapes of all values of a group as (K, rows), or None if they have none.

    Not those of the operands x and dy, which nothing else may read then.
    """
    if is_rigid(graph, group) or operands_are_shared(graph, group, result):
        return None
    shape = graph.type_of(result).shape
    shapes: dict[Value, Shape] = {}
    for value in aligned_values(graph, group):
        if value in graph.inputs_of(result.node):
            continue
        own = graph.type_of(value).shape
        own = (1,) * (len(shape) - len(own)) + own
        if own[1:] != shape[1:] and math.prod(own[1:]) != 1:
            return None
        shapes[value] = (own[0], math.prod(own[1:]))
    return shapes if group.allows(graph, shapes) else None


def operands_are_shared(graph: Graph, group: Group, result: Value) -> bool:
    """Whether a node of the group beside the anchor reads x or dy."""
    operands = set(graph.inputs_of(result.node))
    others = (name for name in group.nodes if name != result.node)
    return any(operands.intersection(graph.inputs_of(name)) for name in others)
