"""Reverse mode on the DAG: worked examples, sums over paths, several losses, higher derivatives.

The oracle is central differences of the graph's own NumPy meaning in float64, or a formula.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import lenet

from quern.compiler.autodiff import differentiate, gradients
from quern.compiler.errors import GradientError
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph, Phase
from quern.compiler.ops.composite import Composite
from quern.compiler.ops.leaf import Parameter
from quern.compiler.ops.linear import matmul
from quern.compiler.ops.movement import Concat
from quern.compiler.ops.pointwise import Floor, Maximum
from quern.compiler.ops.pool import MaxPool
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType, TensorType

Double = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
DOUBLE = DType.FLOAT64


def graph_of(function: Callable[..., Tensor], **values: Array | float) -> Graph:
    """A graph with parameters of these contents and the function's value as output `y`."""
    graph = Graph("test")
    tensors = [graph.parameter(np.asarray(v, np.float64), name) for name, v in values.items()]
    graph.outputs["y"] = function(*tensors).value
    return graph


def run(graph: Graph, output: str) -> Array:
    return evaluate(graph, {}).outputs[output]


def central_differences(graph: Graph, output: str, by: str, step: float = 1e-6) -> Double:
    """The derivative of the sum of an output by every element of a parameter."""
    start = graph.data[by].astype(np.float64)
    result = np.zeros_like(start)
    for index in np.ndindex(start.shape):
        ends = []
        for sign in (1, -1):
            moved = start.copy()
            moved[index] += sign * step
            ends.append(run(graph.with_data({by: moved}), output).sum())
        result[index] = (ends[0] - ends[1]) / (2 * step)
    return result


def assert_matches_differences(graph: Graph, output: str = "y") -> None:
    back = differentiate(graph, of=output).verify()
    for name in (n.name for n in graph.leaves(Parameter) if n.name in back):
        expected = central_differences(graph, output, name)
        found = run(back, f"grad.{name}")
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8, err_msg=name)


# -- the textbooks' examples ----------------------------------------------------------------------


@pytest.mark.parametrize(("x", "a", "b"), [(2.0, 3.0, 4.0), (-1.5, 0.5, 1.0), (0.0, 1.0, 2.0)])
def test_two_paths_of_a_dag_are_multiplied_and_added(x: float, a: float, b: float) -> None:
    """G = x²(ax + b): by x, both paths from x meet, 2x(ax + b) + ax²."""
    graph = graph_of(lambda x, a, b: (x * x) * (a * x + b), x=x, a=a, b=b)
    back = differentiate(graph)
    assert run(back, "grad.x") == pytest.approx(3 * a * x**2 + 2 * b * x)
    assert run(back, "grad.a") == pytest.approx(x**3)
    assert run(back, "grad.b") == pytest.approx(x**2)


@pytest.mark.parametrize(("w", "x"), [(3.0, 2.0), (-0.5, 4.0), (0.0, 1.0)])
def test_a_tied_weight_gets_the_sum_over_its_uses(w: float, x: float) -> None:
    """Y = w · (w · x): dy/dw = 2wx."""
    back = differentiate(graph_of(lambda w, x: w * (w * x), w=w, x=x))
    assert run(back, "grad.w") == pytest.approx(2 * w * x)
    assert run(back, "grad.x") == pytest.approx(w * w)


def test_two_linear_layers_and_one_step_of_gradient_descent() -> None:
    """Prediction 0.191 for target 1; a step of 0.05 gives the published weights."""
    first = np.array([[0.11, 0.12], [0.21, 0.08]])
    second = np.array([[0.14], [0.15]])

    def error(w: Tensor, v: Tensor) -> Tensor:
        x = w.graph.constant([[2.0, 3.0]], DOUBLE)
        prediction = matmul(matmul(x, w), v)
        w.graph.outputs["prediction"] = prediction.value
        difference = prediction - 1.0
        return (0.5 * difference * difference).sum()

    back = differentiate(graph_of(error, w=first, v=second), of="y")
    assert run(back, "prediction").item() == pytest.approx(0.191)
    new_first = first - 0.05 * run(back, "grad.w")
    new_second = second - 0.05 * run(back, "grad.v")
    np.testing.assert_allclose(new_second, [[0.17], [0.17]], atol=5e-3)
    np.testing.assert_allclose(new_first, [[0.12, 0.13], [0.23, 0.10]], atol=5e-3)


# -- sums of signals ------------------------------------------------------------------------------


def test_one_value_on_both_sides_of_an_operation() -> None:
    graph = graph_of(lambda x: x * x * x, x=[1.0, -2.0, 0.5])
    np.testing.assert_allclose(run(differentiate(graph), "grad.x"), [3, 12, 0.75])


