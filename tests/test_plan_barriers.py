"""Barriers: threads wait for what they read, and for nothing else."""

from __future__ import annotations

import numpy as np
from plan_simulation import F, Plan, check, of

from quern.compiler.graph import Graph, Value
from quern.compiler.group import Group
from quern.compiler.loops import ir
from quern.compiler.lower.binding import Lowered
from quern.compiler.ops.pointwise import Relu
from quern.compiler.placed import Placed
from quern.compiler.plan import Planner
from quern.compiler.types import DType, TensorType


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
    planner.settle()
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
