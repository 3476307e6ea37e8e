"""What needs no state is computed for all steps at once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from op_cases import spread
from recurrences import BATCH, HIDDEN, INPUT, elman_graph, feeds_of, random_step, wide

from quern.compiler.autodiff import differentiate
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph, Value
from quern.compiler.ops.base import apply
from quern.compiler.ops.conv import Conv
from quern.compiler.ops.linear import MatMul
from quern.compiler.ops.recurrence import Recurrence, recur
from quern.compiler.passes.hoist_steps import HoistSteps
from quern.compiler.passes.unroll import Unroll
from quern.compiler.tensor import Tensor


def products_of(graph: Graph) -> list[tuple[int, ...]]:
    return sorted(n.types[0].shape for n in graph.nodes() if isinstance(n.op, MatMul))


def loops_of(graph: Graph) -> list[Recurrence]:
    return [n.op for n in graph.nodes() if isinstance(n.op, Recurrence)]


def test_products_without_a_state_are_computed_for_all_steps_at_once() -> None:
    graph, feeds = elman_graph(6), feeds_of(6)
    hoisted = HoistSteps().apply(graph).verify()
    assert products_of(hoisted) == [(6 * BATCH, HIDDEN)]
    (loop,) = loops_of(hoisted)
    assert products_of(loop.body.graph) == [(BATCH, HIDDEN)]
    expected, found = (evaluate(g, feeds).outputs for g in (graph, hoisted))
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-12)


def test_products_of_results_alone_leave_the_loop() -> None:
    graph = Graph()
    h, x = graph.input(wide(2, 3), "h"), graph.input(wide(4, 2, 3), "x")
    w, v, b = (graph.input(wide(*s), n) for n, s in (("w", (3, 3)), ("v", (3, 5)), ("b", (5,))))

    def step(
        h: Tensor, x: Tensor, w: Tensor, v: Tensor, b: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        new = (h @ w + x).tanh()
        return [new], [(new @ v + b * 2.0).tanh(), new, x * 3.0]

    _, results = recur(step, [h], [x], [w, v, b])
    graph.outputs = {f"y{i}": y.value for i, y in enumerate((results[0], results[2]))}
    hoisted = HoistSteps().apply(graph).verify()
    (loop,) = loops_of(hoisted)
    assert products_of(loop.body.graph) == [(2, 3)]
    assert products_of(hoisted) == [(8, 5)]
    feeds = {n: spread(graph.type_of(Value(n)).shape) for n in ("h", "x", "w", "v", "b")}
    expected, found = (evaluate(g, feeds).outputs for g in (graph, hoisted))
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-12)


def test_the_gradient_by_a_sequence_is_one_product() -> None:
    graph = HoistSteps().apply(differentiate(elman_graph(6), ["y"], ["x"]))
    assert products_of(graph) == [(6 * BATCH, INPUT), (6 * BATCH, HIDDEN)]
    assert [products_of(op.body.graph) for op in loops_of(graph)] == [[(BATCH, HIDDEN)]] * 2


def test_results_that_nobody_reads_are_not_computed() -> None:
    graph = elman_graph(3)
    del graph.outputs["y"]
    (loop,) = loops_of(HoistSteps().apply(graph))
    assert len(loop.body.outputs) == 1


@given(st.data())
def test_hoisting_changes_no_result(data: st.DataObject) -> None:
    step = random_step(data.draw)
    graph = Graph()
    shapes = {"s": (3, 3), "x": (3, 3, 3), "w": (3, 3), "b": (3,)}
    s, x, w, b = (graph.input(wide(*shape), n) for n, shape in shapes.items())
    (final,), (y,) = recur(step, [s], [x], [w, b], reverse=data.draw(st.booleans()))
    graph.outputs = {"y": y.value, "final": final.value, "loss": (y * final).sum().value}
    feeds = {n: 0.5 * spread(shape, seed=i) for i, (n, shape) in enumerate(shapes.items())}
    graph = differentiate(graph, "loss", ["s", "x", "w", "b"])
    expected = evaluate(graph, feeds).outputs
    hoisted = HoistSteps().apply(graph).verify()
    for version in (hoisted, Unroll().apply(hoisted)):
        found = evaluate(version, feeds).outputs
        for name, array in expected.items():
            scale = max(1.0, float(np.abs(array).max(initial=0)))
            np.testing.assert_allclose(found[name], array, 1e-9, 1e-12 * scale, err_msg=name)


def test_hoisting_a_recurrent_convolution() -> None:
    graph = Graph()
    op = Conv((1, 1), ((1, 1), (1, 1)), (1, 1))
    s, x = graph.input(wide(2, 3, 4, 4), "s"), graph.input(wide(5, 2, 3, 4, 4), "x")
    w, u = (graph.input(wide(3, 3, 3, 3), n) for n in "wu")

    def step(s: Tensor, x: Tensor, w: Tensor, u: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return [(apply(op, x, u) + apply(op, s, w)).tanh()], []

    (y,), _ = recur(step, [s], [x], [w, u])
    graph.outputs["y"] = y.value
    hoisted = HoistSteps().apply(graph).verify()
    assert [n.types[0].shape for n in hoisted.nodes() if isinstance(n.op, Conv)] == [(10, 3, 4, 4)]
    feeds = {n: 0.3 * spread(graph.type_of(Value(n)).shape) for n in "sxwu"}
    expected, found = (evaluate(g, feeds).outputs["y"] for g in (graph, hoisted))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
