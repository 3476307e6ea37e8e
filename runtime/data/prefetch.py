"""`Prefetcher`: the next items are prepared while the current one is in use."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

from ...compiler.errors import DataError

T = TypeVar("T")


class _Channel(Generic[T]):
    """What producer and consumer share. The producer holds no reference to the Prefetcher itself,
    so that one which is dropped can be collected and stop its thread.
    """

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.items: deque[T] = deque()
        self.changed = threading.Condition()
        self.stopped = False
        self.finished = False
        self.error: BaseException | None = None

    def produce(self, source: Iterable[T]) -> None:
        """Body of the thread: fill the queue until the source ends, fails, or nobody wants more."""
        try:
            iterator = iter(source)
            try:
                while self._wait_for_room():
                    try:
                        item = next(iterator)
                    except StopIteration:
                        break
                    with self.changed:
                        self.items.append(item)
                        self.changed.notify_all()
            finally:
                # A generator's own `finally` runs here and now, in the thread that ran its body.
                close = getattr(iterator, "close", None)
                if close is not None:
                    close()
        except BaseException as error:
            self.error = error
        with self.changed:
            self.finished = True
            self.changed.notify_all()

    def _wait_for_room(self) -> bool:
        with self.changed:
            self.changed.wait_for(lambda: self.stopped or len(self.items) < self.depth)
            return not self.stopped

    def stop(self, thread: threading.Thread) -> None:
        """Ask the thread to end, and wait until it has; what is queued is dropped."""
        with self.changed:
            self.stopped = True
            self.items.clear()
            self.changed.notify_all()
        if thread is not threading.current_thread():
            thread.join()


class Prefetcher(Generic[T]):
    """Iterate over `source` with up to `depth` items prepared ahead by one background thread.

        with Prefetcher(batches.batches(epoch)) as ahead:
            for batch in ahead: ...

    Order and items are the source's. An exception in the source is raised by `next`, after the
    items before it, with the source's own traceback. The thread has ended when the iteration has,
    when the `with` block is left for any reason (break, error, Ctrl-C), after `close()`, and when
    the Prefetcher is garbage-collected. One thread should consume it.
    """

    def __init__(self, source: Iterable[T], depth: int = 2) -> None:
        if depth < 1:
            raise DataError(f"depth: expected at least 1 item ahead, found {depth}")
        self._channel: _Channel[T] = _Channel(depth)
        thread = threading.Thread(
            target=self._channel.produce, args=(source,), name="quern-prefetch", daemon=True
        )
        self._stop = weakref.finalize(self, self._channel.stop, thread)
        thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        channel = self._channel
        try:
            with channel.changed:
                channel.changed.wait_for(lambda: channel.items or channel.finished)
                if channel.items:
                    item = channel.items.popleft()
                    channel.changed.notify_all()
                    return item
        except BaseException:
            self.close()
            raise
        self.close()
        error, channel.error = channel.error, None
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """Stop the thread and wait for its end; iteration is over. Safe to call again."""
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
