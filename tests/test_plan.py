"""Where values live and when threads wait, checked by simulations apart from the planner."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import lenet
from oracles import graph_of
from random_graphs import graphs

from quern.compiler.autodiff import differentiate
from quern.compiler.driver import Options, compile_graph, lower_groups, optimize
from quern.compiler.errors import CompileError
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph, Value
from quern.compiler.llvm.phases import split
from quern.compiler.loops import ir
from quern.compiler.lower.binding import Lowered
from quern.compiler.ops.base import apply
from quern.compiler.ops.leaf import Input, State
from quern.compiler.ops.movement import Concat
from quern.compiler.ops.pointwise import Relu
from quern.compiler.passes.hoist import hoist
from quern.compiler.passes.partition import Group, storage
from quern.compiler.passes.snapshot import Snapshot
from quern.compiler.placed import Placed
from quern.compiler.plan import Planner, place
from quern.compiler.plan import _Block as Block
from quern.compiler.report import Report
from quern.compiler.tensor import Tensor
from quern.compiler.training import build_training_step
from quern.compiler.types import Array, DType, TensorType
from quern.optim import SGD, Adam
from quern.runtime.executable import Executable
from quern.runtime.program import Program, Slot, SlotKind, program_from_json, program_to_json

Case = tuple[Graph, dict[str, Array]]
F = np.float32
FEW = settings(max_examples=20, suppress_health_check=list(HealthCheck))


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
    planner = Planner(main, lower_groups(main, Options(), Report()))
    program = planner.run()
    return Plan(main, planner.kernels, program)


def of(function: Callable[..., Any], *arrays: Array) -> Plan:
    return planned(graph_of(function, *arrays)[0])


def updating(graph: Graph) -> Graph:
    """The graph with states that its values replace, some of which it reads."""
    for number, value in enumerate(list(graph.outputs.values())):
        type = graph.type_of(value)
        state = graph.buffer(np.full(type.shape, 0.5, type.dtype.numpy), f"s{number}")
        total = graph.tensor(value) + state if type.dtype.is_float else graph.tensor(value)
        graph.outputs[f"sum{number}"] = total.value
        graph.updates[f"s{number}"] = total.value if number % 2 else value
    return graph


# -- simulations -----------------------------------------------------------------------------------


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


def check_contents(plan: Plan) -> None:
    """Runs the plan on tokens in place of numbers: every kernel finds the values that it wants.

    Each byte that is written holds the name of its value. A kernel that may do its work in place
    is trusted to, where the loops say so; nothing else may be overwritten before it is read.
    """
    graph, program = plan.graph, plan.program
    arena = np.full(program.arena_bytes, "", object)
    owned: dict[tuple[SlotKind, str], Value | str] = {}
    for node in graph.nodes():
        kind = {Input: SlotKind.INPUT}.get(type(node.op))  # type: ignore[call-overload]
        kind = SlotKind.STATE if isinstance(node.op, State) else kind or SlotKind.CONSTANT
        owned[kind, node.name] = Value(node.name)

    def holds(slot: Slot, value: Value) -> bool:
        if slot.kind is SlotKind.ARENA:
            return found_at(slot.offset, value)
        return owned.get((slot.kind, slot.name)) == value

    def found_at(begin: int, value: Value) -> bool:
        """Whether a value begins at a byte, itself or put together from its parts."""
        end = begin + graph.type_of(value).nbytes
        if all(held == value for held in arena[begin:end]):
            return True
        node = graph.producer(value)
        if not isinstance(node.op, Concat) or math.prod(value_shape(value)[: node.op.axis]) > 1:
            return False
        for part in graph.inputs_of(node.name):
            if not found_at(begin, storage(graph, part)):
                return False
            begin += graph.type_of(part).nbytes
        return True

    def value_shape(value: Value) -> tuple[int, ...]:
        return graph.type_of(value).shape

    for placed, call in zip(plan.kernels, program.kernels, strict=True):
        slots = [program.slots[s] for s in call.slots]
        arguments = [storage(graph, v) for v in placed.lowered.arguments]
        written = list(placed.group.outputs) if placed.group else [arguments[1]]
        given = list(zip(arguments, slots, strict=False))
        sources = given if placed.group else given[:1]
        for value, slot in sources:
            if value not in written:
                assert holds(slot, value), f"{call.name} does not find {value} in {slot}"
        targets = [(v, s) for v, s in given if v in written] if placed.group else given[1:]
        scratch = slots[len(arguments) :]
        for i, (value, slot) in enumerate(targets):
            for other in (*scratch, *(s for _, s in targets[i + 1 :])):
                assert not overlap(slot, other), f"{call.name} writes {value} over its own memory"
            for source, where in sources:
                if source not in written and overlap(slot, where):
                    same = (where.offset, where.nbytes) == (slot.offset, slot.nbytes)
                    assert same, f"{call.name} writes {value} over part of {source}"
                    in_place = {(storage(graph, a), b) for a, b in placed.shareable}
                    assert (source, value) in in_place, f"{call.name}: {value} over {source}"
        for slot in scratch:
            assert not any(overlap(slot, place) for _, place in given)
            arena[slot.offset : slot.offset + slot.nbytes] = "scratch"
        for value, slot in targets:
            content = value if placed.group else sources[0][0]
            if slot.kind is SlotKind.ARENA:
                arena[slot.offset : slot.offset + slot.nbytes] = content
            else:
                owned[slot.kind, slot.name] = content
    for name, value in graph.updates.items():
        assert owned[SlotKind.STATE, name] == storage(graph, value), f"{name} is not updated"
    copied = {c.name: program.slots[c.source] for c in program.copies}
    for name, value in graph.outputs.items():
        slot = copied.get(name, Slot(SlotKind.OUTPUT, name, graph.type_of(value).nbytes))
        assert holds(slot, storage(graph, value)), f"output {name} is lost"


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


# -- what holds for every plan ---------------------------------------------------------------------


@FEW
@given(graphs())
def test_plans_of_random_graphs(case: Case) -> None:
    check(planned(case[0]))


@FEW
@given(graphs())
def test_plans_of_random_graphs_with_states(case: Case) -> None:
    check(planned(updating(case[0])))


@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9), Adam(clip_grad_norm=1.0)])
def test_plans_of_training_steps(optimizer: SGD | Adam) -> None:
    plan = planned(build_training_step(lenet(16), "loss", optimizer))
    check(plan)
    assert any(s.parallel for s in plan.program.steps)
    assert sum(s.barrier for s in plan.program.steps) < len(plan.program.steps)


def test_a_plan_is_the_same_every_time() -> None:
    graph = build_training_step(lenet(2), "loss", Adam())
    assert planned(graph).program == planned(graph).program


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 12), st.integers(0, 5)), max_size=24))
def test_blocks_that_live_at_once_do_not_overlap(given_blocks: list[tuple[int, int, int]]) -> None:
    blocks = [Block(f"b{i}", n, at, at + more) for i, (n, at, more) in enumerate(given_blocks)]
    total = place(blocks)
    for i, a in enumerate(blocks):
        assert a.offset % 64 == 0
        assert a.offset + a.nbytes <= total
        for b in blocks[:i]:
            if a.first <= b.last and b.first <= a.last:
                assert (
                    a.offset + a.nbytes <= b.offset
                    or b.offset + b.nbytes <= a.offset
                    or (0 in (a.nbytes, b.nbytes))
                )
    alive = [sum(b.nbytes for b in blocks if b.first <= t <= b.last) for t in range(20)]
    assert max(alive) <= total <= sum(-(-b.nbytes // 64) * 64 for b in blocks)


# -- memory ----------------------------------------------------------------------------------------


def cut(x: Tensor) -> Tensor:
    """The same numbers out of a kernel of their own, of which every element reads every other."""
    return x @ x.graph.constant(np.eye(x.shape[1], dtype=F))


def test_a_chain_of_kernels_takes_the_memory_of_two_values() -> None:
    def chain(x: Tensor) -> Tensor:
        for _ in range(6):
            x = cut(x)
        return x

    plan = of(chain, np.zeros((32, 32), F))
    assert len(plan.kernels) == 6
    value = 32 * 32 * 4
    scratch = max(sum(b.nbytes for b in k.lowered.kernel.scratch) for k in plan.kernels)
    assert plan.program.arena_bytes <= 2 * value + scratch
    check(plan)


def test_point_nodes_are_done_in_place() -> None:
    """What a row needs is loaded before it is stored: its input's memory is its own."""

    def function(x: Tensor) -> Tensor:
        y = cut(x)
        z = y - y.max(1, keepdims=True)
        return cut(z)

    plan = of(function, np.zeros((64, 64), F))
    assert [len(k.lowered.arguments) for k in plan.kernels] == [3, 2, 3]
    source, target = plan.program.kernels[1].slots
    assert source == target
    check(plan)


