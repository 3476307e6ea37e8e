"""A recurrence as a loop of the program: the kernels of one step, with arguments that walk.

The body is lowered once. Slices of sequences and results lie side by side, one a step; a state is
read from where the step before has put it as a result, if it is one, else it goes back and forth
between two places; all else is overwritten in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from .arena import aligned, overlay
from .graph import Graph, Node, Value
from .group import Group, storage
from .loops import ir
from .loops.ir import Buffer, Space
from .lower.binding import Lowered
from .ops.leaf import Leaf
from .ops.recurrence import Recurrence
from .passes.partition import partition
from .placed import Inner, Placed, Repeat, Where, copy_kernel
from .types import DType, TensorType

Lower = Callable[[Graph, Sequence[Group]], list[Placed]]


def lower_recurrence(graph: Graph, group: Group, lower: Lower) -> Repeat:
    """The loop of a group that is one recurrence.

    Arguments:
        graph: the graph.
        group: the recurrence.
        lower: gives the kernels of a graph's groups.
    """
    node = graph.node(group.nodes[0])
    assert isinstance(node.op, Recurrence)
    body = _named(node.op.body.graph, node)
    kernels = lower(body, partition(body, has_parts=False))
    return _Loop(graph, group, node, node.op, body, kernels).build()


def _named(body: Graph, node: Node) -> Graph:
    """The body, of which all comes from the recurrence's origins."""
    named = Graph(body.name, outputs=dict(body.outputs), data=dict(body.data))
    for inside in body.nodes():
        named.add_node(
            replace(inside, origins=node.origins, phase=node.phase), body.inputs_of(inside.name)
        )
    return named


