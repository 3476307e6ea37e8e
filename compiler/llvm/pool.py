"""Many modules of LLVM IR to objects at once, through the cache and on all cores.

LLVM calls of one process take turns (llvmlite holds a lock), so the work goes to worker processes.
They run `backend.py` by its path, which works from any thread and from a script without a main
guard, and starts in 0.1 s; a module that makes LLVM abort ends a worker, not the caller.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from .cache import ObjectCache, object_key
from .codegen import CodegenError, compile_to_object
from .processors import usable_cpus as usable_cpus
from .service import Queue, Service
from .target import Target
from .worker import Worker

# Measured: seconds to compile a module, and until a worker is ready.
_SECONDS_PER_MODULE = 0.006
_SECONDS_PER_BYTE = 1.2e-6
_SECONDS_TO_START = 0.12
_MAX_WORKERS = 32


@dataclass(frozen=True)
class CompileResult:
    """What `compile_all` did.

    Arguments:
        objects: the object of every unit, in the order of the units.
        compiled: modules compiled; equal ones count once.
        cached: modules taken from the cache.
        seconds: how long it took.
    """

    objects: dict[str, bytes]
    compiled: int
    cached: int
    seconds: float


def compile_all(
    units: Mapping[str, str],
    target: Target,
    cache: ObjectCache | None = None,
    workers: int | None = None,
) -> CompileResult:
    """Compile modules of LLVM IR.

    Arguments:
        units: name of each unit -> its IR text. Equal texts are compiled once.
        target: what to compile for.
        cache: where to look first, and to keep what was compiled.
        workers: worker processes to use; 1 compiles in this process, and so does None unless there
            is enough to do that workers pay.

    Raises:
        CodegenError: LLVM refuses a unit's IR, or dies of it; the message names the unit.
    """
    with Compilation(target, cache, workers) as compilation:
        for name, ir in units.items():
            compilation.add(name, ir)
        return compilation.result()


class Compilation:
    """Modules on their way to objects: workers begin with the first ones while more are added.

    Arguments:
        target: what to compile for.
        cache: where to look first, and to keep what was compiled.
        workers: worker processes to use, see `compile_all`.
    """

    def __init__(
        self, target: Target, cache: ObjectCache | None = None, workers: int | None = None
    ) -> None:
        self._target = target
        self._cache = cache
        self._asked = workers
        self._began = time.perf_counter()
        self._units: dict[str, str] = {}  # name -> IR text
        self._first: dict[str, str] = {}  # IR text -> the first unit that has it
        self._found: dict[str, bytes] = {}
        self._todo: list[str] = []
        self._queue: Queue | None = None
        # Not the thread itself is waited for: one whose `join` was interrupted counts as ended.
        self._served = threading.Event()
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._queue is not None:
            self._queue.close(cancel=True)
            self._served.wait()
            self._queue.free()

    def add(self, name: str, ir: str) -> None:
        """One more unit."""
        self._units[name] = ir
        if ir in self._first:
            return
        self._first[ir] = name
        if self._cache is not None:
            data = self._cache.get(object_key(self._target, ir))
            if data is not None:
                self._found[ir] = data
                return
        self._todo.append(ir)
        if self._queue is not None:
            self._queue.put(ir)
        elif _worker_count(self._todo, self._asked) > 1:
            self._start()

    def result(self) -> CompileResult:
        """All objects, once they are there.

        Raises:
            CodegenError: LLVM refuses a unit's IR, or dies of it; the message names the unit.
        """
        if self._queue is not None:
            self._queue.close()
            self._served.wait()
        if self._error is not None:
            raise self._error
        for ir in self._todo:
            if ir not in self._found:
                self._keep(ir, self._compile_here(ir))
        objects = {name: self._found[ir] for name, ir in self._units.items()}
        seconds = time.perf_counter() - self._began
        cached = len(self._first) - len(self._todo)
        return CompileResult(objects, len(self._todo), cached, seconds)

    def _start(self) -> None:
        self._queue = Queue()
        for ir in self._todo:
            self._queue.put(ir)
        threading.Thread(target=self._serve, args=(self._queue,), daemon=True).start()

    def _serve(self, queue: Queue) -> None:
        """Keeps workers busy until the queue is closed and empty."""
        count = min(usable_cpus(), _MAX_WORKERS) if self._asked is None else self._asked
        try:
            _POOL.serve(queue, self._first, self._target, count, self._keep)
        except BaseException as error:
            self._error = error
        finally:
            self._served.set()

    def _keep(self, ir: str, data: bytes) -> None:
        self._found[ir] = data
        if self._cache is not None:
            self._cache.put(object_key(self._target, ir), data)

    def _compile_here(self, ir: str) -> bytes:
        unit = self._first[ir]
        try:
            return compile_to_object(ir, self._target)
        except CodegenError as error:
            raise CodegenError(f"{unit}: {error}", line=error.line, unit=unit) from None


def _worker_count(todo: Sequence[str], asked: int | None) -> int:
    """How many workers to use for these modules alone; 1 stands for none."""
    if asked is not None:
        return max(1, min(asked, len(todo)))
    count = min(usable_cpus(), len(todo), _MAX_WORKERS)
    alone = sum(_SECONDS_PER_MODULE + len(ir) * _SECONDS_PER_BYTE for ir in todo)
    start = 0.0 if _POOL.running >= count else _SECONDS_TO_START
    return count if count > 1 and alone / count + start < 0.8 * alone else 1


class _Pool:
    """The workers of this process, started when there is work and kept for more."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begins without workers."""
        self._lock = threading.Lock()
        self._workers: list[Worker] = []
        self._unavailable = False

    @property
    def running(self) -> int:
        """How many workers need not be started any more."""
        return sum(worker.alive for worker in list(self._workers))

    def serve(
        self,
        queue: Queue,
        names: Mapping[str, str],
        target: Target,
        count: int,
        done: Callable[[str, bytes], None],
    ) -> None:
        """Compile what is in the queue on `count` workers, until it is closed and empty.

        Each object goes to `done` as soon as it is there. Where this system does not let workers
        run, modules stay in the queue.
        """
        with self._lock:
            try:
                for worker in [w for w in self._workers if not w.alive]:
                    self._dismiss(worker)
                idle = self._workers[:count]
                hire = count - len(idle)
                Service(queue, names, target, idle, hire, self, done).run()
            except BaseException:
                self.close()  # they may be busy: after Ctrl-C or an error nobody waits for them
                raise

    def close(self, *, kill: bool = True) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.close(kill=kill)
        self._workers.clear()

    def hire(self) -> Worker | None:
        """One more worker; None where the system has none to give."""
        # The executable of a frozen program is the program itself, not Python.
        if self._unavailable or getattr(sys, "frozen", False) or not sys.executable:
            return None
        with suppress(OSError):
            self._workers.append(Worker())
            return self._workers[-1]
        return None

    def dismiss(self, worker: Worker) -> None:
        """Parts with a worker that has died; where it never came up, no other would."""
        self._dismiss(worker)
        self._unavailable |= not worker.ready

    def _dismiss(self, worker: Worker) -> None:
        self._workers.remove(worker)
        worker.close()


_POOL = _Pool()
atexit.register(_POOL.close)


def _forget_workers() -> None:
    """In a forked child: the workers, and whoever holds the lock, are the parent's."""
    _POOL.close(kill=False)
    _POOL.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)