def test_what_is_read_again_is_not_overwritten() -> None:
    def function(x: Tensor) -> Tensor:
        y = cut(x)
        z = y - y.max(1, keepdims=True)
        return cut(z) + cut(y)

    check(of(function, np.zeros((64, 64), F)))


def test_what_is_read_in_two_ways_is_not_overwritten() -> None:
    """Row by row, which could be done in place, and as another view of it, by columns."""

    def function(x: Tensor) -> Tensor:
        y = cut(x)
        z = (y + y.reshape(1, 48, 48).permute(0, 2, 1)).exp()
        return cut(z.reshape(48, 48))

    plan = of(function, np.zeros((48, 48), F))
    assert len(set(plan.program.kernels[1].slots)) == 2, "two arguments of one memory, and a result"
    assert len(plan.program.kernels[1].slots) == 3
    check(plan)


def dense(batch: int, layers: int = 3) -> Plan:
    """Each layer reads all that the layers before it have given."""

    def network(x: Tensor) -> Tensor:
        x = cut(x)
        for _ in range(layers):
            new = cut(x.sum(axis=1, keepdims=True).broadcast_to((batch, 128)))
            x = apply(Concat(1), x, new)
        return cut(x)

    return of(network, np.zeros((batch, 128), F))


def copies(plan: Plan) -> int:
    return sum("copies" in call.note for call in plan.program.kernels)


