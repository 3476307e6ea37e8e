"""What the kernel of a group follows from: groups of one signature are lowered once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, fields
from functools import cached_property

from ..graph import Graph, Value
from ..group import Group
from .binding import Lowered
from .elements import is_number


@dataclass(frozen=True)
class Signature:
    """A group without names.

    Arguments:
        key: the same for groups whose kernels differ in names alone.
        values: what the group reads and computes, in the same order for all groups of one key.
    """

    key: Hashable
    values: tuple[Value, ...]

    @classmethod
    def of(cls, graph: Graph, group: Group) -> Signature:
        """The signature of a group: its operations, what they read of each other, types of what
        they read from memory, and numbers that are written into the code.
        """
        computed = [v for name in group.nodes for v in graph.outputs_of(name)]
        values = tuple(dict.fromkeys((*group.inputs, *computed)))
        numbers: dict[object, int] = {value: i for i, value in enumerate(values)}
        nodes = {name: i for i, name in enumerate(group.nodes)}

        def plain(content: object) -> object:
            """A field of the group with numbers in place of names."""
            if isinstance(content, Value):
                return ("value", numbers.get(content, content))
            if isinstance(content, tuple):
                return tuple(map(plain, content))
            return ("node", nodes[content]) if content in nodes else content

        read = tuple(
            (graph.type_of(v), _number(graph, v) if is_number(graph, v) else None)
            for v in group.inputs
        )
        # The text of an operation, too: to == and hash, 0.0 is -0.0 and True is 1.
        operations = tuple(
            (node.op, repr(node.op), node.types, plain(graph.inputs_of(node.name)))
            for node in map(graph.node, group.nodes)
        )
        rest = (plain(getattr(group, f.name)) for f in fields(group) if f.name != "name")
        return cls((read, operations, tuple(rest)), values)

    @cached_property
    def _places(self) -> dict[Value, int]:
        return {value: i for i, value in enumerate(self.values)}

    def renamed(self, lowered: Lowered, other: Signature) -> Lowered:
        """The kernel of this signature's group as that of another group of the same key."""
        arguments = tuple(other.values[self._places[v]] for v in lowered.arguments)
        return Lowered(lowered.kernel, arguments)


def _number(graph: Graph, value: Value) -> str:
    return repr(graph.data[value.node].item())
