"""Plans are simulated: what every kernel reads must be what was written for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from oracles import graph_of

from quern.compiler.driver import Options, compile_graph, lower_groups, optimize
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph, Value
from quern.compiler.group import storage
from quern.compiler.llvm.phases import split
from quern.compiler.loops import ir
from quern.compiler.ops.leaf import Input, State
from quern.compiler.ops.movement import Concat, Reshape, Slice
from quern.compiler.passes.hoist import hoist
from quern.compiler.passes.snapshot import Snapshot
from quern.compiler.placed import Placed
from quern.compiler.report import Report
from quern.compiler.types import Array
from quern.runtime.executable import Executable
from quern.runtime.program import Program, Slot, SlotKind, program_from_json, program_to_json

F = np.float32


@dataclass(frozen=True)
class Plan:
    """A plan and what it was made of."""

    graph: Graph
    kernels: list[Placed]
    program: Program


def planned(graph: Graph) -> Plan:
    """The plan of a graph after all passes."""
    prepared = hoist(optimize(graph.verify(), Options(), Report()))
    main = Snapshot().apply(prepared.main)
    planner = lower_groups(main, Options(), Report())
    program = planner.run()
    return Plan(main, planner.kernels, program)


def of(function: Callable[..., Any], *arrays: Array) -> Plan:
    return planned(graph_of(function, *arrays)[0])


def accesses(body: ir.Block) -> Iterator[tuple[str, bool]]:
    """(buffer, whether it is written) of every access in statements."""

    def loads(expr: ir.Expr) -> Iterator[str]:
        if isinstance(expr, ir.Load):
            yield expr.buffer.name
        for child in ir.children(expr):
            yield from loads(child)

    for stmt in ir.walk(body):
        if isinstance(stmt, ir.Store | ir.Accumulate):
            yield stmt.buffer.name, True
        for expr in ir.expressions(stmt):
            for name in loads(expr):
                yield name, False


@dataclass(frozen=True)
class Event:
    """A step of a program and the memory it touches."""

    reads: frozenset[Slot]
    writes: frozenset[Slot]
    parallel: bool
    barrier: bool


def events(plan: Plan) -> list[Event]:
    found = []
    steps = iter(plan.program.steps)
    for placed, call in zip(plan.kernels, plan.program.kernels, strict=True):
        kernel = placed.lowered.kernel
        slots = [plan.program.slots[s] for s in call.slots]
        where = dict(zip((b.name for b in kernel.buffers), slots, strict=True))
        for body in split(kernel):
            step = next(steps)
            touched = [a for a in accesses((*body.lets, *body.body)) if a[0] in where]
            reads = frozenset(where[name] for name, written in touched if not written)
            writes = frozenset(where[name] for name, written in touched if written)
            found.append(Event(reads, writes, step.parallel, step.barrier))
    assert next(steps, None) is None
    return found


def overlap(a: Slot, b: Slot) -> bool:
    if a.kind is not b.kind:
        return False
    if a.kind is SlotKind.ARENA:
        return max(a.offset, b.offset) < min(a.offset + a.nbytes, b.offset + b.nbytes)
    return a.name == b.name and a.nbytes > 0


def races(found: list[Event]) -> list[tuple[int, int]]:
    """Pairs of steps that two threads may run at once though one writes what the other touches.

    A thread runs its share of a parallel step as soon as it has done what comes before; a serial
    step is run by the first thread alone. Only a barrier holds the others back.
    """
    pairs = []
    for later, event in enumerate(found):
        for earlier in range(later - 1, -1, -1):
            if found[earlier + 1].barrier:
                break
            other = found[earlier]
            hazards = [(a, b) for a in event.reads | event.writes for b in other.writes]
            hazards += [(a, b) for a in event.writes for b in other.reads]
            if (event.parallel or other.parallel) and any(overlap(a, b) for a, b in hazards):
                pairs.append((earlier, later))
    return pairs


class Contents:
    """What every element of a graph's values is, as numbers: the same wherever it is moved to."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.count = 0
        self.known: dict[Value, Array] = {}

    def of(self, value: Value) -> Array:
        if value not in self.known:
            self.known[value] = self._of(value)
        return self.known[value]

    def _of(self, value: Value) -> Array:
        node, shape = self.graph.producer(value), self.graph.type_of(value).shape
        inputs = self.graph.inputs_of(node.name)
        if isinstance(node.op, Concat):
            return np.concatenate([self.of(v) for v in inputs], node.op.axis)
        if isinstance(node.op, Slice):
            op, x = node.op, self.of(inputs[0])
            for axis, (start, size, step) in enumerate(
                zip(op.start, op.size, op.step, strict=True)
            ):
                x = x.take(start + step * np.arange(size), axis)
            return x
        if isinstance(node.op, Reshape):
            return self.of(inputs[0]).reshape(shape)
        first, self.count = self.count, self.count + math.prod(shape)
        return np.arange(first, self.count).reshape(shape)


