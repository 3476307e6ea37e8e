"""Tasks of a convolution in blocks of channels with a depthwise convolution behind it.

What comes between the two, six times as wide as what goes in and out in MobileNet (Sandler et al.,
2018), never gets into memory: a task computes the rows that a band of windows needs onto the
stack, then the depthwise convolution of them. Rows that two bands need are computed twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from ..graph import Value
from ..loops import ir
from ..loops.ir import Expr
from .block_index import divided
from .blocked_pool import PooledTasks
from .contraction import Place
from .depthwise import Depthwise, Form, depthwise_form
from .epilogue import store_results
from .index import Index
from .windows import WindowAxis

if TYPE_CHECKING:
    from .blocked_conv import BlockedGather


@dataclass
class DepthwiseTasks(PooledTasks):
    """The tasks of a convolution and the depthwise one behind it."""

    @cached_property
    def depthwise(self) -> BlockedGather:
        """The depthwise convolution."""
        conv = self.conv
        return replace(conv, result=Value(conv.binding.group.pool or ""), flat=False)

    @cached_property
    def form(self) -> Form:
        """Of the depthwise convolution."""
        form = depthwise_form(self.depthwise, edges=None)
        assert form is not None
        return form

    @cached_property
    def windows(self) -> tuple[WindowAxis, ...]:
        return self.conv.windows_behind

    def keep(self, x: Expr, place: Place) -> tuple[ir.Block, Expr]:
        """What the depthwise convolution reads, from the result of the one before it."""
        elements = self.conv.binding.elements()
        elements.given[self.conv.result] = elements.name(x, "result")
        index = self.conv.index(self.part, self.absolute(place))
        value = elements.at(self.depthwise.source, index)
        return elements.take_block(), value

    def _pool(self, panel: Expr) -> ir.Block:
        """The depthwise convolution of a panel."""
        conv, size = self.conv, self.conv.blocked_op.block
        binding, sums = conv.binding, self.sums
        assert sums is not None
        block, loops = binding.loop("b", self.tiling.columns.length // size)
        first = self.origin[conv.channel] + panel * self.part.form.panel
        major = divided(self.origin[conv.group] * conv.channel.extent + first, size)[0] + block

        def read(index: Index, lane: Expr) -> Expr:
            axes = self.part.outputs
            place = {a: i - self.origin[a] for a, i in zip(axes, index, strict=True)}
            return ir.Load(sums, self.kept(panel, place, block * size + lane))

        def write(result: Expr, place: Index, lane: Expr) -> ir.Block:
            index = (self.origin[conv.batch], major, *place, lane)
            return store_results(binding, {self.depthwise.result: result}, index)

        counts = [self.cut.rows if axis is self.band else 1 for axis in self.rows]
        starts = [self.tasks[a] * n for a, n in zip(self.rows, counts, strict=True)]
        tasks = self.counts[self.band] if self.rows else 1
        rows = Depthwise(self.depthwise, self.form, read, major, write).rows(starts, counts, tasks)
        return ir.loop_nest(loops, rows)
