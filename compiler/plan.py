"""Where every value lives.

Values between kernels live in one arena (`arena.py`). A value's bytes are taken from before the
kernel that writes it until after the last one that reads it; a kernel that reads an element only
where it writes it may write over its input. Inputs of a concatenation are written straight into it,
and slices are read where they are (`parts.py`). An update of a state is written straight into the
state where nothing reads the old contents later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..runtime.program import Copy, Program, Slot, SlotKind
from .arena import Block, place
from .errors import CompileError
from .graph import Graph, Value
from .group import Group, storage
from .loops import ir
from .lower.binding import Lowered
from .ops.leaf import Constant, Input, Leaf, State
from .parts import Part, Parts, find_parts
from .placed import Placed, copy_kernel
from .program_writer import ProgramWriter

# What concatenations without copies may cost: they are alive from their first part on.
_MORE_ARENA = 1.25


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
    blocks: dict[Value, Block] = field(default_factory=dict)
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

    def _arrange(self, scratch: list[list[Block]]) -> int:
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
                    block = Block(str(value), nbytes, number, until)
                block.last = max(block.last, until)
                self.blocks[value] = block
        for value, part in self.parts.places.items():
            self._add_part(value, part, last.get(value, 0))

    def _add_whole(self, value: Value, number: int, last: Mapping[Value, int]) -> None:
        """Makes the block of a value, or of what it is part of."""
        part = self.parts.places.get(value)
        whole = value if part is None else part.whole
        nbytes, until = self.graph.type_of(whole).nbytes, last.get(whole, number)
        block = self.blocks.setdefault(whole, Block(str(whole), nbytes, number, until))
        block.last = max(block.last, number)

    def _add_part(self, value: Value, part: Part, until: int) -> None:
        """Finds where a part is: in an input, or in a block that has to outlast it."""
        type = self.graph.type_of(value)
        pairs = zip(type.shape, part.strides, strict=True)
        span = (1 + sum((extent - 1) * stride for extent, stride in pairs)) * type.dtype.size
        begin = part.begin * type.dtype.size
        if isinstance(self.graph.producer(part.whole).op, Input):
            self.owners[value] = Slot(SlotKind.INPUT, part.whole.node, span, begin)
            return
        outer = self.blocks[part.whole]
        outer.last = max(outer.last, until)
        self.blocks[value] = Block(str(value), span, outer.first, until, inside=(outer, begin))

    def _last_reads(self) -> dict[Value, int]:
        last: dict[Value, int] = {}
        for number, placed in enumerate(self.kernels):
            for value in placed.lowered.arguments:
                last[storage(self.graph, value)] = number
        return last

    def _overwritten(self, number: int, value: Value, last: Mapping[Value, int]) -> Block | None:
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

    def _scratch_blocks(self) -> list[list[Block]]:
        return [
            [Block(f"{p.name}.{b.name}", b.nbytes, i, i) for b in scratch]
            for i, p in enumerate(self.kernels)
            for scratch in [p.lowered.kernel.scratch]
        ]

    # -- the program ------------------------------------------------------------------------------

    def _program(self, scratch: list[list[Block]], arena: int) -> Program:
        writer = ProgramWriter(self.graph)
        for placed, blocks in zip(self.kernels, scratch, strict=True):
            owned = [self._slot(v) for v in placed.lowered.arguments]
            writer.add(placed, owned + [_arena_slot(b) for b in blocks])
        return writer.program(tuple(self._copies(writer)), arena)

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

    def _copies(self, writer: ProgramWriter) -> Iterable[Copy]:
        """Outputs that are inputs, states, or other outputs under another name."""
        for name, value in self.graph.outputs.items():
            slot = self._slot(value)
            if slot.kind is not SlotKind.OUTPUT or slot.name != name:
                yield Copy(writer.slot(slot), name)


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


def _arena_slot(block: Block) -> Slot:
    return Slot(SlotKind.ARENA, block.name, block.nbytes, block.offset)
