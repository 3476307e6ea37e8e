"""Convolution of plain values, its epilogue, and max-pooling in one kernel.

What is pooled never gets into memory: a task computes the rows that a band of windows needs onto
the stack, then their maxima. Rows that two bands need are computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, Space
from .bands import band_height, row_length, rows_of
from .binding import Binding, Lowered
from .contraction import Axis, Block, Place, over_blocks, register_tile
from .conv import PlainConv
from .gather import Part
from .index import Index
from .pool import Pooling, pooling_behind
from .slide import Slide
from .tile import Span, balanced
from .windows import WindowAxis, guarded


def lower_conv_pool(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of Conv and the MaxPool behind it, with their epilogues."""
    assert group.anchor is not None
    return PooledConv(Binding(graph, group, target), Value(group.anchor)).lower()


@dataclass
class PooledConv(PlainConv):
    """One convolution that is pooled."""

    @cached_property
    def pooling(self) -> Pooling:
        return pooling_behind(self.binding)

    @property
    def axes(self) -> tuple[WindowAxis, ...]:
        """The windows of the pooling."""
        return self.pooling.axes

    @cached_property
    def batch(self) -> Axis:
        return Axis("n", self.shape[0], 1)

    @cached_property
    def bands(self) -> tuple[Axis, ...]:
        """The windows along all spatial axes but the innermost."""
        names = "dhw"[-len(self.axes) :]
        return tuple(Axis(f"p{h}", a.windows) for h, a in zip(names, self.axes[:-1], strict=False))

    def outputs(self, slides: Sequence[Slide]) -> tuple[Axis, ...]:
        """Row by row, as far as windows read them."""
        *outer, row = super().outputs(slides)
        rows = (replace(axis, most=1) for axis in outer)
        return (*rows, Axis(row.name, row_length(self.axes[-1])))

    def store_cost(self, slides: Sequence[Slide]) -> float:
        """On the stack, vectors are stored as they are."""
        return 1

    def lower(self) -> Lowered:
        (part,) = self.parts()
        body = self.read_padded([part]) + self._bands(part)
        window = "x".join(map(str, self.pooling.op.kernel))
        return self.binding.finish(body, f"{part.note}, pooled {window}")

    def _bands(self, part: Part) -> ir.Block:
        """All bands; a band takes all tilings of its rows."""
        tilings = part.form.tilings
        if not tilings:
            return ()
        channels = tilings[0].blocks[self.channel]
        columns = [tiling.columns for tiling in tilings]
        width = channels[0].length if channels else 1
        height = band_height(self.axes, width * self.dtype.size)
        spans: dict[Axis, Sequence[Span]] = {
            self.group: [Span(0, 1, self.group.extent)],
            self.batch: [Span(0, 1, self.batch.extent)],
            self.channel: channels,
            **{axis: [Span(0, 1, axis.extent)] for axis in self.bands[:-1]},
            **{axis: balanced(axis.extent, height) for axis in self.bands[-1:]},
        }
        tasks = {axis: spans[axis] for axis in self.order(part, (self.batch, *self.bands))}

        def task(block: Block) -> ir.Block:
            return _Band(self, part, block).body(columns)

        return over_blocks(self.binding, tasks, task, LoopKind.PARALLEL)


@dataclass
class _Band:
    """One task: some channels of a band of windows.

    Arguments:
        conv: the kernel.
        part: the convolution.
        task: the band.
    """

    conv: PooledConv
    part: Part
    task: Block

    @cached_property
    def heights(self) -> list[int]:
        """Rows of the convolution along each axis but the innermost."""
        lengths = [self.task.length[axis] for axis in self.conv.bands]
        return [rows_of(a, n) for a, n in zip(self.conv.axes[:-1], lengths, strict=True)]

    @cached_property
    def first(self) -> list[Expr]:
        """The first of these rows, which may lie in the padding."""
        starts = [self.task.start[axis] for axis in self.conv.bands]
        return [
            start * axis.stride - axis.low
            for axis, start in zip(self.conv.axes[:-1], starts, strict=True)
        ]

    @cached_property
    def rows(self) -> Buffer:
        """What is pooled: [channel][*rows][place]."""
        shape = (
            self.task.length[self.conv.channel],
            *self.heights,
            self.part.outputs[-1].extent,
        )
        return self.conv.binding.local("rows", shape, self.conv.dtype, Space.STACK)

    def body(self, columns: Sequence[Span]) -> ir.Block:
        return (ir.Alloc(self.rows), *self._compute(columns), *self._pool())

    # -- rows of the convolution ------------------------------------------------------------------

    def _compute(self, columns: Sequence[Span]) -> ir.Block:
        binding, outputs = self.conv.binding, self.part.outputs
        rows = [binding.var(axis.name) for axis in outputs[:-1]]
        places = [first + row for first, row in zip(self.first, rows, strict=True)]
        line = Block(dict(zip(outputs[:-1], places, strict=True)), dict.fromkeys(outputs[:-1], 1))

        def tile(block: Block) -> ir.Block:
            return register_tile(
                binding,
                self.part.form,
                self.conv.dtype,
                self.task | line | block,
                lambda place: self.conv.multiply(self.part, place),
                lambda x, place: self._keep(x, rows, place),
            )

        conditions = [
            axis.inside(place)
            for axis, place in zip(self.conv.axes[:-1], places, strict=True)
            if axis.low or rows_of(axis, axis.windows) - axis.low > axis.extent
        ]
        body = guarded(conditions, over_blocks(binding, {outputs[-1]: columns}, tile))
        return ir.loop_nest(tuple(zip(rows, self.heights, strict=True)), body)

    def _keep(self, x: Expr, rows: Sequence[Expr], place: Place) -> ir.Block:
        """Puts what is pooled onto the stack."""
        conv = self.conv
        body, value = conv.pooling.given(conv.result, x, conv.index(self.part, place))
        channel = place[conv.channel] - self.task.start[conv.channel]
        index = (channel, *rows, place[self.part.outputs[-1]])
        return (*body, ir.Store(self.rows, index, value))

    # -- windows ----------------------------------------------------------------------------------

    def _pool(self) -> ir.Block:
        conv, task = self.conv, self.task
        channel, column = conv.binding.var("k"), conv.binding.var("w")
        bands = [(conv.binding.var(axis.name), task.length[axis]) for axis in conv.bands]
        numbers = [task.start[axis] + var for axis, (var, _) in zip(conv.bands, bands, strict=True)]
        start = task.start[conv.group] * conv.channel.extent + task.start[conv.channel]
        pooling = replace(conv.pooling, read=self._read(start))
        body: ir.Block = ()
        for span, touches in conv.axes[-1].spans:
            index = (task.start[conv.batch], start + channel, *numbers, column + span.start)
            kind = LoopKind.SERIAL if touches else LoopKind.VECTOR
            lanes = 1 if touches else conv.lanes
            body += (ir.For(column, span.length, pooling.window(index, touches), kind, lanes),)
        body = (ir.For(channel, task.length[conv.channel], body),)
        return ir.loop_nest(tuple(bands), body)

    def _read(self, start: Expr) -> Callable[[Index], Expr]:
        def read(index: Index) -> Expr:
            rows = [place - first for place, first in zip(index[2:-1], self.first, strict=True)]
            return ir.Load(self.rows, (index[1] - start, *rows, index[-1]))

        return read
