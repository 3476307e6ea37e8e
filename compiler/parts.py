"""Concatenations without copies: values that are written where the concatenation has them.

Where all axes before the concatenated one have extent 1, such as the channels of one image, each
input is a range of the result's bytes. So whoever writes an input writes it there, and the kernel
that would copy has nothing to do. The result may be part of another one in turn: in a dense block
(Huang et al., Densely connected convolutional networks, 2017) each layer's output goes to its
place in the concatenation at the block's end.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from .graph import Graph, Value
from .ops.leaf import Leaf
from .ops.movement import Concat
from .passes.partition import Group, storage


@dataclass(frozen=True)
class Parts:
    """Which values are parts of others.

    Arguments:
        within: the concatenation that a value is a direct part of, and at which byte it begins.
        idle: numbers of the kernels that have nothing to do.
    """

    within: Mapping[Value, tuple[Value, int]] = field(default_factory=dict)
    idle: frozenset[int] = frozenset()

    def place(self, value: Value) -> tuple[Value, int]:
        """The outermost value that a value is part of, itself perhaps, and where it begins."""
        begin = 0
        while value in self.within:
            value, more = self.within[value]
            begin += more
        return value, begin

    @cached_property
    def members(self) -> frozenset[Value]:
        """All parts, and what they are parts of."""
        return frozenset((*self.within, *(whole for whole, _ in self.within.values())))


def find_parts(graph: Graph, groups: Sequence[Group | None], owned: Container[Value]) -> Parts:
    """The concatenations of a plan that need no copies.

    Arguments:
        graph: of primitives.
        groups: its kernels, in order.
        owned: values whose memory is not the plan's to choose.
    """
    within: dict[Value, tuple[Value, int]] = {}
    idle = set()
    for number, group in enumerate(groups):
        if group is None or not _is_plain_copy(graph, group):
            continue
        (whole,) = group.outputs
        inputs = graph.inputs_of(whole.node)
        bases = [storage(graph, v) for v in inputs]
        free = all(
            not isinstance(graph.producer(b).op, Leaf) and b not in owned and b not in within
            for b in bases
        )
        if whole in owned or not free or len(set(bases)) < len(bases):
            continue
        begin = 0
        for base in bases:
            within[base] = (whole, begin)
            begin += graph.type_of(base).nbytes
        idle.add(number)
    return Parts(within, frozenset(idle))


def _is_plain_copy(graph: Graph, group: Group) -> bool:
    """Whether a kernel does nothing but put ranges of memory one behind the other."""
    if group.anchor is None or group.nodes != (group.anchor,):
        return False
    node = graph.node(group.anchor)
    if not isinstance(node.op, Concat) or group.outputs != (Value(node.name),):
        return False
    return math.prod(node.types[0].shape[: node.op.axis]) == 1
