"""The program of a plan: what kernels are given, in which steps, and where threads wait."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..runtime.program import Copy, KernelCall, Loop, Program, Slot, SlotKind, Step, Walk
from .graph import Graph
from .ops.leaf import Input, State
from .placed import Inner, Placed, Repeat
from .routine import Routine
from .types import TensorType

# Phases that compute less are left to one thread.
_SERIAL_WORK = 4096


@dataclass
class ProgramWriter:
    """A program being written, kernel after kernel.

    Attributes:
        graph: of primitives, in whose names people are told of kernels.
        slots: all memory so far, with its numbers.
    """

    graph: Graph
    slots: dict[Slot, int] = field(default_factory=dict)
    _calls: list[KernelCall] = field(default_factory=list)
    _steps: list[Step] = field(default_factory=list)
    _loops: list[Loop] = field(default_factory=list)
    _barriers: _Barriers = field(default_factory=lambda: _Barriers())

    def slot(self, slot: Slot) -> int:
        """The number of a slot."""
        return self.slots.setdefault(slot, len(self.slots))

    def add(self, placed: Placed, owned: Sequence[Slot]) -> None:
        """A kernel, or a loop of them, with the memory of its arguments and of its scratch."""
        if not isinstance(placed, Repeat):
            self._call(_described(self.graph, placed), owned, placed.routine)
            return
        for count, inner in ((placed.count, placed.inner), (1, placed.after)):
            if inner:
                calls = [_described_inner(self.graph, placed, i, count) for i in inner]
                self._loop(count, list(zip(calls, inner, strict=True)), owned)

    def program(self, copies: Iterable[Copy], arena_bytes: int) -> Program:
        """What has been written.

        Arguments:
            copies: results that no kernel writes where they belong.
            arena_bytes: size of the memory for what is in between.
        """
        outputs = self.graph.outputs.items()
        return Program(
            self.graph.name,
            tuple((n.name, n.types[0]) for n in self.graph.leaves(Input)),
            tuple((name, self.graph.type_of(value)) for name, value in outputs),
            tuple((n.name, n.types[0]) for n in self.graph.leaves(State)),
            tuple(self.slots),
            tuple(self._calls),
            tuple(self._steps),
            tuple(copies),
            arena_bytes,
            tuple(self._loops),
        )

    def _call(
        self,
        call: KernelCall,
        owned: Sequence[Slot],
        routine: Routine,
        also: Mapping[int, Slot] | None = None,
    ) -> None:
        """A kernel and its phases.

        Arguments:
            call: the kernel, without its slots.
            owned: its slots.
            routine: what is known of it.
            also: for arguments that are elsewhere at first, where that is.
        """
        self._calls.append(replace(call, slots=tuple(self.slot(slot) for slot in owned)))
        where: dict[str, set[Slot]] = {}
        for i, (buffer, slot) in enumerate(zip(routine.kernel.buffers, owned, strict=True)):
            where[buffer.name] = {slot, also[i]} if also and i in also else {slot}
        for part in routine.parts:
            phase = part.phase
            parallel = phase.parallel and phase.extent > 1 and part.work >= _SERIAL_WORK
            reads = set[Slot]().union(*(where.get(name, ()) for name in part.reads))
            writes = set[Slot]().union(*(where.get(name, ()) for name in part.writes))
            barrier = self._barriers.before(reads, writes, parallel)
            number = len(self._calls) - 1
            self._steps.append(Step(phase.symbol, phase.extent, parallel, barrier, number))

    def _loop(
        self, count: int, inner: Sequence[tuple[KernelCall, Inner]], owned: Sequence[Slot]
    ) -> None:
        """Kernels that are run `count` times.

        Threads wait in every iteration where they have to wait in any: the first one has other
        things before it than those that follow.
        """
        begin = len(self._steps)
        walks: list[Walk] = []
        for call, item in inner:
            self._in_loop(call, item, owned)
            for i, w in enumerate(item.where):
                if w.start or w.stride or w.first is not None:
                    first = None if w.first is None else self.slot(owned[w.first])
                    number = len(self._calls) - 1
                    walks.append(Walk(number, i, w.start, w.stride, w.period, first))
        steps = self._steps[begin:]
        for _ in range(min(count - 1, 2)):
            again = ProgramWriter(self.graph, _barriers=self._barriers)
            for call, item in inner:
                again._in_loop(call, item, owned)
            pairs = zip(steps, again._steps, strict=True)
            steps = [replace(a, barrier=a.barrier or b.barrier) for a, b in pairs]
        self._steps[begin:] = steps
        self._loops.append(Loop(begin, len(self._steps), count, tuple(walks)))

    def _in_loop(self, call: KernelCall, item: Inner, owned: Sequence[Slot]) -> None:
        slots = [owned[w.buffer] for w in item.where]
        also = {i: owned[w.first] for i, w in enumerate(item.where) if w.first is not None}
        self._call(call, slots, item.placed.routine, also)


def _described(graph: Graph, placed: Placed) -> KernelCall:
    """A kernel as people are told of it, without its slots."""
    group, counted = placed.group, placed.routine.cost
    nodes = group.nodes if group else ()
    written = group.outputs if group else placed.lowered.arguments[1:]
    given = [v for v in placed.lowered.arguments if v not in written]
    return KernelCall(
        placed.name,
        nodes,
        group.phase.value if group else "update",
        placed.lowered.kernel.note,
        (),
        counted.flops,
        counted.bytes_read + counted.bytes_written,
        _origins(graph, nodes),
        tuple(graph.type_of(v) for v in given),
        tuple(graph.type_of(v) for v in written),
    )


def _described_inner(graph: Graph, outer: Repeat, inner: Inner, count: int) -> KernelCall:
    """A kernel of a loop as people are told of it: what all iterations do together."""
    placed, group = inner.placed, outer.group
    assert group is not None
    counted, kernel = placed.routine.cost, placed.routine.kernel
    writes = frozenset[str]().union(*(part.writes for part in placed.routine.parts))
    types = {b.name: TensorType(b.shape, b.dtype) for b in kernel.parameters}
    return KernelCall(
        f"{outer.name}.{placed.name}",
        group.nodes,
        group.phase.value,
        f"{count} times {kernel.note}",
        (),
        count * counted.flops,
        count * (counted.bytes_read + counted.bytes_written),
        _origins(graph, group.nodes),
        tuple(t for name, t in types.items() if name not in writes),
        tuple(t for name, t in types.items() if name in writes),
    )


def _origins(graph: Graph, nodes: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(o.name for n in nodes for o in graph.node(n).origins))


@dataclass
class _Barriers:
    """What has been touched since threads last waited for each other."""

    reads: list[tuple[Slot, bool]] = field(default_factory=list)
    writes: list[tuple[Slot, bool]] = field(default_factory=list)

    def before(self, reads: set[Slot], writes: set[Slot], parallel: bool) -> bool:
        """Whether a step must wait. Steps that thread 0 runs alone are in order by themselves."""
        hazards = [(a, b) for a in reads | writes for b in self.writes]
        hazards += [(a, b) for a in writes for b in self.reads]
        wait = any(_overlap(a, b) and (parallel or other) for a, (b, other) in hazards)
        if wait:
            self.reads.clear()
            self.writes.clear()
        self.reads += [(slot, parallel) for slot in reads]
        self.writes += [(slot, parallel) for slot in writes]
        return wait


def _overlap(a: Slot, b: Slot) -> bool:
    if a.kind is not b.kind:
        return False
    if a.kind is not SlotKind.ARENA:
        return a.name == b.name
    return a.offset < b.offset + b.nbytes and b.offset < a.offset + a.nbytes