def test_parts_are_written_where_the_whole_has_them() -> None:
    plan = dense(batch=1)
    check(plan)
    assert copies(plan) == 0
    whole = 4 * 4 * 128
    assert whole <= plan.program.arena_bytes <= 1.6 * whole, "the last one, and what is at work"


def test_parts_of_several_rows_are_copied() -> None:
    plan = dense(batch=2)
    check(plan)
    assert copies(plan) == 3


@pytest.mark.parametrize(
    "network",
    [
        lambda x: apply(Concat(0), x, cut(x)),
        lambda x: apply(Concat(0), *[cut(x)] * 2) * 2.0,
        lambda x: apply(Concat(0), cut(x), x.exp()) * 2.0,
        lambda x: cut(apply(Concat(0), cut(x), cut(x.exp()))) + apply(Concat(0), x, x),
    ],
    ids=["of an input", "twice the same", "computed on the way", "in part"],
)
def test_concatenations_of_other_kinds(network: Callable[[Tensor], Tensor]) -> None:
    x = np.arange(64, dtype=F).reshape(8, 8)
    graph, feeds = graph_of(network, x)
    check(planned(graph))
    executable = Executable(compile_graph(graph, Options(workers=1)).image, threads=1)
    np.testing.assert_allclose(executable(x), evaluate(graph, feeds).outputs["y0"], rtol=1e-5)


def test_a_value_in_two_concatenations_is_part_of_one() -> None:
    def network(x: Tensor) -> tuple[Tensor, ...]:
        a, b, c = cut(x), cut(x.exp()), cut(x.abs())
        return cut(apply(Concat(0), a, b)), cut(apply(Concat(0), a, c))

    plan = of(network, np.zeros((64, 8), F))
    check(plan)
    assert copies(plan) == 1


def test_copies_stay_where_memory_would_grow_without_them() -> None:
    """The first part is there long before the other, and much happens in between."""

    def network(x: Tensor) -> Tensor:
        def rows(y: Tensor, count: int) -> Tensor:
            return y.graph.constant(np.ones((count, y.shape[0]), F)) @ y

        early = cut(x)
        middle = rows(cut(rows(early, 1024)), 8)
        return cut(apply(Concat(0), early, rows(middle, 1016)))

    plan = of(network, np.zeros((8, 8), F))
    check(plan)
    assert copies(plan) == 1


