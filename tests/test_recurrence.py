"""Recurrence: a graph inside of an operation, its gradient, its code, text and pictures."""

from __future__ import annotations

import json
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_cases import Case, cases, check_gradient, check_values, spread
from oracles import check_kernels
from recurrences import (
    BATCH,
    F64,
    HIDDEN,
    INPUT,
    NUMBERS,
    elman_graph,
    elman_inputs,
    elman_step,
    feeds_of,
    random_step,
    wide,
)

import quern as qn
from quern.compiler.autodiff import differentiate
from quern.compiler.check import check_gradients
from quern.compiler.errors import GraphError, UsageError
from quern.compiler.evaluate import evaluate
from quern.compiler.flops import graph_flops
from quern.compiler.graph import Graph
from quern.compiler.ops.base import apply, op_from_json, op_to_json
from quern.compiler.ops.conv import Conv
from quern.compiler.ops.leaf import State
from quern.compiler.ops.linear import MatMul
from quern.compiler.ops.recurrence import Recurrence, build_body, recur
from quern.compiler.passes.expand import Expand
from quern.compiler.passes.unroll import Unroll
from quern.compiler.serialize import graph_from_json, graph_to_json
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType


def elman_numpy(
    h: Array, x: Array, w: Array, u: Array, b: Array, reverse: bool = False
) -> tuple[Array, Array]:
    y = np.zeros((*x.shape[:2], h.shape[1]))
    for t in sorted(range(len(x)), reverse=reverse):
        h = np.tanh(h @ w + x[t] @ u + b)
        y[t] = 2 * h
    return h, y


def elman(steps: int, reverse: bool = False) -> Recurrence:
    types = [("h", wide(BATCH, HIDDEN)), ("x", wide(BATCH, INPUT)), ("w", wide(HIDDEN, HIDDEN))]
    types += [("u", wide(INPUT, HIDDEN)), ("b", wide(HIDDEN))]
    body, states = build_body("elman", types, elman_step)
    return Recurrence(body, steps, states, 1, reverse)


def scaled_sum() -> Recurrence:
    """S' = s w + x: no products of matrices, so that its gradients are added step by step."""
    types = [("s", wide(3)), ("x", wide(3)), ("w", wide(3))]
    body, states = build_body("scaled", types, lambda s, x, w: ([s * w + x], [s * x]))
    return Recurrence(body, 3, states, 1)


def scaled_sum_numpy(s: Array, x: Array, w: Array) -> tuple[Array, Array]:
    results = []
    for part in x:
        results.append(s * part)
        s = s * w + part
    return s, np.stack(results)


def fibonacci_numpy(a: Array, b: Array) -> tuple[Array, Array, Array]:
    numbers = [int(a), int(b)]
    for _ in range(7):
        numbers.append(numbers[-2] + numbers[-1])
    return np.array(numbers[7]), np.array(numbers[8]), np.array(numbers[:7])


# A body has the dtypes it has; integers are the same in every comparison.
CASES = [cases(Recurrence(NUMBERS, 7, 2), fibonacci_numpy, np.array(1), np.array(1), rounds=0)]
SCALED = Case(
    scaled_sum(), (spread((3,)), spread((3, 3), seed=1), spread((3,), seed=2)), scaled_sum_numpy
)
SMOOTH = [
    SCALED,
    Case(elman(3), elman_inputs(3), elman_numpy, rounds=1),
    Case(elman(3, True), elman_inputs(3), lambda *x: elman_numpy(*x, reverse=True), rounds=1),
    Case(elman(1), elman_inputs(1), elman_numpy),
]


@pytest.mark.parametrize("case", SMOOTH, ids=["scaled", "forwards", "backwards", "once"])
def test_gradients(case: Case) -> None:
    check_gradient(case)


