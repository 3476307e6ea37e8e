"""A compiled network that can be called."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compiler.errors import CompileError, InputError
from ..compiler.llvm.jit import load
from ..compiler.report import Report
from ..compiler.types import Array, Shape, TensorType
from .image import Image, StoredGraph
from .memory import Memory, memory_of
from .program import Loop, Program, SlotKind, Walk
from .threads import BARRIER, PARALLEL, address, get_runner

if TYPE_CHECKING:
    from ..compiler.graph import Graph

_ALIGN = 64
_LARGE = 1 << 14


class Executable:
    """A network compiled for this machine.

    Called with NumPy arrays it gives NumPy arrays: positionally or by name, one array for one
    output, a tuple for several; called with one dict it gives a dict. Parameters and buffers live
    in `state`; an executable with updates (a training step) changes them.

    It may be called from several Python threads; calls take turns.

    Attributes:
        image: all that it consists of.
        program: how it runs.
        state: contents of parameters and buffers, by name; to be changed by `load_state`.
        threads: number of threads.
        report: the stages of its compilation; None where it was not compiled in this process.
    """

    def __init__(
        self,
        image: Image,
        threads: int | None = None,
        state: Mapping[str, Array] | None = None,
        share: bool = False,
        report: Report | None = None,
    ) -> None:
        """Loads a compiled network.

        Arguments:
            image: the network.
            threads: that run it; QUERN_NUM_THREADS or the usable processors by default.
            state: contents of parameters and buffers; those of the graph by default.
            share: use the arrays of `state` themselves, not copies, so that executables of one
                network work on the same state; see `refresh`.
            report: of the compilation.

        Raises:
            InputError: contents of another type, or not contiguous where they are shared.
        """
        self.image = image
        self.program: Program = image.program
        self.report = report
        self._runner = get_runner(threads)
        self._lock = threading.Lock()
        self._inputs = dict(self.program.inputs)
        self._arena = aligned_empty(self.program.arena_bytes)
        self.state = self._initial_state(image.source.graph.data if state is None else state, share)
        self._constants = {k: _aligned(v) for k, v in image.constants.items()}
        if any(name not in self._constants for name in self._constant_bytes()):
            self._prepare()
        for name, nbytes in self._constant_bytes().items():
            if self._constants[name].nbytes != nbytes:
                raise InputError(
                    f"constant {name} has {self._constants[name].nbytes} bytes, expected {nbytes}"
                )
        self._missing = image.target.missing
        if not self._missing:  # else it can still be saved
            self._library = load(list(image.objects.values()))
            self._bind()

    def __repr__(self) -> str:
        program = self.program
        takes, gives = (
            ", ".join(f"{name} {type}" for name, type in values) or "nothing"
            for values in (program.inputs, program.outputs)
        )
        kernels = f"{len(program.kernels)} kernel{'' if len(program.kernels) == 1 else 's'}"
        bits, threads = self.image.target.vector_bits, self.threads
        return (
            f"<Executable {program.name}: {takes} -> {gives}; {kernels} of {bits}-bit vectors, "
            f"{threads} thread{'' if threads == 1 else 's'}>"
        )

    @property
    def graph(self) -> Graph:
        """The graph that was compiled."""
        return self.image.source.graph

    @property
    def constants(self) -> dict[str, Array]:
        """Contents of all constants, by name; also of those that follow from the state."""
        return dict(self._constants)

    @property
    def threads(self) -> int:
        return self._runner.threads

    @property
    def inputs(self) -> dict[str, TensorType]:
        """Name and type of each input, in order."""
        return dict(self._inputs)

    @property
    def outputs(self) -> dict[str, TensorType]:
        """Name and type of each output, in order."""
        return dict(self.program.outputs)

    @property
    def memory(self) -> Memory:
        """The memory that it takes, as it was planned."""
        return memory_of(self.program, sum(a.nbytes for a in self._constants.values()))

    # -- running ----------------------------------------------------------------------------------

    def __call__(self, *arrays: Any, **named: Any) -> Any:
        """Runs the network once.

        Raises:
            InputError: names, shapes or dtypes that are not the network's.
        """
        if len(arrays) == 1 and isinstance(arrays[0], Mapping) and not named:
            return self.run(arrays[0])
        names = list(self._inputs)
        if len(arrays) > len(names):
            raise InputError(
                f"{self.program.name} takes {len(names)} inputs ({', '.join(names)}), "
                f"got {len(arrays)}"
            )
        given = dict(zip(names, arrays, strict=False))
        if named:
            twice = sorted(given.keys() & named.keys())
            if twice:
                raise InputError(f"input {twice[0]} was given by place and by name")
            given |= named
        results = tuple(self.run(given).values())
        return results[0] if len(results) == 1 else results

    def run(
        self, arrays: Mapping[str, Any], timestamps: np.ndarray[Any, Any] | None = None
    ) -> dict[str, Array]:
        """Runs the network once.

        Arguments:
            arrays: contents of every input.
            timestamps: int64, one more than there are steps: nanoseconds at each boundary.

        Returns:
            Outputs by name; the arrays are the caller's own.
        """
        if self._missing:
            raise CompileError(
                f"{self.program.name} was compiled for {self.image.target.cpu}, this machine has "
                f"no {', '.join(self._missing)}; compile it for this machine"
            )
        feeds = self._checked(arrays)
        results = {name: _empty(*form) for name, form in self._forms}
        with self._lock:
            self._point(SlotKind.INPUT, feeds)
            self._point(SlotKind.OUTPUT, results)
            self._run(timestamps)
            for copy in self.program.copies:
                self._copy(copy.source, results[copy.name], feeds, results)
        return results

    def _run(self, timestamps: np.ndarray[Any, Any] | None) -> None:
        """Runs all rows. Iterations of a step count together, as if they followed each other."""
        if timestamps is None or not self.program.loops:
            self._runner.run(self._steps, timestamps)
            return
        stamps = np.zeros(len(self._steps) + 1, np.int64)
        self._runner.run(self._steps, stamps)
        spent = np.zeros(len(timestamps) - 1, np.int64)
        np.add.at(spent, self._rows[0], np.diff(stamps))
        timestamps[0] = stamps[0]
        timestamps[1:] = stamps[0] + np.cumsum(spent)

    def _checked(self, arrays: Mapping[str, Any]) -> dict[str, Array]:
        expected = self._inputs
        if not isinstance(arrays, Mapping):
            raise InputError(
                f"run of {self.program.name} takes inputs by name, got {type(arrays).__name__}; "
                "call the executable itself with inputs in order"
            )
        if arrays.keys() != expected.keys():
            unknown = sorted(set(arrays) - set(expected))
            missing = [n for n in expected if n not in arrays]
            told = [f"{n} is missing" for n in missing] + [f"{n} is not known" for n in unknown]
            raise InputError(
                f"{self.program.name} takes {', '.join(expected) or 'no inputs'}: {', '.join(told)}"
            )
        return {
            name: x if _is_usable(x := arrays[name], shape, dtype) else self._fitting(name, x)
            for name, shape, dtype in self._wanted
        }

    @cached_property
    def _wanted(self) -> list[tuple[str, Shape, np.dtype[Any]]]:
        """Shape and dtype of each input."""
        return [(name, t.shape, t.dtype.numpy) for name, t in self._inputs.items()]

    @cached_property
    def _forms(self) -> list[tuple[str, tuple[Shape, np.dtype[Any], int]]]:
        """Shape, dtype and bytes of each output."""
        outputs = self.program.outputs
        return [(name, (t.shape, t.dtype.numpy, t.nbytes)) for name, t in outputs]

    def _fitting(self, name: str, given: Any) -> Array:
        """What kernels can use of what was given."""
        type = self._inputs[name]
        array = self._as_array(name, type, given)
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        if array.shape != type.shape or array.dtype != type.dtype.numpy:
            raise InputError(
                f"input {name} of {self.program.name} is {type}, "
                f"got {array.dtype}[{', '.join(map(str, array.shape))}]"
            )
        contiguous = np.ascontiguousarray(array)
        return contiguous if contiguous.flags.aligned else contiguous.copy()

    def _as_array(self, name: str, type: TensorType, given: Any) -> Array:
        """The array, or numbers and lists of them as one of the input's dtype."""
        wanted = type.dtype.numpy
        try:
            array = np.asarray(given)
        except ValueError as error:
            raise InputError(f"input {name} of {self.program.name}: {error}") from None
        if isinstance(given, np.ndarray) or not np.can_cast(array.dtype, wanted, "same_kind"):
            return array
        return array.astype(wanted)

    # -- state ------------------------------------------------------------------------------------

    def load_state(self, arrays: Mapping[str, Array], strict: bool = True) -> None:
        """Copies contents into parameters and buffers.

        Raises:
            InputError: unknown names, missing ones if `strict`, other shapes or dtypes; then
                nothing has been changed.
        """
        missing = [n for n in self.state if n not in arrays]
        unknown = [n for n in arrays if n not in self.state]
        if unknown or (missing and strict):
            raise InputError(
                f"{self.program.name}: missing state {missing or 'none'}, "
                f"unknown {unknown or 'none'}"
            )
        for name, array in arrays.items():
            own = self.state[name]
            if array.shape != own.shape or array.dtype != own.dtype:
                raise InputError(
                    f"state {name} is {own.dtype}{list(own.shape)}, "
                    f"got {array.dtype}{list(array.shape)}"
                )
        with self._lock:
            for name, array in arrays.items():
                np.copyto(self.state[name], array)
            self._prepare()

    def refresh(self) -> None:
        """Takes note that `state` was changed by others, such as an executable that shares it."""
        with self._lock:
            self._prepare()

    def _constant_bytes(self) -> dict[str, int]:
        return {s.name: s.nbytes for s in self.program.slots if s.kind is SlotKind.CONSTANT}

    def _prepare(self) -> None:
        """Computes the constants that follow from the state, such as weights with folded norms."""
        if self.image.preparation is None:
            return
        for name, array in self._prepared(self.image.preparation).items():
            if name in self._constants:
                np.copyto(self._constants[name], array)
            else:
                self._constants[name] = _aligned(array)

    def _prepared(self, preparation: StoredGraph) -> dict[str, Array]:
        compiled = self.image.preparing
        if compiled is not None and not compiled.target.missing:
            return Executable(compiled, self.threads, self.state, share=True).run({})
        from ..compiler.evaluate import evaluate

        return evaluate(preparation.graph, self.state).outputs

    def _initial_state(self, contents: Mapping[str, Array], share: bool) -> dict[str, Array]:
        state = {}
        for name, type in self.program.states:
            if name not in contents:
                array = aligned_copy(np.zeros(type.shape, type.dtype.numpy))
            elif share:
                array = contents[name]
                if not (array.flags.carray and array.dtype.isnative):
                    raise InputError(f"state {name} cannot be shared: it is not contiguous")
            else:
                array = aligned_copy(np.asarray(contents[name]))
            if array.shape != type.shape or array.dtype != type.dtype.numpy:
                raise InputError(
                    f"state {name} is {type}, its contents are {array.dtype}{list(array.shape)}"
                )
            state[name] = array
        return state

    def save(self, path: str | Path) -> Path:
        """Writes the network, its state and its machine code to a `.qn` file."""
        from .artifact import save

        return save(self, path)

    # -- binding ----------------------------------------------------------------------------------

    def _bind(self) -> None:
        """Tables of pointers: arguments of every kernel, and the steps that use them.

        A kernel in a loop has a table for each iteration, and the loop's steps are rows for each.
        """
        program = self.program
        counts = [1] * len(program.kernels)
        walks: dict[tuple[int, int], Walk] = {}
        for loop in program.loops:
            for step in program.steps[loop.begin : loop.end]:
                counts[step.kernel] = loop.count
            walks |= {(w.kernel, w.argument): w for w in loop.walks}
        sizes = [n * len(call.slots) for n, call in zip(counts, program.kernels, strict=True)]
        starts = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
        self._arguments = np.zeros(max(starts[-1], 1), np.uint64)
        self._places: dict[SlotKind, list[_Place]] = {kind: [] for kind in SlotKind}
        for number, call in enumerate(program.kernels):
            for i, slot in enumerate(call.slots):
                first = int(starts[number]) + i
                table = np.arange(first, first + sizes[number], len(call.slots))
                for part in _places(slot, table, walks.get((number, i))):
                    self._places[program.slots[part.slot].kind].append(part)
        slots = program.slots
        self._named = {
            kind: [(slots[part.slot].name, part) for part in parts]
            for kind, parts in self._places.items()
        }
        base = address(self._arena)
        for part in self._places[SlotKind.ARENA]:
            self._put(part, base + program.slots[part.slot].offset)
        self._point(SlotKind.STATE, self.state)
        self._point(SlotKind.CONSTANT, self._constants)
        self._rows = _rows(program)
        self._steps = self._program_of(starts)

    def _program_of(self, starts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """What the runner is given: function, arguments, extent and flags of every row."""
        steps = self.program.steps
        columns = [
            (
                self._library.address(step.symbol),
                starts[step.kernel],
                step.extent,
                PARALLEL * step.parallel | BARRIER * step.barrier,
                len(self.program.kernels[step.kernel].slots),
            )
            for step in steps
        ]
        numbers, iterations = self._rows
        table = np.array(columns, np.int64).reshape(-1, 5)[numbers]
        table[:, 1] += iterations * table[:, 4]
        table[:, 1] = address(self._arguments) + 8 * table[:, 1]
        return np.ascontiguousarray(table[:, :4])

    def _point(self, kind: SlotKind, arrays: Mapping[str, Array]) -> None:
        where = dict[str, int]()
        for name, part in self._named[kind]:
            if name not in where:
                where[name] = address(arrays[name])
            self._put(part, where[name])

    def _put(self, part: _Place, where: int) -> None:
        if part.offsets is None:
            self._arguments[part.first] = where
        else:
            self._arguments[part.places] = part.offsets + where

    def _copy(
        self,
        number: int,
        target: Array,
        feeds: Mapping[str, Array],
        results: Mapping[str, Array],
    ) -> None:
        slot = self.program.slots[number]
        owners: dict[SlotKind, Mapping[str, Array]] = {
            SlotKind.INPUT: feeds,
            SlotKind.OUTPUT: results,
            SlotKind.STATE: self.state,
            SlotKind.CONSTANT: self._constants,
        }
        if slot.kind is SlotKind.ARENA:
            raw = self._arena[slot.offset : slot.offset + slot.nbytes].view(target.dtype)
        else:
            raw = owners[slot.kind][slot.name]
        np.copyto(target, raw.reshape(target.shape))


@dataclass(frozen=True)
class _Place:
    """Where in the tables the address of a slot goes.

    Arguments:
        slot: number of the slot.
        places: in the tables.
        offsets: bytes from the beginning of the slot, for each place; None: one place, no offset.
    """

    slot: int
    places: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, Any] | None

    @cached_property
    def first(self) -> int:
        return int(self.places[0])


