"""The gradient check itself: it accepts right gradients, refuses wrong ones, and says which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from quern.compiler.check import as_float64, check_gradients
from quern.compiler.errors import GradientError
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph
from quern.compiler.ops import pointwise as pw
from quern.compiler.ops.base import apply
from quern.compiler.ops.loss import CrossEntropy
from quern.compiler.ops.norm import BatchNorm
from quern.compiler.ops.random import Dropout, Philox
from quern.compiler.types import Array, DType, TensorType


def network() -> Graph:
    """Normalised, rectified, dropped out, multiplied, and compared with classes; all in float32."""
    rng = np.random.default_rng(0)
    graph = Graph("network")
    x = graph.input(TensorType((6, 3)), "x")
    target = graph.input(TensorType((6,), DType.INT64), "target")
    w = graph.parameter(rng.standard_normal((3, 4)).astype(np.float32), "w")
    frozen = graph.parameter(np.ones(3, np.float32), "frozen", trainable=False)
    scale = graph.parameter(TensorType((3,)), "scale")
    mean = graph.buffer(np.zeros(3, np.float32), "mean")
    var = graph.buffer(TensorType((3,)), "var")
    step = graph.constant(5, DType.INT64, "step")
    y, new_mean, new_var = graph.apply(BatchNorm(), x * frozen, scale, scale * scale, mean, var)
    y = apply(Dropout(0.3), y.relu(), step, step)
    logits = (y.reshape(6, 3, 1) * w).sum(1)
    graph.outputs = {"loss": apply(CrossEntropy(), logits, target).value, "logits": logits.value}
    graph.updates = {"mean": new_mean.value, "var": new_var.value}
    return graph.verify()


def test_right_gradients_are_reported_one_a_parameter_and_input() -> None:
    report = check_gradients(network())
    assert [c.name for c in report.checks] == ["x", "w", "scale"]
    assert report.error == max(c.error for c in report.checks) < 1e-6
    assert [(c.checked, c.size) for c in report.checks] == [(18, 18), (12, 12), (3, 3)]
    assert "w[" in str(report)


def test_what_is_checked_can_be_named() -> None:
    report = check_gradients(network(), of="loss", wrt=["frozen", "mean"], samples=2)
    assert [(c.name, c.checked) for c in report.checks] == [("frozen", 2), ("mean", 2)]
    # The running mean is no part of the loss.
    assert report.checks[1].analytic == report.checks[1].numeric == 0


def test_contents_can_be_given() -> None:
    graph = Graph()
    x = graph.input(TensorType((2,)), "x")
    graph.outputs = {"y": x.log().value}
    report = check_gradients(graph, {"x": np.array([2.0, 3.0], np.float32)})
    assert report.error < 1e-6
    with pytest.raises(GradientError, match=r"x is float64\[2\], got float64\[3\]"):
        check_gradients(graph, {"x": np.ones(3)})
    with pytest.raises(GradientError, match="got int64"):
        check_gradients(graph, {"x": np.ones(2, int)})


def test_the_graph_stays_as_it_is() -> None:
    graph = network()
    before = len(graph), dict(graph.outputs), {n: a.dtype for n, a in graph.data.items()}
    check_gradients(graph)
    assert before == (len(graph), graph.outputs, {n: a.dtype for n, a in graph.data.items()})


def test_the_float64_graph_computes_the_same() -> None:
    graph = network()
    wide = as_float64(graph).verify()
    types = {t.dtype for n in wide.nodes() for t in n.types}
    assert DType.FLOAT32 not in types
    rng = np.random.default_rng(1)
    feeds: dict[str, Array] = {
        "x": rng.standard_normal((6, 3)), "target": rng.integers(0, 4, 6),
        "scale": rng.standard_normal(3), "var": np.ones(3),
    }  # fmt: skip
    narrow = {k: v.astype(np.float32) if v.dtype == float else v for k, v in feeds.items()}
    for name, y in evaluate(graph, narrow).outputs.items():
        np.testing.assert_allclose(evaluate(wide, feeds).outputs[name], y, rtol=1e-4, atol=1e-5)


def test_types_among_attributes_become_float64() -> None:
    graph = Graph()
    step = graph.constant(1, DType.INT64)
    (u,) = graph.apply(Philox(TensorType((2,)), 3), step, step)
    graph.outputs = {"y": u.cast(DType.INT32).cast(DType.FLOAT32).value}
    wide = as_float64(graph)
    assert wide.type_of(wide.outputs["y"]) == TensorType((2,), DType.FLOAT64)


@dataclass(frozen=True)
class HalfWrongCube(pw.Unary, abstract=True):
    """x³, with a derivative that is wrong for one sign only."""

    def compute(self, *inputs: Array) -> Array:
        return np.asarray(inputs[0] ** 3)

    def derivative(self, x: Any, y: Any) -> Any:
        return (x > 0.0).where(3.0 * x * x, 2.9 * x * x)


def test_a_wrong_gradient_is_refused_with_its_numbers() -> None:
    graph = Graph()
    x = graph.input(TensorType((3,)), "x")
    graph.outputs = {"y": apply(HalfWrongCube(), x).value}
    assert check_gradients(graph, {"x": np.array([1.0, 2.0, 3.0])}).error < 1e-6
    with pytest.raises(GradientError) as caught:
        check_gradients(graph, {"x": np.array([1.0, -2.0, 3.0])})
    message = str(caught.value)
    assert "x[1]" in message
    assert "relative error" in message
    assert "test_check.py:" in message


def test_a_sum_that_does_not_change_still_shows_an_error() -> None:
    graph = Graph()
    x = graph.input(TensorType((2, 3)), "x")
    cube = apply(HalfWrongCube(), x)
    graph.outputs = {"y": (cube - cube.mean()).value}
    with pytest.raises(GradientError, match="relative error"):
        check_gradients(graph, {"x": np.array([[1.0, -1.0, 2.0], [0.5, 1.5, -0.5]])})


def test_a_kink_nearby_is_no_error() -> None:
    graph = Graph()
    x = graph.input(TensorType((2,)), "x")
    graph.outputs = {"y": x.relu().value}
    check_gradients(graph, {"x": np.array([3e-6, -4e-7])})


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    graph = Graph()
    x = graph.input(TensorType((2,)), "x")
    graph.outputs = {"y": x.sqrt().value}
    with pytest.raises(GradientError, match="inf"):
        check_gradients(graph, {"x": np.array([0.0, 1.0])})


def test_where_nothing_flows_the_difference_must_be_zero() -> None:
    graph = Graph()
    x = graph.input(TensorType((3,)), "x")
    graph.outputs = {"y": apply(pw.Floor(), x).value}
    assert check_gradients(graph).error == 0


def test_nothing_to_check_is_an_error() -> None:
    with pytest.raises(GradientError, match="no float called missing"):
        check_gradients(network(), of="missing")
    with pytest.raises(GradientError, match="no float called target"):
        check_gradients(network(), wrt=["target"])
    with pytest.raises(GradientError, match="nothing to check"):
        check_gradients(Graph())


def test_empty_values_are_checked_trivially() -> None:
    graph = Graph()
    x = graph.input(TensorType((0, 2)), "x")
    graph.outputs = {"y": (x * 2.0).value}
    assert check_gradients(graph).error == 0
