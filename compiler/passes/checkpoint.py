"""Recomputation: what the backward pass reads of the forward pass is computed again, not kept.

The forward pass is cut into segments. Of a segment only what later ones read stays in memory; when
the backward pass comes to it, the segment is computed once more from there (Chen, Xu, Zhang and
Guestrin, Training deep nets with sublinear memory cost, 2016). The same operations on the same
values give the same numbers, random ones too: these follow from a counter.

To be done after all passes that simplify: they would make one node of the two again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TypeAlias

from ..errors import CompileError, UsageError
from ..flops import graph_flops
from ..graph import Graph, Node, Phase, Value
from ..group import storage
from ..ops.leaf import Input, Leaf
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from .base import Pass
from .partition import partition

Wanted: TypeAlias = bool | int | str | Sequence[str]
"""What is asked for: True for the least memory, a number of segments, a number of bytes that the
plan must not exceed ("1.5 GB"), or names of modules that become segments."""

# A value this much smaller than the largest that is kept for the backward pass stays.
_SMALL = 64
_NUMBERS = (2, 3, 4, 6, 8, 12, 16, 24)
_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True)
class Checkpoint(Pass):
    """Computes segments of the forward pass again for the backward pass.

    Arguments:
        segments: their number, of about equal bytes that are kept for the backward pass, cut where
            least passes from one to the next. The last one is not computed again.
        modules: names of modules; each is a segment, and all of them are computed again.
        budget: bytes for all that a run needs; the number of segments is then the one that computes
            least again. Where nothing of the three is given, it is the one that needs least memory.
    """

    segments: int | None = None
    modules: tuple[str, ...] = ()
    budget: int | None = None

    @staticmethod
    def of(wanted: Wanted | None) -> Checkpoint | None:
        """The pass for what is asked for; None for None and False.

        Raises:
            UsageError: it makes no sense.
        """
        if wanted is None or wanted is False:
            return None
        if wanted is True:
            return Checkpoint()
        if isinstance(wanted, int):
            if wanted < 1:
                raise UsageError(f"checkpoint={wanted}: give a number of segments from 1")
            return Checkpoint(segments=wanted)
        if isinstance(wanted, str):
            return Checkpoint(budget=_bytes(wanted))
        if not all(isinstance(name, str) for name in wanted):
            raise UsageError(f"checkpoint={wanted!r}: name modules, or give a number of segments")
        return Checkpoint(modules=tuple(wanted))

    def apply(self, graph: Graph) -> Graph:
        """
        Raises:
            UsageError: a module that is not there.
            CompileError: nothing stays within the budget.
        """
        forward = _Forward(graph)
        if self.modules:
            return forward.again([forward.module(name) for name in self.modules])
        if self.segments is not None:
            return forward.again(forward.cut(self.segments))
        if self.budget is not None:
            return _within(forward, self.budget)
        return min(_candidates(forward), key=peak)


def peak(graph: Graph) -> int:
    """Bytes that a run of a graph of primitives needs: a lower bound of what is planned later."""
    states = sum(n.types[0].nbytes for n in graph.nodes() if isinstance(n.op, Leaf))
    results = {storage(graph, v) for v in (*graph.outputs.values(), *graph.updates.values())}
    groups = partition(graph)
    last: dict[Value, int] = {}
    for number, group in enumerate(groups):
        for value in (*group.inputs, *group.outputs):
            last[storage(graph, value)] = number
    live = most = 0
    ending: dict[int, int] = {}
    for number, group in enumerate(groups):
        for value in group.outputs:
            if value not in results:
                nbytes = graph.type_of(value).nbytes
                live += nbytes
                ending[last[value]] = ending.get(last[value], 0) + nbytes
        most = max(most, live)
        live -= ending.get(number, 0)
    outputs = sum(graph.type_of(v).nbytes for v in graph.outputs.values())
    return states + outputs + most


def _candidates(forward: _Forward) -> Iterator[Graph]:
    yield forward.graph
    for number in _NUMBERS:
        if number <= len(forward.nodes):
            yield forward.again(forward.cut(number))


def _within(forward: _Forward, budget: int) -> Graph:
    """The graph that computes least of those that need no more than so many bytes."""
    needs = [(peak(graph), graph_flops(graph), graph) for graph in _candidates(forward)]
    fitting = [(flops, need, graph) for need, flops, graph in needs if need <= budget]
    if not fitting:
        least = min(need for need, *_ in needs)
        raise CompileError(
            f"{forward.graph.name} needs {least / 1e6:.1f} MB at least, checkpoint allows "
            f"{budget / 1e6:.1f} MB; allow more, or make the batch smaller"
        )
    return min(fitting, key=lambda found: found[:2])[2]


def _bytes(text: str) -> int:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGKi]*B)\s*", text)
    if match is None or match[2] not in _UNITS:
        raise UsageError(f'checkpoint={text!r}: give bytes as "1.5 GB" or "200 MiB"')
    return int(float(match[1]) * _UNITS[match[2]])


Segment: TypeAlias = frozenset[str]


def compute_again(graph: Graph, segments: Sequence[Segment]) -> Graph:
    """The graph in which the backward pass computes these segments of the forward pass again."""
    return _Forward(graph).again(segments)


@dataclass(frozen=True)
class _Forward:
    """The forward pass of a graph, and what the backward pass reads of it."""

    graph: Graph
    nodes: list[Node] = field(init=False)

    def __post_init__(self) -> None:
        nodes = [n for n in self.graph.nodes() if self._is_forward(n)]
        object.__setattr__(self, "nodes", nodes)

    def _is_forward(self, node: Node) -> bool:
        return node.phase is Phase.FORWARD and not isinstance(node.op, Leaf)

    @cached_property
    def place(self) -> dict[str, int]:
        """Where each node is in the order."""
        return {node.name: i for i, node in enumerate(self.nodes)}

    # -- segments ---------------------------------------------------------------------------------

    def module(self, name: str) -> Segment:
        """The nodes of a module."""
        found = frozenset(
            node.name
            for node in self.nodes
            if any(o.name == name or o.name.startswith(f"{name}.") for o in node.origins)
        )
        if not found:
            raise UsageError(f"checkpoint: {self.graph.name} has no module {name!r}")
        return found

    def cut(self, number: int) -> list[Segment]:
        """All segments but the last."""
        kept = [self._kept_bytes(node) for node in self.nodes]
        crossing = self._crossing
        total, cuts, sums = sum(kept), [0], [0]
        for nbytes in kept:
            sums.append(sums[-1] + nbytes)
        for i in range(1, number):
            target, around = i * total / number, total / (2 * number)
            places = [
                p for p in range(cuts[-1] + 1, len(self.nodes)) if abs(sums[p] - target) <= around
            ]
            if places:
                cuts.append(min(places, key=lambda p: (crossing[p], abs(sums[p] - target))))
        return [frozenset(n.name for n in self.nodes[a:b]) for a, b in pairwise(cuts)]

    def _kept_bytes(self, node: Node) -> int:
        memory = self._memory_read_back
        values = self.graph.outputs_of(node.name)
        return sum(self.graph.type_of(v).nbytes for v in values if v in memory)

    @cached_property
    def _crossing(self) -> list[int]:
        """For each place between two nodes, the bytes that forward nodes behind it read across."""
        place = self.place
        last: dict[Value, int] = {}
        for i, node in enumerate(self.nodes):
            for value in self.graph.inputs_of(node.name):
                base = storage(self.graph, value)
                if base.node in place:
                    last[base] = i
        change = [0] * (len(self.nodes) + 1)
        for base, end in last.items():
            nbytes = self.graph.type_of(base).nbytes
            change[place[base.node] + 1] += nbytes
            change[end + 1] -= nbytes
        crossing, total = [], 0
        for step in change:
            total += step
            crossing.append(total)
        return crossing

    # -- what is computed again -------------------------------------------------------------------

    @cached_property
    def _read_back(self) -> frozenset[Value]:
        """Values of the forward pass that other phases read."""
        names = {node.name for node in self.nodes}
        return frozenset(
            value
            for node in self.graph.nodes()
            if node.name not in names
            for value in self.graph.inputs_of(node.name)
            if value.node in names
        )

    @cached_property
    def _memory_read_back(self) -> frozenset[Value]:
        """What these are in memory, seen through views."""
        return frozenset(storage(self.graph, v) for v in self._read_back)

    def again(self, segments: Sequence[Segment]) -> Graph:
        """The graph in which the backward pass computes the segments again."""
        home = {name: i for i, names in enumerate(segments) for name in names}
        kept = self._kept(home)
        lost = {v for v in self._read_back if v.node in home and storage(self.graph, v) not in kept}
        return _Repetition(self, frozenset(home), frozenset(kept), frozenset(lost)).graph()

    def _kept(self, home: Mapping[str, int]) -> set[Value]:
        """Values of segments that stay in memory: small ones, results, what goes across."""
        results = (*self.graph.outputs.values(), *self.graph.updates.values())
        kept = {storage(self.graph, v) for v in results}
        for node in self.nodes:
            for value in self.graph.inputs_of(node.name):
                base = storage(self.graph, value)
                if base.node in home and home[base.node] != home.get(node.name):
                    kept.add(base)
        sizes = {v: self.graph.type_of(v).nbytes for v in self._memory_read_back}
        most = max(sizes.values(), default=0)
        return kept | {v for v, nbytes in sizes.items() if nbytes * _SMALL <= most}


@dataclass
class _Repetition:
    """A graph whose other phases compute again what they read of the forward pass.

    Attributes:
        forward: of the graph as it was.
        segments: names of the nodes that may be computed again.
        kept: values of them that need not.
        lost: values that other phases read, and that are not kept.
        again: values of the old graph that have been computed again, in the new one.
    """

    forward: _Forward
    segments: frozenset[str]
    kept: frozenset[Value]
    lost: frozenset[Value]
    again: dict[Value, Value] = field(default_factory=dict)

    def graph(self) -> Graph:
        """The graph, without what nobody reads any more."""
        old = self.forward.graph
        rewriter = Rewriter(old, Graph(old.name))
        ahead = {node.name for node in self.forward.nodes}
        live = old.live()
        for node in old.nodes():
            reads = [v for v in old.inputs_of(node.name) if v in self.lost]
            if node.name in ahead or not reads:
                if node.name in live or isinstance(node.op, Input):
                    rewriter.copy(node)
            elif node.name in live:
                for twin in self._missing(reads):
                    self._repeat(rewriter, twin)
                rewriter.copy(node, self._on_what_is_there)
        return rewrite(rewriter.finish())

    def _missing(self, values: Sequence[Value]) -> list[Node]:
        """The nodes that are still to be computed again for some values, in order."""
        found: set[str] = set()
        stack = list(values)
        while stack:
            value = stack.pop()
            there = value in self.again or value in self.kept or value.node not in self.segments
            if not there and value.node not in found:
                found.add(value.node)
                stack.extend(self.forward.graph.inputs_of(value.node))
        return [self.forward.nodes[i] for i in sorted(map(self.forward.place.__getitem__, found))]

    def _repeat(self, rewriter: Rewriter, node: Node) -> None:
        name = rewriter.new.unique_name(f"again.{node.name}")
        twin = replace(node, name=name, phase=Phase.BACKWARD)
        results = rewriter.new.add_node(twin, self._inputs(rewriter, node))
        outputs = self.forward.graph.outputs_of(node.name)
        pairs = zip(outputs, results, strict=True)
        self.again |= {old: new for old, new in pairs if old not in self.kept}

    def _on_what_is_there(self, rewriter: Rewriter, node: Node) -> list[Tensor]:
        results = rewriter.new.add_node(node, self._inputs(rewriter, node))
        return [rewriter.new.tensor(value) for value in results]

    def _inputs(self, rewriter: Rewriter, node: Node) -> tuple[Value, ...]:
        values = self.forward.graph.inputs_of(node.name)
        return tuple(self.again.get(v, rewriter.values[v]) for v in values)
