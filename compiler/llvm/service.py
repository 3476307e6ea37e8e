"""Modules in a queue, and workers that compile them."""

from __future__ import annotations

import heapq
import os
import selectors
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from . import backend
from .codegen import CodegenError, diagnose
from .target import Target
from .worker import Died, Worker


class Cancelled(Exception):
    """Nobody waits for the objects any more."""


class Queue:
    """Modules that wait for a worker, the longest first, so that none is left with one at the end.

    Made by one thread, emptied by another, which waits for it as for a file.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, int, str]] = []
        self._count = 0
        self._reading, self._writing = os.pipe()
        self.open = True
        self.cancelled = False

    def fileno(self) -> int:
        """What can be read from when something has changed, for a selector."""
        return self._reading

    def put(self, ir: str) -> None:
        with self._lock:
            heapq.heappush(self._waiting, (-len(ir), self._count, ir))
            self._count += 1
        os.write(self._writing, b"+")

    def close(self, *, cancel: bool = False) -> None:
        """Nothing more will come; on `cancel`, nothing of what is there matters either."""
        self.open, self.cancelled = False, cancel
        os.write(self._writing, b"-")

    def take(self) -> str | None:
        """The longest module, if there is one."""
        with self._lock:
            return heapq.heappop(self._waiting)[2] if self._waiting else None

    def read_changes(self) -> None:
        os.read(self._reading, 4096)

    def __len__(self) -> int:
        return len(self._waiting)

    def free(self) -> None:
        os.close(self._reading)
        os.close(self._writing)


class Staff(Protocol):
    """Where workers come from."""

    def hire(self) -> Worker | None:
        """One more worker; None where the system has none to give."""

    def dismiss(self, worker: Worker) -> None:
        """Parts with a worker that has died."""


class Service:
    """Workers at work on a queue.

    Arguments:
        queue: what is to be compiled.
        names: IR text -> the unit that it is, for errors.
        target: what to compile for.
        idle: workers that are there already.
        to_hire: how many more there may be.
        staff: where they come from.
        done: gets each object as soon as it is there.
    """

    def __init__(
        self,
        queue: Queue,
        names: Mapping[str, str],
        target: Target,
        idle: Sequence[Worker],
        to_hire: int,
        staff: Staff,
        done: Callable[[str, bytes], None],
    ) -> None:
        self.staff = staff
        self.queue = queue
        self.names = names
        self.target = target
        self.done = done
        self.idle = list(idle)
        self.to_hire = to_hire
        self.busy: set[Worker] = set()
        self.suspects: set[str] = set()  # a worker has died over them once
        self.selector = selectors.DefaultSelector()

    def run(self) -> None:
        with self.selector:
            self.selector.register(self.queue, selectors.EVENT_READ, self.queue.read_changes)
            while self._give_out() or self.busy or self.queue.open:
                for event, _ in self.selector.select():
                    event.data()
                if self.queue.cancelled:
                    raise Cancelled

    def _give_out(self) -> bool:
        """Gives modules to idle workers and new ones; whether it gave any."""
        given = False
        while self.queue and (worker := self._free_worker()):
            ir = self.queue.take()
            assert ir is not None
            self._employ(worker, ir)
            given = True
        return given

    def _free_worker(self) -> Worker | None:
        if self.idle:
            return self.idle.pop()
        if self.to_hire <= 0:
            return None
        worker = self.staff.hire()
        self.to_hire = self.to_hire - 1 if worker else 0
        return worker

    def _employ(self, worker: Worker, ir: str) -> None:
        worker.send(ir, self.target)
        self.busy.add(worker)
        self.selector.register(worker, selectors.EVENT_READ, partial(self._receive, worker))

    def _release(self, worker: Worker) -> None:
        self.selector.unregister(worker)
        self.busy.remove(worker)

    def _receive(self, worker: Worker) -> None:
        try:
            status, data = worker.receive()
        except Died as died:
            self._release(worker)
            self._replace(worker, str(died))
            return
        if status == backend.READY:
            worker.ready = True
        elif status == backend.REFUSED:
            raise diagnose(worker.job, data.decode(), self.names[worker.job])
        else:
            self._release(worker)
            self.done(worker.job, data)
            self.idle.append(worker)

    def _replace(self, worker: Worker, how: str) -> None:
        self.staff.dismiss(worker)
        if not worker.ready:
            self.queue.put(worker.job)
            self.to_hire = 0
            return
        # It may have been ended from outside, or have gone idle: try once more.
        another = None if worker.job in self.suspects else self.staff.hire()
        if another is None:
            unit = self.names[worker.job]
            raise CodegenError(f"{unit}: LLVM died compiling it ({how})", unit=unit)
        self.suspects.add(worker.job)
        self._employ(another, worker.job)
