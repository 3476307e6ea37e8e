"""What happened at each stage of a compilation: time, size, and the stage's text on request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Stage:
    """One stage.

    Arguments:
        name: of the pass or stage.
        seconds: it took.
        detail: its size, in words ("412 nodes").
    """

    name: str
    seconds: float
    detail: str


_FOLLOWER: ContextVar[Callable[[Stage], None] | None] = ContextVar("follower", default=None)


@contextmanager
def following(tell: Callable[[Stage], None]) -> Iterator[None]:
    """Tells of every stage of every compilation inside, when it ends."""
    token = _FOLLOWER.set(tell)
    try:
        yield
    finally:
        _FOLLOWER.reset(token)


@dataclass
class Report:
    """Collects the stages of one compilation.

    Attributes:
        dump: folder into which every stage's text is written, numbered in order; None for none.
        stages: so far.
    """

    dump: Path | None = None
    stages: list[Stage] = field(default_factory=list)
    _files: int = 0
    _inside: float = 0.0  # seconds of the stages within the present one

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[str], None]]:
        """Times what runs inside; call what it gives with the detail.

        What stages within it take is not counted again.
        """
        detail = ""

        def describe(text: str) -> None:
            nonlocal detail
            detail = text

        before, self._inside = self._inside, 0.0
        start = time.perf_counter()
        yield describe
        seconds = time.perf_counter() - start
        done = Stage(name, seconds - self._inside, detail)
        self._inside = before + seconds
        self.stages.append(done)
        tell = _FOLLOWER.get()
        if tell is not None:
            tell(done)

    def write(self, name: str, text: Callable[[], str], suffix: str = "txt") -> None:
        """Writes a stage's text to the dump folder, if there is one."""
        if self.dump is None:
            return
        self.dump.mkdir(parents=True, exist_ok=True)
        path = self.dump / f"{self._files:02d}-{name}.{suffix}"
        path.write_text(text() + "\n", encoding="utf-8")
        self._files += 1

    @property
    def seconds(self) -> float:
        """Time of all stages."""
        return sum(s.seconds for s in self.stages)
