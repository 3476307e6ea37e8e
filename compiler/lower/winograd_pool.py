"""Winograd convolution, its epilogue, and max-pooling in one kernel.

Windows lie inside of tiles: what is pooled stays on the stack, a tile at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..graph import Graph, Value
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Buffer, Expr, Space
from ..ops.pool import MaxPool
from ..passes.partition import Group
from .binding import Binding, Lowered
from .elements import Elements, Index
from .pool import Pooling
from .windows import guarded
from .winograd import Winograd


def lower_winograd_pool(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of WinogradConv and the MaxPool behind it, with their epilogues."""
    assert group.anchor is not None
    return PooledWinograd(Binding(graph, group, target), Value(group.anchor)).lower()


@dataclass
class _Windows(Pooling):
    """Pooling of what `read` gives."""

    read: Callable[[Index], Expr]

    def element(self, elements: Elements, index: Index) -> Expr:
        return self.read(index)


@dataclass
class PooledWinograd(Winograd):
    """One convolution that is pooled."""

    @cached_property
    def pool(self) -> Value:
        assert self.binding.group.pool is not None
        return Value(self.binding.group.pool)

    @cached_property
    def pool_op(self) -> MaxPool:
        op = self.binding.graph.node(self.pool.node).op
        assert isinstance(op, MaxPool)
        return op

    @property
    def note(self) -> str:
        return f"{super().note}, pooled {'x'.join(map(str, self.pool_op.kernel[:2]))}"

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
        elements = self.binding.elements()
        elements.given[self.result] = elements.name(y, "result")
        (pooled,) = self.binding.graph.inputs_of(self.pool.node)
        value = elements.at(pooled, index)
        return (*elements.take_block(), ir.Store(self.results, place, value))

    def _pool(self, image: Expr, channel: Expr, lane: Expr, tile: Sequence[Expr]) -> ir.Block:
        """The windows of a tile."""
        shape = self.binding.graph.type_of(self.pool).shape
        size = shape[-1]
        counts = [self.op.tile // n for n in self.pool_op.kernel[:2]]
        loops = [(self.binding.var(hint), n) for hint, n in zip("hw", counts, strict=True)]
        places = [t * n + var for t, (var, n) in zip(tile, loops, strict=True)]

        def read(index: Index) -> Expr:
            within = (i - t * self.op.tile for i, t in zip(index[2:4], tile, strict=True))
            return ir.Load(self.results, tuple(within))

        windows = _Windows(self.binding, self.pool, self.pool_op, read)
        index = (image, channel // size, *places, channel % size + lane)
        inside = [
            place < extent
            for place, extent, n, count in zip(places, shape[2:4], counts, self.counts, strict=True)
            if n * count != extent
        ]
        return ir.loop_nest(tuple(loops), guarded(inside, windows.window(index, False)))
