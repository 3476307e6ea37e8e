"""The transpose of convolution by its weight.

    dw[k, c, t] = sum over n, o of dy[n, k, o] * x[n, c, place(o, t)]

Vectors lie along the output channels k. A register tile is some vectors of them times a box of
input channels and taps; each pixel of dy adds an outer product to it. It stays in registers for
some hundred pixels and is then added to sums on the stack, which keeps rounding errors small, and
lets all tiles of a task walk the same pixels while these are in cache. What the windows of these
pixels read is copied first, dense and with zeros for the padding, unless it is dense already.

In a convolution of few channels a group the lanes of a vector belong to several groups, and the
copy of x has for each lane what its group reads: `Form.spread`.

Where there are few results, pixels are split among tasks, by shape alone, and the sums of the
parts are added in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..graph import Graph, Value
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import BinaryOp, Buffer, Expr, LoopKind, ReduceOp, Space
from ..ops.blocked import BlockedConvWeightGradient
from ..ops.conv import ConvWeightGradient
from ..passes.partition import Group
from ..types import DType, Shape
from .binding import Binding, Lowered
from .elements import Index
from .padding import reader
from .slide import Slide, forward_slides
from .tile import Columns, Span, balanced, clear, panels
from .weight_form import Form, weight_form
from .weight_results import (
    Lengths,
    Starts,
    WeightResults,
    flat_shapes,
    operands_are_shared,
    over_spans,
)
from .window_copy import Reach, Run, WindowCopy


def lower_conv_weight(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of the gradient by a weight, of plain or of blocked values, and its epilogue."""
    assert group.anchor is not None
    result = Value(group.anchor)
    flat = flat_shapes(graph, group, result)
    joined = {} if operands_are_shared(graph, group, result) else _joined_pixels(graph, result)
    binding = Binding(graph, group, target, {**(flat or {}), **joined})
    return WeightGradient(binding, result, flat is not None).lower()


