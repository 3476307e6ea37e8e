"""Concatenations and slices without copies: values that lie where a larger one has them.

Each input of a concatenation is a part of the result: whoever writes it writes it there, and the
kernel that would copy has nothing to do. A slice is a part of what it is taken from: whoever reads
it reads it there. A part has the strides of the whole: its rows do not follow on each other where
axes before the concatenated one have several places, such as the images of a batch. The whole may
be part of another one in turn: in a dense block (Huang et al., Densely connected convolutional
networks, 2017) each layer's output goes to its place in the concatenation at the block's end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from .graph import Graph, Value
from .group import Group, storage
from .ops.leaf import Input, Leaf
from .ops.movement import Concat, Slice
from .types import Shape, restrided, row_major_strides

# What lies in one piece of a part with gaps; where it is less, vectors would be of no use.
_LEAST_BYTES = 64


@dataclass(frozen=True)
class Part:
    """Where a value lies in another one.

    Arguments:
        whole: the other one, which is part of nothing itself.
        begin: elements of it before the first one.
        strides: elements from one place to the next along each axis of the value.
    """

    whole: Value
    begin: int
    strides: Shape


@dataclass(frozen=True)
class Parts:
    """Which values are parts of others.

    Arguments:
        places: the parts.
        idle: numbers of the kernels that have nothing to do.
    """

    places: Mapping[Value, Part] = field(default_factory=dict)
    idle: frozenset[int] = frozenset()

    @cached_property
    def members(self) -> frozenset[Value]:
        """All parts, and what they are parts of."""
        return frozenset((*self.places, *(part.whole for part in self.places.values())))

    def strided(self, graph: Graph, group: Group) -> Group:
        """A group that knows the gaps in what it reads and writes."""
        found: list[tuple[Value, Shape]] = []
        for value in dict.fromkeys((*group.inputs, *group.outputs)):
            base = storage(graph, value)
            part = self.places.get(base)
            if part is None:
                continue
            shape = graph.type_of(value).shape
            strides = restrided(graph.type_of(base).shape, part.strides, shape)
            assert strides is not None
            if not _is_contiguous(shape, strides):
                found.append((value, strides))
        return replace(group, strides=tuple(found)) if found else group


def find_parts(graph: Graph, groups: Sequence[Group], takes_gaps: Callable[[Group], bool]) -> Parts:
    """The concatenations and slices that need no copies.

    Arguments:
        graph: of primitives.
        groups: its kernels, in order.
        takes_gaps: whether the kernel of a group can read and write parts with gaps.
    """
    return _Finder(graph, groups, takes_gaps).run()


@dataclass
class _Finder:
    graph: Graph
    groups: Sequence[Group]
    takes_gaps: Callable[[Group], bool]
    places: dict[Value, Part] = field(default_factory=dict)
    idle: set[int] = field(default_factory=set)

    def run(self) -> Parts:
        """Concatenations from the last to the first, so that of two the larger one has its parts;
        then slices, of which it is known by then where they are taken from.
        """
        for number in reversed(range(len(self.groups))):
            self._concatenation(number, self.groups[number])
        for number, group in enumerate(self.groups):
            self._slice(number, group)
        return Parts(self.places, frozenset(self.idle))

    @cached_property
    def _results(self) -> frozenset[Value]:
        """Values whose memory is not the plan's to choose."""
        results = (*self.graph.outputs.values(), *self.graph.updates.values())
        return frozenset(storage(self.graph, v) for v in results)

    @cached_property
    def _views(self) -> dict[Value, dict[Value, None]]:
        """As what a value in memory is read or written."""
        found: dict[Value, dict[Value, None]] = {}
        for group in self.groups:
            for value in (*group.inputs, *group.outputs):
                found.setdefault(storage(self.graph, value), {})[value] = None
        return found

    @cached_property
    def _contiguous_only(self) -> frozenset[Value]:
        """Values of kernels that know no gaps."""
        return frozenset(
            storage(self.graph, value)
            for group in self.groups
            if not self.takes_gaps(group)
            for value in (*group.inputs, *group.outputs)
        )

    def _concatenation(self, number: int, group: Group) -> None:
        op = self._only(group)
        if not isinstance(op, Concat):
            return
        (whole,) = group.outputs
        inputs = self.graph.inputs_of(whole.node)
        bases = [storage(self.graph, v) for v in inputs]
        if not self._in_arena(whole) or len(set(bases)) < len(bases):
            return
        place = self._place(whole, whole)
        if place is None:
            return
        found = {}
        begin = place.begin
        for value, base in zip(inputs, bases, strict=True):
            part = self._part(base, value, replace(place, begin=begin))
            if part is None or base in self.places:
                return
            found[base] = part
            begin += self.graph.type_of(value).shape[op.axis] * place.strides[op.axis]
        self.places |= found
        self.idle.add(number)

    def _slice(self, number: int, group: Group) -> None:
        op = self._only(group)
        if not isinstance(op, Slice) or set(op.step) != {1}:
            return
        (result,) = group.outputs
        (source,) = self.graph.inputs_of(result.node)
        base = storage(self.graph, source)
        is_input = isinstance(self.graph.producer(base).op, Input)
        if not (is_input or self._in_arena(base)) or result in self.places:
            return
        place = self._place(base, source)
        if place is None:
            return
        before = sum(n * s for n, s in zip(op.start, place.strides, strict=True))
        part = self._part(result, result, replace(place, begin=place.begin + before))
        if part is not None:
            self.places[result] = part
            self.idle.add(number)

    def _only(self, group: Group) -> object:
        """The operation of a group that is but one node."""
        if len(group.nodes) > 1 or len(group.outputs) > 1:
            return None
        return self.graph.node(group.nodes[0]).op

    def _in_arena(self, base: Value) -> bool:
        """Whether a value lives between kernels, and takes memory at all."""
        is_leaf = isinstance(self.graph.producer(base).op, Leaf)
        return not is_leaf and base not in self._results and self.graph.type_of(base).size > 0

    def _place(self, base: Value, view: Value) -> Part | None:
        """Where a value of the arena lies, with the strides of one of its views."""
        own = self.graph.type_of(base).shape
        place = self.places.get(base) or Part(base, 0, row_major_strides(own))
        strides = restrided(own, place.strides, self.graph.type_of(view).shape)
        return None if strides is None else replace(place, strides=strides)

    def _part(self, base: Value, view: Value, place: Part) -> Part | None:
        """Where a value lies one view of which has the strides of `place`, if it can."""
        if not self._in_arena(base):
            return None
        type = self.graph.type_of(view)
        if not _is_contiguous(type.shape, place.strides):
            if base in self._contiguous_only:
                return None
            if _row(type.shape, place.strides) * type.dtype.size < _LEAST_BYTES:
                return None
        own = self.graph.type_of(base).shape
        strides = restrided(type.shape, place.strides, own)
        if strides is None:
            return None
        others = (self.graph.type_of(v).shape for v in self._views[base])
        if any(restrided(own, strides, shape) is None for shape in others):
            return None
        return replace(place, strides=strides)


def _row(shape: Shape, strides: Shape) -> int:
    """Elements that lie side by side."""
    row = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent > 1 and stride != row:
            break
        row *= extent
    return row


def _is_contiguous(shape: Shape, strides: Shape) -> bool:
    return _row(shape, strides) == math.prod(shape)