def test_signals_that_arrive_are_added_once() -> None:
    """2**20 paths from x to y, but only as many nodes as there are edges."""

    def doubling(x: Tensor) -> Tensor:
        for _ in range(20):
            x = x + x
        return x

    back = differentiate(graph_of(doubling, x=1.0))
    assert run(back, "grad.x") == 2**20
    assert sum(n.phase is Phase.BACKWARD for n in back.nodes()) < 30


def test_broadcasting_is_undone_by_sums() -> None:
    graph = graph_of(
        lambda a, b, c: (a * b + c).exp(),
        a=np.linspace(-1, 1, 6).reshape(2, 1, 3),
        b=np.linspace(0, 1, 4).reshape(4, 1),
        c=0.25,
    )
    assert_matches_differences(graph)


def test_several_losses_are_summed_and_each_can_be_asked_for() -> None:
    graph = graph_of(lambda x: (x * x).sum(), x=[1.0, 2.0])
    x = graph.tensor(graph.outputs_of("x")[0])
    graph.outputs["cube"] = (x * x * x).value
    graph.outputs["rounded"] = x.cast("int64").value
    np.testing.assert_allclose(run(differentiate(graph, of="y"), "grad.x"), [2, 4])
    np.testing.assert_allclose(run(differentiate(graph, of=["cube"]), "grad.x"), [3, 12])
    np.testing.assert_allclose(run(differentiate(graph, of=["y", "cube"]), "grad.x"), [5, 16])
    np.testing.assert_allclose(run(differentiate(graph), "grad.x"), [5, 16])


def test_an_output_that_another_output_is_made_of() -> None:
    graph = graph_of(lambda x: x * 3.0, x=2.0)
    y = graph.tensor(graph.outputs["y"])
    graph.outputs["z"] = (y * y).value
    assert run(differentiate(graph, of=["y", "z"]), "grad.x") == 3 + 2 * 6 * 3


def test_by_intermediate_values_and_inputs() -> None:
    graph = Graph()
    x = graph.input(TensorType((), DOUBLE), "x")
    graph.outputs["y"] = (x.exp() * x).value
    back = differentiate(graph, wrt=["x", "exp"])
    results = evaluate(back, {"x": np.float64(1.5)}).outputs
    assert results["grad.exp"] == pytest.approx(1.5)
    assert results["grad.x"] == pytest.approx(np.exp(1.5) * 2.5)


def test_several_outputs_of_one_operation() -> None:
    """The signal goes to the maximum; the positions, its other output, carry none."""
    x = np.arange(16.0).reshape(1, 1, 4, 4)[..., ::-1].copy()

    def pooled(x: Tensor) -> Tensor:
        y, _ = x.graph.apply(MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)), x)
        return y * y

    graph = graph_of(pooled, x=x)
    assert_matches_differences(graph)
    assert np.count_nonzero(run(differentiate(graph), "grad.x")) == 4


def test_what_has_no_slope_passes_no_signal() -> None:
    graph = graph_of(lambda x: x * x.graph.apply(Floor(), x)[0], x=[1.5, 2.25])
    np.testing.assert_allclose(run(differentiate(graph), "grad.x"), [1, 2])


# -- what is and is not differentiated ------------------------------------------------------------


def test_frozen_parameters_get_no_gradient_unless_asked_for() -> None:
    graph = Graph()
    w = graph.parameter(np.float64(2), "w")
    frozen = graph.parameter(np.float64(3), "frozen", trainable=False)
    graph.outputs["y"] = (w * frozen).value
    assert set(differentiate(graph).outputs) == {"y", "grad.w"}
    back = differentiate(graph, wrt=["frozen"])
    assert set(back.outputs) == {"y", "grad.frozen"}
    assert run(back, "grad.frozen") == 2


def test_no_work_is_done_for_gradients_nobody_asked_for() -> None:
    """The input's gradient of the first layer would be a whole convolution."""
    back = differentiate(lenet(), of="loss")
    ops = [n.op.name for n in back.nodes()]
    assert ops.count("ConvWeightGradient") == 2
    assert ops.count("ConvInputGradient") == 1


def test_the_forward_graph_and_its_other_outputs_stay() -> None:
    graph = lenet()
    back = differentiate(graph, of="loss")
    assert set(back.outputs) >= {"logits", "loss"}
    forward = [n.name for n in back.nodes() if n.phase is Phase.FORWARD]
    assert {n.name for n in graph.nodes() if not isinstance(n.op, Composite)} <= set(forward)


def test_backward_nodes_remember_the_node_they_belong_to() -> None:
    back = differentiate(lenet(), of="loss")
    backward = [n for n in back.nodes() if n.phase is Phase.BACKWARD]
    assert backward
    forward = {n.name for n in lenet().nodes()}
    for node in backward:
        assert node.name.startswith("grad.")
        assert node.origins[0].name in forward
        assert node.source is not None


