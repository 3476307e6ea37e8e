"""Where every value lives, and in which order kernels run.

Values between kernels live in one arena. A value's bytes are taken from before the kernel that
writes it until after the last one that reads it; a kernel that reads an element only where it
writes it may write over its input. Offsets are given to the largest values first, each at the
lowest place where nothing alive at the same time is in the way (Pisarchyk and Lee, Efficient memory
management for deep neural net inference, 2020: greedy by size).

Inputs of a concatenation are written straight into it, and slices are read where they are
(`parts.py`).
An update of a state is written straight into the state where nothing reads the old contents later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..runtime.program import Copy, KernelCall, Loop, Program, Slot, SlotKind, Step, Walk
from .errors import CompileError
from .graph import Graph, Value
from .group import Group, storage
from .loops import ir
from .lower.binding import Lowered
from .ops.leaf import Constant, Input, Leaf, State
from .parts import Part, Parts, find_parts
from .placed import Inner, Placed, Repeat, copy_kernel
from .routine import Routine
from .types import TensorType

_ALIGN = 64
_SERIAL_WORK = 4096
# What concatenations without copies may cost: they are alive from their first part on.
_MORE_ARENA = 1.25


@dataclass
class _Block:
    """Bytes of the arena, and the kernels between which they are taken.

    A block inside of another one begins at a byte of that one, and is alive as long. It reaches
    from its first byte to its last, whatever lies in between.
    """

    name: str
    nbytes: int
    first: int
    last: int
    offset: int = 0
    inside: tuple[_Block, int] | None = None


@dataclass
class Planner:
    """Builds the program of a graph from its lowered groups.

    Attributes:
        graph: of primitives.
        kernels: its kernels, in order.
        parts: values that lie in others; the kernels know.
    """

    graph: Graph
    kernels: list[Placed]
    parts: Parts = field(default_factory=Parts)
    blocks: dict[Value, _Block] = field(default_factory=dict)
    owners: dict[Value, Slot] = field(default_factory=dict)

    def settle(self) -> None:
        """Finds out which memory every value is in, before any has a place."""
        self._own_updates()
        self._own_outputs()
        self._add_copies()
        self._find_blocks()

    def run(self) -> Program:
        """The program; `settle` comes first."""
        scratch = self._scratch_blocks()
        return self._program(scratch, self._arrange(scratch))

    def arena_bytes(self) -> int:
        """Bytes of the arena."""
        self._own_updates()
        self._own_outputs()
        self._find_blocks()
        return self._arrange(self._scratch_blocks())

    # -- who owns a value -------------------------------------------------------------------------

    def _own_updates(self) -> None:
        """Updates that may overwrite the state they replace."""
        for state, value in self.graph.updates.items():
            base = storage(self.graph, value)
            if isinstance(self.graph.producer(base).op, Leaf) or base in self.owners:
                continue
            if self._may_overwrite(Value(state), base):
                self.owners[base] = self._state_slot(state)

    def _may_overwrite(self, state: Value, value: Value) -> bool:
        """Whether nothing reads the old contents once `value` is written."""
        writer = self._writers[value]
        for number, given in self._readers.get(state, ()):
            if number > writer:
                return False
            if number == writer and (given, value) not in self.kernels[number].shareable:
                return False
        return state not in self._wanted

    @cached_property
    def _readers(self) -> dict[Value, list[tuple[int, Value]]]:
        """For each value in memory, the kernels that are given it, and as what view."""
        found: dict[Value, list[tuple[int, Value]]] = {}
        for number, placed in enumerate(self.kernels):
            for value in placed.lowered.arguments:
                found.setdefault(storage(self.graph, value), []).append((number, value))
        return found

    @cached_property
    def _wanted(self) -> frozenset[Value]:
        """What outputs and updates take from memory."""
        results = (*self.graph.outputs.values(), *self.graph.updates.values())
        return frozenset(storage(self.graph, v) for v in results)

    @cached_property
    def _writers(self) -> dict[Value, int]:
        """The kernel that computes each value that gets into memory."""
        groups = enumerate(placed.group for placed in self.kernels)
        return {v: number for number, group in groups if group for v in group.outputs}

    def _state_slot(self, name: str) -> Slot:
        return Slot(SlotKind.STATE, name, self.graph.node(name).types[0].nbytes)

    def _own_outputs(self) -> None:
        """Outputs that kernels write straight into the caller's arrays."""
        for name, value in self.graph.outputs.items():
            base = storage(self.graph, value)
            if not isinstance(self.graph.producer(base).op, Leaf) and base not in self.owners:
                nbytes = self.graph.type_of(base).nbytes
                self.owners[base] = Slot(SlotKind.OUTPUT, name, nbytes)

    def _add_copies(self) -> None:
        """Kernels that move updates into states that could not be overwritten."""
        bases = {state: storage(self.graph, v) for state, v in self.graph.updates.items()}
        replaced = {Value(state) for state, base in bases.items() if base != Value(state)}
        for result in (*self.graph.outputs.values(), *bases.values()):
            if storage(self.graph, result) in replaced:
                raise CompileError(f"{result} is wanted after {self.graph.name} has replaced it")
        for state, value in self.graph.updates.items():
            base = bases[state]
            if self.owners.get(base) == self._state_slot(state) or base == Value(state):
                continue
            kernel = copy_kernel(f"update_{state}", self.graph.type_of(value))
            self.kernels.append(Placed(None, Lowered(kernel, (value, Value(state)))))

    # -- what is known once all is settled --------------------------------------------------------

    def in_place(self, number: int, value: Value) -> bool:
        """Whether a kernel writes a result of its over something that was there before."""
        owner = self.owners.get(value)
        if owner is None:
            return self.blocks[value].first < number
        readers = self._readers.get(Value(owner.name), ())
        return owner.kind is SlotKind.STATE and any(n == number for n, _ in readers)

    def next_reader(self, number: int, value: Value) -> int | None:
        """The first kernel that reads what a kernel has written; None if none does in this run."""
        readers = self._readers.get(value, ())
        return min((n for n, _ in readers if n > number), default=None)

    # -- the arena --------------------------------------------------------------------------------

    def _arrange(self, scratch: list[list[_Block]]) -> int:
        """Places all blocks, and the scratch of each kernel; the size of the arena."""
        blocks = {id(b): b for b in self.blocks.values()}.values()
        free = [b for b in blocks if b.inside is None]
        arena = place([*free, *(b for found in scratch for b in found)])
        for block in blocks:
            if block.inside is not None:
                outer, begin = block.inside
                block.offset = outer.offset + begin
        return arena

    def _find_blocks(self) -> None:
        last = self._last_reads()
        for number, placed in enumerate(self.kernels):
            if placed.group is None:
                continue
            for value in placed.group.outputs:
                if value in self.owners:
                    continue
                until = max(last.get(value, number), number)
                if value in self.parts.members:
                    self._add_whole(value, number, last)
                    continue
                block = self._overwritten(number, value, last)
                if block is None:
                    nbytes = self.graph.type_of(value).nbytes
                    block = _Block(str(value), nbytes, number, until)
                block.last = max(block.last, until)
                self.blocks[value] = block
        for value, part in self.parts.places.items():
            self._add_part(value, part, last.get(value, 0))

    def _add_whole(self, value: Value, number: int, last: Mapping[Value, int]) -> None:
        """Makes the block of a value, or of what it is part of."""
        part = self.parts.places.get(value)
        whole = value if part is None else part.whole
        nbytes, until = self.graph.type_of(whole).nbytes, last.get(whole, number)
        block = self.blocks.setdefault(whole, _Block(str(whole), nbytes, number, until))
        block.last = max(block.last, number)

    def _add_part(self, value: Value, part: Part, until: int) -> None:
        """Makes the block of a part, which the whole has to outlast."""
        outer, type = self.blocks[part.whole], self.graph.type_of(value)
        outer.last = max(outer.last, until)
        pairs = zip(type.shape, part.strides, strict=True)
        span = (1 + sum((extent - 1) * stride for extent, stride in pairs)) * type.dtype.size
        inside = outer, part.begin * type.dtype.size
        self.blocks[value] = _Block(str(value), span, outer.first, until, inside=inside)

    def _last_reads(self) -> dict[Value, int]:
        last: dict[Value, int] = {}
        for number, placed in enumerate(self.kernels):
            for value in placed.lowered.arguments:
                last[storage(self.graph, value)] = number
        return last

    def _overwritten(self, number: int, value: Value, last: Mapping[Value, int]) -> _Block | None:
        """The block of an input that ends here and may be written over."""
        placed = self.kernels[number]
        arguments = placed.lowered.arguments
        for given, written in sorted(placed.shareable):
            base = storage(self.graph, given)
            block = self.blocks.get(base)
            if written != value or block is None or base in self.parts.members:
                continue
            if block.last != number or last[base] != number:
                continue
            same = [v for v in arguments if self.blocks.get(storage(self.graph, v)) is block]
            if same == [given]:
                return block
        return None

    def _scratch_blocks(self) -> list[list[_Block]]:
        return [
            [_Block(f"{p.name}.{b.name}", b.nbytes, i, i) for b in scratch]
            for i, p in enumerate(self.kernels)
            for scratch in [p.lowered.kernel.scratch]
        ]

    # -- the program ------------------------------------------------------------------------------

    def _program(self, scratch: list[list[_Block]], arena: int) -> Program:
        writer = _Writer()
        for number, placed in enumerate(self.kernels):
            owned = [self._slot(v) for v in placed.lowered.arguments]
            owned += [_arena_slot(b) for b in scratch[number]]
            if isinstance(placed, Repeat):
                self._repeat(writer, placed, owned)
            else:
                writer.call(self._call(placed), owned, placed.routine)
        slots, calls, steps, loops = writer.slots, writer.calls, writer.steps, writer.loops
        copies = tuple(self._copies(slots))
        return Program(
            self.graph.name,
            tuple((n.name, n.types[0]) for n in self.graph.leaves(Input)),
            tuple((name, self.graph.type_of(v)) for name, v in self.graph.outputs.items()),
            tuple((n.name, n.types[0]) for n in self.graph.leaves(State)),
            tuple(slots),
            tuple(calls),
            tuple(steps),
            copies,
            arena,
            tuple(loops),
        )

    def _repeat(self, writer: _Writer, placed: Repeat, owned: Sequence[Slot]) -> None:
        """A loop, and what follows on it."""
        for count, inner in ((placed.count, placed.inner), (1, placed.after)):
            calls = [(self._inner_call(placed, i, count), i) for i in inner]
            if calls:
                writer.loop(count, calls, owned)

    def _inner_call(self, outer: Repeat, inner: Inner, count: int) -> KernelCall:
        """A kernel of a loop, as it is told to people: what all iterations do together."""
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
            self._origins(group.nodes),
            tuple(t for name, t in types.items() if name not in writes),
            tuple(t for name, t in types.items() if name in writes),
        )

    def _origins(self, nodes: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(o.name for n in nodes for o in self.graph.node(n).origins))

    def _call(self, placed: Placed) -> KernelCall:
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
            self._origins(nodes),
            tuple(self.graph.type_of(v) for v in given),
            tuple(self.graph.type_of(v) for v in written),
        )

    def _slot(self, value: Value) -> Slot:
        """The memory of a value."""
        base = storage(self.graph, value)
        if base in self.owners:
            return self.owners[base]
        node = self.graph.producer(base)
        nbytes = node.types[base.port].nbytes
        if isinstance(node.op, Input):
            return Slot(SlotKind.INPUT, node.name, nbytes)
        if isinstance(node.op, State):
            return Slot(SlotKind.STATE, node.name, nbytes)
        if isinstance(node.op, Constant):
            return Slot(SlotKind.CONSTANT, node.name, nbytes)
        return _arena_slot(self.blocks[base])

    def _copies(self, slots: dict[Slot, int]) -> Iterable[Copy]:
        """Outputs that are inputs, states, or other outputs under another name."""
        for name, value in self.graph.outputs.items():
            slot = self._slot(value)
            if slot.kind is not SlotKind.OUTPUT or slot.name != name:
                slots.setdefault(slot, len(slots))
                yield Copy(slots[slot], name)


