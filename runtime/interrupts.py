"""Ctrl-C that waits until it does no harm."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupts:
    """Ctrl-C raises KeyboardInterrupt at once, but inside `deferred` only at its end.

    A second Ctrl-C does not wait. Without effect outside of the main thread, which alone gets
    signals, and where the program handles SIGINT in its own way.
    """

    def __init__(self) -> None:
        self._waiting = False
        self._deferred = False
        self._before: Any = None

    def __enter__(self) -> Self:
        own = signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        if threading.current_thread() is threading.main_thread() and not own:
            self._before = signal.signal(signal.SIGINT, self._arrived)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """What is done inside is done as a whole."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self._waiting:
            self._waiting = False
            raise KeyboardInterrupt

    @property
    def in_the_middle(self) -> bool:
        """Whether a second Ctrl-C has cut off what was to be done as a whole."""
        return self._waiting

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if not self._deferred or self._waiting:
            raise KeyboardInterrupt
        self._waiting = True
