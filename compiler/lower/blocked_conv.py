"""Convolution, and its transpose by x, of values in blocks of channels.

The sum is that of `conv.py`; vectors always lie along the output channels, whose weights come
packed side by side. The input channels are summed block by block, so that addresses are affine.

A task is a band of rows, or a stretch of pixels, for some panels of output channels: what it reads
again and again, a panel of weights and a band of the input, stays in the second-level cache.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..graph import Graph, Value
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Expr
from ..ops.blocked import BlockedConv, plain_shape
from ..ops.conv import Convolution
from ..passes.partition import Group
from ..types import Shape
from .binding import Binding, Lowered
from .contraction import (
    Axis,
    Block,
    Contraction,
    Factor,
    Place,
    Tiling,
    over_chunks,
    register_tile,
)
from .conv import Gather, Part
from .elements import Index
from .epilogue import store_results
from .slide import Slide
from .space import aligned_values, is_rigid
from .tile import Span

# What a task reads again and again.
_BAND_BYTES = 128 * 1024
# So many tasks keep all threads busy.
_TASKS = 16
# Maps of so many rows are shared out by rows, lower ones by channels.
_ROWS = 28
# Rows shorter than this do not fill a tile.
_SHORT = 4


def lower_blocked_conv(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of BlockedConv and its epilogue."""
    assert group.anchor is not None
    shapes = _flat(graph, group)
    binding = Binding(graph, group, target, shapes)
    return BlockedGather(binding, Value(group.anchor), flat=bool(shapes)).lower()


def _flat(graph: Graph, group: Group) -> Mapping[Value, Shape]:
    """Shapes with the pixels in one row, if the convolution and its epilogue allow it.

    So it is where each output pixel reads one input pixel, and all else has all pixels or none.
    """
    result = Value(group.anchor or "")
    op = graph.producer(result).op
    assert isinstance(op, BlockedConv)
    space, (x, w) = graph.type_of(result).shape, graph.inputs_of(result.node)
    window = op.convolution.window(op.weight[2:])
    pointwise = window.size == 1 and not any(map(any, window.padding))
    if len(space) < 5 or not pointwise or set(window.stride) != {1} or is_rigid(graph, group):
        return {}
    shapes: dict[Value, Shape] = {}
    for value in aligned_values(graph, group):
        shape = graph.type_of(value).shape
        if value == w:
            shapes[value] = (*shape[:3], 1, shape[-1])
            continue
        shape = (1,) * (len(space) - len(shape)) + shape
        if value != x and shape[2:-1] not in (space[2:-1], (1,) * (len(space) - 3)):
            return {}
        shapes[value] = (*shape[:2], math.prod(shape[2:-1]), shape[-1])
    return shapes


