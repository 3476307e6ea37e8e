"""Winograd convolution, its epilogue, and max-pooling in one kernel.

Windows lie inside of tiles: what is pooled stays on the stack, a tile at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Buffer, Expr, Space
from .binding import Binding, Lowered
from .index import Index
from .pool import Pooling, pooling_behind
from .windows import guarded
from .winograd import Winograd


def lower_winograd_pool(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of WinogradConv and the MaxPool behind it, with their epilogues."""
    assert group.anchor is not None
    return PooledWinograd(Binding(graph, group, target), Value(group.anchor)).lower()


@dataclass
class PooledWinograd(Winograd):
    """One convolution that is pooled."""

    @cached_property
    def pooling(self) -> Pooling:
        return pooling_behind(self.binding)

    @property
    def note(self) -> str:
        return f"{super().note}, pooled {'x'.join(map(str, self.pooling.op.kernel[:2]))}"

    @cached_property
    def results(self) -> Buffer:
        """What is pooled of a tile."""
        shape = (self.op.tile, self.op.tile)
        return self.binding.local("results", shape, self.dtype, Space.STACK)

    def write_tile(
        self, half: Buffer, image: Expr, channel: Expr, lane: Expr, tile: Sequence[Expr]
    ) -> ir.Block:
        whole = super().write_tile(half, image, channel, lane, tile)
        return (ir.Alloc(self.results), *whole, *self._pool(image, channel, lane, tile))

    def write(self, y: Expr, index: Index, place: Index) -> ir.Block:
        body, x = self.pooling.given(self.result, y, index)
        return (*body, ir.Store(self.results, place, x))

    def _pool(self, image: Expr, channel: Expr, lane: Expr, tile: Sequence[Expr]) -> ir.Block:
        """The windows of a tile."""
        shape = self.pooling.shape
        counts = [self.op.tile // n for n in self.pooling.op.kernel[:2]]
        loops = [(self.binding.var(hint), n) for hint, n in zip("hw", counts, strict=True)]
        places = [t * n + var for t, (var, n) in zip(tile, loops, strict=True)]

        def read(index: Index) -> Expr:
            within = (i - t * self.op.tile for i, t in zip(index[2:4], tile, strict=True))
            return ir.Load(self.results, tuple(within))

        windows = replace(self.pooling, read=read)
        block, within = self.place(channel, lane)
        index = (image, block, *places, within)
        inside = [
            place < extent
            for place, extent, n, count in zip(places, shape[2:4], counts, self.counts, strict=True)
            if n * count != extent
        ]
        return ir.loop_nest(tuple(loops), guarded(inside, windows.window(index, False)))
