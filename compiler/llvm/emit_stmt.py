"""Statements to instructions: control flow, stores, local buffers, and vector loops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import CompileError
from ..loops.ir import (
    Accumulate,
    Alloc,
    Block,
    Buffer,
    For,
    If,
    Let,
    LoopKind,
    Prefetch,
    ReduceOp,
    Store,
)
from . import arithmetic, memory
from .builder import Value
from .emit_expr import ExpressionEmitter
from .linear import Linear
from .reductions import Reduction, VectorPlan
from .scope import Place, Result, Scope

# A share of a thread's stack of 8 MB; what is bigger belongs into scratch.
_STACK_BYTES = 1024 * 1024
# A vector loop that moves through register buffers is written out up to this many chunks, and so
# are the accumulators of a reduction.
_WRITTEN_OUT = 64


@dataclass(frozen=True)
class _Accumulators:
    """Where a chunk of `lanes` iterations accumulates what it reduces."""

    lanes: int
    places: dict[Reduction, Place]


class StatementEmitter:
    """Emits the statements of one function into a scope."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.f = scope.f
        self.expressions = ExpressionEmitter(scope)
        self._plans: dict[int, VectorPlan] = {}
        self._partials: dict[Reduction, Place] = {}
        self._stack: dict[tuple[str, int, int], Value] = {}
        self._stack_bytes = 0

    def block(self, block: Block) -> None:
        """Statements whose names end with them."""
        with self.scope.names():
            self.statements(block)

    def statements(self, block: Block) -> None:
        """Statements whose names remain."""
        scope, expressions = self.scope, self.expressions
        for stmt in block:
            expressions.begin()
            match stmt:
                case For():
                    self._loop(stmt)
                case Store(buffer, index):
                    place, offset = expressions.offset(buffer, index)
                    memory.store(scope, place, offset, self._stored(stmt), stmt.streaming)
                case Accumulate():
                    self._accumulate(stmt)
                case Let(var, value):
                    scope.variables[var.name] = expressions.result(value)
                case Alloc(buffer):
                    scope.places[buffer.name] = self._allocate(buffer)
                case Prefetch(buffer, index):
                    memory.prefetch(scope, *expressions.offset(buffer, index))
                case If():
                    self._branch(stmt)
                case _:
                    raise CompileError(f"not a statement: {stmt!r}")

    def _stored(self, stmt: Store | Accumulate) -> Value:
        """The value of a statement that writes it to its buffer."""
        if stmt.value.dtype is not stmt.buffer.dtype:
            raise CompileError(
                f"{stmt.value.dtype} is written to buffer {stmt.buffer.name} of "
                f"{stmt.buffer.dtype}: cast it"
            )
        return self.expressions.value(stmt.value)

    def _branch(self, stmt: If) -> None:
        f, condition = self.f, self.expressions.condition(stmt.condition)
        if condition.number is not None:
            self.block(stmt.body if condition.number else stmt.orelse)
            return
        f.when(condition, lambda: self.block(stmt.body), lambda: self.block(stmt.orelse))

    def _allocate(self, buffer: Buffer) -> Place:
        """Memory on the stack, the same whenever the statement comes again."""
        lanes = self.scope.lanes
        private = 0 if lanes == 1 else 1 << (lanes - 1).bit_length()
        element = arithmetic.memory_type(buffer.dtype)
        count = max(1, buffer.size) * max(1, private)
        key = buffer.name, lanes, count
        pointer = self._stack.get(key)
        if pointer is None:
            self._stack_bytes += count * element.bytes
            if self._stack_bytes > _STACK_BYTES:
                raise CompileError(
                    f"local buffers take {self._stack_bytes} bytes with {buffer.name} "
                    f"{buffer.shape}, at most {_STACK_BYTES} are there; make it scratch"
                )
            pointer = self.f.alloca(element, count, memory.ALIGNMENT)
            self._stack[key] = pointer
        return Place(buffer, pointer, private, local=True)

    # ---------------------------------------------------------------- accumulation

    def _accumulate(self, stmt: Accumulate) -> None:
        scope, expressions = self.scope, self.expressions
        value = self._stored(stmt)
        place, offset = expressions.offset(stmt.buffer, stmt.index)
        if self._partials:
            for index in (stmt.index, None):
                partial = self._partials.get(Reduction(stmt.buffer, index, stmt.op))
                if partial is not None:
                    offset = Linear() if index is not None else offset
                    self._combine(partial, offset, stmt.op, scope.spread(value))
                    return
        shared = isinstance(offset, Linear) and offset.step == 0 and not place.private
        if not shared:
            self._combine(place, offset, stmt.op, scope.spread(value))
            return
        folded = arithmetic.fold_lanes(self.f, stmt.op, stmt.buffer.dtype, scope.spread(value))
        with scope.loop(1):
            self._combine(place, offset, stmt.op, folded)

    def _combine(self, place: Place, offset: Result, op: ReduceOp, value: Value) -> None:
        """place[offset] op= value"""
        dtype = place.buffer.dtype

        def combine(total: Value, value: Value) -> Value:
            return arithmetic.combine(self.f, op, dtype, total, value)

        memory.update(self.scope, place, offset, value, combine)

    # ---------------------------------------------------------------- loops

    def _loop(self, loop: For) -> None:
        if loop.extent == 0:
            return
        if loop.kind is LoopKind.UNROLLED or loop.extent == 1:
            for number in range(loop.extent):
                self._round(loop, Linear(number))
        elif loop.kind is LoopKind.VECTOR and loop.lanes > 1 and self.scope.lanes == 1:
            self._vector(loop)
        else:
            with self.f.loop(0, loop.extent, name=_label(loop)) as rounds, self.scope.loop():
                self.scope.learn(rounds.index, 0, loop.extent - 1)
                self._round(loop, Linear(0, {rounds.index.text: 1}))

    def _round(self, loop: For, number: Linear) -> None:
        """The loop's body for one value of its variable."""
        with self.scope.names():
            self.scope.variables[loop.var.name] = number
            self.statements(loop.body)

    def _vector(self, loop: For) -> None:
        """Full chunks of lanes, then what remains in fewer lanes; reductions around them."""
        full, rest = divmod(loop.extent, loop.lanes)
        plan = self._plans.get(id(loop))
        if plan is None:  # loops inside unrolled ones come again and again
            plan = self._plans[id(loop)] = VectorPlan.of(loop)
        reductions = plan.reductions
        sets = [
            self._accumulators(reductions, loop.lanes, number)
            for number in range(min(plan.interleaved, full))
        ]
        self._chunks(loop, full, sets, plan.written_out and full <= _WRITTEN_OUT)
        first = full * loop.lanes
        for lanes in _lanes_of_rest(rest, self.scope.vector_bytes // plan.element_bytes):
            # A single iteration goes right to the result.
            last = self._accumulators(reductions if lanes > 1 else (), lanes, 0)
            sets.append(last)
            self._chunk(loop, Linear(first), last)
            first += lanes
        self.expressions.begin()
        for reduction in reductions:
            self._finish(reduction, [each for each in sets if reduction in each.places])

    def _chunks(self, loop: For, full: int, sets: list[_Accumulators], written_out: bool) -> None:
        """The full chunks, in rounds of as many as there are sets of accumulators."""
        lanes = loop.lanes
        rounds = 0 if written_out or full <= len(sets) else full // len(sets)
        if rounds:
            step = len(sets) * lanes
            around = self.f.loop(0, rounds * step, step, name=_label(loop))
            with around as chunk, self.scope.loop():
                self.scope.learn(chunk.index, 0, (rounds - 1) * step, step)
                for number, accumulators in enumerate(sets):
                    first = Linear(number * lanes, {chunk.index.text: 1})
                    self._chunk(loop, first, accumulators)
        for number in range(rounds * len(sets), full):
            self._chunk(loop, Linear(number * lanes), sets[number % len(sets)])

    def _chunk(self, loop: For, first: Linear, accumulators: _Accumulators) -> None:
        """The loop's body for neighbouring values of its variable, one a lane."""
        lanes = accumulators.lanes
        self._partials = accumulators.places
        with self.scope.loop(lanes):
            self._round(loop, Linear(first.const, first.terms, 1 if lanes > 1 else 0))
        self._partials = {}

    # ---------------------------------------------------------------- reductions

    def _accumulators(
        self, reductions: tuple[Reduction, ...], lanes: int, number: int
    ) -> _Accumulators:
        """Accumulators for each lane, set to what changes nothing."""
        places = {}
        with self.scope.loop(lanes):
            for position, reduction in enumerate(reductions):
                name = f"{reduction.buffer.name}.{position}.{number}"
                shape, dtype = (reduction.accumulators,), reduction.buffer.dtype
                place = self._allocate(Buffer(name, shape, dtype))
                neutral = arithmetic.identity(reduction.op, dtype)
                for offset in self._offsets(reduction):
                    memory.store(self.scope, place, offset, neutral)
                places[reduction] = place
        return _Accumulators(lanes, places)

    def _finish(self, reduction: Reduction, sets: list[_Accumulators]) -> None:
        """Accumulators to the result, in an order that depends on their number only."""
        f, op, dtype = self.f, reduction.op, reduction.buffer.dtype
        for offset in self._offsets(reduction):
            totals = []
            for each in sets:
                with self.scope.loop(each.lanes):
                    part = memory.load(self.scope, each.places[reduction], offset)
                totals.append(arithmetic.widen(f, op, dtype, part, sets[0].lanes))
            while len(totals) > 1:
                pairs = zip(totals[::2], totals[1::2], strict=False)
                odd = totals[-1:] if len(totals) % 2 else []
                totals = [arithmetic.combine(f, op, dtype, a, b) for a, b in pairs] + odd
            total = arithmetic.fold_lanes(f, op, dtype, totals[0])
            if reduction.index is not None:
                place, where = self.expressions.offset(reduction.buffer, reduction.index)
                self._combine(place, where, op, total)
            else:
                self._combine(self.scope.places[reduction.buffer.name], offset, op, total)

    def _offsets(self, reduction: Reduction) -> Iterator[Linear]:
        """The place of each accumulator; what is emitted for it is written out or in a loop."""
        count = reduction.accumulators
        if count <= _WRITTEN_OUT:
            yield from map(Linear, range(count))
            return
        with self.f.loop(0, count, name="r") as rounds, self.scope.loop():
            self.scope.learn(rounds.index, 0, count - 1)
            yield Linear(0, {rounds.index.text: 1})


def _lanes_of_rest(rest: int, most: int) -> Iterator[int]:
    """Vectors that fit a register of `most` lanes, or have a power of two of them.

    LLVM takes others apart where they go from one basic block to the next: into single elements.
    """
    while rest:
        lanes = rest if rest <= most else 1 << (rest.bit_length() - 1)
        yield lanes
        rest -= lanes


def _label(loop: For) -> str:
    """The variable's name, as far as it may stand in a label."""
    return "".join(c for c in loop.var.name if c.isascii() and (c.isalnum() or c in "._")) or "i"
