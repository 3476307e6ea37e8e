"""A process that turns modules of LLVM IR into objects; `backend.py` is its program."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

import llvmlite

from . import backend
from .codegen import stamped
from .target import Target


class Died(Exception):
    """A worker has ended unasked; the message is how."""


class Worker:
    """One worker process. It is given one module at a time.

    Attributes:
        ready: whether it has answered yet.
        job: the IR text it works on, or has worked on last.
    """

    def __init__(self) -> None:
        self.ready = False
        self.job = ""
        site = Path(llvmlite.__file__).parent.parent
        command = [sys.executable, "-I", "-S", backend.__file__, str(site)]
        with ExitStack() as files:
            # Standard error goes to a file, as a full pipe would make LLVM wait for a reader.
            self._log = files.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(
                command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
            )
            self._files = files.pop_all()
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
        raise Died(self._last_words())

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
        for file in (self._requests, self._replies, self._files):
            file.close()
