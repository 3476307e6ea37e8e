"""Many modules of LLVM IR to objects at once, through the cache and on all cores.

LLVM calls of one process take turns (llvmlite holds a lock), so the work goes to worker processes.
They run `backend.py` by its path, which works from any thread and from a script without a main
guard, and starts in 0.1 s; a module that makes LLVM abort ends a worker, not the caller.
"""

from __future__ import annotations

import atexit
import math
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import llvmlite

from . import backend
from .cache import ObjectCache, object_key
from .codegen import CodegenError, compile_to_object, diagnose, stamped
from .target import Target

# Measured: seconds to compile a module, and until a worker is ready.
_SECONDS_PER_MODULE = 0.006
_SECONDS_PER_BYTE = 0.5e-6
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
    began = time.perf_counter()
    names: dict[str, list[str]] = {}  # IR text -> its units
    for name, ir in units.items():
        names.setdefault(ir, []).append(name)
    found: dict[str, bytes] = {}
    keys = {ir: object_key(target, ir) for ir in names} if cache else {}
    for ir, key in keys.items():
        if cache and (data := cache.get(key)) is not None:
            found[ir] = data
    # Longest first, so that no worker is left with a long one at the end.
    todo = sorted((ir for ir in names if ir not in found), key=len, reverse=True)
    cached = len(found)

    def keep(ir: str, data: bytes) -> None:
        found[ir] = data
        if cache:
            cache.put(keys[ir], data)

    first = {ir: names[ir][0] for ir in todo}
    count = _worker_count(todo, workers)
    if count > 1:
        todo = _POOL.compile(todo, first, target, count, keep)
    for ir in todo:
        keep(ir, _compile_here(ir, first[ir], target))
    objects = {name: found[ir] for name, ir in units.items()}
    return CompileResult(objects, len(first), cached, time.perf_counter() - began)


def _compile_here(ir: str, unit: str, target: Target) -> bytes:
    try:
        return compile_to_object(ir, target)
    except CodegenError as error:
        raise CodegenError(f"{unit}: {error}", line=error.line, unit=unit) from None


def _worker_count(todo: Sequence[str], asked: int | None) -> int:
    """How many workers to use; 1 stands for none."""
    if asked is not None:
        return max(1, min(asked, len(todo)))
    count = min(usable_cpus(), len(todo), _MAX_WORKERS)
    alone = sum(_SECONDS_PER_MODULE + len(ir) * _SECONDS_PER_BYTE for ir in todo)
    start = 0.0 if _POOL.running >= count else _SECONDS_TO_START
    return count if count > 1 and alone / count + start < 0.8 * alone else 1


