"""Which results are written past the caches: those that nobody would find there."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

from .cost_model import bypasses_caches
from .llvm.target import Target
from .loops.streams import streaming
from .lower.binding import Lowered
from .placed import Placed, Repeat
from .plan import Planner
from .routine import Routine


def stream_results(planner: Planner, target: Target) -> int:
    """Has kernels write their results past the caches where that is better.

    Results that take the place of what the kernel reads are in a cache already. Between an
    element's store and its next load lie, on average, half of what its kernel moves, all of what
    the kernels before the reader do, and half of the result itself.

    Arguments:
        planner: knows what is read when; its kernels are replaced.
        target: the machine.

    Returns:
        The number of kernels that do.
    """
    moved = [_moved(placed) for placed in planner.kernels]
    until = [0, *accumulate(moved)]
    known: dict[Routine, Placed] = {}
    for number, placed in enumerate(planner.kernels):
        if placed.group is None or isinstance(placed, Repeat) or placed.routine.swept is None:
            continue
        value = placed.lowered.arguments[placed.routine.swept]
        nbytes = planner.graph.type_of(value).nbytes
        reader = planner.next_reader(number, value) or len(moved)
        between = until[reader] - until[number + 1] + (moved[number] + nbytes) / 2
        if bypasses_caches(target, nbytes, between) and not planner.in_place(number, value):
            first = known.setdefault(placed.routine, _streaming(placed, placed.routine.swept))
            lowered = Lowered(first.lowered.kernel, placed.lowered.arguments)
            planner.kernels[number] = replace(first, group=placed.group, lowered=lowered)
    return sum(placed.streamed is not None for placed in planner.kernels)


def _moved(placed: Placed) -> int:
    """Bytes that a kernel reads and writes."""
    rounds = placed.count if isinstance(placed, Repeat) else 1
    return rounds * sum(r.cost.bytes_read + r.cost.bytes_written for r in placed.routines)


def _streaming(placed: Placed, parameter: int) -> Placed:
    kernel = streaming(placed.lowered.kernel, parameter)
    lowered = Lowered(kernel, placed.lowered.arguments)
    return Placed(placed.group, lowered, Routine(kernel), streamed=parameter)
