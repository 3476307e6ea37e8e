"""Long recurrences become several shorter ones, one after the other.

Their sequences are cut, too, and so is what is computed of these slices alone; what their gradients
add up over all steps is added part by part. So a part, forwards or backwards, is done with before
the next one begins, and `checkpoint_steps.py` can have the parts computed again one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from operator import add

from ..graph import Graph, Node, Phase, Value
from ..ops.base import apply
from ..ops.leaf import Leaf
from ..ops.movement import Concat
from ..ops.recurrence import Recurrence
from ..rewrite import Rewriter, rewrite
from ..splits import Split, resized, splits
from ..tensor import Tensor
from .base import Pass

Cuts = tuple[int, ...]


@dataclass(frozen=True)
class CutRecurrences(Pass):
    """Cuts recurrences in parts of so many steps at most, where there is a gradient of one.

    Part `t` of `lstm`, which begins with step t, is `lstm.steps{t}`.

    Arguments:
        every: steps of a part.
    """

    every: int

    @property
    def name(self) -> str:
        return "cut-recurrences"

    def apply(self, graph: Graph) -> Graph:
        live = rewrite(graph)
        is_long = any(
            isinstance(n.op, Recurrence) and n.op.steps > self.every and n.phase is Phase.BACKWARD
            for n in live.nodes()
        )
        return _Cutting(live, self.every).graph() if is_long else graph


def cut(steps: int, every: int) -> Cuts:
    """Where the parts begin and end; they are about equally long."""
    count = -(-steps // every)
    return tuple(i * steps // count for i in range(count + 1))


@dataclass
class _Parts:
    """A value in parts.

    Attributes:
        axis: along which they lie.
        cuts: the steps between which they are; the axis has a multiple of all steps.
        begins: for each part the first stage in which it can be computed.
        make: computes a part.
        found: those that are computed.
    """

    axis: int
    cuts: Cuts
    begins: list[int]
    make: Callable[[int], Tensor] | None = None
    found: dict[int, Tensor] = field(default_factory=dict)

    def __getitem__(self, part: int) -> Tensor:
        if part not in self.found:
            assert self.make is not None
            self.found[part] = self.make(part)
        return self.found[part]


@dataclass
class _Cutting:
    """One graph, being cut.

    Attributes:
        parts: values of the old graph that are known in parts.
        stages: when nodes of the new graph are computed: each part of a recurrence begins a stage.
        _last, _backward: the last stage that has begun, and the first one of the backward pass.
        _stage, _settled: that of nodes that are built, and the number of those that have theirs.
    """

    old: Graph
    every: int
    parts: dict[Value, _Parts] = field(default_factory=dict)
    stages: dict[str, int] = field(default_factory=dict)
    _last: int = 0
    _backward: float = math.inf
    _stage: int = 0
    _settled: int = 0

    def __post_init__(self) -> None:
        self.rewriter = Rewriter(self.old, Graph(self.old.name))
        self.new = self.rewriter.new

    def graph(self) -> Graph:
        """The new graph, in the order of the stages."""
        for node in self.old.nodes():
            if isinstance(node.op, Recurrence) and node.op.steps > self.every:
                self._cut(node, node.op)
            elif (found := self._split(node)) is not None:
                self._compute(node, *found)
            else:
                with self._at(0):
                    for value in self.old.inputs_of(node.name):
                        self._whole(value)
                    self.rewriter.copy(node)
        with self._at(0):
            for value in (*self.old.outputs.values(), *self.old.updates.values()):
                self._whole(value)
        return _ordered(rewrite(self.rewriter.finish()), self.stages)

    # -- recurrences ------------------------------------------------------------------------------

    def _cut(self, node: Node, op: Recurrence) -> None:
        cuts = cut(op.steps, self.every)
        given = op.split(self.old.inputs_of(node.name))
        with self._at(0):
            states, invariants = ([self._whole(v) for v in given[i]] for i in (0, 2))
        count = len(cuts) - 1
        results = [_Parts(0, cuts, [0] * count) for _ in op.results]
        if node.phase is Phase.BACKWARD:
            self._backward = min(self._backward, self._last + 1)
        for i in reversed(range(count)) if op.reverse else range(count):
            self._last += 1
            part = replace(op, steps=cuts[i + 1] - cuts[i])
            with self._at(self._last), self._as(node):
                slices = [self._part(v, 0, cuts, i) for v in given[1]]
                inputs = (*states, *slices, *invariants)
                found = self.new.apply(part, *inputs, name=f"steps{cuts[i]}")
            states = list(found[: op.states])
            for result, tensor in zip(results, found[op.states :], strict=True):
                result.found[i], result.begins[i] = tensor, self._last
        outputs = self.old.outputs_of(node.name)
        self.rewriter.values |= {v: t.value for v, t in zip(outputs, states, strict=False)}
        self.parts |= dict(zip(outputs[op.states :], results, strict=True))

    @cached_property
    def _wanted(self) -> Mapping[Value, tuple[int, Cuts]]:
        """Values of the forward pass that are read in parts alone: by what axis, and which."""
        results = {*self.old.outputs.values(), *self.old.updates.values()}
        asked: dict[Value, list[tuple[int, Cuts] | None]] = {}
        wanted: dict[Value, tuple[int, Cuts]] = {}
        for node in reversed(list(self.old.nodes())):
            inputs = self.old.inputs_of(node.name)
            axes: Sequence[int | None] = (None,) * len(inputs)
            cuts: Cuts = ()
            if isinstance(node.op, Recurrence) and node.op.steps > self.every:
                cuts = cut(node.op.steps, self.every)
                states, sequences, rest = node.op.split(inputs)
                axes = (*(None for _ in states), *(0 for _ in sequences), *(None for _ in rest))
            elif not isinstance(node.op, Leaf) and len(node.types) == 1:
                (value,) = self.old.outputs_of(node.name)
                askers = set(asked.get(value, ()))
                if node.phase is Phase.FORWARD and len(askers) == 1 and value not in results:
                    asker = askers.pop()
                    split = asker and self._giving(node, asker[0])
                    if asker and split and self._fits(node, split, asker[1]):
                        wanted[value] = asker
                        axes, cuts = split.inputs, asker[1]
            for value, axis in zip(inputs, axes, strict=True):
                asked.setdefault(value, []).append(None if axis is None else (axis, cuts))
        return wanted

    # -- what is computed of parts ----------------------------------------------------------------

    def _split(self, node: Node) -> tuple[Split, Cuts] | None:
        """How a node is computed in parts, if it is to be."""
        if isinstance(node.op, Leaf) or len(node.types) != 1:
            return None
        (value,) = self.old.outputs_of(node.name)
        if value in self._wanted:
            axis, cuts = self._wanted[value]
            split = self._giving(node, axis)
            return (split, cuts) if split else None
        if node.phase is not Phase.BACKWARD:
            return None
        for i, x in enumerate(self.old.inputs_of(node.name)):
            parts = self.parts.get(x)
            if parts is not None:
                split = next((s for s in self._ways(node) if s.inputs[i] == parts.axis), None)
                if split and self._fits(node, split, parts.cuts):
                    return split, parts.cuts
        return None

    def _giving(self, node: Node, axis: int) -> Split | None:
        """How a node is computed so that its parts lie along an axis."""
        return next((s for s in self._ways(node) if s.output == axis), None)

    def _ways(self, node: Node) -> Iterator[Split]:
        types = [self.old.type_of(v) for v in self.old.inputs_of(node.name)]
        return splits(node.op, types, node.types[0])

    def _fits(self, node: Node, split: Split, cuts: Cuts) -> bool:
        """Whether all axes that are cut have a multiple of all steps."""
        axes = list(zip(self.old.inputs_of(node.name), split.inputs, strict=True))
        axes.append((Value(node.name), split.output))
        extents = [self.old.type_of(v).shape[a] for v, a in axes if a is not None]
        return all(extent % cuts[-1] == 0 for extent in extents)

    def _compute(self, node: Node, split: Split, cuts: Cuts) -> None:
        """A node in parts.

        What follows on a part of the backward pass is computed at once, as that part is done with
        then; all else when it is asked for.
        """
        self.new._reserved.discard(node.name)
        inputs = list(zip(self.old.inputs_of(node.name), split.inputs, strict=True))
        with self._at(0):
            whole = {v: self._whole(v) for v, axis in inputs if axis is None}

        def make(i: int) -> Tensor:
            with self._as(node):
                read = [
                    whole[v] if axis is None else self._part(v, axis, cuts, i) for v, axis in inputs
                ]
                op = node.op
                if split.output is not None:
                    extent = node.types[0].shape[split.output] // cuts[-1]
                    op = resized(op, split.output, extent * (cuts[i + 1] - cuts[i]))
                return apply(op, *read)

        known = [self.parts[v] for v, _ in inputs if v in self.parts]
        stages = zip(*(p.begins for p in known if p.cuts == cuts), strict=True)
        begins = [max(found) for found in stages] or [0] * (len(cuts) - 1)
        terms = _Parts(split.output or 0, cuts, begins, make)
        if split.output is None or min(begins) >= self._backward:
            for i in sorted(range(len(begins)), key=begins.__getitem__):
                with self._at(begins[i]):
                    terms[i]
        if split.output is None:
            with self._at(0), self._as(node):
                self.rewriter.values[Value(node.name)] = reduce(add, terms.found.values()).value
        else:
            self.parts[Value(node.name)] = terms

    def _part(self, value: Value, axis: int, cuts: Cuts, i: int) -> Tensor:
        """A part of a value of the old graph."""
        parts = self.parts.get(value)
        if parts is not None and (parts.axis, parts.cuts) == (axis, cuts):
            return parts[i]
        x = self._whole(value)
        each = x.shape[axis] // cuts[-1]
        return x.slice_axis(axis, each * cuts[i], each * (cuts[i + 1] - cuts[i]))

    def _whole(self, value: Value) -> Tensor:
        """All of a value of the old graph."""
        if value not in self.rewriter.values:
            parts = self.parts[value]
            with self._as(self.old.producer(value)):
                found = [parts[i] for i in range(len(parts.cuts) - 1)]
                joined = apply(Concat(parts.axis), *found) if len(found) > 1 else found[0]
            self.rewriter.values[value] = joined.value
        return Tensor(self.new, self.rewriter.values[value])

    # -- names and order --------------------------------------------------------------------------

    @contextmanager
    def _as(self, node: Node) -> Iterator[None]:
        """What is built stands for a node of the old graph."""
        with self.new.scope(prefix=node.name, origins=node.origins, phase=node.phase):
            yield

    @contextmanager
    def _at(self, stage: int) -> Iterator[None]:
        """What is built is computed in this stage, or when all that it reads is there."""
        self._settle()
        self._stage, before = stage, self._stage
        yield
        self._settle()
        self._stage = before

    def _settle(self) -> None:
        """Gives new nodes their stages."""
        for node in self.new.newest(len(self.new) - self._settled):
            reads = (self.stages[v.node] for v in self.new.inputs_of(node.name))
            self.stages[node.name] = max((self._stage, *reads))
        self._settled = len(self.new)


def _ordered(graph: Graph, stages: Mapping[str, int]) -> Graph:
    """The same graph with its nodes in the order of their stages."""
    result = Graph(graph.name, outputs=dict(graph.outputs), updates=dict(graph.updates))
    for node in sorted(graph.nodes(), key=lambda n: stages[n.name]):
        result.add_node(node, graph.inputs_of(node.name))
        if node.name in graph.data:
            result.data[node.name] = graph.data[node.name]
    return result
