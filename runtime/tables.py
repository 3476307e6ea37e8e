"""Tables of pointers: how kernels are told where their arguments are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .native import native
from .program import Loop, Program, SlotKind, Walk
from .threads import BARRIER, PARALLEL, address

_Numbers = np.ndarray[Any, Any]
_WORD = 8
# Threads meet at least once in so many rows, since a run only pauses where they do.
_MEETING = 256


class Tables:
    """The arguments of all kernels of a program, and the rows that run them.

    A kernel in a loop has a table for each iteration, and the loop's steps are rows for each.
    Results that no kernel writes where they are wanted are copied by rows of their own.

    Attributes:
        slots: where the address of each slot goes.
        rows: what the runner is given, (rows, 4): function, arguments, extent and flags.
        steps: which step of the program each row is; rows behind these copy outputs.
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
        self._pointers = np.zeros(starts[-1] + 2 * len(program.copies) + 1, np.uint64)
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
        self.rows = np.concatenate([rows[:, :4], self._copies(program, int(starts[-1]))])
        self.rows[:, 1] = address(self._pointers) + _WORD * self.rows[:, 1]
        self.rows[_MEETING - 1 :: _MEETING, 3] |= BARRIER
        self._count = len(program.inputs) + len(program.outputs)
        self._wanted = self._arrays(program, int(starts[-1]))
        self._told = address(self._wanted), self._count, address(self._pointers)

    def point(self, arrays: tuple[object, ...]) -> bool:
        """Tells kernels where inputs and outputs are.

        Arguments:
            arrays: the inputs in order, then the outputs.

        Returns:
            Whether all are arrays of the right dtype and shape, contiguous and aligned. A dtype
            may have the right meaning and be another object; that is not right here.
        """
        return native().point(arrays, *self._told) == self._count

    def _copies(self, program: Program, first: int) -> _Numbers:
        """Rows that copy results, once all else is done, to outputs that no kernel writes.

        Arguments:
            program: the program.
            first: the word from which on their arguments are: source and target of each.
        """
        rows = []
        types = dict(program.outputs)
        for number, copy in enumerate(program.copies):
            source = first + 2 * number
            self.slots[copy.source].add(np.array([source]), np.zeros(1, np.uint64))
            rows.append((native().copy, source, types[copy.name].nbytes, BARRIER * (number == 0)))
        return np.array(rows, np.int64).reshape(-1, 4)

    def _arrays(self, program: Program, first: int) -> _Numbers:
        """What `native().point` is told of inputs and outputs; `first` as of `_copies`."""
        given: dict[tuple[SlotKind, str], list[_Numbers]] = defaultdict(list)
        for slot, places in zip(program.slots, self.slots, strict=True):
            given[slot.kind, slot.name] += [
                np.stack([words, (offsets + slot.offset).astype(np.int64)], axis=1).ravel()
                for words, offsets in places.parts
            ]
        for number, copy in enumerate(program.copies):
            given[SlotKind.OUTPUT, copy.name].append(np.array([first + 2 * number + 1, 0]))
        told: list[_Numbers] = [np.zeros(0, np.int64)]
        for kind, values in (
            (SlotKind.INPUT, program.inputs),
            (SlotKind.OUTPUT, program.outputs),
        ):
            for name, type in values:
                words = np.concatenate([np.zeros(0, np.int64), *given[kind, name]])
                form = (id(np.ndarray), id(type.dtype.numpy), len(type.shape), *type.shape)
                told += [np.array([*form, len(words) // 2], np.int64), words]
        return np.concatenate(told)

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
        parts: places, and bytes from the beginning of the slot for each of them.
    """

    pointers: _Numbers
    parts: list[tuple[_Numbers, _Numbers]] = field(default_factory=list)

    def add(self, places: _Numbers, offsets: _Numbers) -> None:
        """More places, and bytes from the beginning of the slot for each of them."""
        self.parts.append((places, offsets))

    def put(self, where: int) -> None:
        """The slot is there."""
        for places, offsets in self.parts:
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
