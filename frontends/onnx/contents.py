"""Contents of values that do not depend on the network's inputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ...compiler.errors import OnnxError
from ...compiler.graph import Graph, Value
from ...compiler.ops.leaf import Input, Leaf
from ...compiler.types import Array


@dataclass
class Contents:
    """What is known of the values of a graph that is being built, each computed once."""

    graph: Graph
    _known: dict[Value, Array] = field(default_factory=dict)

    def inputs_of(self, value: Value) -> frozenset[str]:
        """The inputs of the network that a value depends on."""
        if value in self._known:
            return frozenset()
        seen: set[str] = set()
        found = set()
        stack = [value.node]
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen.add(name)
            if isinstance(self.graph.node(name).op, Input):
                found.add(name)
            stack.extend(v.node for v in self.graph.inputs_of(name))
        return frozenset(found)

    def of(self, value: Value) -> Array:
        """The contents of a value that depends on no input."""
        stack = [value]
        while stack:
            top = stack[-1]
            missing = [v for v in self.graph.inputs_of(top.node) if v not in self._known]
            if top in self._known:
                stack.pop()
            elif missing:
                stack.extend(missing)
            else:
                node = self.graph.node(top.node)
                if isinstance(node.op, Leaf):
                    results: tuple[Array, ...] = (self.graph.data[node.name],)
                else:
                    inputs = (self._known[v] for v in self.graph.inputs_of(node.name))
                    with np.errstate(all="ignore"):
                        results = node.op.evaluate(*inputs)
                for output, array in zip(self.graph.outputs_of(node.name), results, strict=True):
                    self._known[output] = np.asarray(array)
        return self._known[value]


class DataDependentError(OnnxError):
    """A shape, or something else that must be known at import, depends on inputs of the network.

    Attributes:
        inputs: names of these inputs; `from_onnx(…, inputs={name: array})` makes them known.
    """

    def __init__(self, what: str, inputs: Iterable[str], where: str = "") -> None:
        self.what = what
        self.inputs = tuple(sorted(inputs))
        listed = ", ".join(self.inputs)
        super().__init__(
            f"{where}{what} must be known at import, it depends on the data of {listed}; "
            "give an array for it by inputs={…}"
        )

    def within(self, where: str) -> DataDependentError:
        """The same error, naming the node."""
        if self.located:
            return self
        error = DataDependentError(self.what, self.inputs, f"{where}: ")
        error.located = True
        return error