@pytest.mark.parametrize(
    ("of", "wrt", "message"),
    [
        ("z", None, "no output 'z' to differentiate; there is y, n"),
        ("n", None, r"n|int64"),
        ("y", ["i"], r"^i \(.*\): it is int64\[\]; only floats have a gradient"),
        ("y", ["other"], r"^other \(.*\): y does not depend on it; leave it out of wrt"),
        ("y", ["dead"], r"^dead \(.*\): nothing depends on it"),
        ("y", [], "no trainable parameter"),
    ],
)
def test_impossible_wishes(of: str, wrt: list[str] | None, message: str) -> None:
    graph = graph_of(lambda w, other: w * 2.0, w=1.0, other=1.0)
    graph.parameter(np.float64(0), "dead")
    i = graph.input(TensorType((), DType.INT64), "i")
    graph.outputs["n"] = (i + 1).value
    graph.updates["other"] = graph.outputs_of("other")[0]
    with pytest.raises(GradientError, match=message):
        differentiate(graph, of, wrt)


# -- higher derivatives ---------------------------------------------------------------------------


def test_gradient_of_a_gradient() -> None:
    graph = graph_of(lambda x: x * x * x * x, x=[0.5, -2.0])
    first = differentiate(graph, of="y")
    second = differentiate(first, of="grad.x")
    third = differentiate(second, of="grad.grad.x")
    np.testing.assert_allclose(run(third, "grad.x"), [0.5, -32])
    np.testing.assert_allclose(run(third, "grad.grad.x"), [3, 48])
    np.testing.assert_allclose(run(third, "grad.grad.grad.x"), [12, -48])


def test_hessian_vector_product() -> None:
    rng = np.random.default_rng(1)
    a, x, v = rng.normal(size=(3, 3)), rng.normal(size=(3, 1)), rng.normal(size=(3, 1))

    def quadratic(x: Tensor, v: Tensor) -> Tensor:
        return (matmul(x.transpose(), matmul(x.graph.constant(a), x)) + v.sum() * 0.0).sum()

    graph = graph_of(quadratic, x=x, v=v)
    back = differentiate(graph, wrt=["x"])
    slope = back.tensor(back.outputs["grad.x"])
    back.outputs["directional"] = (slope * back.tensor(back.outputs_of("v")[0])).sum().value
    again = differentiate(back, of="directional", wrt=["x"])
    np.testing.assert_allclose(run(again, "grad.grad.x"), (a + a.T) @ v, rtol=1e-12)


def test_a_penalty_on_the_gradient_can_be_trained() -> None:
    graph = graph_of(lambda w: (w * w * w).tanh().sum(), w=[0.3, -0.7])
    back = differentiate(graph)
    slope = back.tensor(back.outputs["grad.w"])
    back.outputs["penalty"] = (slope * slope).sum().value
    assert_matches_penalty = differentiate(back, of="penalty")
    expected = central_differences(back, "penalty", "w")
    np.testing.assert_allclose(run(assert_matches_penalty, "grad.grad.w"), expected, rtol=1e-6)


def test_seeds_are_the_signals_to_start_from() -> None:
    graph = Graph()
    x = graph.parameter(np.array([1.0, 2.0]), "x")
    y = x * x
    seed = graph.constant([10.0, 100.0], DOUBLE)
    (signal,) = gradients(graph, [y], [x], [seed])
    assert signal is not None
    graph.outputs["signal"] = signal.value
    np.testing.assert_allclose(run(graph, "signal"), [20, 400])


# -- random graphs --------------------------------------------------------------------------------

STEPS: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda a, b: a + b,
    lambda a, b: a * b,
    lambda a, b: a - b.tanh(),
    lambda a, b: a / (b * b + 1.0),
    lambda a, b: a.sigmoid() * b.sum(axis=0),
    lambda a, b: a.graph.apply(Maximum(), a, b * 0.5)[0],
    lambda a, b: a.graph.apply(Concat(0), a, b)[0][1:3],
    lambda a, b: (a * b).mean().exp() + a[::-1],
]


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0), st.integers(0)), max_size=8))
@settings(max_examples=40)
def test_random_dags_match_central_differences(
    steps: list[tuple[Callable[[Tensor, Tensor], Tensor], int, int]],
) -> None:
    def build(x: Tensor, w: Tensor) -> Tensor:
        values = [x, w]
        for function, i, j in steps:
            values.append(function(values[i % len(values)], values[j % len(values)]))
        return (values[-1] + x * 0.1 * w).tanh()

    assert_matches_differences(graph_of(build, x=[0.31, -0.62], w=[0.83, 1.17]))
