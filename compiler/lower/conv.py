"""Convolution, and its transpose by x, which is also the transposed convolution.

Both gather: out[n, k, o] = sum over c and taps t of in[n, c, place(o, t)] * w(k, c, t), where k is
an output channel, c an input channel, and `slide.py` has the places.

Where the windows leave the input, it is copied with zeros around, so that the inner loops need no
conditions. Vectors lie along the output channels, their weights packed side by side, or along the
innermost spatial axis; whichever is counted to be faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

from ..graph import Graph, Value
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, Space
from ..ops.conv import Conv, ConvInputGradient, Convolution
from ..passes.partition import Group
from ..types import DType, Shape
from .binding import Binding, Lowered
from .contraction import (
    Axis,
    Block,
    Contraction,
    Factor,
    Place,
    Tiling,
    over_blocks,
    register_tile,
    store_lanes,
    vector_cost,
)
from .elements import Index
from .epilogue import store_results
from .padding import Reader, padded, reader
from .slide import Slide, forward_slides, transposed_slides
from .tile import Span, panels

# Weights beyond this many bytes leave the second-level cache between two rows of results.
_CACHED = 256 * 1024
# So many tasks keep all threads busy.
_TASKS = 16


def lower_conv(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of Conv or ConvInputGradient and its epilogue."""
    assert group.anchor is not None
    return Gather(Binding(graph, group, target), Value(group.anchor)).lower()


@dataclass
class Part:
    """The outputs that share their taps.

    Arguments:
        slides: one a spatial axis.
        outputs, taps: their axes.
        form: the sum.
        packed: weights as [group][panel][c][*taps][column].
    """

    slides: tuple[Slide, ...]
    outputs: tuple[Axis, ...]
    taps: tuple[Axis, ...]
    form: Contraction
    packed: Buffer | None = None

    @property
    def in_channels(self) -> bool:
        """Whether vectors lie along the output channels."""
        return self.form.lane is not self.outputs[-1]

    @property
    def note(self) -> str:
        return f"direct {self.form.size}, {'channels' if self.in_channels else 'pixels'}"

    def reads(self, axis: int) -> tuple[int, int]:
        """Range of input places along a spatial axis; vectors are computed as a whole."""
        count = self.outputs[axis].extent
        if self.outputs[axis] is self.form.lane:
            count = self.form.whole(count)
        return self.slides[axis].reads(count)


