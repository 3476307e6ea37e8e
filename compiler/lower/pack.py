"""Weights packed for convolutions in blocks of channels: whole panels, and what fills the last."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, Space
from ..ops.blocked import PackWeight
from .binding import Binding, Lowered
from .index import Index
from .tile import Span, panels

# Lines with the same place in the first-level cache are so many bytes apart; it holds so many.
_WAY_BYTES, _WAYS = 4096, 8
# Places that are packed together, of all panels or of one: a cache line of a row.
_CHUNK = 16


def packs_weight(graph: Graph, group: Group) -> bool:
    """Whether all that a group gives is a packed weight."""
    return len(group.outputs) == 1 and isinstance(graph.producer(group.outputs[0]).op, PackWeight)


def lower_pack(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of PackWeight and of what is computed for it."""
    (result,) = group.outputs
    op, (w,) = graph.producer(result).op, graph.inputs_of(result.node)
    assert isinstance(op, PackWeight)
    packing = _Packing(Binding(graph, group, target), result, w, op)
    return packing.binding.finish(packing.lower(), f"panels of {op.panel} channels")


@dataclass
class _Packing:
    """Builds the loops of one PackWeight."""

    binding: Binding
    result: Value
    w: Value
    op: PackWeight

    @cached_property
    def packed(self) -> Buffer:
        return self.binding.outputs[self.result]

    @property
    def depth(self) -> int:
        return self.packed.shape[2]

    @property
    def taps(self) -> tuple[int, ...]:
        return self.packed.shape[3:-1]

    @property
    def width(self) -> int:
        return self.packed.shape[-1]

    @cached_property
    def outer(self) -> int:
        """Rows of a group of the weight."""
        return self.binding.shape(self.w)[0] // self.op.groups

    @cached_property
    def channels(self) -> int:
        """In the lanes of panels: of a group, where groups are not joined."""
        return self.binding.shape(self.w)[1] if self.op.transposed else self.outer

    @property
    def is_matrix(self) -> bool:
        """Whether there is one tap, and panels hold channels of one group."""
        return math.prod(self.taps) == 1 and not self.op.joined

    @property
    def collides(self) -> bool:
        """Whether the rows that a panel comes from drive each other out of the cache."""
        apart = self.depth * self.packed.dtype.size
        places = _WAY_BYTES // math.gcd(apart, _WAY_BYTES)
        return self.is_matrix and not self.op.transposed and self.width > _WAYS * places

    def lower(self) -> ir.Block:
        body: ir.Block = ()
        for span in panels(self.channels * (self.op.groups if self.op.joined else 1), self.width):
            body += self._through_tile(span) if self.collides else self._by_place(span)
        return body

    def _by_place(self, span: Span) -> ir.Block:
        """Place by place; channels that follow each other are read row by row, of all panels."""
        group, panel = self.binding.var("g"), self.binding.var("p")
        number = panel + span.start // self.width
        groups, count = (group, self.packed.shape[0]), (panel, span.count)
        if not (self.is_matrix and self.op.transposed):
            place, kernel = self.binding.var("c"), [self.binding.var("t") for _ in self.taps]
            row = self._row(span, (group, number, place, *kernel))
            loops = (groups, count, (place, self.depth), *zip(kernel, self.taps, strict=True))
            return ir.loop_nest(loops, row, LoopKind.PARALLEL)
        body: ir.Block = ()
        for part in panels(self.depth, _CHUNK):
            chunk, place = self.binding.var("chunk"), self.binding.var("c")
            at = chunk * part.length + part.start + place
            row = self._row(span, (group, number, at, *self._tap))
            rows = (ir.For(place, part.length, row),)
            body += ir.loop_nest((groups, (chunk, part.count), count), rows, LoopKind.PARALLEL)
        return body

    def _through_tile(self, span: Span) -> ir.Block:
        """Whole cache lines of a panel's rows onto the stack, and from there into its lanes."""
        group, panel = self.binding.var("g"), self.binding.var("p")
        number = panel + span.start // self.width
        body: ir.Block = ()
        for part in panels(self.depth, _CHUNK):
            chunk = self.binding.var("chunk")
            first = chunk * part.length + part.start
            inside = self._chunk(span, (group, number, first), part.length)
            loops = ((group, self.packed.shape[0]), (panel, span.count), (chunk, part.count))
            body += ir.loop_nest(loops, inside, LoopKind.PARALLEL)
        return body

    def _chunk(self, span: Span, start: Index, length: int) -> ir.Block:
        """Some places of a panel from (group, panel, place) on."""
        *where, first = start
        tile = self.binding.local("tile", (span.length, length), self.packed.dtype, Space.STACK)
        row, place, lane = (self.binding.var(hint) for hint in ("m", "c", "v"))
        lets, x = self._element((*where, first + lane, *self._tap), row)
        copy = (*lets, ir.Store(tile, (row, lane), x))
        vector = ir.For(lane, length, copy, LoopKind.VECTOR, self.lanes)
        index = (*where, first + place, *self._tap)
        put = self._lanes(span, index, lambda lane: ((), ir.Load(tile, (lane, place))))
        return (
            ir.Alloc(tile),
            ir.For(row, span.length, (vector,)),
            ir.For(place, length, put),
        )

    @property
    def _tap(self) -> Index:
        """The only one."""
        return (ir.index(0),) * len(self.taps)

    @property
    def lanes(self) -> int:
        return self.binding.lanes(self.packed.dtype)

    def _row(self, span: Span, index: Index) -> ir.Block:
        """One place of a panel."""
        return self._lanes(span, index, lambda lane: self._element(index, lane))

    def _lanes(
        self, span: Span, index: Index, element: Callable[[Expr], tuple[ir.Block, Expr]]
    ) -> ir.Block:
        """Stores what `element` gives for each lane of a panel, and zeros behind the last."""
        lane = self.binding.var("v")
        lets, x = element(lane)
        store = (*lets, ir.Store(self.packed, (*index, lane), x))
        rows: ir.Block = (ir.For(lane, span.length, store, LoopKind.VECTOR, self.lanes),)
        if span.length < self.width:
            zero = ir.Const(0.0, self.packed.dtype)
            fill = (ir.Store(self.packed, (*index, lane + span.length), zero),)
            rest = self.width - span.length
            rows += (ir.For(lane, rest, fill, LoopKind.VECTOR, self.lanes),)
        return rows

    def _element(self, index: Index, lane: Expr) -> tuple[ir.Block, Expr]:
        """What belongs into a lane of (group, panel, place, *tap), and the statements it needs."""
        group, number, place, *kernel = index
        channel = number * self.width + lane
        if self.op.joined:
            group, channel = channel // self.channels, channel % self.channels
        pair = (place, channel) if self.op.transposed else (channel, place)
        elements = self.binding.elements()
        x = elements.at(self.w, (group * self.outer + pair[0], pair[1], *kernel))
        return elements.take_block(), x
