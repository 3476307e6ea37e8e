"""A group: the nodes that share a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from .graph import Graph, Phase, Value
from .roles import Role, role
from .types import Shape, restrided


@dataclass(frozen=True)
class Group:
    """Nodes that become one kernel.

    Arguments:
        name: of the kernel, from the user's nodes: `conv1_relu1_pool1`.
        nodes: what it computes, in topological order; a cheap node can be in several groups.
        anchor: the node whose loop nest it is; None for point nodes and reductions.
        pool: a max-pool, or a depthwise convolution, whose windows are read from the anchor's
            output while that is in cache.
        space: shape of the iterations: the output of the anchor or pool, or what is reduced.
        axes: the reduced axes.
        inputs: values it reads from memory.
        outputs: values it writes.
        phase: of its first node.
        strides: of values that are parts of others in memory, with gaps in between.
    """

    name: str
    nodes: tuple[str, ...]
    anchor: str | None
    pool: str | None
    space: Shape
    axes: tuple[int, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    phase: Phase
    strides: tuple[tuple[Value, Shape], ...] = ()

    @cached_property
    def members(self) -> frozenset[str]:
        """`nodes` as a set."""
        return frozenset(self.nodes)

    def allows(self, graph: Graph, shapes: Mapping[Value, Shape]) -> bool:
        """Whether values can be indexed by other shapes, for the gaps that there are."""
        return all(
            restrided(graph.type_of(value).shape, strides, shapes[value]) is not None
            for value, strides in self.strides
            if value in shapes
        )


def storage(graph: Graph, value: Value) -> Value:
    """The value whose memory a value is, seen through views."""
    while role(graph.node(value.node).op) is Role.VIEW:
        (value,) = graph.inputs_of(value.node)
    return value
