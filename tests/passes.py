"""What the tests of passes share: graphs before and after, and what they compute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph
from quern.compiler.ops.base import Op
from quern.compiler.ops.leaf import Leaf
from quern.compiler.passes.base import Pass
from quern.compiler.types import Array

F = np.float32


def results(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    with np.errstate(all="ignore"):
        found = evaluate(graph.verify(), feeds)
    return {**found.outputs, **{f"new {k}": v for k, v in found.updates.items()}}


def same(before: Graph, after: Graph, feeds: Mapping[str, Array], rtol: float = 0.0) -> None:
    """Equal results: to the bit but for the sign of zeros, or to a relative error."""
    expected, found = results(before, feeds), results(after, feeds)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, rtol, rtol, err_msg=name)


def transformed(graph: Graph, passes: Iterable[Pass]) -> Graph:
    """The graph after passes, one after the other."""
    for step in passes:
        graph = step.apply(graph)
    return graph


def live(graph: Graph) -> list[Op]:
    """Operations that results depend on, without the leaves, in order."""
    names = graph.live()
    return [n.op for n in graph.nodes() if n.name in names and not isinstance(n.op, Leaf)]


def kinds(graph: Graph) -> list[str]:
    return [op.name for op in live(graph)]
