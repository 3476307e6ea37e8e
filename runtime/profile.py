"""Where the time of a run goes, kernel by kernel, and how far each is from the machine's limits.

The limit of a kernel is the roofline (Williams, Waterman and Patterson, 2009): it takes at least as
long as its floating-point operations take at the peak rate, and at least as long as its bytes take
to come from where they may still be, and as these and those it writes take to pass. Parameters are
read once a run, so they come from wherever all that the network touches fits; what one kernel hands
to the next may still be in the cache that holds what the kernel touches. Every byte counts once,
however often it is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..compiler.errors import InputError
from ..compiler.types import DType, TensorType
from .executable import Executable
from .peaks import Peaks, peaks
from .program import KernelCall, Program, SlotKind

_WARM, _LEAST, _MOST = 2, 5, 1000


@dataclass(frozen=True)
class KernelProfile:
    """One kernel of a network.

    Arguments:
        name: of the kernel.
        origins: the user's nodes that it computes.
        phase: forward, backward or update.
        note: algorithm and tile.
        reads: types of the values that it is given.
        writes: types of the values that it gives.
        seconds: it takes, the median of all runs; with 2 or more threads until the next one begins.
        flops: floating-point operations that it does.
        nbytes: bytes that it reads and writes, each once.
        limit: seconds that it takes at least on this machine.
        bound: what the limit comes from: "FLOPs" or "bytes".
    """

    name: str
    origins: tuple[str, ...]
    phase: str
    note: str
    reads: tuple[TensorType, ...]
    writes: tuple[TensorType, ...]
    seconds: float
    flops: int
    nbytes: int
    limit: float
    bound: str

    @property
    def flops_per_second(self) -> float:
        return self.flops / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_second(self) -> float:
        return self.nbytes / self.seconds if self.seconds else 0.0

    @property
    def roofline(self) -> float:
        """Share of what the machine can do: 1 is the limit."""
        return self.limit / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Profile:
    """Where the time of a run goes.

    Arguments:
        name: of the network.
        kernels: in the order in which they run.
        seconds: of a whole run, the median; without the call from Python and its checks.
        runs: number of runs that were timed.
        peaks: what the machine can do with as many threads.
    """

    name: str
    kernels: tuple[KernelProfile, ...]
    seconds: float
    runs: int
    peaks: Peaks

    @property
    def limit(self) -> float:
        """Sum of the kernels' limits, in seconds."""
        return sum(k.limit for k in self.kernels)

    @property
    def flops(self) -> int:
        return sum(k.flops for k in self.kernels)

    @property
    def nbytes(self) -> int:
        return sum(k.nbytes for k in self.kernels)

    def share(self, kernel: KernelProfile) -> float:
        """A kernel's share of the time of all kernels."""
        return kernel.seconds / (self._together or 1.0)

    @property
    def _together(self) -> float:
        """Sum of the kernels' times. Medians do not add up to the median of the sum."""
        return sum(k.seconds for k in self.kernels)

    def slowest(self, top: int | None = None) -> list[KernelProfile]:
        """The kernels that take longest, longest first."""
        return sorted(self.kernels, key=lambda k: -k.seconds)[:top]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data: times in seconds, rates in units a second."""
        return {
            "name": self.name,
            "threads": self.peaks.threads,
            "runs": self.runs,
            "seconds": self.seconds,
            "limit": self.limit,
            "flops": self.flops,
            "bytes": self.nbytes,
            "peaks": asdict(self.peaks),
            "kernels": [self._kernel_to_json(k) for k in self.kernels],
        }

    def _kernel_to_json(self, kernel: KernelProfile) -> dict[str, Any]:
        return {
            "name": kernel.name,
            "origins": list(kernel.origins),
            "phase": kernel.phase,
            "note": kernel.note,
            "reads": [str(t) for t in kernel.reads],
            "writes": [str(t) for t in kernel.writes],
            "seconds": kernel.seconds,
            "flops": kernel.flops,
            "bytes": kernel.nbytes,
            "limit": kernel.limit,
            "bound": kernel.bound,
            "roofline": kernel.roofline,
            "share": self.share(kernel),
        }

    def rows(self, top: int | None = None) -> list[tuple[str, ...]]:
        """Cells under HEADINGS: the slowest kernels, the others as one, and their total."""
        shown = self.slowest(top)
        rest = self.slowest()[len(shown) :]
        lines = [(*self._cells(k), k.bound, k.name, _shapes(k.writes), k.note) for k in shown]
        if rest:
            lines.append((*self._sums(rest), "", f"{len(rest)} more kernels", "", ""))
        total = f"total of {len(self.kernels)} kernels"
        return [*lines, (*self._sums(self.kernels), "", total, "", "")]

    def summary(self) -> str:
        """`7.312 ms a run on 2 threads, the kernels' limits sum up to 5.100 ms (70 %); …`"""
        threads = f"{self.peaks.threads} thread{'' if self.peaks.threads == 1 else 's'}"
        share = self.limit / self.seconds if self.seconds else 0.0
        return (
            f"{1e3 * self.seconds:.3f} ms a run on {threads} (median of {self.runs}); the limits "
            f"of its kernels sum up to {1e3 * self.limit:.3f} ms ({share:.0%})\n"
            f"peaks: {self.peaks.float32 / 1e9:.0f} GFLOP/s of float32, "
            f"{self.peaks.memory / 1e9:.1f} GB/s from memory"
        )

    def __str__(self) -> str:
        table = [HEADINGS, *self.rows()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if place < NUMBERS else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in table
        ]
        return "\n".join((*lines, "", self.summary()))

    def plot(self, path: str | Path) -> Path:
        """Draws the roofline with all kernels, and the slowest ones beside their limits.

        Arguments:
            path: .png, .svg or .pdf.

        Raises:
            UsageError: Matplotlib is not installed, or does not know the suffix.
        """
        from .profile_plot import plot

        return plot(self, path)

    def _cells(self, kernel: KernelProfile) -> tuple[str, ...]:
        return self._numbers(kernel.seconds, kernel.flops, kernel.nbytes, kernel.limit)

    def _sums(self, kernels: Sequence[KernelProfile]) -> tuple[str, ...]:
        return self._numbers(
            sum(k.seconds for k in kernels),
            sum(k.flops for k in kernels),
            sum(k.nbytes for k in kernels),
            sum(k.limit for k in kernels),
        )

    def _numbers(self, seconds: float, flops: int, nbytes: int, limit: float) -> tuple[str, ...]:
        whole = seconds or 1.0
        return (
            f"{1e3 * seconds:.3f}",
            f"{100 * seconds / (self._together or 1.0):.1f}",
            f"{flops / whole / 1e9:.1f}",
            f"{nbytes / whole / 1e9:.1f}",
            f"{100 * limit / whole:.0f}",
        )


HEADINGS = ("ms", "%", "GFLOP/s", "GB/s", "% of limit", "bound", "kernel", "gives", "as")
"""Of the columns of `Profile.rows`."""

NUMBERS = 5
"""How many of them, from the left, hold numbers."""


def profile(
    executable: Executable,
    inputs: Mapping[str, Any] | Sequence[Any] | None = None,
    *,
    duration: float = 1.0,
    known: Peaks | None = None,
) -> Profile:
    """Runs a network again and again, and takes the time of every kernel.

    The clock is read between two kernels, in machine code, by the thread that calls; that takes
    some 30 ns each time. A training step trains.

    Arguments:
        executable: the network.
        inputs: arrays by name, or in order; zeros by default.
        duration: seconds to go on for, in 5 to 1000 runs.
        known: the machine's peaks; by default those of the cache directory, measured if need be:
            the first time, and where a kernel does more operations than they allow.

    Raises:
        InputError: inputs that are not the network's.
    """
    arrays = _arrays(executable, inputs)
    machine = known or peaks(executable.threads)
    for _ in range(_WARM):
        executable.run(arrays)
    stamps: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    begin = time.perf_counter()
    while len(stamps) < _LEAST or (len(stamps) < _MOST and time.perf_counter() < begin + duration):
        row = np.zeros(len(executable.program.steps) + 1, np.int64)
        executable.run(arrays, row)
        stamps.append(row)
    found = from_timestamps(executable.program, np.stack(stamps), machine)
    if known is None and any(k.bound == "FLOPs" and k.roofline > 1 for k in found.kernels):
        machine = peaks(executable.threads, measure=True)
        found = from_timestamps(executable.program, np.stack(stamps), machine)
    return found


def from_timestamps(
    program: Program, stamps: np.ndarray[Any, np.dtype[np.int64]], machine: Peaks
) -> Profile:
    """The profile of a program from the times at which its steps began.

    Arguments:
        program: that was run.
        stamps: (runs, steps + 1) nanoseconds, the last column being the end.
        machine: what it ran on.
    """
    times = np.diff(stamps, axis=1) / 1e9
    owners = np.array([step.kernel for step in program.steps], np.int64)
    kernels = []
    everything = _footprint(program, range(len(program.slots)))
    for number, call in enumerate(program.kernels):
        seconds = float(np.median(times[:, owners == number].sum(axis=1)))
        limit, bound = _limit(program, call, machine, everything)
        kernels.append(
            KernelProfile(
                call.name,
                call.origins,
                call.phase,
                call.note,
                call.reads,
                call.writes,
                seconds,
                call.flops,
                call.nbytes,
                limit,
                bound,
            )
        )
    total = median(float(t) for t in times.sum(axis=1))
    return Profile(program.name, tuple(kernels), total, len(times), machine)


def _limit(
    program: Program, call: KernelCall, machine: Peaks, everything: int
) -> tuple[float, str]:
    """The least seconds of a kernel, and what they come from."""
    lasting = _footprint(program, call.slots, SlotKind.STATE, SlotKind.CONSTANT)
    lasting = min(lasting, call.nbytes)
    share = lasting / call.nbytes if call.nbytes else 0.0
    written = min(sum(t.nbytes for t in call.writes), call.nbytes)

    def passing(nbytes: int, rate: Callable[[int], float]) -> float:
        again = nbytes * share / rate(everything)
        return again + nbytes * (1 - share) / rate(call.nbytes)

    bytes_time = max(
        passing(call.nbytes - written, machine.bytes_per_second),
        passing(call.nbytes, machine.traffic_per_second),
    )
    wide = any(t.dtype is DType.FLOAT64 for t in call.writes)
    flops_time = call.flops / (machine.float64 if wide else machine.float32)
    return max((flops_time, "FLOPs"), (bytes_time, "bytes"))


def _footprint(program: Program, numbers: Sequence[int] | range, *kinds: SlotKind) -> int:
    """Bytes of different slots; those of the arena lie over each other."""
    slots = [program.slots[n] for n in dict.fromkeys(numbers)]
    owned = sum(
        s.nbytes for s in slots if s.kind is not SlotKind.ARENA and (not kinds or s.kind in kinds)
    )
    return owned + (0 if kinds else program.arena_bytes)


def _arrays(
    executable: Executable, inputs: Mapping[str, Any] | Sequence[Any] | None
) -> dict[str, Any]:
    types = executable.inputs
    if inputs is None:
        return {name: np.zeros(t.shape, t.dtype.numpy) for name, t in types.items()}
    if isinstance(inputs, Mapping):
        return dict(inputs)
    given = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    if len(given) != len(types):
        raise InputError(
            f"{executable.program.name} takes {len(types)} inputs ({', '.join(types)}), "
            f"got {len(given)}"
        )
    return dict(zip(types, given, strict=True))


def _shapes(types: Sequence[TensorType]) -> str:
    """`1×64×56×56, 1×64`: of the first few values."""
    texts = ["×".join(map(str, t.shape)) or "scalar" for t in types]
    return ", ".join(texts[:2]) + (f" and {len(texts) - 2} more" if len(texts) > 2 else "")
