"""Where every value lives, and in which order kernels run.

Values between kernels live in one arena. A value's bytes are taken from before the kernel that
writes it until after the last one that reads it; a kernel that reads an element only where it
writes it may write over its input. Offsets are given to the largest values first, each at the
lowest place where nothing alive at the same time is in the way (Pisarchyk and Lee, Efficient memory
management for deep neural net inference, 2020: greedy by size).

Inputs of a concatenation are written straight into it where they are one piece of it (`parts.py`).
An update of a state is written straight into the state where nothing reads the old contents later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..runtime.program import Copy, KernelCall, Program, Slot, SlotKind, Step
from .errors import CompileError
from .graph import Graph, Value
from .loops import ir
from .lower.binding import Lowered
from .ops.leaf import Constant, Input, Leaf, State
from .parts import Parts, find_parts
from .passes.partition import Group, storage
from .routine import Routine
from .types import TensorType

_ALIGN = 64
_SERIAL_WORK = 4096
# What concatenations without copies may cost: they are alive from their first part on.
_MORE_ARENA = 1.25


@dataclass(frozen=True)
class Placed:
    """A kernel of the plan.

    Arguments:
        group: the nodes it computes; None if it only copies.
        lowered: the kernel and its arguments.
        known: what is known of the kernel, where other groups have the same one.
    """

    group: Group | None
    lowered: Lowered
    known: Routine | None = None

    @cached_property
    def routine(self) -> Routine:
        """The kernel and what follows from it."""
        return self.known or Routine(self.lowered.kernel)

    @cached_property
    def shareable(self) -> frozenset[tuple[Value, Value]]:
        """Pairs (input, output) of the arguments that may be the same memory."""
        values = self.lowered.arguments
        return frozenset((values[a], values[b]) for a, b in self.routine.shareable)

    @property
    def name(self) -> str:
        """What the kernel is called in this place."""
        return self.group.name if self.group else self.lowered.kernel.name


@dataclass
class _Block:
    """Bytes of the arena, and the kernels between which they are taken.

    A block inside of another one begins at a byte of that one, and is alive as long.
    """

    name: str
    nbytes: int
    first: int
    last: int
    offset: int = 0
    inside: tuple[_Block, int] | None = None


@dataclass
class Planner:
    """Builds the program of a graph from its lowered groups."""

    graph: Graph
    kernels: list[Placed]
    blocks: dict[Value, _Block] = field(default_factory=dict)
    owners: dict[Value, Slot] = field(default_factory=dict)
    parts: Parts = field(default_factory=Parts)

    def run(self) -> Program:
        self._own_updates()
        self._own_outputs()
        self._add_copies()
        arena, scratch = self._arrange(Parts())
        parts = find_parts(self.graph, [p.group for p in self.kernels], self.owners)
        if parts.idle:
            arena, scratch = self._arrange_parts(parts, arena)
        busy = [i for i in range(len(self.kernels)) if i not in self.parts.idle]
        self.kernels = [self.kernels[i] for i in busy]
        return self._program([scratch[i] for i in busy], arena)

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

    # -- the arena --------------------------------------------------------------------------------

    def _arrange_parts(self, parts: Parts, without: int) -> tuple[int, list[list[_Block]]]:
        """The arena with as few copies as are not too dear in memory."""
        arena, scratch = self._arrange(parts)
        if arena > _MORE_ARENA * without:
            return self._arrange(Parts())
        return arena, scratch

    def _arrange(self, parts: Parts) -> tuple[int, list[list[_Block]]]:
        """Finds and places all blocks: the size of the arena, and the scratch of each kernel."""
        self.parts = parts
        self.blocks = {}
        self._find_blocks()
        scratch = self._scratch_blocks()
        blocks = {id(b): b for b in self.blocks.values()}.values()
        free = [b for b in blocks if b.inside is None]
        arena = place([*free, *(b for found in scratch for b in found)])
        for block in blocks:
            if block.inside is not None:
                outer, begin = block.inside
                block.offset = outer.offset + begin
        return arena, scratch

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
                    self._add_part(value, number, until)
                    continue
                block = self._overwritten(number, value, last)
                if block is None:
                    nbytes = self.graph.type_of(value).nbytes
                    block = _Block(str(value), nbytes, number, until)
                block.last = max(block.last, until)
                self.blocks[value] = block

    def _add_part(self, value: Value, number: int, until: int) -> None:
        """Makes a value's block, and that of all it is part of last as long as any of them."""
        outermost, begin = self.parts.place(value)
        nbytes = self.graph.type_of(outermost).nbytes
        outer = self.blocks.setdefault(outermost, _Block(str(outermost), nbytes, number, until))
        outer.last = max(outer.last, until)
        if value != outermost:
            nbytes = self.graph.type_of(value).nbytes
            self.blocks[value] = _Block(str(value), nbytes, number, until, 0, (outer, begin))

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
        slots: dict[Slot, int] = {}
        calls: list[KernelCall] = []
        steps: list[Step] = []
        barriers = _Barriers()
        for number, placed in enumerate(self.kernels):
            kernel = placed.lowered.kernel
            owned = [self._slot(v) for v in placed.lowered.arguments]
            owned += [_arena_slot(b) for b in scratch[number]]
            for slot in owned:
                slots.setdefault(slot, len(slots))
            calls.append(self._call(placed, tuple(slots[s] for s in owned)))
            where = dict(zip((b.name for b in kernel.buffers), owned, strict=True))
            for part in placed.routine.parts:
                phase = part.phase
                parallel = phase.parallel and phase.extent > 1 and part.work >= _SERIAL_WORK
                reads = {where[name] for name in part.reads if name in where}
                writes = {where[name] for name in part.writes if name in where}
                barrier = barriers.before(reads, writes, parallel)
                steps.append(Step(phase.symbol, phase.extent, parallel, barrier, number))
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
        )

    def _call(self, placed: Placed, slots: tuple[int, ...]) -> KernelCall:
        group, counted = placed.group, placed.routine.cost
        nodes = group.nodes if group else ()
        written = group.outputs if group else placed.lowered.arguments[1:]
        given = [v for v in placed.lowered.arguments if v not in written]
        return KernelCall(
            placed.name,
            nodes,
            group.phase.value if group else "update",
            placed.lowered.kernel.note,
            slots,
            counted.flops,
            counted.bytes_read + counted.bytes_written,
            tuple(dict.fromkeys(o.name for n in nodes for o in self.graph.node(n).origins)),
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


def plan(graph: Graph, groups: Sequence[Group], lowered: Sequence[Lowered]) -> Program:
    """The program of a graph.

    Arguments:
        graph: of primitives.
        groups: its kernels, in order.
        lowered: one for each group.
    """
    placed = [Placed(g, k) for g, k in zip(groups, lowered, strict=True)]
    return Planner(graph, placed).run()


def place(blocks: Iterable[_Block]) -> int:
    """Gives every block its offset; returns the size of the arena in bytes."""
    done: list[_Block] = []
    total = 0
    for block in sorted(blocks, key=lambda b: (-b.nbytes, b.first, b.name)):
        size = _aligned(block.nbytes)
        rivals = [b for b in done if b.first <= block.last and block.first <= b.last]
        offset = 0
        for other in sorted(rivals, key=lambda b: b.offset):
            if offset + size <= other.offset:
                break
            offset = max(offset, other.offset + _aligned(other.nbytes))
        block.offset = offset
        done.append(block)
        total = max(total, offset + size)
    return total


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGN) * _ALIGN


def _arena_slot(block: _Block) -> Slot:
    return Slot(SlotKind.ARENA, block.name, block.nbytes, block.offset)


def copy_kernel(name: str, type: TensorType) -> ir.Kernel:
    """A kernel that copies a value."""
    source = ir.Buffer("source", (type.size,), type.dtype)
    target = ir.Buffer("target", (type.size,), type.dtype)
    i = ir.Var("i")
    body = ir.Store(target, (i,), ir.Load(source, (i,)))
    loop = ir.For(i, type.size, (body,), ir.LoopKind.VECTOR, 32 // type.dtype.size)
    return ir.Kernel(name, (source, target), (loop,), note="copy")


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
