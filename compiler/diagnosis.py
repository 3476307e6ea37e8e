"""Where infinities and NaN come from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .evaluate import evaluate
from .graph import Graph, Value
from .ops.leaf import Constant, Leaf
from .types import Array


def first_non_finite(graph: Graph, feeds: Mapping[str, Array], of: Value) -> str | None:
    """The first value on the way to `of`, in order of computation, that is not finite, in words.

    The graph is run by NumPy. Infinities that do not reach `of`, such as those that a mask puts
    aside, are not looked at.

    Arguments:
        graph: the graph.
        feeds: contents of inputs and states.
        of: what is not finite, or a truth value that tells of it.

    Returns:
        Node, user's line and what is wrong with it; None where NumPy's results are all finite.
    """
    with np.errstate(all="ignore"):
        values = evaluate(graph, feeds).values
    bad = {v for v, array in values.items() if array.dtype.kind == "f" and not _finite(array)}
    seen: set[Value] = set()
    stack = [of]
    while stack:
        value = stack.pop()
        if value not in seen:
            seen.add(value)
            inputs = graph.inputs_of(value.node)
            stack += [v for v in inputs if v in bad or values[v].dtype == bool]
    for node in graph.nodes():
        for value in graph.outputs_of(node.name):
            if value in seen & bad and not isinstance(node.op, Constant):
                return _describe(graph, value, values[value])
    return None


def _finite(array: Array) -> bool:
    return bool(np.isfinite(array).all())


def _describe(graph: Graph, value: Value, array: Array) -> str:
    node = graph.producer(value)
    place = f"{value} ({node.source})" if node.source else str(value)
    wrong = ~np.isfinite(array)
    example = array[wrong].flat[0]
    share = f"{int(wrong.sum())} of {array.size} elements" if array.size > 1 else "its value"
    if isinstance(node.op, Leaf):
        return f"{place}, which is given: {share} {_are(array)} not finite ({example})"
    return f"{place}, {node.op.name} of finite values: {share} {_are(array)} not finite ({example})"


def _are(array: Array) -> str:
    return "are" if array.size > 1 else "is"
