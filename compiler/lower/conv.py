"""Convolution, and its transpose by x, of plain values: for few output channels.

Vectors lie along the innermost spatial axis, and weights are read from where they are. Where the
windows leave the input, it is copied with zeros around, so that the inner loops need no conditions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Expr, LoopKind
from ..ops.conv import Conv, ConvInputGradient, Convolution
from ..types import Shape
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
    vector_cost,
)
from .epilogue import store_results
from .gather import Gather, Part
from .index import Index
from .padding import Reader, padded, reader
from .slide import Slide

# Weights beyond this many bytes leave the second-level cache between two rows of results.
_CACHED = 256 * 1024
# So many tasks keep all threads busy.
_TASKS = 16
# The most vectors in a tile.
_WIDEST = 3
_LINE = 64


def lower_conv(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of Conv or ConvInputGradient and its epilogue."""
    assert group.anchor is not None
    return PlainConv(Binding(graph, group, target), Value(group.anchor)).lower()


@dataclass
class PlainConv(Gather):
    """One convolution or transposed convolution of plain values."""

    _read: Reader = field(init=False)

    @cached_property
    def op(self) -> Convolution:
        op = self.binding.graph.node(self.result.node).op
        assert isinstance(op, Conv | ConvInputGradient)
        return op

    @cached_property
    def depth(self) -> Axis:
        """Input channels of a group."""
        return Axis("c", self.source_shape[1] // self.op.groups)

    @property
    def source_shape(self) -> Shape:
        """(N, C, *spatial)"""
        return self.binding.graph.type_of(self.source).shape

    # -- forms ------------------------------------------------------------------------------------

    def lower(self) -> Lowered:
        parts = self.parts()
        body = self.read_padded(parts)
        for part in parts:
            for tiling in part.form.tilings:
                body += self._nest(part, tiling)
        return self.binding.finish(body, max(parts, key=lambda p: p.form.cost).note)

    def parts(self) -> list[Part]:
        kernel = self.binding.graph.type_of(self.weight).shape[2:]
        return [self._part(slides) for slides in self.slides_of(kernel, self.source_shape)]

    def _part(self, slides: tuple[Slide, ...]) -> Part:
        """The outputs of some slides."""
        outputs = self.outputs(slides)
        taps = tuple(Axis(f"k{a.name}", s.taps) for a, s in zip(outputs, slides, strict=True))
        pixels = frozenset({self.group, self.batch, *outputs})
        cost = vector_cost(slides[-1].stride, self.lanes) * self._crossings(taps)
        narrow = Contraction(
            outputs=(self.group, self.batch, self.channel, *outputs),
            lane=outputs[-1],
            summed=(self.depth, *taps),
            factors=(Factor(pixels, cost), Factor(frozenset({self.group, self.channel}))),
            lanes=self.lanes,
            registers=self.binding.target.registers,
            store=self.store_cost(slides),
        )
        wide = replace(narrow, panel=_WIDEST * self.lanes)
        form = min(narrow, wide, key=lambda each: each.cost)
        return Part(slides, outputs, taps, form)

    def _crossings(self, taps: Sequence[Axis]) -> float:
        """Cache lines that a vector of pixels lies in, on average over the taps."""
        return 1 + self.lanes * self.dtype.size / _LINE if taps[-1].extent > 1 else 1

    def store_cost(self, slides: Sequence[Slide]) -> float:
        """Instructions that storing a vector takes."""
        return 1 if slides[-1].output[1] == 1 else 2 * self.lanes

    # -- operands ---------------------------------------------------------------------------------

    def read_padded(self, parts: Sequence[Part]) -> ir.Block:
        """Makes the input readable wherever the parts read it; vectors are computed as a whole."""
        reads = []
        for axis in range(len(self.shape) - 2):
            counts = [part.outputs[axis].extent for part in parts]
            if axis == len(self.shape) - 3:
                counts = [p.form.whole(n) for p, n in zip(parts, counts, strict=True)]
            ranges = [p.slides[axis].reads(n) for p, n in zip(parts, counts, strict=True)]
            reads.append((min(r[0] for r in ranges), max(r[1] for r in ranges)))
        body, self._read = padded(self.binding, self.source, reads)
        return body

    def multiply(self, part: Part, place: Place) -> Expr:
        """One product."""
        group, channel, depth = place[self.group], place[self.channel], place[self.depth]
        taps = [place[axis] for axis in part.taps]
        places = (
            slide.input_place(place[output], tap)
            for slide, output, tap in zip(part.slides, part.outputs, taps, strict=True)
        )
        x = self._read((place[self.batch], group * self.depth.extent + depth, *places))
        kernel = (s.kernel_place(t) for s, t in zip(part.slides, taps, strict=True))
        if isinstance(self.op, Conv):
            outer, inner = group * self.channel.extent + channel, depth
        else:
            outer, inner = group * self.depth.extent + depth, channel
        w = reader(self.binding, self.weight)((outer, inner, *kernel))
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
            lambda place: self.multiply(part, place),
            lambda x, place: store_results(self.binding, {self.result: x}, self.index(part, place)),
        )

    def index(self, part: Part, place: Place) -> Index:
        """The place of a result."""
        channel = place[self.group] * self.channel.extent + place[self.channel]
        spatial = (s.output_place(place[o]) for s, o in zip(part.slides, part.outputs, strict=True))
        return (place[self.batch], channel, *spatial)