@dataclass
class _Loop:
    """One recurrence.

    Attributes:
        arguments: values of the graph that it reads and writes.
        scratch: what it needs beside them.
        written: where computed values of the body go.
        copies: values of the body that go somewhere else, too.
    """

    graph: Graph
    group: Group
    node: Node
    op: Recurrence
    body: Graph
    kernels: list[Placed]
    scratch: list[Buffer] = field(default_factory=list)
    written: dict[Value, Where] = field(default_factory=dict)
    copies: list[tuple[Value, Where]] = field(default_factory=list)

    @cached_property
    def inputs(self) -> tuple[Value, ...]:
        return self.graph.inputs_of(self.node.name)

    @cached_property
    def outputs(self) -> tuple[Value, ...]:
        return self.graph.outputs_of(self.node.name)

    @cached_property
    def arguments(self) -> tuple[Value, ...]:
        return tuple(dict.fromkeys((*self.inputs, *self.group.outputs)))

    @cached_property
    def own(self) -> list[Value]:
        """What the body reads."""
        return [Value(name) for name in self.op.body.input_names]

    @cached_property
    def given(self) -> list[Value]:
        """What the body gives: next states, then results."""
        return list(self.body.outputs.values())

    def build(self) -> Repeat:
        """The loop."""
        self._place_results()
        states = [self._place_state(i) for i in range(self.op.states)]
        where = self._read(states) | self.written
        self._place_rest(where)
        inner = tuple(
            Inner(p, (*(where[storage(self.body, v)] for v in p.lowered.arguments), *own))
            for p, own in zip(self.kernels, self._scratch(), strict=True)
        )
        inner += tuple(
            self._copy(self.body.type_of(v), where[storage(self.body, v)], to)
            for v, to in self.copies
        )
        after = tuple(
            self._copy(self.graph.type_of(v), states[i].at(self.op.steps), self._argument(v))
            for i, v in enumerate(self.outputs[: self.op.states])
            if v in self.group.outputs
        )
        types = [self.graph.type_of(v) for v in self.arguments]
        names = [f"argument{i}" for i in range(len(types))]
        parameters = tuple(Buffer(n, t.shape, t.dtype) for n, t in zip(names, types, strict=True))
        kernel = ir.Kernel(self.group.name, parameters, (), tuple(self.scratch), "loop")
        lowered = Lowered(kernel, self.arguments)
        return Repeat(self.group, lowered, None, self.op.steps, inner, after)

    # -- where things are -------------------------------------------------------------------------

    def _argument(self, value: Value) -> Where:
        return Where(self.arguments.index(value))

    def _slices(self, value: Value, slice: TensorType) -> Where:
        """The slices of a sequence or a result, in the order of the steps."""
        size = slice.nbytes
        start, stride = ((self.op.steps - 1) * size, -size) if self.op.reverse else (0, size)
        return replace(self._argument(value), start=start, stride=stride)

    def _new(self, hint: str, nbytes: int) -> int:
        """The number of a new scratch buffer."""
        self.scratch.append(
            Buffer(f"{hint}{len(self.scratch)}", (nbytes,), DType.UINT8, Space.SCRATCH)
        )
        return len(self.arguments) + len(self.scratch) - 1

    def _put(self, value: Value, where: Where) -> None:
        """A value of the body goes there: it is computed there, or copied."""
        base = storage(self.body, value)
        if base in self.written or isinstance(self.body.producer(base).op, Leaf):
            self.copies.append((value, where))
        else:
            self.written[base] = where

    def _place_results(self) -> None:
        states = self.op.states
        for outer, value in zip(self.outputs[states:], self.given[states:], strict=True):
            if outer in self.group.outputs:
                self._put(value, self._slices(outer, self.body.type_of(value)))

    def _place_state(self, i: int) -> Where:
        """Where a state is read."""
        value = self.given[i]
        base = storage(self.body, value)
        initial = self._argument(self.inputs[i])
        if base == self.own[i]:
            return initial
        where = self.written.get(base)
        if where is None:
            size = aligned(self.body.type_of(value).nbytes)
            where = Where(self._new("state", 2 * size), 0, size, 2)
            self._put(value, where)
        first = initial.buffer
        if where.period:
            return Where(where.buffer, where.stride, -where.stride, where.period, first)
        return Where(where.buffer, where.start - where.stride, where.stride, 0, first)

    def _read(self, states: Sequence[Where]) -> dict[Value, Where]:
        """Where the body's inputs are."""
        own = self.op.split(self.own)
        outer = self.op.split(self.inputs)
        where = dict(zip(own[0], states, strict=True))
        for value, x in zip(own[1], outer[1], strict=True):
            where[value] = self._slices(x, self.body.type_of(value))
        for value, x in zip(own[2], outer[2], strict=True):
            where[value] = self._argument(x)
        return where

    # -- what is between the kernels of a step ----------------------------------------------------

    def _place_rest(self, where: dict[Value, Where]) -> None:
        """Places for values that do not outlive a step; they share what they can."""
        last: dict[Value, int] = {}
        for number, placed in enumerate(self.kernels):
            for value in placed.lowered.arguments:
                last[storage(self.body, value)] = number
        for value, _ in self.copies:
            last[storage(self.body, value)] = len(self.kernels)
        blocks: dict[Value, tuple[int, int, int]] = {}
        for number, placed in enumerate(self.kernels):
            assert placed.group is not None
            for value in placed.group.outputs:
                if value not in where:
                    nbytes = self.body.type_of(value).nbytes
                    blocks[value] = (nbytes, number, last.get(value, number))
        offsets, total = overlay(blocks.values())
        if blocks:
            buffer = self._new("between", total)
            for value, offset in zip(blocks, offsets, strict=True):
                where[value] = Where(buffer, offset)

    def _scratch(self) -> list[list[Where]]:
        """Scratch of the kernels, all in one place as they run one after the other."""
        needs = [[aligned(b.nbytes) for b in p.lowered.kernel.scratch] for p in self.kernels]
        if not any(needs):
            return [[] for _ in needs]
        buffer = self._new("scratch", max(map(sum, needs)))
        return [[Where(buffer, sum(sizes[:i])) for i in range(len(sizes))] for sizes in needs]

    def _copy(self, type: TensorType, source: Where, target: Where) -> Inner:
        kernel = copy_kernel("copy", type)
        placed = Placed(None, Lowered(kernel, ()))
        return Inner(placed, (source, target))
