"""Which nodes share a kernel.

One walk in topological order: a point node joins the group of one of its inputs when the shapes
line up and no cycle arises; otherwise it *floats*: whoever asks for it computes it again from
memory, or it gets a kernel of its own when someone needs it in memory. So cheap things (a ReLU
mask, a bias, a normalised value that is known from its statistics) are never stored for a later
group.

The graph itself is not rewritten.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from ..graph import Graph, Node, Phase, Value
from ..group import Group, storage
from ..ops import movement as mv
from ..ops.blocked import BlockedConv
from ..ops.leaf import Constant, Leaf, State
from ..ops.linear import MatMul
from ..ops.pool import MaxPool
from ..ops.reduce import Reduction
from ..ops.strassen import StrassenConv
from ..roles import Role, is_expensive, role
from ..types import Shape
from .draft import Draft, can_follow, fits, is_cut, may_follow, uncut, walked
from .finished import finished

_SMALL = 16
_REMAT_DEPTH = 4
_MAX_FLOATING = 16


def partition(graph: Graph, *, has_parts: bool = True) -> tuple[Group, ...]:
    """The groups of a graph of primitives, each after the groups whose results it reads.

    Arguments:
        graph: the graph.
        has_parts: whether values may lie in others, as `parts.py` finds.
    """
    return _Partition(graph, has_parts).run()


@dataclass
class _Partition:
    graph: Graph
    has_parts: bool
    drafts: list[Draft] = field(default_factory=list)
    home: dict[str, int] = field(default_factory=dict)
    stored: dict[Value, None] = field(default_factory=dict)
    floating: dict[str, frozenset[str]] = field(default_factory=dict)
    readers: dict[str, dict[int, None]] = field(default_factory=dict)

    def run(self) -> tuple[Group, ...]:
        for node in self.graph.nodes():
            kind = role(node.op)
            if kind is Role.POINT:
                self._place_point(node)
            elif kind is Role.MOVE:
                self._float(node)
            elif kind is Role.REDUCE:
                self._place_reduction(node)
            elif kind is Role.ANCHOR:
                self._place_anchor(node)
        for value in (*self.graph.outputs.values(), *self.graph.updates.values()):
            self._store(value)
        stored: dict[int, list[Value]] = {}
        for value in self.stored:
            stored.setdefault(self.home[value.node], []).append(value)
        return finished(self.graph, self.drafts, stored)

    # -- placing ----------------------------------------------------------------------------------

    def _place_point(self, node: Node) -> None:
        users = [role(self.graph.node(u).op) for u in self.graph.users_of(node.name)]
        only_reduced = bool(users) and all(r is Role.REDUCE for r in users)
        for draft in self._candidates(node):
            if draft.anchor and only_reduced:
                continue
            if fits(self.graph, draft, node) and self._joinable(draft, node):
                self._join(draft, node)
                return
        self._float(node)

    def _float(self, node: Node) -> None:
        """Leaves a node to whoever asks for it, unless too much would be computed each time."""
        inputs = self.graph.inputs_of(node.name)
        again = frozenset((node.name,)).union(
            *(self.floating.get(v.node, frozenset()) for v in inputs)
        )
        if len(again) <= _MAX_FLOATING:
            self.floating[node.name] = again
        elif role(node.op) is Role.MOVE:
            self._store(Value(node.name))
        else:
            self._join(self._new(node.types[0].shape, node.phase), node)

    def _place_reduction(self, node: Node) -> None:
        assert isinstance(node.op, Reduction)
        (x,) = self.graph.inputs_of(node.name)
        shape = self.graph.type_of(x).shape
        for draft in (*self._candidates(node), *self._siblings(node.op.axes, x)):
            same = draft.axes is None or draft.axes == node.op.axes
            if draft.anchor or draft.space != shape or not same:
                continue
            if may_follow(draft, node) and self._joinable(draft, node):
                draft.axes = node.op.axes
                self._join(draft, node)
                return
        draft = self._new(shape, node.phase)
        draft.axes = node.op.axes
        self._join(draft, node)

    def _place_anchor(self, node: Node) -> None:
        if isinstance(node.op, MaxPool) and self._join_windows(node):
            return
        if isinstance(node.op, BlockedConv) and node.op.is_depthwise:
            (_, weight) = self.graph.inputs_of(node.name)
            self._store(weight)
            if self._join_windows(node):
                return
        draft = self._new(node.types[0].shape, node.phase, anchor=node.name)
        for value in self.graph.inputs_of(node.name):
            if not isinstance(node.op, mv.Concat) and not self._is_prologue(value, node):
                self._store(self._through_strides(value) if isinstance(node.op, MatMul) else value)
        self._join(draft, node)

    def _is_prologue(self, value: Value, node: Node) -> bool:
        """Whether what a convolution reads is computed by its own kernel, on the way to the cache.

        The convolution must be one of single pixels, which copies a band of what it reads once, and
        nothing else may ask for the value.
        """
        op, x = node.op, self.graph.producer(value)
        if not isinstance(op, StrassenConv) and not (
            isinstance(op, BlockedConv) and op.is_pointwise
        ):
            return False
        if value != self.graph.inputs_of(node.name)[0] or value in self._results:
            return False
        if x.phase is not node.phase or self.graph.users_of(x.name) != [node.name]:
            return False
        point = [self.graph.node(n) for n in self.floating.get(x.name, ())]
        pixels = self.graph.type_of(value).shape
        return bool(point) and all(
            role(n.op) is Role.POINT
            and not is_expensive(n.op)
            and n.types[0].dtype.is_float
            and n.types[0].shape == pixels
            for n in point
        )

    def _through_strides(self, value: Value) -> Value:
        """What a product reads with other strides, seen through transposes and slices; but rows of
        what is no parameter are read where they are, by the same kernel wherever that is.
        """
        node = self.graph.producer(value)
        while isinstance(node.op, mv.Transpose | mv.Slice) and node.name not in self.home:
            if isinstance(node.op, mv.Slice) and self._are_rows(node, node.op):
                break
            (value,) = self.graph.inputs_of(node.name)
            node = self.graph.producer(value)
        return value

    def _are_rows(self, node: Node, op: mv.Slice) -> bool:
        """Whether a slice is cut along the first axis alone, from an input or a computed value."""
        (source,) = self.graph.inputs_of(node.name)
        lasting = self.graph.producer(storage(self.graph, source)).op
        whole = self.graph.type_of(source).shape
        return (
            self.has_parts
            and node.types[0].shape[1:] == whole[1:]
            and set(op.step) == {1}
            and not isinstance(lasting, State | Constant)
        )

    def _join_windows(self, node: Node) -> bool:
        """Puts windows behind the convolution that nothing else reads."""
        x = self.graph.inputs_of(node.name)[0]
        if x.node not in self.home:
            return False
        draft = self.drafts[self.home[x.node]]
        anchor = self.graph.node(draft.anchor) if draft.anchor else None
        if anchor is None or draft.pool:
            return False
        if self.graph.inputs_of(anchor.name)[0].node in draft.members:
            return False
        if draft.phase is not node.phase or not self._private(draft, node.name):
            return False
        if not can_follow(self.graph, anchor.op, node) or not self._joinable(draft, node):
            return False
        draft.pool = node.name
        draft.space = node.types[0].shape
        self._join(draft, node)
        return True

    def _private(self, draft: Draft, reader: str) -> bool:
        """Whether nothing but `reader` will ask for what a group computes."""
        inside = {*draft.members, reader}
        return all(
            self.home.get(name) != draft.number
            or (
                inside.issuperset(self.graph.users_of(name))
                and not self._results.intersection(self.graph.outputs_of(name))
            )
            for name in draft.members
        )

    @cached_property
    def _results(self) -> frozenset[Value]:
        return frozenset((*self.graph.outputs.values(), *self.graph.updates.values()))

    # -- joining ----------------------------------------------------------------------------------

    def _new(self, space: Shape, phase: Phase, anchor: str | None = None) -> Draft:
        draft = Draft(len(self.drafts), space, phase, anchor)
        self.drafts.append(draft)
        return draft

    def _candidates(self, node: Node) -> list[Draft]:
        """Groups of the direct inputs: anchors first, then the latest."""
        inputs = [uncut(self.graph, v) for v in self.graph.inputs_of(node.name)]
        numbers = {self.home[v.node] for v in inputs if v.node in self.home}
        found = [self.drafts[i] for i in numbers]
        return sorted(found, key=lambda d: (d.anchor is None, -d.number))

    def _siblings(self, axes: tuple[int, ...] | None, x: Value) -> list[Draft]:
        """Groups that walk over what `x` is computed from, to reduce the same axes or none."""
        shape = self.graph.type_of(x).shape
        names = self.floating.get(x.node, frozenset((x.node,)))
        read = [v for n in names for v in self.graph.inputs_of(n)]
        sources = {*names, *(v.node for v in read if self.graph.type_of(v).shape == shape)}
        numbers = {n for name in sources for n in self.readers.get(name, ())}
        numbers |= {self.home[name] for name in sources if name in self.home}
        found = [self.drafts[n] for n in sorted(numbers, reverse=True)]
        return [d for d in found if d.axes == axes]

    def _joinable(self, draft: Draft, node: Node) -> bool:
        """Whether everything a node reads from memory is done before the group runs."""
        sources = set(self._memory(draft, node))
        return draft.number not in sources and not self._any_reaches(draft.number, sources)

    def _any_reaches(self, target: int, starts: set[int]) -> bool:
        """Whether a group among `starts` depends on group `target`."""
        seen, stack = set(starts), list(starts)
        while stack:
            number = stack.pop()
            if number == target:
                return True
            new = self.drafts[number].sources - seen
            seen |= new
            stack.extend(new)
        return False

    def _memory(self, draft: Draft, node: Node) -> Iterator[int]:
        """Numbers of the groups whose results a node reads from memory if it joins `draft`."""
        for value in self.graph.inputs_of(node.name):
            yield from self._memory_of(draft, value, aligned=role(node.op) is not Role.MOVE)

    def _memory_of(self, draft: Draft, value: Value, aligned: bool) -> Iterator[int]:
        node = self.graph.producer(value)
        kind = role(node.op)
        if kind is Role.LEAF or (aligned and node.name in draft.members):
            return
        if aligned and is_cut(self.graph, draft, node):
            return
        if kind is Role.VIEW:
            base = storage(self.graph, value)
            if base.node in self.home:  # it is stored for the view, and not had again
                yield self.home[base.node]
            else:
                yield from self._memory_of(draft, self.graph.inputs_of(node.name)[0], False)
        elif node.name in self.home and not self._recomputable(value):
            yield self.home[node.name]
        else:
            aligned = aligned and kind is Role.POINT
            for x in self.graph.inputs_of(node.name):
                yield from self._memory_of(draft, x, aligned)

    def _join(self, draft: Draft, node: Node) -> None:
        """Adds a node, and the floating nodes it reads, to a group."""
        draft.members[node.name] = None
        if role(node.op) is not Role.MOVE and node.name not in self.home:
            self.home[node.name] = draft.number
        for value in self.graph.inputs_of(node.name):
            self._read(draft, value)

    def _read(self, draft: Draft, value: Value) -> None:
        node = self.graph.producer(value)
        kind = role(node.op)
        self.readers.setdefault(node.name, {})[draft.number] = None
        if kind is Role.LEAF or node.name in draft.members:
            return
        is_elsewhere = node.name in self.home and not self._recomputable(value)
        if kind is Role.VIEW or is_elsewhere or self._repeats(draft, node):
            self._store(value, draft)
        else:
            draft.members[node.name] = None
            for x in self.graph.inputs_of(node.name):
                self._read(draft, x)

    def _repeats(self, draft: Draft, node: Node) -> bool:
        """Whether a group would compute a floating node again and again, at a price.

        A learning rate with Adam's corrections is one number with two powers in it.
        """
        if role(node.op) is not Role.POINT or node.name in self.home:
            return False
        if node.types[0].size * _SMALL > math.prod(draft.space):
            return False
        again = self.floating.get(node.name, frozenset((node.name,)))
        if not any(is_expensive(self.graph.node(name).op) for name in again):
            return False
        inputs = self.graph.inputs_of(node.name)
        sources = {n for v in inputs for n in self._memory_of(draft, v, aligned=False)}
        return not self._any_reaches(draft.number, sources)

    def _recomputable(self, value: Value, depth: int = _REMAT_DEPTH) -> bool:
        """Whether a value of another group is had more cheaply again than from memory.

        It must not be stored already, and what it is computed from must be: parameters, stored
        values, or values that are small beside it.
        """
        node = self.graph.producer(value)
        if value in self.stored or role(node.op) is not Role.POINT or is_expensive(node.op):
            return False
        if depth == 0 or value in self._results:
            return False
        size = self.graph.type_of(value).size
        return all(self._at_hand(x, size, depth - 1) for x in self.graph.inputs_of(node.name))

    def _at_hand(self, value: Value, size: int, depth: int) -> bool:
        base = storage(self.graph, value)
        if isinstance(self.graph.producer(base).op, Leaf) or base in self.stored:
            return True
        small = self.graph.type_of(base).size * _SMALL <= size and base.node in self.home
        return small or (base == value and self._recomputable(value, depth))

    def _store(self, value: Value, reader: Draft | None = None) -> None:
        """Makes sure that a value gets into memory, before a group that reads it from there."""
        value = storage(self.graph, value)
        node = self.graph.producer(value)
        if isinstance(node.op, Leaf):
            return
        draft = None
        if node.name not in self.home:
            draft = self._companion(node, reader) or self._new(node.types[0].shape, node.phase)
            self.home[node.name] = draft.number
        if reader is not None:  # said first: what the node reads must not join the reader's group
            reader.sources.add(self.home[node.name])
        if draft is not None:
            self._join(draft, node)
        self.stored[value] = None

    def _companion(self, node: Node, reader: Draft | None) -> Draft | None:
        """A group of point nodes that goes over the same elements as a floating one, and that can
        be done before a group that reads it.
        """
        if role(node.op) is not Role.POINT:
            return None
        for draft in self._siblings(None, Value(node.name)):
            if walked(self.graph, draft) != node.types[0].shape:
                continue
            if reader is not None and self._any_reaches(reader.number, {draft.number}):
                continue
            if may_follow(draft, node) and self._joinable(draft, node):
                return draft
        return None