def affordable_parts(
    graph: Graph, groups: Sequence[Group], takes_gaps: Callable[[Group], bool]
) -> Parts:
    """The concatenations and slices without copies, or none where memory would grow by too much.

    What memory there will be is estimated, as the kernels are not there yet.
    """
    parts = find_parts(graph, groups, takes_gaps)
    if not parts.idle:
        return parts
    kernels = []
    for group in groups:
        kernel = ir.Kernel(group.name, (), ())
        kernels.append(Placed(group, Lowered(kernel, (*group.inputs, *group.outputs))))
    busy = [kernel for i, kernel in enumerate(kernels) if i not in parts.idle]
    without = Planner(graph, kernels).arena_bytes()
    affordable = Planner(graph, busy, parts).arena_bytes() <= _MORE_ARENA * without
    return parts if affordable else Parts()


def plan(graph: Graph, groups: Sequence[Group], lowered: Sequence[Lowered]) -> Program:
    """The program of a graph.

    Arguments:
        graph: of primitives.
        groups: its kernels, in order.
        lowered: one for each group.
    """
    planner = Planner(graph, [Placed(g, k) for g, k in zip(groups, lowered, strict=True)])
    planner.settle()
    return planner.run()


def place(blocks: Iterable[_Block]) -> int:
    """Gives every block its offset; returns the size of the arena in bytes."""
    done: list[_Block] = []
    total = 0
    for block in sorted(blocks, key=lambda b: (-b.nbytes, b.first, b.name)):
        size = aligned(block.nbytes)
        rivals = [b for b in done if b.first <= block.last and block.first <= b.last]
        offset = 0
        for other in sorted(rivals, key=lambda b: b.offset):
            if offset + size <= other.offset:
                break
            offset = max(offset, other.offset + aligned(other.nbytes))
        block.offset = offset
        done.append(block)
        total = max(total, offset + size)
    return total


