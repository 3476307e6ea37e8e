"""Recurrences that are put together from parts of other bodies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..body import Body
from ..types import TensorType
from .leaf import Constant, Input
from .recurrence import Recurrence

if TYPE_CHECKING:
    from ..graph import Graph, Node, Value
    from ..tensor import Tensor

STATE, SEQUENCE, INVARIANT = range(3)


@dataclass
class LoopBuilder:
    """A recurrence whose body takes over nodes of another graph.

    Attributes:
        graph: the body.
        values: values of the other graph -> where they are in the body.
        given: what the recurrence reads: states, sequences, invariants.
    """

    graph: Graph
    values: dict[Value, Value] = field(default_factory=dict)
    given: tuple[list[Tensor], list[Tensor], list[Tensor]] = field(
        default_factory=lambda: ([], [], [])
    )

    def declare(self, name: str, x: Tensor, kind: int = STATE) -> Tensor:
        """A new input of the body, and what the recurrence is given for it."""
        self.given[kind].append(x)
        type = x.type.with_shape(x.shape[1:]) if kind == SEQUENCE else x.type
        return self.graph.input(type, name)

    def read(self, value: Value, x: Tensor, kind: int) -> None:
        """A value of the other graph is an input of the body."""
        self.values[value] = self.declare(str(value), x, kind).value

    def copy(self, other: Graph, nodes: Sequence[Node]) -> None:
        """Takes over these nodes, except those that are read."""
        self.graph._reserved.update(n.name for n in nodes)
        for node in nodes:
            results = other.outputs_of(node.name)
            if isinstance(node.op, Input) or self.values.keys() & set(results):
                continue
            reads = tuple(self.values[v] for v in other.inputs_of(node.name))
            taken = replace(node, name=self._free(node.name))
            copies = self.graph.add_node(taken, reads)
            self.values.update(zip(results, copies, strict=True))
            if isinstance(node.op, Constant):
                self.graph.data[taken.name] = other.data[node.name]

    def _free(self, name: str) -> str:
        self.graph._reserved.discard(name)
        return self.graph.unique_name(name)

    def inside(self, value: Value) -> Tensor:
        """A value of the other graph in the body."""
        return self.graph.tensor(self.values[value])

    def give(self, name: str, value: Value | None, type: TensorType) -> None:
        """An output of the body; zeros for None."""
        if value is None:
            zeros = self.graph.constant(0, type.dtype).broadcast_to(type.shape)
            self.graph.outputs[name] = zeros.value
        else:
            self.graph.outputs[name] = self.values[value]

    def run(self, steps: int, reverse: bool, name: str) -> tuple[Tensor, ...]:
        """The recurrence, as a node of the graph of what it is given."""
        states, sequences, invariants = self.given
        op = Recurrence(Body.of(self.graph), steps, len(states), len(sequences), reverse)
        given = (*states, *sequences, *invariants)
        return given[0].graph.apply(op, *given, name=name)
