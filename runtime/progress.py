"""What a person sees of a training run: a bar in a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from .log import Record

_REFRESH_SECONDS = 0.1
_HIDDEN = ("epoch", "step", "seconds")


class Display:
    """Shows nothing; the base of those that do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def begin(self, epochs: int, total: int, done: int) -> None:
        """`done` of `total` steps are behind it."""

    def step(self, epoch: int, done: int, values: Mapping[str, float]) -> None:
        """One more step; `epoch` from 1, `values` are the means of the epoch so far."""

    def epoch(self, record: Record, epochs: int) -> None:
        """An epoch is over."""

    def say(self, text: str) -> None:
        """Something a person should know."""

    def close(self) -> None:
        """Nothing more is to come."""

    def is_due(self) -> bool:
        """Whether a step is worth showing now."""
        return False


class Lines(Display):
    """One line an epoch, for files and pipes."""

    def epoch(self, record: Record, epochs: int) -> None:
        print(f"epoch {int(record['epoch'])}/{epochs}: {describe(record)}", flush=True)

    def say(self, text: str) -> None:
        print(text, flush=True)


class Bar(Display):
    """A bar over the whole run, and above it a line for every epoch that is over."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeRemainingColumn(),
            auto_refresh=False,
            transient=True,
        )
        self._epochs = 0
        self._task: Any = None
        self._shown = 0.0

    def begin(self, epochs: int, total: int, done: int) -> None:
        self._epochs = epochs
        self._task = self._progress.add_task("training", total=total, completed=done, values="")
        self._progress.start()

    def is_due(self) -> bool:
        return time.monotonic() - self._shown >= _REFRESH_SECONDS

    def step(self, epoch: int, done: int, values: Mapping[str, float]) -> None:
        self._shown = time.monotonic()
        self._progress.update(
            self._task,
            completed=done,
            description=f"epoch {epoch}/{self._epochs}",
            values=describe(values),
            refresh=True,
        )

    def epoch(self, record: Record, epochs: int) -> None:
        self.say(f"epoch {int(record['epoch'])}/{epochs}: {describe(record)}")

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._progress.stop()


def display(quiet: bool = False) -> Display:
    """What fits where the program runs."""
    if quiet:
        return Display()
    from rich.console import Console

    return Bar() if Console().is_terminal else Lines()


def describe(values: Mapping[str, float]) -> str:
    """`loss 0.1234, accuracy 97.5 %, 12,345 samples/s`"""
    return ", ".join(_format(k, v) for k, v in values.items() if k not in _HIDDEN)


def _format(name: str, value: float) -> str:
    label = name.replace("_", " ")
    if name == "samples_per_second":
        return f"{value:,.0f} samples/s"
    if name.endswith("accuracy"):
        return f"{label} {100 * value:.1f} %"
    return f"{label} {value:.4g}"
