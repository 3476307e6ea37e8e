"""A kernel, and what follows from it alone: asked for once, however many groups it serves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .llvm.phases import Phase, PhaseBody, phases_of, split, symbol_of
from .loops import ir
from .loops.access import Accesses, collect
from .loops.cost import Cost, cost
from .loops.sharing import shareable
from .loops.streams import swept


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
    def swept(self) -> int | None:
        """Number of the parameter that may be written past the caches."""
        return swept(self.accesses)

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
            Part(
                phase,
                work(body.body) * phase.extent,
                frozenset(body.uses.reads),
                frozenset(body.uses.writes),
            )
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