@dataclass
class BlockedGather(Gather):
    """One convolution or transposed convolution in blocks of channels.

    Arguments:
        flat: whether the pixels are one row.
    """

    flat: bool = False

    @cached_property
    def node_op(self) -> BlockedConv:
        op = self.binding.graph.node(self.result.node).op
        assert isinstance(op, BlockedConv)
        return op

    @cached_property
    def op(self) -> Convolution:
        return self.node_op.convolution

    @cached_property
    def shape(self) -> Shape:
        return plain_shape(self.binding.shape(self.result))

    @cached_property
    def is_depthwise(self) -> bool:
        return self.node_op.is_depthwise

    @cached_property
    def block(self) -> int:
        """Channels in a block of the input."""
        return self.binding.shape(self.source)[-1]

    # -- axes -------------------------------------------------------------------------------------

    @cached_property
    def group(self) -> Axis:
        return Axis("g", 1 if self.is_depthwise else self.op.groups, 1)

    @cached_property
    def batch(self) -> Axis:
        return Axis("n", self.shape[0], 1)

    @cached_property
    def channel(self) -> Axis:
        return Axis("k", self.shape[1] // self.group.extent)

    @cached_property
    def channels(self) -> int:
        """Input channels of a group."""
        return plain_shape(self.binding.shape(self.source))[1] // self.op.groups

    @cached_property
    def unit(self) -> int:
        """Input channels that lie side by side: a block, or part of one."""
        return math.gcd(self.channels, self.block)

    @cached_property
    def depth(self) -> Axis:
        """Units of the input channels of a group."""
        return Axis("c", self.channels // self.unit)

    @cached_property
    def within(self) -> Axis:
        """Input channels of a unit."""
        return Axis("cc", self.unit)

    def slides(self) -> list[tuple[Slide, ...]]:
        if self.flat:
            return [(Slide(self.shape[2], (0, 1), 1, 0, 1, 1, (0, 1)),)]
        return self.slides_of(self.node_op.weight[2:], plain_shape(self.binding.shape(self.source)))

    def outputs(self, slides: Sequence[Slide]) -> tuple[Axis, ...]:
        *outer, row = super().outputs(slides)
        if row.extent < _SHORT:
            return (*outer, row)
        return (*(replace(axis, most=1) for axis in outer), row)

    def part(self, slides: Sequence[Slide]) -> Part:
        outputs = self.outputs(slides)
        taps = tuple(Axis(f"k{a.name}", s.taps) for a, s in zip(outputs, slides, strict=True))
        pixels = frozenset({self.group, self.batch, *outputs})
        x = Factor(pixels | {self.channel}) if self.is_depthwise else Factor(pixels)
        form = Contraction(
            outputs=(self.group, self.batch, self.channel, *outputs),
            lane=self.channel,
            summed=taps if self.is_depthwise else (self.depth, self.within, *taps),
            factors=(x, Factor(frozenset({self.group, self.channel}))),
            lanes=self.lanes,
            registers=self.binding.target.registers,
            panel=self.binding.shape(self.weight)[-1],
        )
        return Part(tuple(slides), outputs, taps, form)

    # -- operands ---------------------------------------------------------------------------------

    def pack(self, part: Part) -> ir.Block:
        return ()

    def multiply(self, part: Part, tile: Block, place: Place) -> Expr:
        taps = [place[axis] for axis in part.taps]
        places = tuple(
            slide.input_place(place[output], tap)
            for slide, output, tap in zip(part.slides, part.outputs, taps, strict=True)
        )
        kernel = (s.kernel_place(t) for s, t in zip(part.slides, taps, strict=True))
        first = tile.start[self.channel]
        panel, column = first // part.form.panel, place[self.channel] - first
        if self.is_depthwise:
            depth: Expr = ir.index(0)
            major, minor = _divided(place[self.channel], self.block)
        else:
            depth = place[self.depth] * self.unit + place[self.within]
            start = place[self.group] * self.channels + place[self.depth] * self.unit
            major, minor = _divided(start, self.block)
            minor = minor + place[self.within]
        x = self._read((place[self.batch], major, *places, minor))
        w = ir.Load(
            self.binding.inputs[self.weight], (place[self.group], panel, depth, *kernel, column)
        )
        return ir.binary(ir.BinaryOp.MUL, x, w)

    def index(self, part: Part, place: Place) -> Index:
        channel = place[self.group] * self.channel.extent + place[self.channel]
        major, minor = _divided(channel, self.node_op.block)
        spatial = (s.output_place(place[o]) for s, o in zip(part.slides, part.outputs, strict=True))
        return (place[self.batch], major, *spatial, minor)

    # -- tiles ------------------------------------------------------------------------------------

    def _nest(self, part: Part, tiling: Tiling) -> ir.Block:
        """All tiles of one width."""
        spans = {**tiling.blocks, self.channel: (tiling.columns,)}
        rows = part.outputs[-2] if len(part.outputs) > 1 else part.outputs[-1]
        chunks = self._chunks(part, spans, rows)
        weights = self.channel.extent * part.form.depth
        inner = (
            (self.channel, rows)
            if weights > math.prod(self.shape[2:]) * self.channels
            else (rows, self.channel)
        )
        order = (self.group, self.batch, *(a for a in part.outputs[:-2]), *inner)
        return over_chunks(
            self.binding,
            spans,
            {axis: chunks.get(axis, 1) for axis in order},
            (self.channel, rows),
            lambda block: self._tile(part, block),
        )

    def _chunks(
        self, part: Part, spans: Mapping[Axis, Sequence[Span]], rows: Axis
    ) -> dict[Axis, int]:
        """Blocks of rows, and panels, that a task takes."""
        count, panels = (
            spans[axis][0].count if spans[axis] else 1 for axis in (rows, self.channel)
        )
        outer = math.prod(
            spans[axis][0].count
            for axis in (self.group, self.batch, *part.outputs[:-2])
            if spans[axis] and axis is not rows
        )
        pixels = spans[rows][0].length if spans[rows] else 1
        if rows is not part.outputs[-1]:
            pixels *= part.outputs[-1].extent
        size = pixels * self.channels * self.dtype.size * math.prod(s.stride for s in part.slides)
        high = count if math.prod(self.shape[2:]) < _ROWS * _ROWS else _TASKS
        band = max(1, min(_BAND_BYTES // max(1, size), count))
        tasks = max(1, -(-_TASKS // max(1, outer)))
        if high is _TASKS:
            band = max(1, min(band, count // tasks))
            return {rows: band, self.channel: panels}
        bands = -(-count // band)
        share = max(1, min(panels, panels * bands // tasks))
        return {rows: band, self.channel: share}

    def _tile(self, part: Part, tile: Block) -> ir.Block:
        return register_tile(
            self.binding,
            part.form,
            self.dtype,
            tile,
            lambda place: self.multiply(part, tile, place),
            lambda x, place: store_results(self.binding, {self.result: x}, self.index(part, place)),
            exact=self.is_depthwise,
            stored=min(self.lanes, self.node_op.block) if self.node_op.block > 1 else self.lanes,
        )


def _divided(channel: Expr, block: int) -> tuple[Expr, Expr]:
    """The block a channel is in, and its place there."""
    return channel // block, channel % block