def test_outputs_and_updates_take_no_memory_in_between() -> None:
    graph, _ = graph_of(lambda x: x.exp(), np.zeros((8, 8), F))
    state = graph.buffer(np.zeros((8, 8), F), "state")
    graph.updates["state"] = (state * 0.5 + graph.tensor(Value("x0"))).value
    assert planned(graph).program.arena_bytes == 0


# -- updates ---------------------------------------------------------------------------------------


UPDATES: dict[str, tuple[Callable[[Graph, Tensor, Tensor], Tensor], int]] = {
    "a running mean": (lambda graph, x, s: s * 0.9 + x * 0.1, 0),
    "a running mean of a sum": (lambda graph, x, s: s + x.sum(0, keepdims=True), 0),
    "what does not read the old contents": (lambda graph, x, s: x.exp(), 0),
    "an input": (lambda graph, x, s: x, 1),
    "a constant": (lambda graph, x, s: graph.constant(np.ones((24, 24), F)), 1),
    "itself": (lambda graph, x, s: s, 0),
    "the transpose of the old contents": (lambda graph, x, s: s.transpose() + x, 1),
    "a product that packs the old contents first": (lambda graph, x, s: x @ s, 0),
}


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


@pytest.mark.parametrize("name", UPDATES)
def test_updates_are_written_straight_into_states_where_that_is_right(name: str) -> None:
    update, copies = UPDATES[name]
    x = np.arange(576, dtype=F).reshape(24, 24) / 577
    graph, feeds = graph_of(lambda x: x + 1.0, x)
    state = graph.buffer(np.zeros((24, 24), F), "state")
    graph.updates["state"] = update(graph, graph.tensor(Value("x0")), state).value
    plan = planned(graph)
    check(plan)
    assert [k.note for k in plan.program.kernels].count("copy") == copies
    after_a_run(graph, feeds)


def test_a_scalar_counter_is_updated_in_place() -> None:
    graph = Graph()
    step = graph.buffer(np.array(0), "step")
    graph.updates["step"] = (step + 1).value
    graph.outputs["step"] = graph.updates["step"]
    plan = planned(graph)
    assert [k.note for k in plan.program.kernels] == ["pointwise scalar"]
    after_a_run(graph, {})


def test_a_reader_that_comes_later_sees_the_old_contents() -> None:
    """The gradient of what a layer reads needs the weight that the update replaces."""
    graph, feeds = graph_of(lambda x: x * 2.0, np.float32(np.eye(4)))
    w = graph.parameter(np.arange(16, dtype=F).reshape(4, 4), "w")
    x = graph.tensor(Value("x0"))
    new = w - x.sum(0, keepdims=True) * 0.1
    graph.updates["w"] = new.value
    graph.outputs["both"] = ((new @ x) @ w).value
    check(planned(graph))
    after_a_run(graph, feeds)


def test_states_that_change_places() -> None:
    graph = Graph()
    a, b, c = (graph.buffer(np.full((2, 3), i, F), n) for i, n in enumerate("abc"))
    graph.updates = {"a": b.value, "b": c.value, "c": a.value}
    check(planned(graph))
    after_a_run(graph, {})


def test_states_that_change_places_and_are_computed_with() -> None:
    graph = Graph()
    a, b = (graph.buffer(np.arange(6, dtype=F).reshape(2, 3) + i, n) for i, n in enumerate("ab"))
    graph.updates = {"a": (b * 2.0).value, "b": a.value}
    graph.outputs = {"sum": (a + b).value, "old": b.reshape(3, 2).value}
    check(planned(graph))
    after_a_run(graph, {})


def test_one_value_for_two_states() -> None:
    graph = Graph()
    a, b = (graph.buffer(np.full(3, i, F), n) for i, n in enumerate("ab"))
    total = a + b
    graph.updates = {"a": total.value, "b": total.value}
    graph.outputs["total"] = total.value
    check(planned(graph))
    after_a_run(graph, {})


def test_an_output_that_is_the_old_contents_of_a_state() -> None:
    graph = Graph()
    mean = graph.buffer(np.full(3, 8, F), "mean")
    graph.updates["mean"] = (mean * 0.5).value
    graph.outputs = {"before": mean.value, "after": graph.updates["mean"]}
    check(planned(graph))
    after_a_run(graph, {})