@dataclass
class Gather:
    """One convolution or transposed convolution."""

    binding: Binding
    result: Value
    _read: Reader = field(init=False)

    @cached_property
    def op(self) -> Convolution:
        op = self.binding.graph.node(self.result.node).op
        assert isinstance(op, Conv | ConvInputGradient)
        return op

    @cached_property
    def source(self) -> Value:
        return self.binding.graph.inputs_of(self.result.node)[0]

    @cached_property
    def weight(self) -> Value:
        return self.binding.graph.inputs_of(self.result.node)[1]

    @property
    def dtype(self) -> DType:
        return self.binding.graph.type_of(self.result).dtype

    @cached_property
    def shape(self) -> Shape:
        return self.binding.graph.type_of(self.result).shape

    @cached_property
    def lanes(self) -> int:
        return self.binding.lanes(self.dtype)

    @cached_property
    def group(self) -> Axis:
        return Axis("g", self.op.groups, 1)

    @cached_property
    def batch(self) -> Axis:
        return Axis("n", self.shape[0])

    @cached_property
    def channel(self) -> Axis:
        """Output channels of a group."""
        return Axis("k", self.shape[1] // self.op.groups)

    @cached_property
    def depth(self) -> Axis:
        """Input channels of a group."""
        return Axis("c", self.binding.graph.type_of(self.source).shape[1] // self.op.groups)

    # -- forms ------------------------------------------------------------------------------------

    def lower(self) -> Lowered:
        parts = [self.part(slides) for slides in self.slides()]
        body = self.read_padded(parts)
        for part in parts:
            body += self.pack(part)
        for part in parts:
            for tiling in part.form.tilings:
                body += self._nest(part, tiling)
        return self.binding.finish(body, max(parts, key=lambda p: p.form.cost).note)

    def slides(self) -> list[tuple[Slide, ...]]:
        """The slides of each part."""
        shape = self.binding.graph.type_of
        return self.slides_of(shape(self.weight).shape[2:], shape(self.source).shape)

    def slides_of(self, kernel: Shape, source: Shape) -> list[tuple[Slide, ...]]:
        """The slides for a kernel of these extents over a source of this plain shape."""
        window = self.op.window(kernel)
        if isinstance(self.op, Conv):
            return [forward_slides(window, source[2:])]
        return list(product(*transposed_slides(window, self.shape[2:])))

    def part(self, slides: Sequence[Slide]) -> Part:
        """The outputs of some slides, in the cheaper form."""
        outputs = self.outputs(slides)
        taps = tuple(Axis(f"k{a.name}", s.taps) for a, s in zip(outputs, slides, strict=True))
        forms = [self._form(slides, outputs, taps, outputs[-1])]
        if self.channel.extent >= self.lanes:
            forms.append(self._form(slides, outputs, taps, self.channel))
        return Part(tuple(slides), outputs, taps, min(forms, key=lambda form: form.cost))

    def outputs(self, slides: Sequence[Slide]) -> tuple[Axis, ...]:
        """The spatial axes of the result."""
        names = "dhw"[-len(slides) :]
        return tuple(Axis(h, s.count) for h, s in zip(names, slides, strict=True))

    def store_cost(self, slides: Sequence[Slide], in_channels: bool) -> float:
        """Instructions that storing a vector takes."""
        return 1 if slides[-1].output[1] == 1 and not in_channels else 2 * self.lanes

    def _form(
        self,
        slides: Sequence[Slide],
        outputs: tuple[Axis, ...],
        taps: tuple[Axis, ...],
        lane: Axis,
    ) -> Contraction:
        return Contraction(
            outputs=(self.group, self.batch, self.channel, *outputs),
            lane=lane,
            summed=(self.depth, *taps),
            factors=(
                Factor(
                    frozenset({self.group, self.batch, *outputs}),
                    vector_cost(slides[-1].stride, self.lanes),
                ),
                Factor(frozenset({self.group, self.channel})),
            ),
            lanes=self.lanes,
            registers=self.binding.target.registers,
            store=self.store_cost(slides, lane is self.channel),
        )

    # -- operands ---------------------------------------------------------------------------------

    def read_padded(self, parts: Sequence[Part]) -> ir.Block:
        """Makes the input readable wherever the parts read it."""
        reads = []
        for axis in range(len(self.shape) - 2):
            ranges = [part.reads(axis) for part in parts]
            reads.append((min(r[0] for r in ranges), max(r[1] for r in ranges)))
        body, self._read = padded(self.binding, self.source, reads)
        return body

    def pack(self, part: Part) -> ir.Block:
        """Puts the weights of neighbouring output channels side by side, zeros at the end."""
        if not part.in_channels:
            return ()
        form = part.form
        count = -(-self.channel.extent // form.panel)
        width = min(form.panel, form.whole(self.channel.extent))
        taps = (axis.extent for axis in part.taps)
        shape = (self.group.extent, count, self.depth.extent, *taps, width)
        part.packed = self.binding.local("packed", shape, self.dtype, Space.SCRATCH)
        body: ir.Block = ()
        for span in panels(self.channel.extent, form.panel):
            body += self._pack_panels(part, part.packed, span)
        return body

    def _pack_panels(self, part: Part, packed: Buffer, span: Span) -> ir.Block:
        group, panel, depth, lane = (self.binding.var(h) for h in ("g", "panel", "c", "v"))
        taps = [(self.binding.var(axis.name), axis.extent) for axis in part.taps]
        places = [var for var, _ in taps]
        number = panel + span.start // part.form.panel
        x = self.weight_at(part, group, number * part.form.panel + lane, depth, places)
        row = store_lanes(packed, (group, number, depth, *places), lane, span.length, x, part.form)
        row = ir.loop_nest(tuple(taps), row)
        nest = ((group, self.group.extent), (panel, span.count), (depth, self.depth.extent))
        return ir.loop_nest(nest, row, LoopKind.PARALLEL)

    def weight_at(
        self, part: Part, group: Expr, channel: Expr, depth: Expr, taps: Sequence[Expr]
    ) -> Expr:
        """The weight from input channel `depth` of a group to output channel `channel`."""
        places = tuple(s.kernel_place(t) for s, t in zip(part.slides, taps, strict=True))
        read = reader(self.binding, self.weight)
        if isinstance(self.op, Conv):
            return read((group * self.channel.extent + channel, depth, *places))
        return read((group * self.depth.extent + depth, channel, *places))

    def multiply(self, part: Part, tile: Block, place: Place) -> Expr:
        """One product."""
        group, depth = place[self.group], place[self.depth]
        taps = [place[axis] for axis in part.taps]
        places = (
            slide.input_place(place[output], tap)
            for slide, output, tap in zip(part.slides, part.outputs, taps, strict=True)
        )
        x = self._read((place[self.batch], group * self.depth.extent + depth, *places))
        if part.packed is None:
            w = self.weight_at(part, group, place[self.channel], depth, taps)
        else:
            first = tile.start[self.channel]
            column = place[self.channel] - first
            w = ir.Load(part.packed, (group, first // part.form.panel, depth, *taps, column))
        return ir.binary(ir.BinaryOp.MUL, x, w)

    # -- tiles ------------------------------------------------------------------------------------

    def _nest(self, part: Part, tiling: Tiling) -> ir.Block:
        """All tiles of one width: parallel loops around a row of tiles."""
        spans = {**tiling.blocks, part.form.lane: (tiling.columns,)}
        outer = self.order(part, (self.batch, *part.outputs[:-1]))
        if math.prod(span.count for axis in outer for span in spans[axis][:1]) < _TASKS:
            outer.append(part.outputs[-1])
        tasks = {axis: spans[axis] for axis in outer}
        rest = {axis: spans[axis] for axis in spans if axis not in tasks}

        def task(start: Block) -> ir.Block:
            return over_blocks(self.binding, rest, lambda block: self._tile(part, start | block))

        return over_blocks(self.binding, tasks, task, LoopKind.PARALLEL)

    def order(self, part: Part, rows: Sequence[Axis]) -> list[Axis]:
        """Loops over blocks of pixels and channels: what is inner is read again and again."""
        weights = self.channel.extent * part.form.depth * self.dtype.size
        inner = (self.channel, *rows) if weights > _CACHED else (*rows, self.channel)
        return [self.group, *inner]

    def _tile(self, part: Part, tile: Block) -> ir.Block:
        return register_tile(
            self.binding,
            part.form,
            self.dtype,
            tile,
            lambda place: self.multiply(part, tile, place),
            lambda x, place: store_results(self.binding, {self.result: x}, self.index(part, place)),
        )

    def index(self, part: Part, place: Place) -> Index:
        """The place of a result."""
        channel = place[self.group] * self.channel.extent + place[self.channel]
        spatial = (s.output_place(place[o]) for s, o in zip(part.slides, part.outputs, strict=True))
        return (place[self.batch], channel, *spatial)
