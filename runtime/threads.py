"""Running compiled programs on a team of threads that lives as long as the process.

A *program* is an int64 array of shape (steps, 4): address of the step's function, address of its
array of buffer pointers, extent, flags. The function has the C signature
`void f(void** args, int64 begin, int64 end)`. Of a PARALLEL step, thread t of T has the share
[extent·t // T, extent·(t+1) // T), which it runs piece by piece, and pieces of other shares when
it is done with its own; any other step runs on thread 0 as [0, extent). Before a BARRIER step all
threads meet.

`Runner.run` makes one native call for a whole program (`native.py` has that side). The workers
are native threads that never enter the interpreter, so they neither need its lock nor care about
its end.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.errors import UsageError
from .cpus import usable_cpus
from .native import (
    CONDITION,
    FIELD_PAUSES,
    FIELD_STARTED,
    FIELD_THREADS,
    LINE,
    MUTEX,
    POOL_BYTES,
    UNSTARTED,
    native,
)

PARALLEL = 1
"""Step flag: the extent is shared out among the threads."""

BARRIER = 2
"""Step flag: all threads have finished the steps before this one when it starts."""

MAX_THREADS = 1024

_STACK_BYTES = 8 << 20  # what Linux gives a main thread; other systems and libraries give less
_WORD = 8


class Runner:
    """Runs programs on `threads` threads, the caller's included; see `get_runner`.

    Workers start with the first program that has parallel steps, and sleep between programs. A
    runner lasts as long as the process: it survives a fork (the child starts its own workers when
    it needs them) and sends its workers home when the interpreter exits.

    Runs from several Python threads take turns. A signal handler may run a program in the middle
    of another one, for handlers are only called while no thread is inside a program.

    Attributes:
        threads: size of the team.
        slice_ns: nanoseconds after which a run returns to Python for a moment, where threads meet
            the next time, so that signals such as Ctrl-C are handled.
    """

    def __init__(self, threads: int) -> None:
        self.threads = _checked(threads, "threads")
        self.slice_ns = 100_000_000
        # Re-entrant, for a signal handler that runs a program while its own thread runs one.
        self._lock = threading.RLock()
        self._team = _Team(self.threads)
        os.register_at_fork(after_in_child=self._forked)
        atexit.register(self._disband)

    def run(self, steps: NDArray[np.int64], timestamps: NDArray[np.int64] | None = None) -> None:
        """Run a program to its end, and return when no thread touches its buffers any more.

        When an exception arrives on the way (KeyboardInterrupt), the remaining steps are not run,
        and the runner is ready for the next program.

        Args:
            steps: the program, (steps, 4) int64, C-contiguous. It, the arrays of buffer pointers
                and the buffers must stay alive and in place until the run ends.
            timestamps: (steps + 1,) int64, C-contiguous; receives the clock of
                `time.perf_counter_ns` on thread 0 at the start of every step (after its barrier),
                and at the end when all threads are done.

        Raises:
            ValueError: an array's shape, dtype or layout is not as described.
            UsageError: the system does not allow that many threads.
        """
        _check_program(steps, timestamps)
        self.run_at(address(steps), len(steps), 0 if timestamps is None else address(timestamps))

    def run_at(self, steps: int, count: int, stamps: int = 0) -> None:
        """`run` of arrays that are known to be right, by their addresses.

        Args:
            steps: address of the program.
            count: number of its steps.
            stamps: address of the timestamps, or 0.
        """
        first = 0  # the run's own, so that another program can run during a pause
        with self._lock:
            while True:
                team = self._team
                reached = native().run(team.address, steps, count, first, stamps, self.slice_ns)
                if reached == count:
                    return
                if reached == UNSTARTED:
                    self._start()
                else:
                    first = reached

    def _start(self) -> None:
        team = _Team(self.threads)
        team.start()
        # A run from a signal handler may have been faster; then this team is dropped, and closes.
        if not self._team.started:
            self._team = team

    def _disband(self) -> None:
        """Send the workers home, unless a daemon thread is still running a program with them."""
        if self._lock.acquire(blocking=False):
            self._team = _Team(self.threads)
            self._lock.release()

    def _forked(self) -> None:
        """Begin anew in a forked child: it has no workers, and nobody to release the lock."""
        self._lock = threading.RLock()
        self._team.forget()
        self._team = _Team(self.threads)


_runners: dict[int, Runner] = {}


def get_runner(threads: int | None = None) -> Runner:
    """The process's runner for a number of threads (default: `default_threads()`).

    Raises:
        UsageError: the number is not an integer from 1 to 1024.
    """
    count = default_threads() if threads is None else _checked(threads, "threads")
    if count not in _runners:
        # Two Python threads may both get here; `setdefault` lets one of them win.
        _runners.setdefault(count, Runner(count))
    return _runners[count]


def default_threads() -> int:
    """How many threads to use when the caller does not say.

    QUERN_NUM_THREADS if that is set, else `usable_cpus()`.

    Raises:
        UsageError: QUERN_NUM_THREADS is not a whole number from 1 to 1024.
    """
    wanted = os.environ.get("QUERN_NUM_THREADS", "").strip()
    if wanted:
        return _checked(int(wanted) if wanted.isdecimal() else wanted, "QUERN_NUM_THREADS")
    return min(usable_cpus(), MAX_THREADS)


def _checked(threads: object, name: str) -> int:
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer):
        raise UsageError(f"{name} is {threads!r}; give a whole number from 1 to {MAX_THREADS}")
    if not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"{name} is {threads}; give a whole number from 1 to {MAX_THREADS}")
    return int(threads)


def _check_program(steps: NDArray[np.int64], timestamps: NDArray[np.int64] | None) -> None:
    if steps.dtype != np.int64 or steps.ndim != 2 or steps.shape[1] != 4:
        raise ValueError(f"steps is {steps.dtype}{steps.shape}; expected int64 of shape (n, 4)")
    if not steps.flags.c_contiguous:
        raise ValueError("steps is not C-contiguous")
    if timestamps is None:
        return
    if timestamps.dtype != np.int64 or timestamps.shape != (len(steps) + 1,):
        raise ValueError(
            f"timestamps is {timestamps.dtype}{timestamps.shape}; "
            f"expected int64 of shape ({len(steps) + 1},)"
        )
    if not timestamps.flags.c_contiguous or not timestamps.flags.writeable:
        raise ValueError("timestamps is not a writeable C-contiguous array")


_byte_of, _address_of = ctypes.c_char.from_buffer, ctypes.addressof


def address(array: Any) -> int:
    """Where an array's first element is."""
    try:
        return _address_of(_byte_of(array))
    except (TypeError, ValueError):  # not writeable, or empty: another way, which takes longer
        return int(array.__array_interface__["data"][0])


