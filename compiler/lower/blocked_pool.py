"""Tasks of a convolution in blocks of channels with a max-pool behind it.

What is pooled never gets into memory: a task computes the rows that a band of windows needs onto
the stack, then their maxima. Rows that two bands need are computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from ..loops import ir
from ..loops.ir import Expr, LoopKind
from .bands import row_length, rows_of
from .block_index import divided
from .blocked_task import Tasks
from .contraction import Axis, Place
from .index import Index
from .pool import Pooling, pooling_behind
from .windows import WindowAxis, guarded


@dataclass
class PooledTasks(Tasks):
    """The tasks of what is pooled."""

    @cached_property
    def pooling(self) -> Pooling:
        return pooling_behind(self.conv.binding)

    @cached_property
    def windows(self) -> tuple[WindowAxis, ...]:
        """The windows along each spatial axis."""
        return self.pooling.axes[:-1]

    def along(self, axis: Axis) -> WindowAxis:
        """The windows along an axis."""
        return self.windows[self.part.outputs.index(axis)]

    # -- tasks are bands of windows ---------------------------------------------------------------

    def bands(self) -> int:
        return self.along(self.band).windows if self.rows else 1

    def length(self, axis: Axis, band: int) -> int:
        if axis is self.line:
            return row_length(self.along(axis))
        return rows_of(self.along(axis), band if axis is self.band else 1)

    def first(self, axis: Axis, task: Expr) -> Expr:
        if axis is self.line:
            return ir.index(0)
        window = task * self.cut.rows if axis is self.band else task
        return window * self.along(axis).stride - self.along(axis).low

    def conditions(self, axis: Axis, place: Expr) -> list[Expr]:
        windows, high = self.along(axis), self.counts[axis]
        if axis is self.band:
            high *= self.cut.rows
        if windows.low or rows_of(windows, high) - windows.low > windows.extent:
            return [windows.inside(self.origin[axis] + place)]
        return []

    def overhangs(self, axis: Axis) -> bool:
        return axis is not self.line

    @property
    def others_of(self) -> list[int]:
        return [self.along(axis).windows for axis in self.rows[:-1]]

    @property
    def keeps_sums(self) -> bool:
        return True

    # -- pooling ----------------------------------------------------------------------------------

    def keep(self, x: Expr, place: Place) -> tuple[ir.Block, Expr]:
        """What is pooled, from the convolution's result."""
        index = self.conv.index(self.part, self.absolute(place))
        return self.pooling.given(self.conv.result, x, index)

    def finish(self) -> ir.Block:
        return (*self._keep_sums(), *self.over_panels(self._pool))

    def _keep_sums(self) -> ir.Block:
        """Turns sums of several chunks into what is pooled."""
        if self.chunks == 1:
            return ()
        sums = self.sums
        assert sums is not None

        def store(place: Place, index: Index) -> ir.Block:
            body, x = self.keep(ir.Load(sums, index), place)
            return (*body, ir.Store(sums, index, x))

        return self.over_sums(store)

    def _pool(self, panel: Expr) -> ir.Block:
        """The windows of a panel."""
        binding = self.conv.binding
        numbers: list[Expr] = []
        nest: ir.Loops = ()
        checks: list[Expr] = []
        for axis in self.rows:
            extent = self.cut.rows if axis is self.band else 1
            var, loops = binding.loop(axis.name, extent)
            nest += loops
            numbers.append(self.tasks[axis] * extent + var)
            if self.along(axis).windows % extent:
                checks.append(numbers[-1] < self.along(axis).windows)
        body: ir.Block = ()
        for span, touches in self.along(self.line).spans:
            column, loops = binding.loop(self.line.name, span.length)
            window = self._window(panel, (*numbers, column + span.start), touches)
            body += ir.loop_nest(loops, window)
        return ir.loop_nest(nest, guarded(checks, body))

    def _window(self, panel: Expr, windows: Index, touches: bool) -> ir.Block:
        """A window of all channels of a panel."""
        conv, width = self.conv, self.conv.stored
        lane = conv.binding.var("v")
        block, loops = conv.binding.loop("b", self.tiling.columns.length // width)
        column = block * width + lane
        channel = self.origin[conv.channel] + panel * self.part.form.panel + column
        channel = self.origin[conv.group] * conv.channel.extent + channel
        size = conv.blocked_op.block
        major, minor = divided(channel, size)
        index = (self.origin[conv.batch], major, *windows, minor)
        pooling = replace(self.pooling, read=self._read(panel, column))
        every = [axis.has_padding for axis in self.windows[:-1]] + [touches, False]
        body = pooling.window_touching(index, every)
        body = (ir.For(lane, width, body, LoopKind.VECTOR, conv.lanes),)
        return ir.loop_nest(loops, body, LoopKind.UNROLLED)

    def _read(self, panel: Expr, column: Expr) -> Callable[[Index], Expr]:
        sums = self.sums
        assert sums is not None

        def read(index: Index) -> Expr:
            axes = self.part.outputs
            places = {a: i - self.origin[a] for a, i in zip(axes, index[2:-1], strict=True)}
            return ir.Load(sums, self.kept(panel, places, column))

        return read