def test_a_planner_refuses_old_contents_that_would_be_lost() -> None:
    graph = Graph()
    mean = graph.buffer(np.full(3, 8, F), "mean")
    graph.updates["mean"] = (mean * 0.5).value
    graph.outputs["before"] = mean.value
    with pytest.raises(CompileError, match="mean is wanted after graph has replaced it"):
        Planner(graph, lower_groups(graph, Options(), Report())).run()


# -- barriers --------------------------------------------------------------------------------------


def buffers(*names: str, size: int = 4096) -> list[ir.Buffer]:
    return [ir.Buffer(name, (size,)) for name in names]


def kernel_of(name: str, reads: ir.Buffer, writes: ir.Buffer, parallel: bool = True) -> ir.Kernel:
    i = ir.Var("i")
    body = (ir.Store(writes, (i,), ir.Load(reads, (i,))),)
    kind = ir.LoopKind.PARALLEL if parallel else ir.LoopKind.SERIAL
    return ir.Kernel(name, (reads, writes), (ir.For(i, writes.size, body, kind),))


def program_of(graph: Graph, *kernels: tuple[ir.Kernel, tuple[str, ...]]) -> Plan:
    """The plan of hand-written kernels; a kernel computes the node of its last argument."""
    placed = []
    for kernel, arguments in kernels:
        values = tuple(Value(name) for name in arguments)
        node = graph.node(arguments[-1])
        group = Group(
            kernel.name, (node.name,), None, None, node.types[0].shape, (),
            values[:-1], values[-1:], node.phase,
        )  # fmt: skip
        placed.append(Placed(group, Lowered(kernel, values)))
    planner = Planner(graph, placed)
    program = planner.run()
    return Plan(graph, planner.kernels, program)


def copies_of_x(count: int, *, from_each_other: bool) -> Graph:
    graph = Graph()
    x = graph.input(TensorType((4096,)), "x")
    y = x
    for i in range(count):
        (y,) = graph.apply(Relu(), y if from_each_other else x, name=f"y{i}")
    graph.outputs = {f"y{i}": Value(f"y{i}") for i in range(count)}
    return graph


def test_threads_wait_for_what_they_read() -> None:
    a, b = buffers("a", "b")
    graph = copies_of_x(2, from_each_other=True)
    first, second = kernel_of("first", a, b), kernel_of("second", a, b)
    plan = program_of(graph, (first, ("x", "y0")), (second, ("y0", "y1")))
    assert [s.barrier for s in plan.program.steps] == [False, True]
    check(plan)


def test_threads_do_not_wait_for_what_they_do_not_read() -> None:
    a, b = buffers("a", "b")
    graph = copies_of_x(3, from_each_other=False)
    kernels = [(kernel_of(f"k{i}", a, b), ("x", f"y{i}")) for i in range(3)]
    plan = program_of(graph, *kernels)
    assert [s.barrier for s in plan.program.steps] == [False, False, False]


def test_serial_kernels_are_in_order_without_waiting() -> None:
    a, b = buffers("a", "b")
    graph = copies_of_x(3, from_each_other=True)
    names = ["x", "y0", "y1", "y2"]
    kernels = [(kernel_of(f"k{i}", a, b, False), (names[i], names[i + 1])) for i in range(3)]
    assert [s.barrier for s in program_of(graph, *kernels).program.steps] == [False] * 3
    last = (kernel_of("k2", a, b, True), ("y1", "y2"))
    mixed = program_of(graph, *kernels[:2], last)
    assert [s.barrier for s in mixed.program.steps] == [False, False, True]
    check(mixed)


def test_a_number_that_is_named_before_a_loop_is_waited_for() -> None:
    """A name at the top of a kernel is loaded by every thread, before its share of the loop."""
    a, b = buffers("a", "b")
    i, t = ir.Var("i"), ir.Var("t", DType.FLOAT32)
    loop = ir.For(i, 4096, (ir.Store(b, (i,), t),), ir.LoopKind.PARALLEL)
    named = ir.Kernel("named", (a, b), (ir.Let(t, ir.Load(a, (ir.index(5),))), loop))
    graph = copies_of_x(2, from_each_other=True)
    plan = program_of(graph, (kernel_of("first", a, b), ("x", "y0")), (named, ("y0", "y1")))
    assert [s.barrier for s in plan.program.steps] == [False, True]
    check(plan)


