"""The transpose of convolution by its weight.

    dw[k, c, t] = sum over n, o of dy[n, k, o] * x[n, c, place(o, t)]

Vectors lie along the output channels k. A register tile is some vectors of them times a box of
input channels and taps; each pixel of dy adds an outer product to it. It stays in registers for
some hundred pixels and is then added to sums on the stack, which keeps rounding errors small, and
lets all tiles of a task walk the same pixels while these are in cache. What the windows of these
pixels read is copied first, dense and with zeros for the padding, unless it is dense already.
While the last pixels are multiplied, tiles ask for the places of the results (`weight_ahead.py`).

In a convolution of few channels a group the lanes of a vector belong to several groups, and the
copy of x has for each lane what its group reads: `Form.spread`.

Small groups have a family of their own (`grouped_weight.py`), where vectors hold whole ones.

Where there are few results, pixels are split among tasks, by shape alone, and the sums of the
parts are added in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, Space
from .binding import Binding, Lowered
from .depthwise_weight import depthwise_weight
from .grouped_weight import lower_grouped_weight
from .tile import Span, balanced, panels
from .weight_form import Form
from .weight_pixels import PixelBlock
from .weight_problem import WeightGradient, joined_pixels
from .weight_results import Lengths, Starts, flat_shapes, operands_are_shared, over_spans
from .window_copy import Reach


def lower_conv_weight(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of the gradient by a weight, of plain or of blocked values, and its epilogue."""
    assert group.anchor is not None
    grouped = lower_grouped_weight(graph, group, target)
    if grouped is not None:
        return grouped
    result = Value(group.anchor)
    flat = flat_shapes(graph, group, result)
    shared = operands_are_shared(graph, group, result)
    joined = {} if shared else joined_pixels(graph, group, result)
    binding = Binding(graph, group, target, {**(flat or {}), **joined})
    whole = WeightGradient(binding, result, flat is not None)
    depthwise = depthwise_weight(whole)
    if depthwise is not None:
        return depthwise.lower()
    form = whole.form
    spans = {
        "g": [Span(0, 1, 1 if form.spread else whole.op.groups)],
        **form.chunks,
        "c": form.channel_spans,
        "k": form.lane_spans,
    }

    def task(start: Starts, length: Lengths) -> ir.Block:
        return Task(whole, start, length).lower()

    body = over_spans(binding, spans, task, LoopKind.PARALLEL)
    return binding.finish(body + whole.results.combine(), form.note)


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

    @property
    def is_one_block(self) -> bool:
        """Whether there is only one block of pixels, whose sums are all."""
        return all(sum(s.count for s in spans) == 1 for spans in self.pixel_spans.values())

    def is_last(self, start: Starts) -> list[Expr]:
        """The conditions under which a block of pixels is the task's last one."""
        conditions: list[Expr] = []
        for name, spans in self.pixel_spans.items():
            if not spans:
                continue
            last = spans[-1].start + (spans[-1].count - 1) * spans[-1].length
            if last:
                conditions.append(start[name] >= self.start.get(name, ir.index(0)) + last)
        return conditions

    def lower(self) -> ir.Block:
        """Its sums, added up and stored."""
        buffers = [b for b in (self.sums, self.band, self.packed) if b is not None]
        clear = () if self.is_one_block else self._clear()
        pixels = over_spans(self.whole.binding, self.pixel_spans, self._add)
        return (*map(ir.Alloc, buffers), *clear, *pixels, *self._finish())

    def _clear(self) -> ir.Block:
        rows, row, lane = self.sums.shape[1], self.whole.binding.var("r"), self.var("v")
        panel = self.var("panel")
        zero = ir.Const(0.0, self.whole.dtype)
        store = ir.Store(self.sums, (panel, row, lane), zero)
        loop = ir.For(lane, self.sums.shape[2], (store,), LoopKind.VECTOR, self.form.lanes)
        nest = ((panel, self.sums.shape[0]), (row, rows))
        return ir.loop_nest(nest, (loop,))

    def var(self, hint: str) -> ir.Var:
        return self.whole.binding.var(hint)

    # -- pixels -----------------------------------------------------------------------------------

    def _add(self, start: Starts, length: Lengths) -> ir.Block:
        """Adds the products of a block of pixels to the sums."""
        first = {n: self.start.get(n, ir.index(0)) + s for n, s in start.items()}
        return PixelBlock(self, first, length).lower()

    # -- results ----------------------------------------------------------------------------------

    def _finish(self) -> ir.Block:
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
