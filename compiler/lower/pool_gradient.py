"""The transposes of pooling.

Where windows are small, each place adds up what the windows that it is in have for it. Else a plane
of zeros gets what the windows have for its places.

Planes are independent, hence parallel; inside of one the order is fixed, so that the sums are the
same for any number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Const, Expr, LoopKind, ReduceOp
from ..ops.pool import MaxPoolGradient, SumPoolGradient
from .anchored import Anchored
from .binding import Binding, Lowered
from .index import Index
from .pool import clamped_position
from .pool_places import Places
from .windows import WindowAxis, guarded, parts_of, window_axes

# Places of a window up to which each place asks for all windows that it may be in.
_GATHERED = 25


def lower_pool_gradient(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of MaxPoolGradient or SumPoolGradient."""
    assert group.anchor is not None
    op = graph.node(group.anchor).op
    assert isinstance(op, MaxPoolGradient | SumPoolGradient)
    return Unpooling(Binding(graph, group, target), Value(group.anchor), op).lower()


@dataclass
class Unpooling(Anchored):
    """Builds the loops of one transpose.

    Arguments:
        op: what it computes.
    """

    op: MaxPoolGradient | SumPoolGradient

    @cached_property
    def axes(self) -> tuple[WindowAxis, ...]:
        return window_axes(self.op.window, self.op.spatial)

    @property
    def lanes(self) -> int:
        return self.binding.lanes(*self.binding.dtypes)

    def lower(self) -> Lowered:
        plane = (self.binding.var("n"), self.binding.var("c"))
        loops = tuple(zip(plane, self.shape, strict=False))
        if self.op.window.size <= _GATHERED:
            body = ir.loop_nest(loops, Places(self, plane).loops(), LoopKind.PARALLEL)
            return self.binding.finish(body, "places gather from windows")
        add = self._picked if isinstance(self.op, MaxPoolGradient) else self._spread
        body = ir.loop_nest(loops, self._zeros(plane) + add(plane), LoopKind.PARALLEL)
        return self.binding.finish(body, "windows added to planes")

    # -- windows that add -------------------------------------------------------------------------

    def _zeros(self, plane: Index) -> ir.Block:
        *outer, column = (self.binding.var("i") for _ in self.axes)
        dtype = self.binding.outputs[self.result].dtype
        zero = ir.Store(
            self.binding.outputs[self.result], (*plane, *outer, column), Const(0.0, dtype)
        )
        row = ir.For(column, self.shape[-1], (zero,), LoopKind.VECTOR, self.lanes)
        return ir.loop_nest(tuple(zip(outer, self.shape[2:-1], strict=True)), (row,))

    def _add(self, plane: Index, places: Index, value: Expr) -> ir.Stmt:
        return ir.Accumulate(
            self.binding.outputs[self.result], (*plane, *places), ReduceOp.ADD, value
        )

    def _picked(self, plane: Index) -> ir.Block:
        """Each window's element to the place that its position names."""
        windows = tuple(self.binding.var("w") for _ in self.axes)
        dy, position = self.inputs
        elements = self.binding.elements()
        number = elements.name(
            clamped_position(elements.at(position, (*plane, *windows)), self.op), "part"
        )
        value = elements.at(dy, (*plane, *windows))
        places = tuple(
            elements.name(axis.place(window, part), "place")
            for axis, window, part in zip(
                self.axes, windows, parts_of(self.axes, number), strict=True
            )
        )
        inside = [a.inside(p) for a, p in zip(self.axes, places, strict=True) if a.has_padding]
        body = elements.take_block() + guarded(inside, (self._add(plane, places, value),))
        extents = (axis.windows for axis in self.axes)
        return ir.loop_nest(tuple(zip(windows, extents, strict=True)), body)

    def _spread(self, plane: Index) -> ir.Block:
        """Each window's element to all its places."""
        outer_axes = self.axes[:-1]
        windows = [self.binding.var("w") for _ in outer_axes]
        parts = [self.binding.var("k") for _ in outer_axes]
        places = [a.place(w, k) for a, w, k in zip(outer_axes, windows, parts, strict=True)]
        body = self._spread_row(plane, tuple(windows), tuple(places))
        inside = [a.inside(p) for a, p in zip(outer_axes, places, strict=True) if a.has_padding]
        loops = [(w, a.windows) for w, a in zip(windows, outer_axes, strict=True)]
        loops += [(k, a.kernel) for k, a in zip(parts, outer_axes, strict=True)]
        return ir.loop_nest(tuple(loops), guarded(inside, body))

    def _spread_row(self, plane: Index, windows: Index, places: Index) -> ir.Block:
        """A row of windows to a row of places: of windows and parts, the more are in lanes."""
        axis = self.axes[-1]
        windows_in_lanes = axis.windows >= axis.kernel
        body: ir.Block = ()
        for fixed in range(min(axis.windows, axis.kernel)):
            lane = self.binding.var("v")
            span = axis.covered(fixed) if windows_in_lanes else axis.parts(fixed)
            one: tuple[Expr, Expr] = (lane + span.start, ir.index(fixed))
            window, part = one if windows_in_lanes else one[::-1]
            elements = self.binding.elements()
            value = elements.at(self.inputs[0], (*plane, *windows, window))
            add = self._add(plane, (*places, axis.place(window, part)), value)
            block = (*elements.take_block(), add)
            body += (ir.For(lane, span.length, block, LoopKind.VECTOR, self.lanes),)
        return body
