"""Graphs as text: one line a node, the same on every machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from networks import lenet

from quern.compiler.autodiff import differentiate
from quern.compiler.errors import SourceLocation
from quern.compiler.graph import Graph, Origin, Phase, Value
from quern.compiler.ops.movement import Pad
from quern.compiler.ops.pool import MaxPool
from quern.compiler.printer import print_graph
from quern.compiler.types import DType, TensorType

GOLDEN = Path(__file__).parent / "golden" / "graph.txt"


def step() -> Graph:
    """A training step by hand, as if declared in net.py."""
    graph = Graph("step")

    def at(line: int, name: str) -> tuple[Origin, ...]:
        return (Origin(name, SourceLocation("/home/someone/net.py", line)),)

    with graph.scope("", at(3, "x")):
        x = graph.input(TensorType((4, 1, 6, 6)), "x")
        rate = graph.input(TensorType(()), "rate")
    with graph.scope("", at(5, "scale")):
        w = graph.parameter(np.float32([[[[2.0]]]]), "scale.w")
        graph.parameter(TensorType((3,)), "unused", trainable=False)
        count = graph.buffer(np.int64(0), "count")
        y = x * w + 0.5
    with graph.scope("", at(104, "pool")):
        pool = MaxPool((2, 2), (2, 2), ((0, 0), (1, 0)), (1, 1))
        y, _ = graph.apply(pool, y, name="pool")
        y = graph.apply(Pad(((0, 0), (0, 0), (1, 1), (1, 1)), value=-1.0), y)[0]
        y = y + graph.constant(np.zeros((1, 1, 1, 5)), DType.FLOAT32, "row")
        graph.updates["count"] = (count + 1).value
    graph.outputs["y"] = y.value
    graph = differentiate(graph)
    with graph.scope("update", at(5, "scale"), Phase.UPDATE):
        signal = graph.tensor(graph.outputs.pop("grad.scale.w"))
        w, rate = (graph.tensor(Value(name)) for name in ("scale.w", "rate"))
        graph.updates["scale.w"] = (w - rate * signal).value
    return graph


def test_golden() -> None:
    """Written anew by deleting tests/golden/graph.txt and running this test."""
    text = print_graph(step(), width=88)
    if not GOLDEN.exists():
        GOLDEN.write_text(text)
        pytest.fail(f"wrote {GOLDEN.name}; read it, then run the test again")
    assert text == GOLDEN.read_text()


def test_str_is_the_text() -> None:
    assert str(step()) == print_graph(step())


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_lines_fit_and_every_node_begins_one(width: int) -> None:
    graph = differentiate(lenet(), of="loss")
    lines = print_graph(graph, width).splitlines()
    # A line that is one long word cannot be broken.
    assert all(len(line) <= width or len(line.split()) <= 3 for line in lines)
    nodes = lines[: lines.index("outputs:")]
    for node in graph.nodes():
        assert sum(line.startswith(f"  {node.name} =") for line in nodes) == 1


def test_a_location_stands_at_the_right_edge() -> None:
    line = next(x for x in print_graph(step(), 100).splitlines() if x.startswith("  add ="))
    assert line.endswith("net.py:5")
    assert len(line) == 100


def test_constants_of_few_elements_are_shown() -> None:
    graph = Graph()
    for value in (0.1, [1.5, -2.0], [[True, False]], float("nan"), np.zeros(100)):
        graph.constant(value, DType.of(np.asarray(value).dtype), "c")
    text = str(graph)
    for shown in ("(0.1)", "([1.5, -2.0])", "([[True, False]])", "(nan)", "c_4 = Constant : float"):
        assert shown in text


def test_an_empty_graph_has_text() -> None:
    assert print_graph(Graph("nothing")) == "graph nothing: 0 nodes\n"
