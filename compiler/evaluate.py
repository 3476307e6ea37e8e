"""The NumPy oracle: a graph run node by node through each operation's `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .errors import InputError
from .graph import Graph, Value
from .ops.leaf import Constant, Input, Leaf
from .types import Array


@dataclass(frozen=True)
class Evaluation:
    """What a run gave.

    Attributes:
        outputs: by output name.
        updates: new contents of states, by node name.
        values: every value, for looking inside.
    """

    outputs: dict[str, Array]
    updates: dict[str, Array]
    values: dict[Value, Array]


def evaluate(graph: Graph, feeds: Mapping[str, Array]) -> Evaluation:
    """Runs a graph by NumPy.

    Arguments:
        graph: the graph.
        feeds: contents of every input; may also replace the contents of parameters and buffers.

    Raises:
        InputError: contents are missing or of another type.
    """
    values: dict[Value, Array] = {}
    for node in graph.nodes():
        if isinstance(node.op, Leaf):
            results: tuple[Array, ...] = (_contents(graph, node.name, feeds),)
        else:
            results = node.op.evaluate(*(values[v] for v in graph.inputs_of(node.name)))
        for value, array, type in zip(
            graph.outputs_of(node.name), results, node.types, strict=True
        ):
            if array.shape != type.shape or array.dtype != type.dtype.numpy:
                raise InputError(
                    f"{value} is {type}, its contents are {array.dtype}{list(array.shape)}"
                )
            values[value] = array
    return Evaluation(
        {name: values[v] for name, v in graph.outputs.items()},
        {name: values[v] for name, v in graph.updates.items()},
        values,
    )


def _contents(graph: Graph, name: str, feeds: Mapping[str, Array]) -> Array:
    node = graph.node(name)
    if name in feeds and not isinstance(node.op, Constant):
        return np.asarray(feeds[name])
    if name in graph.data:
        return np.asarray(graph.data[name])
    kind = "input" if isinstance(node.op, Input) else "state"
    raise InputError(f"{kind} {name} ({node.types[0]}) was given no contents")