@dataclass(frozen=True)
class Operand:
    """X or dy, read by channel.

    Arguments:
        read: its elements.
        block: channels in a block; None of a plain value.
    """

    read: Callable[[Index], Expr]
    block: int | None

    def at(self, sample: Expr, channel: Expr, places: Sequence[Expr]) -> Expr:
        """The element of a channel."""
        if self.block is None:
            return self.read((sample, channel, *places))
        return self.read((sample, channel // self.block, *places, channel % self.block))


@dataclass
class WeightGradient:
    """One gradient by a weight.

    Arguments:
        binding: the group.
        result: the gradient.
        is_flat: whether the results of the group are indexed as (K, C / groups * taps).
    """

    binding: Binding
    result: Value
    is_flat: bool

    @cached_property
    def op(self) -> ConvWeightGradient:
        return _convolution(self.binding.graph, self.result)

    @cached_property
    def dtype(self) -> DType:
        return self.binding.graph.type_of(self.result).dtype

    @cached_property
    def shape(self) -> Shape:
        return self.binding.graph.type_of(self.result).shape

    @cached_property
    def x(self) -> Operand:
        return self._operand(0)

    @cached_property
    def dy(self) -> Operand:
        return self._operand(1)

    def _operand(self, number: int) -> Operand:
        value = self.binding.graph.inputs_of(self.result.node)[number]
        node = self.binding.graph.node(self.result.node)
        blocked = isinstance(node.op, BlockedConvWeightGradient)
        block = self.binding.shape(value)[-1] if blocked else None
        return Operand(reader(self.binding, value), block)

    @cached_property
    def extents(self) -> tuple[Shape, Shape]:
        """The spatial extents of x and dy."""
        x, dy = map(self.binding.shape, self.binding.graph.inputs_of(self.result.node))
        end = None if self.x.block is None else -1
        return x[2:end], dy[2:end]

    @cached_property
    def slides(self) -> tuple[Slide, ...]:
        x, dy = self.extents
        if len(x) < len(self.op.kernel):  # pixels joined to one axis
            return (Slide(dy[0], (0, 1), 1, 0, 1, 1, (0, 1)),)
        return forward_slides(self.op.window(self.op.kernel), x)

    @cached_property
    def form(self) -> Form:
        graph = self.binding.graph
        return weight_form(
            outputs=self.shape[0],
            inputs=self.shape[1] * self.op.groups,
            groups=self.op.groups,
            samples=graph.type_of(graph.inputs_of(self.result.node)[1]).shape[0],
            slides=self.slides,
            blocks=(self.x.block, self.dy.block),
            lanes=self.binding.lanes(self.dtype),
            registers=self.binding.target.registers,
            size=self.dtype.size,
        )

    # -- tasks ------------------------------------------------------------------------------------

    def lower(self) -> Lowered:
        form = self.form
        spans = {
            "g": [Span(0, 1, 1 if form.spread else self.op.groups)],
            **form.chunks,
            "c": form.channel_spans,
            "k": form.lane_spans,
        }
        body = over_spans(self.binding, spans, self._task, LoopKind.PARALLEL)
        return self.binding.finish(body + self.results.combine(), form.note)

    @cached_property
    def results(self) -> WeightResults:
        return WeightResults(self.binding, self.result, self.is_flat, self.form.parts)

    def _task(self, start: Starts, length: Lengths) -> ir.Block:
        """The sums of some results over some pixels."""
        task = Task(self, start, length)
        return (
            *task.clear(),
            *over_spans(self.binding, task.pixel_spans, task.add),
            *task.finish(),
        )

    def part(self, start: Starts) -> Expr:
        """Number of the part of the pixels that a task sums."""
        part: Expr = ir.index(0)
        for name, spans in self.form.chunks.items():
            part = part * sum(s.count for s in spans) + start[name] // spans[0].length
        return part


@dataclass
class Task:
    """Some results, summed over some pixels.

    Arguments:
        whole: all of it.
        start: the first group, output channel `k` of the group, block of input channels `c` of the
            group, sample `n` and pixels `p0`, `p1` … of the task.
        length: how many of each.
    """

    whole: WeightGradient
    start: Starts
    length: Lengths

    def __post_init__(self) -> None:
        form, binding = self.form, self.whole.binding
        self.panels = panels(self.length["k"], form.panel)
        self.blocks = self.length["c"]
        rows = self.blocks * form.inner * form.taps
        shape = (-(-self.length["k"] // form.panel), rows, min(form.panel, self.width(0)))
        self.sums = binding.local("sums", shape, self.whole.dtype, Space.STACK)
        self.band = self._band()
        self.packed = self._packed()

    def _band(self) -> Buffer | None:
        """What the windows of a block of pixels read: (block, sample, *places, lane)."""
        form = self.form
        if form.in_place:
            return None
        samples, *sizes = (spans[0].length if spans else 0 for spans in self.pixel_spans.values())
        extents, _ = self.whole.extents
        places = [Reach(*each).size for each in zip(self.whole.slides, extents, sizes, strict=True)]
        shape = (self.blocks, samples, *places, form.lanes if form.spread else form.inner)
        return self.whole.binding.local("band", shape, self.whole.dtype, Space.STACK)

    def _packed(self) -> Buffer | None:
        """A panel of dy for a block of pixels: (sample, *pixels, column)."""
        if self.form.dy_in_place:
            return None
        lengths = (spans[0].length if spans else 0 for spans in self.pixel_spans.values())
        shape = (*lengths, self.sums.shape[2])
        return self.whole.binding.local("packed", shape, self.whole.dtype, Space.STACK)

    @property
    def form(self) -> Form:
        return self.whole.form

    def width(self, panel: int) -> int:
        """Columns that are computed for a kind of panels: whole vectors."""
        lanes = self.form.lanes
        return -(-self.panels[panel].length // lanes) * lanes

    @cached_property
    def pixel_spans(self) -> dict[str, list[Span]]:
        """Blocks of samples and pixels, counted from the start of the task."""
        return {
            name: balanced(self.length.get(name, extent), self.form.block[name])
            for name, extent in self.form.pixels.items()
        }

    def clear(self) -> ir.Block:
        rows, row, lane = self.sums.shape[1], self.whole.binding.var("r"), self.var("v")
        panel = self.var("panel")
        zero = ir.Const(0.0, self.whole.dtype)
        store = ir.Store(self.sums, (panel, row, lane), zero)
        loop = ir.For(lane, self.sums.shape[2], (store,), LoopKind.VECTOR, self.form.lanes)
        nest = ((panel, self.sums.shape[0]), (row, rows))
        buffers = [b for b in (self.sums, self.band, self.packed) if b is not None]
        return (*map(ir.Alloc, buffers), *ir.loop_nest(nest, (loop,)))

    def var(self, hint: str) -> ir.Var:
        return self.whole.binding.var(hint)

    # -- pixels -----------------------------------------------------------------------------------

    def add(self, start: Starts, length: Lengths) -> ir.Block:
        """Adds the products of a block of pixels to the sums."""
        first = {n: self.start.get(n, ir.index(0)) + s for n, s in start.items()}
        return PixelBlock(self, first, length).lower()

    # -- results ----------------------------------------------------------------------------------

    def finish(self) -> ir.Block:
        """Stores the sums: of each output channel its rows, which lie together in the result."""
        body: ir.Block = ()
        form, results = self.form, self.whole.results
        rows = self.sums.shape[1]
        group, channels = self.start["g"], self.whole.shape[0] // self.whole.op.groups
        for span in self.panels:
            panel, column, row = self.var("panel"), self.var("k"), self.var("r")
            number = panel + span.start // form.panel
            channel = self.start["k"] + number * form.panel + column
            if not form.spread:
                channel = group * channels + channel
            first = self.start["c"] * (form.inner * form.taps)
            x = ir.Load(self.sums, (number, row, column))
            store = results.put(x, self.whole.part(self.start), channel, first + row)
            nest = ((panel, span.count), (column, span.length))
            body += ir.loop_nest(nest, results.row_loop(row, rows, store))
        return body


@dataclass
class PixelBlock:
    """The products of a block of pixels of a task.

    Arguments:
        task: the task.
        start: the first sample and pixel.
        length: how many.
    """

    task: Task
    start: Starts
    length: Lengths

    def __post_init__(self) -> None:
        self.whole, self.form = self.task.whole, self.task.form
        names = [name for name in self.form.pixels if name != "n"]
        extents, _ = self.whole.extents
        self.pixels = names
        self.reaches = [
            Reach(slide, extent, self.length[name])
            for slide, extent, name in zip(self.whole.slides, extents, names, strict=True)
        ]
        self.samples = self.length["n"]
        self.band = self.task.band

    @property
    def starts(self) -> list[Expr]:
        return [self.start[name] for name in self.pixels]

    def lower(self) -> ir.Block:
        body: ir.Block = () if self.band is None else self._copy_x(self.band)
        for number, span in enumerate(self.task.panels):
            panel = self.task.var("panel")
            at = panel + span.start // self.form.panel
            inside = self._panel(at, span.length, self.task.width(number))
            body += ir.loop_nest(((panel, span.count),), inside)
        return body

    def _panel(self, number: Expr, length: int, width: int) -> ir.Block:
        """All tiles of a panel of output channels."""
        copy, dy = self._dy(number, length, width)
        boxes = self.form.boxes(self.task.blocks, -(-width // self.form.lanes))

        def tile(start: Starts, box: Lengths) -> ir.Block:
            return self._tile(number, width, start, box, dy)

        return copy + over_spans(self.whole.binding, boxes, tile)

    # -- operands ---------------------------------------------------------------------------------

    def _dy(self, number: Expr, length: int, width: int) -> tuple[ir.Block, Callable[..., Expr]]:
        """Makes dy readable: what does so, and its elements by sample, pixel and column."""
        first = self.task.start["k"] + number * self.form.panel
        if not self.form.spread:
            first = self.task.start["g"] * (self.whole.shape[0] // self.whole.op.groups) + first

        def at(sample: Expr, places: Sequence[Expr], column: Expr) -> Expr:
            where = [i + s for i, s in zip(places, self.starts, strict=True)]
            return self.whole.dy.at(self.start["n"] + sample, first + column, where)

        copy = self.task.packed
        if copy is None:
            return (), at
        extents = [self.length[name] for name in self.pixels]
        loops = [(self.task.var("n"), self.samples)]
        loops += [(self.task.var(n), e) for n, e in zip(self.pixels, extents, strict=True)]
        index = tuple(var for var, _ in loops)
        lane = self.task.var("v")
        body: ir.Block = ()
        zero: Expr = ir.Const(0.0, self.whole.dtype)
        for begin, count in ((0, length), (length, width - length)):
            if count:
                x = at(index[0], index[1:], lane) if begin == 0 else zero
                store = ir.Store(copy, (*index, lane + begin), x)
                body += (ir.For(lane, count, (store,), LoopKind.VECTOR, self.form.lanes),)

        def packed(sample: Expr, places: Sequence[Expr], column: Expr) -> Expr:
            assert copy is not None
            return ir.Load(copy, (sample, *places, column))

        return ir.loop_nest(tuple(loops), body), packed

    def _copy_x(self, band: Buffer) -> ir.Block:
        """Copies what the windows read."""
        lanes = band.shape[-1]
        block, sample = self.task.var("c"), self.task.var("n")
        zero = ir.Const(0.0, self.whole.dtype)

        def copy(rows: Sequence[tuple[Expr, Expr]], run: Run) -> ir.Block:
            return self._copy_run(band, block, sample, rows, run)

        def clear(rows: Sequence[tuple[Expr, Expr]], run: Run) -> ir.Block:
            place, lane = self.task.var("w"), self.task.var("v")
            index = (block, sample, *(row for row, _ in rows), run.start + place, lane)
            return self._lanes(place, run.length, lane, lanes, (ir.Store(band, index, zero),))

        windows = WindowCopy(self.reaches, copy, clear, self.task.var)
        loops = ((block, self.task.blocks), (sample, self.samples))
        return ir.loop_nest(loops, windows.write(self.starts))

    def _copy_run(
        self,
        band: Buffer,
        block: Expr,
        sample: Expr,
        rows: Sequence[tuple[Expr, Expr]],
        run: Run,
    ) -> ir.Block:
        """Neighbouring places of all channels of a block."""
        number, lane = self.task.var("w"), self.task.var("v")
        place, source = run.place(number)
        where = (*(at for _, at in rows), source)
        into = (block, sample, *(row for row, _ in rows), place)
        at = self.start["n"] + sample
        channels = self.whole.shape[0] // self.whole.op.groups
        depth = self.whole.shape[1]
        if not self.form.spread:
            first = self.task.start["g"] * depth + (self.task.start["c"] + block) * self.form.inner
            x = self.whole.x.at(at, first + lane, where)
            store = ir.Store(band, (*into, lane), x)
            return self._lanes(number, run.length, lane, self.form.inner, (store,))
        if channels == 1:  # a lane is a group
            channel = (self.task.start["k"] + lane) * depth + block
            store = ir.Store(band, (*into, lane), self.whole.x.at(at, channel, where))
            return self._lanes(number, run.length, lane, self.form.lanes, (store,))
        group = self.task.var("q")
        first = (self.task.start["k"] // channels + group) * depth + block
        x = self.whole.x.at(at, first, where)
        store = ir.Store(band, (*into, group * channels + lane), x)
        inside = ir.For(lane, channels, (store,), LoopKind.VECTOR, self.form.lanes)
        loop = ir.For(group, self.form.lanes // channels, (inside,), LoopKind.UNROLLED)
        return (ir.For(number, run.length, (loop,)),)

    def _lanes(
        self, place: ir.Var, count: int, lane: ir.Var, lanes: int, body: ir.Block
    ) -> ir.Block:
        """Loops over places and their lanes, whichever are more in vectors."""
        width = self.form.lanes
        if lanes == 1:
            one = ir.For(lane, 1, body, LoopKind.UNROLLED)
            return (ir.For(place, count, (one,), LoopKind.VECTOR, width),)
        inside = (ir.For(lane, lanes, body, LoopKind.VECTOR, width),)
        return (ir.For(place, count, inside),)

    def _x(self, sample: Expr, places: Sequence[Expr], row: Mapping[str, Expr], v: Expr) -> Expr:
        """What row `row` of a tile reads for a pixel."""
        taps = [row[f"t{name}"] for name in self.pixels]
        lane = v if self.form.spread else row["i"]
        if self.band is not None:
            at = (r.place(o, t) for r, o, t in zip(self.reaches, places, taps, strict=True))
            return ir.Load(self.band, (row["c"], sample, *at, lane))
        first = self.task.start["g"] * self.whole.shape[1]
        channel = first + (self.task.start["c"] + row["c"]) * self.form.inner + lane
        where = [i + s for i, s in zip(places, self.starts, strict=True)]
        return self.whole.x.at(self.start["n"] + sample, channel, where)

    # -- tiles ------------------------------------------------------------------------------------

    def _tile(
        self, panel: Expr, width: int, start: Starts, box: Lengths, dy: Callable[..., Expr]
    ) -> ir.Block:
        """Sums of a box of rows and a panel of columns, then added to those on the stack."""
        form, dtype = self.form, self.whole.dtype
        columns = Columns(width, form.lanes, dtype)
        loops = [(name, self.task.var(name), n) for name, n in box.items() if n > 1]
        row = dict(start)
        number: Expr = ir.index(0)
        for name, var, n in loops:
            row[name] = row[name] + var
            number = number * n + var
        rows = tuple((var, n) for _, var, n in loops)
        count = math.prod(n for _, n in rows)
        tile = self.whole.binding.local("tile", (count, width), dtype, Space.REGISTER)
        lane, sample = self.task.var("v"), self.task.var("n")
        pixels = [self.task.var(name) for name in self.pixels]
        step: dict[int, ir.Block] = {}
        finish: dict[int, ir.Block] = {}
        place: Expr = row["c"] * form.inner + row["i"]
        for name, slide in zip(self.pixels, self.whole.slides, strict=True):
            place = place * slide.taps + row[f"t{name}"]
        for first, _ in columns.parts:
            column = lane + first
            x = self._x(sample, pixels, row, column)
            product = ir.binary(BinaryOp.MUL, x, dy(sample, pixels, column))
            step[first] = (ir.Accumulate(tile, (number, column), ReduceOp.ADD, product),)
            load = ir.Load(tile, (number, column))
            add = ir.Accumulate(self.task.sums, (panel, place, column), ReduceOp.ADD, load)
            finish[first] = (add,)
        body = ir.loop_nest(rows, columns.each(lane, step), LoopKind.UNROLLED)
        outer = [(sample, self.samples)]
        outer += [(v, self.length[n]) for v, n in zip(pixels, self.pixels, strict=True)]
        return (
            *clear(tile, count, columns, self.task.var("m"), lane),
            *ir.loop_nest(tuple(outer), body),
            *ir.loop_nest(rows, columns.each(lane, finish), LoopKind.UNROLLED),
        )


def _convolution(graph: Graph, result: Value) -> ConvWeightGradient:
    op = graph.node(result.node).op
    if isinstance(op, BlockedConvWeightGradient):
        return op.convolution
    assert isinstance(op, ConvWeightGradient)
    return op


def _joined_pixels(graph: Graph, result: Value) -> dict[Value, Shape]:
    """X and dy with one spatial axis, where windows are single pixels side by side."""
    op = _convolution(graph, result)
    operands = graph.inputs_of(result.node)
    shapes = [graph.type_of(value).shape for value in operands]
    window = op.window(op.kernel)
    dense = (window.size, *window.stride) == (1,) * (1 + len(op.kernel))
    if not dense or any(p for pair in window.padding for p in pair):
        return {}
    end = 2 + len(op.kernel)
    return {
        value: (*shape[:2], math.prod(shape[2:end]), *shape[end:])
        for value, shape in zip(operands, shapes, strict=True)
    }