def places(buffer: ir.Buffer, slot: Slot) -> Array:
    """Which bytes of the arena each element of a kernel's buffer takes."""
    steps = [np.arange(n) * s for n, s in zip(buffer.shape, buffer.strides, strict=True)]
    elements = sum(np.ix_(*steps), np.zeros(buffer.shape, int))
    first = slot.offset + elements.reshape(-1) * buffer.dtype.size
    return first[:, None] + np.arange(buffer.dtype.size)


def check_contents(plan: Plan) -> None:
    """Runs the plan on tokens in place of numbers: every kernel finds the values that it wants.

    Each byte that is written holds the number of its element. A kernel that may do its work in
    place is trusted to, where the loops say so; nothing else may be overwritten before it is read.
    """
    graph, program = plan.graph, plan.program
    contents = Contents(graph)
    arena = np.full(program.arena_bytes, -1)
    owned: dict[tuple[SlotKind, str], Value | str] = {}
    for node in graph.nodes():
        kind = SlotKind.INPUT if isinstance(node.op, Input) else SlotKind.CONSTANT
        kind = SlotKind.STATE if isinstance(node.op, State) else kind
        owned[kind, node.name] = Value(node.name)

    for placed, call in zip(plan.kernels, program.kernels, strict=True):
        slots = [program.slots[s] for s in call.slots]
        buffers = placed.lowered.kernel.buffers
        where = [places(b, s) for b, s in zip(buffers, slots, strict=True)]
        arguments = [storage(graph, v) for v in placed.lowered.arguments]
        written = list(placed.group.outputs) if placed.group else [arguments[1]]
        number = range(len(arguments))
        targets = [i for i in number if arguments[i] in written] if placed.group else [1]
        sources = [i for i in number if i not in targets]

        def overlap_of(i: int, j: int, slots: list[Slot] = slots, where: Any = where) -> bool:
            arena = slots[i].kind is slots[j].kind is SlotKind.ARENA
            return overlap(slots[i], slots[j]) and (
                not arena or bool(np.intersect1d(where[i], where[j]).size)
            )

        for i in sources:
            value, slot = arguments[i], slots[i]
            if slot.kind is SlotKind.ARENA:
                wanted = contents.of(value).reshape(-1, 1)
                assert (arena[where[i]] == wanted).all(), f"{call.name} does not find {value}"
            elif slot.kind is SlotKind.INPUT:
                tokens = contents.of(Value(slot.name)).reshape(-1)
                given = np.repeat(tokens, buffers[i].dtype.size)[where[i]]
                wanted = contents.of(value).reshape(-1, 1)
                assert (given == wanted).all(), f"{value} is not in {slot}"
            else:
                assert owned.get((slot.kind, slot.name)) == value, f"{value} is not in {slot}"
        scratch = range(len(arguments), len(slots))
        for i in targets:
            value, slot = arguments[i], slots[i]
            for j in (*scratch, *(j for j in targets if j > i)):
                assert not overlap_of(i, j), f"{call.name} writes {value} over its own memory"
            for j in sources:
                if overlap_of(i, j):
                    same = (slots[j].offset, slots[j].nbytes) == (slot.offset, slot.nbytes)
                    assert same, f"{call.name} writes {value} over part of {arguments[j]}"
                    in_place = {(storage(graph, a), b) for a, b in placed.shareable}
                    assert (arguments[j], value) in in_place, f"{call.name}: {value} in place"
        for i in scratch:
            assert not any(overlap_of(i, j) for j in number)
            arena[where[i]] = -1
        for i in targets:
            value, slot = arguments[i] if placed.group else arguments[0], slots[i]
            if slot.kind is SlotKind.ARENA:
                arena[where[i]] = contents.of(value).reshape(-1, 1)
            else:
                owned[slot.kind, slot.name] = value
    for name, value in graph.updates.items():
        assert owned[SlotKind.STATE, name] == storage(graph, value), f"{name} is not updated"
    copied = {c.name: program.slots[c.source] for c in program.copies}
    for name, value in graph.outputs.items():
        slot = copied.get(name, Slot(SlotKind.OUTPUT, name, graph.type_of(value).nbytes))
        assert slot.kind is not SlotKind.ARENA
        assert owned.get((slot.kind, slot.name)) == storage(graph, value), f"{name} is lost"


