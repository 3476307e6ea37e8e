"""Where values live: what holds for every plan, memory, and graphs at the edge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import lenet
from oracles import graph_of
from plan_simulation import F, Plan, after_a_run, check, copies, of, planned
from random_graphs import graphs

from quern.compiler.arena import Block, place
from quern.compiler.autodiff import differentiate
from quern.compiler.driver import Options, compile_graph
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph, Value
from quern.compiler.ops.base import apply
from quern.compiler.ops.movement import Concat
from quern.compiler.tensor import Tensor
from quern.compiler.training import build_training_step
from quern.compiler.types import Array, DType, TensorType
from quern.optim import SGD, Adam
from quern.runtime.executable import Executable
from quern.runtime.program import SlotKind

Case = tuple[Graph, dict[str, Array]]
FEW = settings(max_examples=20, suppress_health_check=list(HealthCheck))


def updating(graph: Graph) -> Graph:
    """The graph with states that its values replace, some of which it reads."""
    for number, value in enumerate(list(graph.outputs.values())):
        type = graph.type_of(value)
        state = graph.buffer(np.full(type.shape, 0.5, type.dtype.numpy), f"s{number}")
        total = graph.tensor(value) + state if type.dtype.is_float else graph.tensor(value)
        graph.outputs[f"sum{number}"] = total.value
        graph.updates[f"s{number}"] = total.value if number % 2 else value
    return graph


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
        z = y - y.amax(1, keepdim=True)
        return cut(z)

    plan = of(function, np.zeros((64, 64), F))
    assert [len(k.lowered.arguments) for k in plan.kernels] == [3, 2, 3]
    source, target = plan.program.kernels[1].slots
    assert source == target
    check(plan)


def test_what_is_read_again_is_not_overwritten() -> None:
    def function(x: Tensor) -> Tensor:
        y = cut(x)
        z = y - y.amax(1, keepdim=True)
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


def test_parts_are_written_where_the_whole_has_them() -> None:
    plan = dense(batch=1)
    check(plan)
    assert copies(plan) == 0
    whole = 4 * 4 * 128
    assert whole <= plan.program.arena_bytes <= 1.6 * whole, "the last one, and what is at work"


def test_parts_of_several_rows_lie_between_those_of_the_others() -> None:
    plan = dense(batch=2)
    check(plan)
    assert copies(plan) == 0
    whole = 2 * 4 * 4 * 128
    assert whole <= plan.program.arena_bytes <= 1.6 * whole


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