def usable_cpus() -> int:
    """Cores this process may use: its affinity, and the CPU quota of its control group."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        count = os.cpu_count() or 1
    return max(1, math.ceil(min(count, _cpu_quota())))


def _cpu_quota() -> float:
    """CPUs that the control groups of this process (version 2 or 1) allow; inf for no limit."""
    root = Path("/sys/fs/cgroup")
    quota = math.inf
    with suppress(OSError, StopIteration):
        groups = Path("/proc/self/cgroup").read_text().splitlines()
        group = next(line[3:] for line in groups if line.startswith("0::"))
        folder = root / group.strip("/")
        while root in (folder, *folder.parents):  # a limit binds all groups below it
            with suppress(OSError, ValueError):  # "max": no limit
                limit, period = (folder / "cpu.max").read_text().split()
                quota = min(quota, int(limit) / int(period))
            folder = folder.parent
    with suppress(OSError, ValueError):
        limit = (root / "cpu/cpu.cfs_quota_us").read_text()
        period = (root / "cpu/cpu.cfs_period_us").read_text()
        if int(limit) > 0:
            quota = min(quota, int(limit) / int(period))
    return quota


class _Died(Exception):
    """A worker has ended unasked; the message is how."""


class _Worker:
    """One worker process. It is given one module at a time."""

    def __init__(self) -> None:
        self.ready = False
        self.job = ""
        # Standard error goes to a file, as a full pipe would make LLVM wait for a reader.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        site = Path(llvmlite.__file__).parent.parent
        command = [sys.executable, "-I", "-S", backend.__file__, str(site)]
        try:
            self._process = subprocess.Popen(
                command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
            )
        except BaseException:
            self._log.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout

    def fileno(self) -> int:
        """Where its replies come from, for a selector."""
        return self._replies.fileno()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, ir: str, target: Target) -> None:
        """Give it a module to compile; that it is dead shows when the reply is read."""
        self.job = ir
        texts = [t.encode() for t in (target.cpu, target.llvm_features, stamped(ir, target))]
        message = backend.REQUEST.pack(*map(len, texts)) + b"".join(texts)
        with suppress(BrokenPipeError):
            backend.write_all(self._requests.fileno(), message)

    def receive(self) -> tuple[int, bytes]:
        """Its next reply: a status of `backend` and what belongs to it."""
        header = backend.read_exactly(self.fileno(), backend.REPLY.size)
        if header is not None:
            status, length = backend.REPLY.unpack(header)
            data = backend.read_exactly(self.fileno(), length)
            if data is not None:
                return status, data
        raise _Died(self._last_words())

    def _last_words(self) -> str:
        """How it ended, and the first error it wrote, on one line."""
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        errors = [line.strip() for line in lines if "error" in line.lower()]
        return ": ".join([f"signal {-code}" if code < 0 else f"exit code {code}", *errors[:1]])

    def close(self, *, kill: bool = True) -> None:
        """End it and free what it holds; `kill=False` in a forked child, whose worker it is not."""
        if kill:
            self._process.kill()
            self._process.wait()
        else:
            self._process.returncode = 0
        for file in (self._requests, self._replies, self._log):
            file.close()


class _Pool:
    """The workers of this process, started when there is work and kept for more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []
        self._unavailable = False

    @property
    def running(self) -> int:
        """How many workers need not be started any more."""
        return sum(worker.alive for worker in list(self._workers))

    def compile(
        self,
        todo: Sequence[str],
        names: Mapping[str, str],
        target: Target,
        count: int,
        done: Callable[[str, bytes], None],
    ) -> list[str]:
        """Compile IR texts on `count` workers; each object goes to `done` as soon as it is there.

        Returns the texts that are left, where this system does not let workers run.
        """
        with self._lock:
            try:
                for worker in [w for w in self._workers if not w.alive]:
                    self._dismiss(worker)
                while len(self._workers) < count and self._hire():
                    pass
                return self._run(deque(todo), names, target, self._workers[:count], done)
            except BaseException:
                self.close()  # they may be busy: after Ctrl-C or an error nobody waits for them
                raise

    def close(self, *, kill: bool = True) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.close(kill=kill)
        self._workers.clear()

    def _hire(self) -> _Worker | None:
        """One more worker; None where the system has none to give."""
        # The executable of a frozen program is the program itself, not Python.
        if self._unavailable or getattr(sys, "frozen", False) or not sys.executable:
            return None
        with suppress(OSError):
            self._workers.append(_Worker())
            return self._workers[-1]
        return None

    def _dismiss(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.close()

    def _run(
        self,
        todo: deque[str],
        names: Mapping[str, str],
        target: Target,
        workers: Sequence[_Worker],
        done: Callable[[str, bytes], None],
    ) -> list[str]:
        suspects: set[str] = set()  # a worker has died over them once
        with selectors.DefaultSelector() as selector:

            def employ(worker: _Worker) -> None:
                if todo:
                    worker.send(todo.popleft(), target)
                    selector.register(worker, selectors.EVENT_READ)

            def replace(worker: _Worker, how: str) -> None:
                self._dismiss(worker)
                todo.appendleft(worker.job)
                if not worker.ready:  # it never came up, and so would no other
                    self._unavailable = True
                    return
                # It may have been ended from outside, or have gone idle: try once more.
                another = None if worker.job in suspects else self._hire()
                if another is None:
                    unit = names[worker.job]
                    raise CodegenError(f"{unit}: LLVM died compiling it ({how})", unit=unit)
                suspects.add(worker.job)
                employ(another)

            for worker in workers:
                employ(worker)
            while selector.get_map():
                for event, _ in selector.select():
                    worker = event.fileobj  # type: ignore[assignment]
                    try:
                        status, data = worker.receive()
                    except _Died as died:
                        selector.unregister(worker)
                        replace(worker, str(died))
                        continue
                    if status == backend.READY:
                        worker.ready = True
                    elif status == backend.REFUSED:
                        raise diagnose(worker.job, data.decode(), names[worker.job])
                    else:
                        selector.unregister(worker)
                        done(worker.job, data)
                        employ(worker)
        return list(todo)


_POOL = _Pool()
atexit.register(_POOL.close)


def _forget_workers() -> None:
    """In a forked child: the workers, and whoever holds the lock, are the parent's."""
    _POOL.close(kill=False)
    _POOL.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)