def peak(plan: Plan) -> int:
    """Bytes that are alive at once at the worst kernel: values of the arena, and scratch."""
    last: dict[Slot, int] = {}
    first: dict[Slot, int] = {}
    for number, call in enumerate(plan.program.kernels):
        for slot in (plan.program.slots[s] for s in call.slots):
            if slot.kind is SlotKind.ARENA:
                first.setdefault(slot, number)
                last[slot] = number
    taken = np.zeros((len(plan.kernels), plan.program.arena_bytes), bool)
    for slot, begin in first.items():
        taken[begin : last[slot] + 1, slot.offset : slot.offset + slot.nbytes] = True
    return int(taken.sum(axis=1).max(initial=0))


def is_part(slot: Slot, slots: list[Slot]) -> bool:
    """Whether it lies in a larger one."""
    end = slot.offset + slot.nbytes
    return any(
        s.offset <= slot.offset and end <= s.offset + s.nbytes and s.nbytes > slot.nbytes
        for s in slots
    )


def check(plan: Plan) -> None:
    """All that holds for every plan."""
    assert races(events(plan)) == []
    check_contents(plan)
    arena = [s for s in plan.program.slots if s.kind is SlotKind.ARENA]
    assert all(s.offset >= 0 and (s.offset % 64 == 0 or is_part(s, arena)) for s in arena)
    assert all(s.offset + s.nbytes <= plan.program.arena_bytes for s in arena)
    assert peak(plan) <= plan.program.arena_bytes <= sum(-(-s.nbytes // 64) * 64 for s in arena)
    assert program_from_json(program_to_json(plan.program)) == plan.program


def copies(plan: Plan) -> int:
    return sum("copies" in call.note for call in plan.program.kernels)


def after_a_run(graph: Graph, feeds: dict[str, Array], threads: int = 2) -> None:
    """Outputs and states of two runs are what NumPy computes."""
    executable = Executable(compile_graph(graph, Options(workers=1)).image, threads=threads)
    states = {n.name: graph.data[n.name] for n in graph.leaves(State)}
    for _ in range(2):
        expected = evaluate(graph, {**feeds, **states})
        found = executable.run(feeds)
        for name, array in expected.outputs.items():
            np.testing.assert_allclose(found[name], array, 1e-5, 1e-6, err_msg=name)
        states |= expected.updates
        for name, array in executable.state.items():
            np.testing.assert_allclose(array, states[name], 1e-5, 1e-6, err_msg=name)
