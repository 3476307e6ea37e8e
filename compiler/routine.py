"""A kernel, and what follows from it alone: asked for once, however many groups it serves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .llvm.phases import Phase, PhaseBody, distinct, phases_of, split, symbol_of
from .loops import ir
from .loops.access import Accesses, collect
from .loops.cost import Cost, cost
from .loops.sharing import shareable


@dataclass(frozen=True)
class Part:
    """A phase of a kernel.

    Arguments:
        phase: its function.
        work: roughly the number of instructions of all iterations.
        reads: names of the buffers that it reads.
        writes: names of the buffers that it writes.
    """

    phase: Phase
    work: int
    reads: frozenset[str]
    writes: frozenset[str]


@dataclass(frozen=True, eq=False)
class Routine:
    """A kernel and everything that is known of it."""

    kernel: ir.Kernel

    @cached_property
    def accesses(self) -> Accesses:
        """What it reads and writes, and where."""
        return collect(self.kernel)

    @cached_property
    def shareable(self) -> tuple[tuple[int, int], ...]:
        """Numbers of parameters (input, output) that may be the same memory."""
        number = {buffer: i for i, buffer in enumerate(self.kernel.parameters)}
        pairs = shareable(self.kernel, self.accesses)
        return tuple(sorted((number[a], number[b]) for a, b in pairs))

    @cached_property
    def symbol(self) -> str:
        """What its functions' names start with."""
        return symbol_of(self.kernel)

    @cached_property
    def bodies(self) -> tuple[PhaseBody, ...]:
        """What its phases run."""
        return split(self.kernel)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Its phases, in the order in which they run."""
        phases = phases_of(self.kernel, self.symbol, self.bodies)
        return tuple(
            Part(phase, work(body.body) * phase.extent, *_touched((*body.lets, *body.body)))
            for phase, body in zip(phases, self.bodies, strict=True)
        )

    @cached_property
    def cost(self) -> Cost:
        """What it computes and moves."""
        return cost(self.kernel, self.accesses)


def work(block: ir.Block) -> int:
    """Roughly the number of instructions of a block; vector loops count once per vector."""
    total = 0
    for stmt in block:
        if isinstance(stmt, ir.For):
            lanes = max(1, stmt.lanes)
            total += -(-stmt.extent // lanes) * work(stmt.body)
        else:
            total += 1 + work(ir.nested(stmt))
    return total


def _touched(block: ir.Block) -> tuple[frozenset[str], frozenset[str]]:
    """Names of the buffers that a block reads, and of those that it writes."""
    reads: set[str] = set()
    writes: set[str] = set()
    for stmt in ir.walk(block):
        if isinstance(stmt, ir.Store | ir.Accumulate):
            writes.add(stmt.buffer.name)
        for expr in ir.expressions(stmt):
            reads.update(p.buffer.name for p in distinct(expr) if isinstance(p, ir.Load))
    return frozenset(reads), frozenset(writes)
