"""What a plan is made of: kernels with their arguments, and recurrences as loops over kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from .graph import Value
from .group import Group
from .loops import ir
from .lower.binding import Lowered
from .routine import Routine
from .types import TensorType


@dataclass(frozen=True)
class Placed:
    """A kernel of the plan.

    Arguments:
        group: the nodes it computes; None if it only copies.
        lowered: the kernel and its arguments.
        known: what is known of the kernel, where other groups have the same one.
        streamed: number of the parameter that it writes past the caches, if there is one.
    """

    group: Group | None
    lowered: Lowered
    known: Routine | None = None
    streamed: int | None = field(default=None, kw_only=True)

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
    def routines(self) -> Sequence[Routine]:
        """The kernels that have to be compiled."""
        return (self.routine,)

    @property
    def name(self) -> str:
        """What the kernel is called in this place."""
        return self.group.name if self.group else self.lowered.kernel.name


@dataclass(frozen=True)
class Where:
    """Where an argument of a kernel in a loop is, iteration after iteration.

    Arguments:
        buffer: number of the loop's buffer that it is in: an argument or scratch.
        start: bytes from the beginning, in the first iteration.
        stride: bytes from one iteration to the next.
        period: iterations after which it is where it was; 0 for never.
        first: number of the buffer that it is, in the first iteration, if that is another one.
    """

    buffer: int
    start: int = 0
    stride: int = 0
    period: int = 0
    first: int | None = None

    def at(self, iteration: int) -> Where:
        """Where it is in an iteration after the first one."""
        number = iteration % self.period if self.period else iteration
        return Where(self.buffer, self.start + self.stride * number)


@dataclass(frozen=True)
class Inner:
    """A kernel in a loop.

    Arguments:
        placed: the kernel.
        where: its arguments, then its scratch.
    """

    placed: Placed
    where: tuple[Where, ...]


@dataclass(frozen=True)
class Repeat(Placed):
    """A loop over kernels. To the plan it is one kernel, which writes what it is given last.

    Arguments:
        count: number of iterations.
        inner: kernels of an iteration.
        after: kernels that follow once, where `Where` is that of the first iteration.
    """

    count: int = 0
    inner: tuple[Inner, ...] = ()
    after: tuple[Inner, ...] = ()

    @property
    def routines(self) -> Sequence[Routine]:
        return [i.placed.routine for i in (*self.inner, *self.after)]


def copy_kernel(name: str, type: TensorType) -> ir.Kernel:
    """A kernel that copies a value."""
    source = ir.Buffer("source", (type.size,), type.dtype)
    target = ir.Buffer("target", (type.size,), type.dtype)
    i = ir.Var("i")
    body = ir.Store(target, (i,), ir.Load(source, (i,)))
    loop = ir.For(i, type.size, (body,), ir.LoopKind.VECTOR, 32 // type.dtype.size)
    return ir.Kernel(name, (source, target), (loop,), note="copy")
