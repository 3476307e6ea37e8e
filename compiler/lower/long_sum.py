"""Contractions whose sums are long and whose results are few.

The sum has two levels: a tile stays in registers for some hundred terms and is then added to sums
on the stack, which keeps rounding errors small, and lets several tiles walk the same terms while
these are in cache. Where there are few results, the terms are split among tasks, by shape alone,
and the partial sums are added in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, ReduceOp, Space
from ..types import DType, Shape
from .binding import Binding
from .contraction import Axis, Block, Contraction, Place, Tiling, over_blocks, register_tile
from .elements import Index
from .tile import Span, balanced

# Terms of a sum in registers.
_TERMS = 256
# So many tasks keep all threads busy, if there are this many cycles of work.
_TASKS = 16
_LONG = 50_000
# So many tiles share their terms.
_SHARING = 8
_STACK_BYTES = 32 * 1024


@dataclass
class LongSum:
    """One contraction.

    Arguments:
        binding: the group.
        form: the contraction.
        dtype: of the result.
        shape: of the result.
        shared: an output axis of which several blocks walk the same terms.
        whole: output axes that do so as a whole, if there is room.
        folded: a summed axis whose terms are dealt out to the lanes, which are added at the end,
            and how many lanes its last place has terms for.
        multiply: the product at a place, in a task.
        index: where in the result the sum for a place belongs.
        store: stores a result.
    """

    binding: Binding
    form: Contraction
    dtype: DType
    shape: Shape
    shared: Axis
    whole: tuple[Axis, ...]
    folded: tuple[Axis, int] | None
    multiply: Callable[[Block, Place], Expr]
    index: Callable[[Place], Index]
    store: Callable[[Expr, Index], ir.Block]

    def lower(self) -> ir.Block:
        """The loops."""
        body: ir.Block = ()
        for tiling in self.form.tilings:
            plan = Plan(self.form, tiling, self.shared, self.whole, self.dtype.size)
            body += self._tasks(plan)
        return body + self._combine()

    @cached_property
    def chunk(self) -> int:
        """Length of the chunks of the longest summed axis."""
        tasks = 0
        for tiling in self.form.tilings:
            plan = Plan(self.form, tiling, self.shared, self.whole, self.dtype.size)
            tasks += math.prod(_count(spans) for spans in plan.tasks.values())
        extent = self.longest.extent
        if not extent or not tasks or tasks >= _TASKS or self.form.cost < _LONG:
            return max(extent, 1)
        return balanced(extent, -(-extent * tasks // _TASKS))[0].length

    @cached_property
    def longest(self) -> Axis:
        """The summed axis that is split; not one whose last place is different."""
        axes = [axis for axis in self.form.summed if not self.folded or axis is not self.folded[0]]
        return max(axes, key=lambda axis: axis.extent)

    @cached_property
    def partial(self) -> Buffer | None:
        """The sums of all chunks, (chunk, *shape)."""
        count = -(-self.longest.extent // self.chunk)
        if count <= 1:
            return None
        return self.binding.local("partial", (count, *self.shape), self.dtype, Space.SCRATCH)

    # -- tasks ------------------------------------------------------------------------------------

    def _tasks(self, plan: Plan) -> ir.Block:
        spans = dict(plan.tasks)
        if self.partial is not None:
            spans[self.longest] = balanced(self.longest.extent, self.chunk)
        return over_blocks(
            self.binding, spans, lambda task: self._task(plan, task), LoopKind.PARALLEL
        )

    def _task(self, plan: Plan, task: Block) -> ir.Block:
        """The sums of some results, which are on the stack."""
        lengths = [task.length.get(axis, axis.extent) for axis in plan.held]
        width = self.form.whole(task.length[self.form.lane])
        sums = self.binding.local("sums", (*lengths, width), self.dtype, Space.STACK)

        def add(x: Expr, place: Place) -> ir.Block:
            index = tuple(
                place[axis] - task.start[axis] if axis in task.start else place[axis]
                for axis in (*plan.held, self.form.lane)
            )
            return (ir.Accumulate(sums, index, ReduceOp.ADD, x),)

        def terms(block: Block, *, lanes: int) -> ir.Block:
            ranges = {axis: (block.start[axis], block.length[axis]) for axis in self.form.summed}

            def tile(part: Block) -> ir.Block:
                return register_tile(
                    self.binding,
                    self.form,
                    self.dtype,
                    Block(task.start, {**task.length, self.form.lane: lanes}) | part,
                    lambda place: self.multiply(task, place),
                    add,
                    ranges,
                    exact=self.folded is not None,
                )

            return over_blocks(self.binding, plan.tiles(task), tile, origin=task.start)

        body: ir.Block = ()
        for spans, lanes in self._terms(task):
            body += over_blocks(self.binding, spans, partial(terms, lanes=lanes), origin=task.start)
        return (ir.Alloc(sums), *self._clear(sums), *body, *self._finish(plan, task, sums))

    def _terms(self, task: Block) -> Iterator[tuple[dict[Axis, list[Span]], int]]:
        """Blocks of a few hundred terms, and how many lanes have any."""
        width = task.length[self.form.lane]
        if self.folded is None:
            yield self._term_blocks(task, {}), width
            return
        axis, rest = self.folded
        whole = axis.extent - (rest < width)
        if whole:
            yield self._term_blocks(task, {axis: Span(0, whole)}), width
        if whole < axis.extent:
            yield self._term_blocks(task, {axis: Span(whole, 1)}), rest

    def _term_blocks(self, task: Block, parts: Mapping[Axis, Span]) -> dict[Axis, list[Span]]:
        spans: dict[Axis, list[Span]] = {}
        room = _TERMS
        for axis in reversed(self.form.summed):
            part = parts.get(axis, Span(0, task.length.get(axis, axis.extent)))
            blocks = balanced(part.length, min(part.length, room) or 1)
            spans[axis] = [replace(span, start=span.start + part.start) for span in blocks]
            room = -(-room // max(part.length, 1))
        return dict(reversed(spans.items()))

    def _clear(self, sums: Buffer) -> ir.Block:
        rows = tuple((self.binding.var("m"), n) for n in sums.shape[:-1])
        lane = self.binding.var("v")
        index = (*(var for var, _ in rows), lane)
        store = ir.Store(sums, index, ir.Const(0.0, self.dtype))
        row = ir.For(lane, sums.shape[-1], (store,), LoopKind.VECTOR, self.form.lanes)
        return ir.loop_nest(rows, (row,))

    # -- results ----------------------------------------------------------------------------------

    def _finish(self, plan: Plan, task: Block, sums: Buffer) -> ir.Block:
        """Stores the sums of a task."""
        lengths = sums.shape[:-1]
        rows = [
            (self.binding.var(axis.name), n) for axis, n in zip(plan.held, lengths, strict=True)
        ]
        lane = self.binding.var("v")
        at = tuple(var for var, _ in rows)
        place = dict(task.start)
        for axis, var in zip(plan.held, at, strict=True):
            place[axis] = task.start.get(axis, ir.index(0)) + var
        width = task.length[self.form.lane]
        if self.folded is not None:
            total = self.binding.local("total", (), self.dtype, Space.REGISTER)
            add = ir.Accumulate(total, (), ReduceOp.ADD, ir.Load(sums, (*at, lane)))
            body: ir.Block = (
                ir.Alloc(total),
                ir.Store(total, (), ir.Const(0.0, self.dtype)),
                ir.For(lane, width, (add,), LoopKind.VECTOR, self.form.lanes),
                *self._put(task, ir.Load(total, ()), place),
            )
        else:
            place[self.form.lane] = task.start[self.form.lane] + lane
            store = self._put(task, ir.Load(sums, (*at, lane)), place)
            body = (ir.For(lane, width, store, LoopKind.VECTOR, self.form.lanes),)
        return ir.loop_nest(tuple(rows), body)

    def _put(self, task: Block, x: Expr, place: Place) -> ir.Block:
        if self.partial is None:
            return self.store(x, self.index(place))
        number = task.start[self.longest] // self.chunk
        return (ir.Store(self.partial, (number, *self.index(place)), x),)

    def _combine(self) -> ir.Block:
        """Adds the sums of all chunks; the last axis that is one lies in lanes."""
        if self.partial is None:
            return ()
        axes = [(self.binding.var("i"), n) for n in self.shape]
        index = tuple(var for var, _ in axes)
        chunk = self.binding.var("chunk")
        total = self.binding.local("total", (), self.dtype, Space.REGISTER)
        add = ir.Accumulate(total, (), ReduceOp.ADD, ir.Load(self.partial, (chunk, *index)))
        body: ir.Block = (
            ir.Alloc(total),
            ir.Store(total, (), ir.Const(0.0, self.dtype)),
            ir.For(chunk, self.partial.shape[0], (add,)),
            *self.store(ir.Load(total, ()), index),
        )
        wide = max((i for i, n in enumerate(self.shape) if n > 1), default=len(axes) - 1)
        lane, extent = axes[wide]
        body = ir.loop_nest(tuple(axes[wide + 1 :]), body)
        body = (ir.For(lane, extent, body, LoopKind.VECTOR, self.form.lanes),)
        return ir.loop_nest(tuple(axes[:wide]), body, LoopKind.PARALLEL)


@dataclass(frozen=True)
class Plan:
    """Which tiles make a task.

    Arguments:
        form: the contraction.
        tiling: its tiles.
        shared: axis of which a task has several blocks.
        together: axes that a task has all of, if there is room.
        size: bytes of a number.
    """

    form: Contraction
    tiling: Tiling
    shared: Axis
    together: tuple[Axis, ...]
    size: int

    @cached_property
    def held(self) -> tuple[Axis, ...]:
        """Output axes along which a task has more than one place, but for the lanes."""
        return tuple(axis for axis in self.form.rows if axis.most > 1)

    @cached_property
    def whole(self) -> tuple[Axis, ...]:
        """Axes that a task has all of."""
        bytes_of_tile = self.tiling.rows * self.form.whole(self.tiling.columns.length) * self.size
        for first in range(len(self.together)):
            axes = self.together[first:]
            if bytes_of_tile * self._tiles(axes) <= _STACK_BYTES:
                return axes
        return ()

    def _tiles(self, axes: Sequence[Axis]) -> int:
        return math.prod(_count(self.tiling.blocks[axis]) for axis in axes)

    @cached_property
    def tasks(self) -> dict[Axis, Sequence[Span]]:
        """Blocks of the axes, of each of which a task has one."""
        spans = {a: s for a, s in self.tiling.blocks.items() if a not in self.whole}
        spans[self.form.lane] = (self.tiling.columns,)
        there = math.prod(_count(s) for s in spans.values()) // _TASKS
        wanted = -(-_SHARING // max(1, self._tiles(self.whole)))
        spans[self.shared] = _grouped(spans[self.shared], max(1, min(wanted, there)))
        return spans

    def tiles(self, task: Block) -> Mapping[Axis, Sequence[Span]]:
        """Blocks of the other axes, and those of the shared axis in a task."""
        spans = {axis: self.tiling.blocks[axis] for axis in self.whole}
        length, most = task.length[self.shared], self.tiling.blocks[self.shared][0].length
        return {self.shared: balanced(length, min(length, most)), **spans}


def _count(spans: Sequence[Span]) -> int:
    return sum(span.count for span in spans)


def _grouped(spans: Sequence[Span], count: int) -> list[Span]:
    """Blocks in groups of `count`, and what remains."""
    result = []
    for span in spans:
        groups, rest = divmod(span.count, count)
        if groups:
            result.append(Span(span.start, span.length * count, groups))
        if rest:
            start = span.start + groups * count * span.length
            result.append(Span(start, span.length * rest, 1))
    return result
