"""A 1x1 convolution with a depthwise convolution behind it, in blocks of channels.

As in `blocked_depthwise.py`, what comes between the two never gets into memory. Here it hardly
leaves the first-level cache: a task goes down the map with a panel of channels, computes some rows
at a time into a ring of rows, and the results of which all rows are there then. So rows are
computed twice only where a map is cut into bands to keep all threads busy.

Rows computed at a time are one line of pixels for the 1x1 convolution, whose register tiles are
then nearly all full.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from ..graph import Graph, Value
from ..group import Group
from ..loops import ir
from ..loops.ir import BinaryOp, Expr, LoopKind, Space, binary
from ..ops.blocked import BlockedConv
from ..types import Shape
from .block_index import divided
from .contraction import Axis, Block, Contraction, Factor, Place, Tiling, register_tile
from .depthwise import Depthwise, Form, depthwise_form
from .elements import is_number
from .epilogue import store_results
from .index import Index
from .space import is_rigid
from .windows import WindowAxis, guarded

if TYPE_CHECKING:
    from .binding import Lowered
    from .blocked_conv import BlockedGather

# Bytes of the ring that stay in the first-level cache beside all else, and bytes a cycle that are
# moved from and to the one behind it.
_RING = 29 * 1024
_MOVED = 16.0
# The largest ring, and what rows that are left over for a last round of their own cost: more code.
_STACK = 96 * 1024
_PEELED = 1.02
# Cycles of each round of a task beside its work.
_ROUND = 100.0
# So many tasks keep all threads busy.
_TASKS = 12


@dataclass(frozen=True)
class Ring:
    """Which rows are computed when, and where they are kept.

    In round t, rows t * rows … are computed, then results from t * results - delay on.

    Arguments:
        results: rows of results in a round.
        rows: computed in a round.
        delay: how many rows of results wait for rows of the next rounds.
        slots: rounds whose rows are kept.
        bands: tasks for the same channels.
        height: rows of results of a band.
        before: rounds that a band begins earlier, for the rows above its own.
        rounds: of a band.
    """

    results: int
    rows: int
    delay: int
    slots: int
    bands: int
    height: int
    before: int
    rounds: int


def ring_of(axis: WindowAxis, results: int, bands: int) -> Ring:
    """The ring for so many rows of results in a round, and so many bands at most."""
    reach = (axis.kernel - 1) * axis.dilation + 1
    delay = max(0, -(-(reach - axis.low) // axis.stride) - 1)
    rows = results * axis.stride
    slots = -(-(rows + delay * axis.stride + axis.low) // rows)
    rounds = -(-axis.windows // results)
    height = -(-rounds // min(bands, rounds)) * results
    bands = -(-axis.windows // height)
    before = -(-axis.low // rows) if bands > 1 else 0
    last = height if bands > 1 else axis.windows
    after = -(-(last + delay) // results)
    return Ring(results, rows, delay, slots, bands, height, before, before + after)


def flat_before(graph: Graph, group: Group) -> Mapping[Value, Shape]:
    """Shapes with the pixels in one row, for what the depthwise convolution is computed from.

    There are none if that is no 1x1 convolution of stride 1, or if it asks for single pixels.
    """
    anchor = Value(group.anchor or "")
    source = graph.inputs_of(group.pool or "")[0]
    op = graph.producer(anchor).op
    assert isinstance(op, BlockedConv)
    window, space = op.convolution.window(op.weight[2:]), graph.type_of(anchor).shape
    pointwise = window.size == 1 and not any(map(any, window.padding))
    if len(space) != 5 or not pointwise or set(window.stride) != {1} or is_rigid(graph, group):
        return {}
    before = _computed_from(graph, group, source)
    after = {v for n in group.nodes if Value(n) not in before for v in graph.inputs_of(n)}
    x, w = graph.inputs_of(anchor.node)
    shapes: dict[Value, Shape] = {}
    for value in before - {source, w}:
        shape = graph.type_of(value).shape
        shape = (1,) * (len(space) - len(shape)) + shape
        if value != x and shape[2:-1] not in (space[2:-1], (1, 1)):
            return {}
        if value in after and not is_number(graph, value):
            return {}
        shapes[value] = (*shape[:2], math.prod(shape[2:-1]), shape[-1])
    return shapes if op.convolution.groups == 1 and group.allows(graph, shapes) else {}


def _computed_from(graph: Graph, group: Group, value: Value) -> set[Value]:
    """A value and all that the group computes it from."""
    found: set[Value] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        found.add(value)
        if value.node in group.members:
            waiting += [v for v in graph.inputs_of(value.node) if v not in found]
    return found


@dataclass
class PointwiseDepthwise:
    """Builds the loops.

    Arguments:
        conv: the 1x1 convolution, with `flat_before`.
    """

    conv: BlockedGather

    @cached_property
    def depthwise(self) -> BlockedGather:
        """The depthwise convolution."""
        behind = self.conv.binding.group.pool
        return replace(self.conv, result=Value(behind or ""), flat=False)

    @cached_property
    def form(self) -> Form:
        """Of the depthwise convolution."""
        form = depthwise_form(self.depthwise, edges=None)
        assert form is not None
        return form

    @property
    def axis(self) -> WindowAxis:
        """The windows from the top of a map to its bottom."""
        return self.conv.windows_behind[0]

    @property
    def width(self) -> int:
        """Of the maps between the two convolutions."""
        return self.form.axes[-1].source

    # -- rounds -----------------------------------------------------------------------------------

    def line(self, rows: int) -> Contraction:
        """The 1x1 convolution of so many rows."""
        conv = self.conv
        pixel, channel = Axis("w", rows * self.width), conv.channel
        return Contraction(
            outputs=(channel, pixel),
            lane=channel,
            summed=(conv.depth, conv.within),
            factors=(Factor(frozenset({pixel})), Factor(frozenset({channel}))),
            lanes=conv.lanes,
            registers=conv.binding.target.registers,
            panel=conv.binding.shape(conv.weight)[-1],
        )

    @cached_property
    def ring(self) -> Ring:
        """The cheapest ring."""
        panels = -(-self.conv.channel.extent // self.line(1).panel)
        bands = -(-_TASKS // (self.conv.shape[0] * panels))
        rings = [ring_of(self.axis, n, bands) for n in range(1, self.axis.windows + 1)]
        return min(rings, key=self._cost)

    def _cost(self, ring: Ring) -> float:
        """Cycles for a sample."""
        line = self.line(ring.rows)
        size = ring.slots * ring.rows * self.width * line.panel * self.conv.dtype.size
        if size > _STACK:
            return math.inf
        whole, rest = divmod(self.axis.extent, ring.rows)
        cost = (whole + ring.bands * ring.before) * line.cost
        cost += self.line(rest).cost if rest else 0.0
        if size > _RING:
            moved = self.axis.extent * self.width * self.conv.channel.extent
            cost += 2 * moved * self.conv.dtype.size / _MOVED
        panels = -(-self.conv.channel.extent // line.panel)
        return cost * (_PEELED if rest else 1.0) + panels * ring.bands * ring.rounds * _ROUND

    # -- loops ------------------------------------------------------------------------------------

    def lower(self) -> Lowered:
        """The kernel."""
        line = self.line(self.ring.rows)
        body: ir.Block = ()
        for tiling in line.tilings:
            body += self._tasks(line, tiling)
        note = f"direct {line.size}, channels; {self.form.note}"
        return self.conv.binding.finish(body, note)

    def _tasks(self, line: Contraction, tiling: Tiling) -> ir.Block:
        """All results of panels of one width."""
        conv, ring, columns = self.conv, self.ring, tiling.columns
        binding = conv.binding
        shape = (ring.slots * ring.rows * self.width, line.whole(columns.length))
        rows = binding.local("rows", shape, conv.dtype, Space.STACK)
        sample, samples = binding.loop("n", conv.shape[0])
        band, bands = binding.loop("band", ring.bands)
        panel, panels = binding.loop("k", columns.count)
        channel = panel * line.panel + columns.start
        whole, rest = divmod(self.axis.extent, ring.rows)

        def round_of(now: Expr, counts: Sequence[int], checked: bool = False) -> ir.Block:
            body: ir.Block = ()
            for count in counts:
                rounds = now < whole if count == ring.rows else binary(BinaryOp.EQ, now, whole)
                inside = [now >= 0] * (ring.before > 0) + [rounds]
                step = self._compute(rows, count, sample, now, channel, columns.length)
                body += guarded(inside if checked else [], step)
            return body + self._results(rows, sample, band, now, channel, columns.length)

        if ring.bands == 1:
            number, rounds = binding.loop("round", whole)
            task = ir.loop_nest(rounds, round_of(number, [ring.rows]) if whole else ())
            for last in range(whole, ring.rounds):
                task += round_of(ir.index(last), [rest] if rest and last == whole else [])
        else:
            number, rounds = binding.loop("round", ring.rounds)
            now = band * (ring.height // ring.results) + (number - ring.before)
            counts = [ring.rows] * (whole > 0) + [rest] * (rest > 0)
            task = ir.loop_nest(rounds, round_of(now, counts, checked=True))
        task = (ir.Alloc(rows), *task)
        return ir.loop_nest((*samples, *bands, *panels), task, LoopKind.PARALLEL)

    def _slot(self, now: Expr) -> Expr:
        """The first pixel in the ring of a round's rows."""
        return now % self.ring.slots * (self.ring.rows * self.width)

    def _compute(
        self, rows: ir.Buffer, count: int, sample: Expr, now: Expr, channel: Expr, columns: int
    ) -> ir.Block:
        """So many rows of a panel of the 1x1 convolution."""
        conv, line = self.conv, self.line(count)
        binding = conv.binding
        (tiling,) = (t for t in line.tilings if t.columns.length == columns)
        lane, pixel = line.outputs
        first = now * (self.ring.rows * self.width)
        x, source = binding.inputs[conv.source], self.depthwise.source
        body: ir.Block = ()
        for span in tiling.blocks[pixel]:
            number, loops = binding.loop("w", span.count)
            start = number * span.length + span.start
            tile = Block({lane: channel, pixel: start}, {lane: columns, pixel: span.length})

            def multiply(place: Place) -> Expr:
                unit = place[conv.depth] * conv.unit
                major, minor = divided(unit, conv.source_shape[-1])
                minor = minor + place[conv.within]
                panel, _ = divided(channel, line.panel)
                zero = ir.index(0)
                column = place[lane] - channel
                w = (zero, panel, unit + place[conv.within], zero, zero, column)
                value = ir.Load(x, (sample, major, first + place[pixel], minor))
                return binary(ir.BinaryOp.MUL, value, conv.weight_of(w))

            def write(value: Expr, place: Place) -> ir.Block:
                major, minor = divided(place[lane], conv.blocked_op.block)
                elements = binding.elements()
                elements.given[conv.result] = elements.name(value, "result")
                given = elements.at(source, (sample, major, first + place[pixel], minor))
                to = (self._slot(now) + place[pixel], place[lane] - channel)
                return (*elements.take_block(), ir.Store(rows, to, given))

            stored = conv.stored if conv.stored > 1 else 0
            products = register_tile(
                binding, line, conv.dtype, tile, multiply, write, stored=stored
            )
            body += ir.loop_nest(loops, products)
        return body

    def _results(
        self, rows: ir.Buffer, sample: Expr, band: Expr, now: Expr, channel: Expr, columns: int
    ) -> ir.Block:
        """The results of a round."""
        conv, ring, size = self.conv, self.ring, self.conv.blocked_op.block
        binding = conv.binding
        block, blocks = binding.loop("b", columns // size)
        major = divided(channel, size)[0] + block
        number, loops = binding.loop("h", ring.results)
        row = now * ring.results + (number - ring.delay)

        def read(index: Index, lane: Expr) -> Expr:
            above, column = index
            pixel = above % (ring.slots * ring.rows) * self.width + column
            return ir.Load(rows, (pixel, block * size + lane))

        def write(result: Expr, place: Index, lane: Expr) -> ir.Block:
            given = {self.depthwise.result: result}
            return store_results(binding, given, (sample, major, *place, lane))

        kernel = Depthwise(self.depthwise, self.form, read, major, write)
        (slides,) = zip(*(axis.slides for axis in self.form.axes[:-1]), strict=True)
        checks = [row >= band * ring.height] if ring.delay or ring.before else []
        last = ir.minimum((band + 1) * ring.height, self.axis.windows)
        checks.append(row < last)
        return ir.loop_nest((*blocks, *loops), guarded(checks, kernel.row([row], slides)))
