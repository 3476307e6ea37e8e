"""A compiled network as data: what the compiler hands to the runtime, and what a file holds."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

from ..compiler.errors import ArtifactError, QuernError
from ..compiler.types import TensorType


class SlotKind(Enum):
    """Who owns the memory of a slot."""

    INPUT = "input"
    OUTPUT = "output"
    STATE = "state"
    CONSTANT = "constant"
    ARENA = "arena"


@dataclass(frozen=True)
class Slot:
    """A piece of memory that kernels are given.

    Arguments:
        kind: who owns it.
        name: of the input, output, state or constant; of the value, in the arena.
        nbytes: its size.
        offset: in the arena, or in an input.
    """

    kind: SlotKind
    name: str
    nbytes: int
    offset: int = 0


@dataclass(frozen=True)
class Step:
    """One phase of a kernel.

    Arguments:
        symbol: its function, `void f(ptr args, i64 begin, i64 end)`.
        extent: of its parallel loop.
        parallel: whether the extent is shared out among threads.
        barrier: whether all threads wait for each other before it.
        kernel: number of its kernel.
    """

    symbol: str
    extent: int
    parallel: bool
    barrier: bool
    kernel: int


@dataclass(frozen=True)
class KernelCall:
    """A kernel in its place.

    Arguments:
        name: from the user's nodes.
        nodes: those of the optimized graph that it computes.
        phase: forward, backward or update.
        note: how it works.
        slots: numbers of the slots that are its arguments.
        flops: floating-point operations.
        nbytes: bytes that it reads and writes at least.
        origins: the user's nodes that it computes.
        reads: types of the values that it is given.
        writes: types of the values that it gives.
    """

    name: str
    nodes: tuple[str, ...]
    phase: str
    note: str
    slots: tuple[int, ...]
    flops: int = 0
    nbytes: int = 0
    origins: tuple[str, ...] = ()
    reads: tuple[TensorType, ...] = ()
    writes: tuple[TensorType, ...] = ()


@dataclass(frozen=True)
class Copy:
    """A result that is moved by the runtime after a run, because no kernel writes it in place.

    Arguments:
        source: slot it is read from.
        name: of the output that it becomes.
    """

    source: int
    name: str


@dataclass(frozen=True)
class Walk:
    """An argument that is elsewhere in every iteration of a loop.

    Arguments:
        kernel: number of its kernel.
        argument: number among the kernel's arguments.
        start: bytes from the beginning of its slot, in the first iteration.
        stride: bytes from one iteration to the next.
        period: iterations after which it is where it was; 0 for never.
        first: slot that it is in the first iteration, if that is another one.
    """

    kernel: int
    argument: int
    start: int
    stride: int
    period: int = 0
    first: int | None = None


@dataclass(frozen=True)
class Loop:
    """Steps that are run several times.

    Arguments:
        begin: number of the first step.
        end: number of the step behind the last one.
        count: how often they are run.
        walks: arguments that are not the same in all iterations.
    """

    begin: int
    end: int
    count: int
    walks: tuple[Walk, ...] = ()


@dataclass(frozen=True)
class Program:
    """A network, ready to run.

    Arguments:
        name: of the network.
        inputs: name and type of each input.
        outputs: name and type of each output.
        states: name and type of parameters and buffers.
        slots: all memory that kernels touch.
        kernels: in order.
        steps: in order.
        copies: outputs that are not written by a kernel.
        arena_bytes: size of the memory for everything in between.
        loops: steps that are run several times, in order; none inside another.
    """

    name: str
    inputs: tuple[tuple[str, TensorType], ...]
    outputs: tuple[tuple[str, TensorType], ...]
    states: tuple[tuple[str, TensorType], ...]
    slots: tuple[Slot, ...]
    kernels: tuple[KernelCall, ...]
    steps: tuple[Step, ...]
    copies: tuple[Copy, ...]
    arena_bytes: int
    loops: tuple[Loop, ...] = ()

    @property
    def symbols(self) -> tuple[str, ...]:
        """The functions it calls, each once."""
        return tuple(dict.fromkeys(step.symbol for step in self.steps))


def program_to_json(program: Program) -> dict[str, Any]:
    """Plain JSON data; `program_from_json` gives the equal program back."""
    typed = ("inputs", "outputs", "states")
    return {
        "name": program.name,
        **{part: [[n, str(t)] for n, t in getattr(program, part)] for part in typed},
        "slots": [[s.kind.value, s.name, s.nbytes, s.offset] for s in program.slots],
        "kernels": [_call_to_json(k) for k in program.kernels],
        "steps": [[s.symbol, s.extent, s.parallel, s.barrier, s.kernel] for s in program.steps],
        "copies": [[c.source, c.name] for c in program.copies],
        "arena_bytes": program.arena_bytes,
        "loops": [
            [loop.begin, loop.end, loop.count, [list(astuple(w)) for w in loop.walks]]
            for loop in program.loops
        ],
    }


def program_from_json(data: Any) -> Program:
    """
    Raises:
        ArtifactError: the data is not what `program_to_json` gives.
    """
    try:
        return Program(
            data["name"],
            _types(data["inputs"]),
            _types(data["outputs"]),
            _types(data["states"]),
            tuple(Slot(SlotKind(k), n, b, o) for k, n, b, o in data["slots"]),
            tuple(_call_from_json(*fields) for fields in data["kernels"]),
            tuple(Step(*fields) for fields in data["steps"]),
            tuple(Copy(*fields) for fields in data["copies"]),
            data["arena_bytes"],
            tuple(
                Loop(begin, end, count, tuple(Walk(*fields) for fields in walks))
                for begin, end, count, walks in data["loops"]
            ),
        )
    except (KeyError, TypeError, ValueError, QuernError) as error:
        raise ArtifactError(f"the program is damaged: {error!r}") from None


def _call_to_json(call: KernelCall) -> list[Any]:
    lists = [list(call.origins), [str(t) for t in call.reads], [str(t) for t in call.writes]]
    parts = [call.name, list(call.nodes), call.phase, call.note, list(call.slots)]
    return [*parts, call.flops, call.nbytes, *lists]


def _call_from_json(
    name: str,
    nodes: list[str],
    phase: str,
    note: str,
    slots: list[int],
    flops: int,
    nbytes: int,
    origins: list[str],
    reads: list[str],
    writes: list[str],
) -> KernelCall:
    types = (tuple(map(_parsed, texts)) for texts in (reads, writes))
    places = tuple(slots)
    return KernelCall(
        name, tuple(nodes), phase, note, places, flops, nbytes, tuple(origins), *types
    )


@lru_cache(maxsize=1024)
def _parsed(text: str) -> TensorType:
    return TensorType.parse(text)


def _types(pairs: Any) -> tuple[tuple[str, TensorType], ...]:
    return tuple((name, _parsed(text)) for name, text in pairs)