@pytest.mark.parametrize("steps", [0, 1, 12])
@pytest.mark.parametrize("reverse", [False, True])
def test_meaning(steps: int, reverse: bool) -> None:
    op, inputs = elman(steps, reverse), elman_inputs(steps)
    for found, expected in zip(
        op.evaluate(*inputs), elman_numpy(*inputs, reverse=reverse), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_states_of_several_types_and_no_sequence() -> None:
    graph = Graph()
    x, count = graph.input(wide(2), "x"), graph.constant(0, DType.INT64)

    def step(x: Tensor, n: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return [x * n.cast(F64) + 1.0, n + 1], [n]

    (last, number), (numbers,) = recur(step, [x, count], steps=4)
    graph.outputs = {"last": last.value, "count": number.value, "all": numbers.value}
    feeds = {"x": np.array([3.0, 5.0])}
    for version in (graph, Unroll().apply(graph)):
        found = evaluate(version.verify(), feeds).outputs
        assert found["all"].tolist() == [0, 1, 2, 3]
        assert found["count"] == 4
        assert found["last"].tolist() == [3 * (2 * (1 * 1 + 1) + 1) + 1] * 2
    found = evaluate(differentiate(graph, "last", ["x"]), feeds).outputs
    assert found["grad.x"].tolist() == [0, 0]


# -- gradients through time -----------------------------------------------------------------------


def test_gradients_through_twelve_steps_by_central_differences() -> None:
    assert check_gradients(elman_graph(12), feeds_of(12)).error < 1e-6


def test_a_weight_used_in_two_steps() -> None:
    """Y = w (w x) has the derivative 2 w x."""
    graph = Graph()
    x, w = graph.input(wide(), "x"), graph.input(wide(), "w")
    (y,), _ = recur(lambda s, w: ([w * s], []), [x], (), [w], steps=2)
    graph.outputs["y"] = y.value
    feeds = {"x": np.array(3.0), "w": np.array(5.0)}
    found = evaluate(differentiate(graph, "y", ["w", "x"]), feeds).outputs
    assert found["y"] == 5 * 5 * 3
    assert found["grad.w"] == 2 * 5 * 3
    assert found["grad.x"] == 5 * 5


@pytest.mark.parametrize("reverse", [False, True])
def test_differentiating_first_or_unrolling_first_gives_the_same(reverse: bool) -> None:
    graph, feeds = elman_graph(6, reverse), feeds_of(6)
    wrt = ["w", "u", "b", "h", "x"]
    rolled = differentiate(graph, ["y", "final"], wrt)
    unrolled_first = differentiate(Unroll().apply(graph), ["y", "final"], wrt)
    unrolled_after = Unroll().apply(rolled)
    expected = evaluate(unrolled_first, feeds).outputs
    for version in (rolled, unrolled_after):
        found = evaluate(version.verify(), feeds).outputs
        assert list(found) == list(expected)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-12, atol=1e-13, err_msg=name)


def test_a_weights_gradient_is_one_product_over_all_steps() -> None:
    rolled = differentiate(elman_graph(6))
    products = [n for n in rolled.nodes() if isinstance(n.op, MatMul)]
    shapes = [[rolled.type_of(v).shape for v in rolled.inputs_of(n.name)] for n in products]
    assert sorted(shapes) == [
        [(INPUT, 6 * BATCH), (6 * BATCH, HIDDEN)],
        [(HIDDEN, 6 * BATCH), (6 * BATCH, HIDDEN)],
    ]


def test_the_steps_forwards_are_computed_once() -> None:
    rolled = differentiate(elman_graph(6))
    loops = [n for n in rolled.nodes() if isinstance(n.op, Recurrence)]
    assert [(n.name, n.op.reverse) for n in loops if isinstance(n.op, Recurrence)] == [
        ("rnn", False),
        ("grad.rnn.backward", True),
    ]


@given(st.data())
def test_the_gradient_of_a_tied_weight_is_the_sum_over_its_uses(data: st.DataObject) -> None:
    step = random_step(data.draw)
    steps = data.draw(st.integers(1, 4))
    reverse = data.draw(st.booleans())
    tied, untied = Graph("tied"), Graph("untied")
    shapes = {"s": (3, 3), "x": (steps, 3, 3), "w": (3, 3), "b": (3,)}
    s, x, w, b = (tied.input(wide(*shape), n) for n, shape in shapes.items())
    (final,), (y,) = recur(step, [s], [x], [w, b], reverse=reverse)
    tied.outputs["loss"] = ((y * y).sum() + (final * final).sum()).value

    s, x = (untied.input(wide(*shapes[n]), n) for n in ("s", "x"))
    loss: list[Tensor] = []
    for t in sorted(range(steps), reverse=reverse):
        own = [untied.input(wide(*shapes[n]), f"{n}{t}") for n in ("w", "b")]
        (s,), (y,) = step(s, x[t], *own)
        loss.append((y * y).sum())
    untied.outputs["loss"] = (reduce(add, loss) + (s * s).sum()).value

    arrays = {n: 0.5 * spread(shape, seed=i) for i, (n, shape) in enumerate(shapes.items())}
    feeds = arrays | {f"{n}{t}": arrays[n] for n in ("w", "b") for t in range(steps)}
    uses = [f"{n}{t}" for n in ("w", "b") for t in range(steps)]
    alone = evaluate(differentiate(untied, "loss", uses), feeds).outputs
    rolled = differentiate(tied, "loss", ["w", "b"])
    for version in (rolled, Unroll().apply(rolled)):
        found = evaluate(version.verify(), arrays).outputs
        for name in ("w", "b"):
            expected = sum(alone[f"grad.{name}{t}"] for t in range(steps))
            scale = max(1.0, float(np.abs(expected).max(initial=0)))
            np.testing.assert_allclose(found[f"grad.{name}"], expected, 1e-9, 1e-12 * scale)


def test_a_recurrent_convolution() -> None:
    """Any body will do; the weight's gradient is that of one larger batch."""
    graph = Graph("rcl")
    op = Conv((1, 1), ((1, 1), (1, 1)), (1, 1))
    x = graph.input(wide(2, 3, 4, 4), "x")
    w = graph.parameter(0.3 * spread((3, 3, 3, 3)), "w")

    def step(s: Tensor, x: Tensor, w: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return [(x + apply(op, s, w)).tanh()], []

    (y,), _ = recur(step, [x], (), [x, w], steps=3)
    graph.outputs["y"] = y.value
    assert check_gradients(graph).error < 1e-6


# -- machine code ---------------------------------------------------------------------------------


def test_compiled_with_its_gradient() -> None:
    graph = differentiate(elman_graph(5, dtype=DType.FLOAT32))
    check_kernels(graph, feeds_of(5, DType.FLOAT32), rtol=1e-4, atol=1e-5)


def test_steps_are_named_after_the_node() -> None:
    names = {n.name for n in Unroll().apply(elman_graph(3)).nodes()}
    assert {"rnn.t0.tanh", "rnn.t1.tanh", "rnn.t2.tanh"} <= names
    origins = {o.name for n in Unroll().apply(elman_graph(3)).nodes() for o in n.origins}
    assert origins == {"h", "x", "w", "u", "b", "rnn"}


def test_nested_recurrences() -> None:
    graph = Graph()
    x, w = graph.input(wide(3, 2), "x"), graph.input(wide(2), "w")

    def inner(s: Tensor, w: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return [s * w], []

    def outer(s: Tensor, x: Tensor, w: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        (power,), _ = recur(inner, [s + x], (), [w], steps=2)
        return [power], []

    (y,), _ = recur(outer, [graph.constant(np.zeros(2))], [x], [w])
    graph.outputs["y"] = y.value
    feeds = {"x": spread((3, 2)), "w": spread((2,), seed=1)}
    expected = np.zeros(2)
    for part in feeds["x"]:
        expected = (expected + part) * feeds["w"] ** 2
    for version in (graph, Unroll().apply(graph), Expand().apply(graph)):
        np.testing.assert_allclose(evaluate(version, feeds).outputs["y"], expected)
    check_gradients(graph, feeds)
    assert not [n for n in Unroll().apply(graph).nodes() if isinstance(n.op, Recurrence)]


# -- JSON, text, pictures -------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=["fibonacci"])
def test_values(case: Case) -> None:
    check_values(case)


def test_json_of_an_operation() -> None:
    op = elman(4)
    assert op_from_json(json.loads(json.dumps(op_to_json(op)))) == op
    assert op == elman(4)
    assert hash(op) == hash(elman(4))
    assert op != elman(4, reverse=True)


def test_json_of_a_graph_with_its_gradient() -> None:
    graph = differentiate(elman_graph(3))
    text = json.dumps(graph_to_json(graph), allow_nan=False)
    states = {n.name: graph.data[n.name] for n in graph.leaves(State)}
    again = graph_from_json(json.loads(text), states)
    assert str(again) == str(graph)
    a, b = (evaluate(g, feeds_of(3)).outputs for g in (graph, again))
    assert all((a[n] == b[n]).all() for n in a)


@pytest.mark.parametrize("damage", ["nodes", "outputs", "constants", "format"])
def test_a_damaged_body_is_an_error(damage: str) -> None:
    data = graph_to_json(elman_graph(2))
    loop = next(n for n in data["nodes"] if n["op"]["op"] == "Recurrence")
    loop["op"]["body"][damage] = None
    with pytest.raises(GraphError):
        graph_from_json(data)


def test_printing_shows_the_body() -> None:
    text = str(elman_graph(2))
    assert "rnn = Recurrence(h, x, w, u, b; body=rnn, steps=2, states=1, sequences=1)" in text
    assert "body of rnn:" in text
    assert "    tanh = Tanh(add_1) : float64[2, 5]" in text
    assert max(map(len, text.splitlines())) <= 100


def test_pictures_rolled_and_unrolled() -> None:
    graph = elman_graph(3)
    rolled = qn.draw(graph, fold=False).source
    assert "Recurrence, 3 steps" in rolled
    assert rolled.count("Tanh") == 0
    ends = [line.split("[")[0].split("->") for line in rolled.splitlines() if "->" in line]
    assert [a for a, b in ends if a.strip() == b.strip()], "the state comes back to its node"
    unrolled = qn.draw(graph, fold=False, unroll=True).source
    assert all(f"rnn.t{t}.tanh" in unrolled for t in range(3))
    with pytest.raises(UsageError, match="not when optimized"):
        qn.draw(graph, stage="optimized", unroll=True)


def test_operations_of_all_steps_are_counted() -> None:
    graph = elman_graph(3)
    assert graph_flops(graph) == graph_flops(Unroll().apply(graph))