def test_small_work_stays_on_one_thread() -> None:
    small, large = (of(lambda x: x.exp(), np.zeros((64, n), F)) for n in (2, 4096))
    assert [s.parallel for s in small.program.steps] == [False]
    assert [s.parallel for s in large.program.steps] == [True]


# -- edges -----------------------------------------------------------------------------------------

EDGES: dict[str, tuple[Callable[..., Any], list[Array]]] = {
    "outputs that are inputs": (lambda a, b: [b, a, b], [np.ones((2, 3), F), np.zeros(4, F)]),
    "outputs that are views of inputs": (
        lambda a: [a.reshape(6), a.reshape(3, 2), a], [np.arange(6, dtype=F).reshape(2, 3)],
    ),
    "one value under several names": (lambda a: (lambda y: [y, y, y.reshape(6), y])(a.exp()),
                                      [np.arange(6, dtype=F).reshape(2, 3)]),
    "an output that is read on": (lambda a: (lambda y: [y, y.sum(1), cut(y)])(a.exp()),
                                  [np.arange(6, dtype=F).reshape(2, 3)]),
    "outputs that are constants": (
        lambda a: [a.graph.constant(np.arange(3, dtype=F)), a.constant(2.0), a], [np.ones(2, F)],
    ),
    "nothing in an axis": (
        lambda a: [a.exp(), a.sum(0), a.sum(1), a.reshape(0), cut(a)], [np.zeros((0, 3), F)],
    ),
    "an axis of nothing that is reduced": (
        lambda a: [a.sum(1), a.sum(), a + 1.0], [np.zeros((3, 0), F)],
    ),
    "scalars": (lambda a, b: [a + b, a.exp() * b.reshape(1), a], [F(2), F(3)]),
    "a scalar from many": (lambda a: [a.sum(), a.sum() + a.max()], [np.ones((3, 5), F)]),
    "unused inputs": (lambda a, b: a * 2.0, [np.ones(3, F), np.ones((0, 2), F)]),
    "integers and booleans": (
        lambda a: [a + 1, a > 2, (a > 2) & (a < 5), a.cast(DType.FLOAT32)], [np.arange(7)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EDGES)
def test_edges(name: str) -> None:
    function, arrays = EDGES[name]
    graph, feeds = graph_of(function, *(np.asarray(a) for a in arrays))
    check(planned(graph))
    after_a_run(graph, feeds)


def test_a_graph_without_nodes_or_outputs() -> None:
    graph = Graph("nothing")
    graph.input(TensorType((2,)), "x")
    plan = planned(graph)
    check(plan)
    assert plan.program.kernels == plan.program.steps == ()
    assert plan.program.arena_bytes == 0
    after_a_run(graph, {"x": np.ones(2, F)})


def test_outputs_that_are_states() -> None:
    graph = Graph()
    w = graph.parameter(np.arange(6, dtype=F).reshape(2, 3), "w")
    graph.outputs = {"w": w.value, "flat": w.reshape(6).value, "again": w.value}
    check(planned(graph))
    after_a_run(graph, {})


def test_results_are_the_callers_own() -> None:
    """Also those that are inputs or states: writing to them changes neither."""
    graph, feeds = graph_of(lambda a: [a, a.reshape(6)], np.zeros((2, 3), F))
    w = graph.parameter(np.zeros(3, F), "w")
    graph.outputs["w"] = w.value
    executable = Executable(compile_graph(graph, Options(workers=1)).image, threads=1)
    for array in executable.run(feeds).values():
        array[...] = 1
    assert not feeds["x0"].any()
    assert not executable.state["w"].any()


def test_gradients_of_a_network_end_in_outputs() -> None:
    plan = planned(differentiate(lenet(2), "loss"))
    check(plan)
    owned = {s.name for s in plan.program.slots if s.kind is SlotKind.OUTPUT}
    assert {f"grad.{p}.weight" for p in ("conv1", "conv2", "fc1", "fc2", "fc3")} <= owned
    assert plan.program.copies == ()