def overlay(blocks: Iterable[tuple[int, int, int]]) -> tuple[list[int], int]:
    """Offsets of blocks (bytes, first kernel, last kernel) in one piece of memory, and its size."""
    placed = [_Block(str(i), *block) for i, block in enumerate(blocks)]
    total = place(placed)
    return [block.offset for block in placed], total


def aligned(nbytes: int) -> int:
    """Bytes that a value takes of the arena."""
    return -(-nbytes // _ALIGN) * _ALIGN


def _arena_slot(block: _Block) -> Slot:
    return Slot(SlotKind.ARENA, block.name, block.nbytes, block.offset)


@dataclass
class _Writer:
    """A program being written."""

    slots: dict[Slot, int] = field(default_factory=dict)
    calls: list[KernelCall] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)
    barriers: _Barriers = field(default_factory=lambda: _Barriers())

    def call(
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
        numbers = tuple(self.slot(slot) for slot in owned)
        self.calls.append(replace(call, slots=numbers))
        where: dict[str, set[Slot]] = {}
        for i, (buffer, slot) in enumerate(zip(routine.kernel.buffers, owned, strict=True)):
            where[buffer.name] = {slot, also[i]} if also and i in also else {slot}
        for part in routine.parts:
            phase = part.phase
            parallel = phase.parallel and phase.extent > 1 and part.work >= _SERIAL_WORK
            reads = set[Slot]().union(*(where.get(name, ()) for name in part.reads))
            writes = set[Slot]().union(*(where.get(name, ()) for name in part.writes))
            barrier = self.barriers.before(reads, writes, parallel)
            number = len(self.calls) - 1
            self.steps.append(Step(phase.symbol, phase.extent, parallel, barrier, number))

    def slot(self, slot: Slot) -> int:
        """The number of a slot."""
        return self.slots.setdefault(slot, len(self.slots))

    def loop(
        self, count: int, inner: Sequence[tuple[KernelCall, Inner]], owned: Sequence[Slot]
    ) -> None:
        """Kernels that are run `count` times.

        Threads wait in every iteration where they have to wait in any: the first one has other
        things before it than those that follow.
        """
        begin = len(self.steps)
        walks: list[Walk] = []
        for call, item in inner:
            self._in_loop(call, item, owned)
            for i, w in enumerate(item.where):
                if w.start or w.stride or w.first is not None:
                    first = None if w.first is None else self.slot(owned[w.first])
                    number = len(self.calls) - 1
                    walks.append(Walk(number, i, w.start, w.stride, w.period, first))
        steps = self.steps[begin:]
        for _ in range(min(count - 1, 2)):
            again = _Writer(barriers=self.barriers)
            for call, item in inner:
                again._in_loop(call, item, owned)
            pairs = zip(steps, again.steps, strict=True)
            steps = [replace(a, barrier=a.barrier or b.barrier) for a, b in pairs]
        self.steps[begin:] = steps
        self.loops.append(Loop(begin, len(self.steps), count, tuple(walks)))

    def _in_loop(self, call: KernelCall, item: Inner, owned: Sequence[Slot]) -> None:
        slots = [owned[w.buffer] for w in item.where]
        also = {i: owned[w.first] for i, w in enumerate(item.where) if w.first is not None}
        self.call(call, slots, item.placed.routine, also)


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