class _Team:
    """The memory a team shares (`%Pool` in native.py) and its workers, which it outlives."""

    # One for each worker that exists; none where a signal's exception ended `__init__`.
    _handles: Any = ()

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.started = False
        # Aligned by hand: threads must not write to each other's cache lines.
        memory = np.zeros((POOL_BYTES + (threads + 1) * LINE) // _WORD, np.int64)
        self.address = -(-address(memory) // LINE) * LINE
        self._words = memory[(self.address - address(memory)) // _WORD :]
        self._words[FIELD_THREADS] = threads
        # A wait spins for some 30 µs, but not where the awaited thread may need this very core.
        self._words[FIELD_PAUSES] = 1000 if threads <= usable_cpus() else 16
        self._handles = (ctypes.c_void_p * threads)()

    def start(self) -> None:
        """Start the workers, once."""
        libc = ctypes.CDLL(None)
        libc.pthread_mutex_init(ctypes.c_void_p(self.address + MUTEX), None)
        libc.pthread_cond_init(ctypes.c_void_p(self.address + CONDITION), None)
        attributes = ctypes.create_string_buffer(256)  # pthread_attr_t takes 56 or 64 bytes
        libc.pthread_attr_init(attributes)
        libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(_STACK_BYTES))
        # Signals are for the interpreter's threads, faults for whoever causes them.
        faults = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - faults)
        try:
            for thread in range(1, self.threads):
                self._create(libc, thread, attributes)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            libc.pthread_attr_destroy(attributes)
        self._words[FIELD_STARTED] = 1
        self.started = True

    def _create(
        self, libc: ctypes.CDLL, thread: int, attributes: ctypes.Array[ctypes.c_char]
    ) -> None:
        line = POOL_BYTES + thread * LINE
        self._words[line // _WORD + 1] = thread
        self._words[line // _WORD + 2] = self.address
        error = libc.pthread_create(
            ctypes.byref(self._handles, thread * ctypes.sizeof(ctypes.c_void_p)),
            attributes,
            ctypes.c_void_p(native().worker),
            ctypes.c_void_p(self.address + line),
        )
        if error:
            self._handles[thread] = None
            raise UsageError(
                f"cannot start thread {thread + 1} of {self.threads}: {os.strerror(error)}; "
                "set threads= or QUERN_NUM_THREADS to a smaller number"
            )

    def forget(self) -> None:
        """Take the workers for gone, as they are in a forked child."""
        self._handles = (ctypes.c_void_p * self.threads)()

    def __del__(self) -> None:
        workers = [handle for handle in self._handles if handle]
        if workers:
            native().close(self.address)
            join = ctypes.CDLL(None).pthread_join
            for worker in workers:
                join(ctypes.c_void_p(worker), None)
