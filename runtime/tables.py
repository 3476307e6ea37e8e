"""Tables of pointers: how kernels are told where their arguments are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .program import Loop, Program, Walk
from .threads import BARRIER, PARALLEL, address

_Numbers = np.ndarray[Any, Any]
_WORD = 8
# Threads meet at least once in so many rows, since a run only pauses where they do.
_MEETING = 256


class Tables:
    """The arguments of all kernels of a program, and the rows that run them.

    A kernel in a loop has a table for each iteration, and the loop's steps are rows for each.

    Attributes:
        slots: where the address of each slot goes.
        rows: what the runner is given, (rows, 4): function, arguments, extent and flags.
        steps: which step of the program each row is.
    """

    def __init__(self, program: Program, function: Callable[[str], int]) -> None:
        """
        Arguments:
            program: the program; no slot has an address yet.
            function: gives the address of a symbol.
        """
        counts = [1] * len(program.kernels)
        walks: dict[tuple[int, int], Walk] = {}
        for loop in program.loops:
            for step in program.steps[loop.begin : loop.end]:
                counts[step.kernel] = loop.count
            walks |= {(w.kernel, w.argument): w for w in loop.walks}
        sizes = [n * len(call.slots) for n, call in zip(counts, program.kernels, strict=True)]
        starts = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
        self._pointers = np.zeros(max(starts[-1], 1), np.uint64)
        self.slots = [Places(self._pointers) for _ in program.slots]
        for number, call in enumerate(program.kernels):
            for i, slot in enumerate(call.slots):
                first = int(starts[number]) + i
                table = np.arange(first, first + sizes[number], len(call.slots))
                self._place(slot, table, walks.get((number, i)))
        self.steps, iterations = _rows(program)
        columns = [
            (
                function(step.symbol),
                starts[step.kernel],
                step.extent,
                PARALLEL * step.parallel | BARRIER * step.barrier,
                len(program.kernels[step.kernel].slots),
            )
            for step in program.steps
        ]
        rows = np.array(columns, np.int64).reshape(-1, 5)[self.steps]
        rows[:, 1] += iterations * rows[:, 4]
        rows[:, 1] = address(self._pointers) + _WORD * rows[:, 1]
        self.rows = np.ascontiguousarray(rows[:, :4])
        self.rows[_MEETING - 1 :: _MEETING, 3] |= BARRIER

    def _place(self, slot: int, table: _Numbers, walk: Walk | None) -> None:
        """An argument that has one place for each iteration."""
        if walk is None:
            self.slots[slot].add(table, np.zeros(len(table), np.uint64))
            return
        iterations = np.arange(len(table))
        if walk.period:
            iterations %= walk.period
        offsets = (walk.start + walk.stride * iterations).astype(np.uint64)
        if walk.first is None:
            self.slots[slot].add(table, offsets)
        else:
            self.slots[walk.first].add(table[:1], np.zeros(1, np.uint64))
            self.slots[slot].add(table[1:], offsets[1:])


@dataclass
class Places:
    """Where in the tables the address of a slot goes.

    Arguments:
        pointers: the tables.
        single: places for the address itself.
        several: places, and bytes from the beginning of the slot for each of them.
    """

    pointers: _Numbers
    single: list[int] = field(default_factory=list)
    several: list[tuple[_Numbers, _Numbers]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._words = self.pointers.data  # one word is set in half the time that an array takes

    def add(self, places: _Numbers, offsets: _Numbers) -> None:
        """More places, and bytes from the beginning of the slot for each of them."""
        if len(places) == 1 and not offsets[0]:
            self.single.append(int(places[0]))
        elif len(places):
            self.several.append((places, offsets))

    def put(self, where: int) -> None:
        """The slot is there."""
        for place in self.single:
            self._words[place] = where
        for places, offsets in self.several:
            self.pointers[places] = offsets + where


def _rows(program: Program) -> tuple[_Numbers, _Numbers]:
    """Which step each row of the unrolled program is, and of which iteration."""
    numbers: list[_Numbers] = []
    iterations: list[_Numbers] = []
    done = 0
    for loop in (*program.loops, Loop(len(program.steps), len(program.steps), 0)):
        numbers.append(np.arange(done, loop.begin))
        iterations.append(np.zeros(loop.begin - done, np.int64))
        steps = np.arange(loop.begin, loop.end)
        numbers.append(np.tile(steps, loop.count))
        iterations.append(np.repeat(np.arange(loop.count), len(steps)))
        done = loop.end
    return np.concatenate(numbers).astype(np.int64), np.concatenate(iterations)
