"""Sums of disjoint slices become concatenations, and only those."""

from __future__ import annotations

import numpy as np
import pytest

from quern.compiler.autodiff import differentiate
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph
from quern.compiler.ops.base import apply
from quern.compiler.ops.movement import Concat, Unslice
from quern.compiler.passes.expand import Expand
from quern.compiler.passes.join_slices import JoinSlices
from quern.compiler.tensor import Tensor
from quern.compiler.types import DType, TensorType

SHAPE = (4, 9)


def placed(x: Tensor, axis: int, start: int, step: int = 1) -> Tensor:
    """A slice of a value of SHAPE that is zero elsewhere."""
    where = tuple(start if i == axis else 0 for i in range(2))
    return apply(Unslice(SHAPE, where, tuple(step if i == axis else 1 for i in range(2))), x)


def joined(graph: Graph, y: Tensor) -> Graph:
    graph.outputs["y"] = y.value
    result = JoinSlices().apply(graph)
    inputs = [n for n in graph.nodes() if n.name.startswith("x")]
    rng = np.random.default_rng(0)
    feeds = {n.name: rng.standard_normal(n.types[0].shape).astype(np.float32) for n in inputs}
    expected, found = evaluate(graph, feeds).outputs, evaluate(result, feeds).outputs
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    return result


def concats(graph: Graph) -> int:
    return sum(isinstance(n.op, Concat) for n in graph.nodes())


def inputs(graph: Graph, *shapes: tuple[int, ...]) -> list[Tensor]:
    return [graph.input(TensorType(s, DType.FLOAT32), f"x{i}") for i, s in enumerate(shapes)]


def test_slices_in_any_order_are_joined() -> None:
    graph = Graph()
    a, b, c = inputs(graph, (4, 2), (4, 3), (4, 4))
    y = placed(c, 1, 5) + (placed(a, 1, 0) + placed(b, 1, 2))
    result = joined(graph, y)
    assert concats(result) == 1
    assert not any(isinstance(n.op, Unslice) for n in result.nodes())


def test_the_gradient_of_slices_is_one_concatenation() -> None:
    graph = Graph()
    (x,) = inputs(graph, SHAPE)
    parts = [x[:, :3].tanh(), x[:, 3:6].exp(), x[:, 6:].sigmoid()]
    graph.outputs["loss"] = (parts[0] * parts[1] + parts[2]).sum().value
    gradient = differentiate(graph, "loss", ["x0"])
    assert concats(JoinSlices().apply(Expand().apply(gradient))) == 1


@pytest.mark.parametrize("case", ["overlap", "gap", "axes", "steps", "other", "incomplete"])
def test_other_sums_stay(case: str) -> None:
    graph = Graph()
    a, b, whole = inputs(graph, (4, 5), (4, 4), SHAPE)
    y = {
        "overlap": lambda: placed(a, 1, 0) + placed(b, 1, 4),
        "gap": lambda: placed(b, 1, 0) + placed(b * 2.0, 1, 5),
        "axes": lambda: placed(whole[:2], 0, 0) + placed(a, 1, 0),
        "steps": lambda: placed(a, 1, 0, 2) + placed(b, 1, 1, 2),
        "other": lambda: placed(a, 1, 0) + placed(b, 1, 5) + whole,
        "incomplete": lambda: placed(a, 1, 0) + placed(b, 1, 1),
    }[case]()
    result = joined(graph, y)
    assert concats(result) == (case == "other")


def test_sums_that_are_read_twice_stay_sums() -> None:
    graph = Graph()
    a, b, c = inputs(graph, (4, 2), (4, 3), (4, 4))
    part = placed(a, 1, 0) + placed(b, 1, 2)
    graph.outputs["part"] = part.value
    assert concats(joined(graph, part + placed(c, 1, 5))) == 0