def _places(slot: int, table: np.ndarray[Any, Any], walk: Walk | None) -> list[_Place]:
    """Where an argument goes that has one place for each iteration."""
    if walk is None:
        offsets = np.zeros(len(table), np.uint64) if len(table) > 1 else None
        return [_Place(slot, table, offsets)]
    iterations = np.arange(len(table))
    if walk.period:
        iterations %= walk.period
    offsets = (walk.start + walk.stride * iterations).astype(np.uint64)
    if walk.first is None:
        return [_Place(slot, table, offsets)]
    later = [_Place(slot, table[1:], offsets[1:])] if len(table) > 1 else []
    return [_Place(walk.first, table[:1], None), *later]


def _rows(program: Program) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Which step each row of the unrolled program is, and of which iteration."""
    numbers: list[np.ndarray[Any, Any]] = []
    iterations: list[np.ndarray[Any, Any]] = []
    done = 0
    for loop in (*program.loops, Loop(len(program.steps), len(program.steps), 0)):
        numbers.append(np.arange(done, loop.begin))
        iterations.append(np.zeros(loop.begin - done, np.int64))
        steps = np.arange(loop.begin, loop.end)
        numbers.append(np.tile(steps, loop.count))
        iterations.append(np.repeat(np.arange(loop.count), len(steps)))
        done = loop.end
    return np.concatenate(numbers).astype(np.int64), np.concatenate(iterations)


def aligned_empty(nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Bytes that begin at a cache line."""
    raw = np.empty(nbytes + _ALIGN, np.uint8)
    start = -address(raw) % _ALIGN
    return raw[start : start + nbytes]


def _aligned(array: Array) -> Array:
    """The array itself if kernels can use it well, else a copy."""
    usable = array.flags.carray and array.dtype.isnative and address(array) % _ALIGN == 0
    return array if usable else aligned_copy(array)


def _empty(shape: Shape, dtype: np.dtype[Any], nbytes: int) -> Array:
    """Memory for a value; large ones begin at a cache line."""
    if nbytes < _LARGE:
        return np.empty(shape, dtype)
    return aligned_empty(nbytes).view(dtype).reshape(shape)


def _is_usable(given: object, shape: Shape, dtype: np.dtype[Any]) -> bool:
    """Whether kernels can use what was given as it is."""
    if type(given) is not np.ndarray or given.shape != shape or given.dtype != dtype:
        return False
    flags = given.flags
    return flags.c_contiguous and flags.aligned


def aligned_copy(array: Array) -> Array:
    """A contiguous copy that begins at a cache line."""
    copy = aligned_empty(array.nbytes).view(array.dtype).reshape(array.shape)
    np.copyto(copy, array)
    return copy
