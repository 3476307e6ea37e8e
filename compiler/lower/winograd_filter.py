"""The transform of weights for Winograd convolution."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Expr, LoopKind, Space
from ..ops.toom_cook import transforms
from ..ops.winograd import WinogradWeight
from .anchored import Anchored
from .binding import Binding, Lowered
from .linear_map import linear_map
from .padding import reader
from .tile import Span, panels


def lower_winograd_filter(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of WinogradWeight."""
    assert group.anchor is not None
    return Weights(Binding(graph, group, target), Value(group.anchor)).lower()


@dataclass
class Weights(Anchored):
    """The transform of one weight."""

    @cached_property
    def op(self) -> WinogradWeight:
        op = self.binding.graph.node(self.result.node).op
        assert isinstance(op, WinogradWeight)
        return op

    def lower(self) -> Lowered:
        (source,) = self.inputs
        weight = self.binding.graph.type_of(source).shape
        channels = weight[1] if self.op.transposed else weight[0]
        body: ir.Block = ()
        for span in panels(channels, self.op.panel):
            body += self._panels(source, span)
        return self.binding.finish(body, f"winograd weights {self.op.tile}x{self.op.tile}")

    def _panels(self, source: Value, span: Span) -> ir.Block:
        """Panels of `span.length` channels, zeros behind them."""
        binding, op = self.binding, self.op
        result = binding.outputs[self.result]
        number, depth, lane = (binding.var(h) for h in ("panel", "c", "v"))
        panel = number + span.start // op.panel
        taps = binding.graph.type_of(source).shape[2]
        side = op.tile + taps - 1
        matrix = transforms(op.tile, taps).filter
        half = binding.local("half", (side, taps), result.dtype, Space.STACK)
        across, down, place = binding.var("j"), binding.var("i"), binding.var("p")
        read = reader(binding, source)
        channel = panel * op.panel + lane

        def tap(i: Expr, j: Expr) -> Expr:
            if op.transposed:
                return read((depth, channel, taps - 1 - i, taps - 1 - j))
            return read((channel, depth, i, j))

        elements = binding.elements()
        column = [elements.name(tap(ir.index(i), across), "g") for i in range(taps)]
        ys = linear_map(elements, matrix, column)
        first = elements.take_block()
        first += tuple(ir.Store(half, (ir.index(i), across), y) for i, y in enumerate(ys))
        row = [elements.name(ir.Load(half, (down, ir.index(j))), "g") for j in range(taps)]
        us = linear_map(elements, matrix, row)
        last = elements.take_block()
        last += tuple(
            ir.Store(result, (panel, down * side + j, depth, lane), u) for j, u in enumerate(us)
        )
        body: ir.Block = (
            ir.Alloc(half),
            ir.For(across, taps, first),
            ir.For(down, side, last),
        )
        # As wide as a panel: lines of memory are written as a whole.
        body = (ir.For(lane, span.length, body, LoopKind.VECTOR, op.panel),)
        fill = op.panel - span.length
        if fill:
            zero = ir.Const(0.0, result.dtype)
            store = ir.Store(result, (panel, place, depth, lane + span.length), zero)
            zeros = (ir.For(lane, fill, (store,), LoopKind.VECTOR, fill),)
            body += (ir.For(place, side**2, zeros),)
        nest = ((number, span.count), (depth, result.shape[2]))
        return ir.loop_nest(nest, body, LoopKind.PARALLEL)
