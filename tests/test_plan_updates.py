"""Updates: when new contents of a state are written straight into it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from oracles import graph_of
from plan_simulation import F, after_a_run, check, planned

from quern.compiler.driver import Options, lower_groups
from quern.compiler.errors import CompileError
from quern.compiler.graph import Graph, Value
from quern.compiler.report import Report
from quern.compiler.tensor import Tensor

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
        lower_groups(graph, Options(), Report()).run()
