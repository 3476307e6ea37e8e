"""A compiled network that can be called."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compiler.errors import CompileError, InputError
from ..compiler.llvm.jit import load
from ..compiler.report import Report
from ..compiler.types import Array, TensorType
from .image import Image, StoredGraph
from .memory import Memory, memory_of
from .program import Program, SlotKind
from .tables import Tables
from .threads import address, get_runner

if TYPE_CHECKING:
    from ..compiler.graph import Graph

_ALIGN = 64
_LARGE = 1 << 14
# Arrays from this size on, by how much their begins differ from page to page, and a page.
_STAGGERED, _STEP, _PAGE = 1 << 20, 17 * _ALIGN, 4096


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
        if len(arrays) == 1 and not named and _is_mapping(arrays[0]):
            return self.run(arrays[0])
        if named or len(arrays) != len(self._inputs):
            arrays = self._by_place(arrays, named)
        results = self._execute(arrays)
        return results[0] if len(results) == 1 else tuple(results)

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
        if not isinstance(arrays, Mapping):
            raise InputError(
                f"run of {self.program.name} takes inputs by name, got {type(arrays).__name__}; "
                "call the executable itself with inputs in order"
            )
        results = self._execute(self._in_order(arrays), timestamps)
        return {name: x for (name, _), x in zip(self.program.outputs, results, strict=True)}

    def _by_place(self, arrays: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
        """Inputs in order, of which some were given by place and some by name."""
        names = list(self._inputs)
        if len(arrays) > len(names):
            raise InputError(
                f"{self.program.name} takes {len(names)} inputs ({', '.join(names)}), "
                f"got {len(arrays)}"
            )
        given = dict(zip(names, arrays, strict=False))
        twice = sorted(given.keys() & named.keys())
        if twice:
            raise InputError(f"input {twice[0]} was given by place and by name")
        return self._in_order({**given, **named})

    def _in_order(self, arrays: Mapping[str, Any]) -> tuple[Any, ...]:
        """Inputs in order, which were given by name."""
        expected = self._inputs
        if arrays.keys() != expected.keys():
            unknown = sorted(set(arrays) - set(expected))
            missing = [n for n in expected if n not in arrays]
            told = [f"{n} is missing" for n in missing] + [f"{n} is not known" for n in unknown]
            raise InputError(
                f"{self.program.name} takes {', '.join(expected) or 'no inputs'}: {', '.join(told)}"
            )
        return tuple(arrays[name] for name in expected)

    def _execute(
        self, given: Sequence[Any], timestamps: np.ndarray[Any, Any] | None = None
    ) -> list[Array]:
        """Runs the network once: its outputs in order, from as many inputs as it has in order."""
        if self._missing:
            raise CompileError(
                f"{self.program.name} was compiled for {self.image.target.cpu}, this machine has "
                f"no {', '.join(self._missing)}; compile it for this machine"
            )
        results = [empty() for empty in self._results]
        if not self._ran((*given, *results), timestamps):
            pairs = zip(self._inputs, given, strict=True)
            fitting = [self._fitting(name, x) for name, x in pairs]
            ran = self._ran((*fitting, *results), timestamps)
            assert ran
        return results

    def _ran(self, arrays: tuple[Any, ...], timestamps: np.ndarray[Any, Any] | None) -> bool:
        """Runs the network with these inputs and outputs; False if they are not as it wants them.

        Iterations of a step count together, as if they followed each other.
        """
        with self._lock:
            if not self._tables.point(arrays):
                return False
            if timestamps is None:
                self._runner.run_at(*self._rows)
                return True
            rows, steps = self._tables.rows, self._tables.steps
            stamps = np.zeros(len(rows) + 1, np.int64)
            self._runner.run(rows, stamps)
        spent = np.zeros(len(timestamps) - 1, np.int64)
        np.add.at(spent, steps, np.diff(stamps[: len(steps) + 1]))
        timestamps[0] = stamps[0]
        timestamps[1:] = stamps[0] + np.cumsum(spent)
        return True

    @cached_property
    def _results(self) -> list[Callable[[], Array]]:
        """What gives memory for each output."""
        return [_memory_for(type) for _, type in self.program.outputs]

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
        # Viewed, as a dtype may be another object of the same meaning.
        contiguous = np.asarray(array, order="C").view(type.dtype.numpy)
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
        """Tells kernels where the memory is that stays where it is."""
        self._tables = Tables(self.program, self._library.address)
        self._rows = address(self._tables.rows), len(self._tables.rows)
        base = address(self._arena)
        for slot, places in zip(self.program.slots, self._tables.slots, strict=True):
            if slot.kind is SlotKind.ARENA:
                places.put(base + slot.offset)
            elif slot.kind is SlotKind.STATE:
                places.put(address(self.state[slot.name]))
            elif slot.kind is SlotKind.CONSTANT:
                places.put(address(self._constants[slot.name]))


def aligned_empty(nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Bytes that begin at a cache line.

    Large ones begin at another line of a page each: the system gives them whole pages, and streams
    of a kernel that all are at one place of their page are slow (Adam's: 32 in place of 42 GB/s).
    """
    raw = np.empty(nbytes + _ALIGN + (_PAGE if nbytes >= _STAGGERED else 0), np.uint8)
    start = -address(raw) % _ALIGN
    if nbytes >= _STAGGERED:
        start += address(raw) // _PAGE * _STEP % _PAGE
    return raw[start : start + nbytes]


def _aligned(array: Array) -> Array:
    """The array itself if kernels can use it well, else a copy."""
    usable = array.flags.carray and array.dtype.isnative and address(array) % _ALIGN == 0
    return array if usable else aligned_copy(array)


def _memory_for(type: TensorType) -> Callable[[], Array]:
    """What gives memory for a value; large ones begin at a cache line."""
    shape, dtype, nbytes = type.shape, type.dtype.numpy, type.nbytes
    if nbytes < _LARGE:
        return partial(np.empty, shape, dtype)
    return lambda: aligned_empty(nbytes).view(dtype).reshape(shape)


def _is_mapping(given: object) -> bool:
    # Asking for an abstract class takes five times as long as asking for an array.
    return type(given) is not np.ndarray and isinstance(given, Mapping)


def aligned_copy(array: Array) -> Array:
    """A contiguous copy that begins at a cache line."""
    copy = aligned_empty(array.nbytes).view(array.dtype).reshape(array.shape)
    np.copyto(copy, array)
    return copy
