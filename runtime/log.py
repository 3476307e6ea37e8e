"""The log of a training run: a CSV or JSON Lines file with one line an epoch."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from ..compiler.errors import TrainingError, UsageError
from ..compiler.files import replacing

Record: TypeAlias = Mapping[str, float]
"""What is known of an epoch: `epoch`, `step`, `loss`, `val_loss`, `seconds` and so on."""


class Log:
    """A file that gains a line for every epoch; `.csv` or `.jsonl` by its name.

    Every line is on the disk (fsync) before training goes on. A run that is resumed keeps its lines
    up to where it goes on, and drops those of work that is about to be done again. A new run never
    writes over an old one's log: that is moved to `NAME.1.csv`, `NAME.2.csv` and so on.

    Arguments:
        path: of the file.
        history: records of the epochs that a resumed run has behind it.

    Raises:
        UsageError: another ending.
        TrainingError: the file cannot be written.
    """

    def __init__(self, path: str | Path, history: Sequence[Record] = ()) -> None:
        self.path = Path(path)
        if self.path.suffix not in (".csv", ".jsonl"):
            raise UsageError(f"the log is {self.path.name}; let its name end in .csv or .jsonl")
        self._records = list(history)
        self._columns = _columns(self._records)
        try:
            if not history:
                self._set_aside()
            self._rewrite()
        except OSError as error:
            raise self._failed(error) from None

    def write(self, record: Record) -> None:
        """Adds a line.

        Raises:
            TrainingError: the file cannot be written.
        """
        self._records.append(record)
        columns = _columns(self._records)
        try:
            if columns != self._columns:
                self._columns = columns
                self._rewrite()
                return
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._line(record))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._failed(error) from None

    def _rewrite(self) -> None:
        lines = [self._line(record) for record in self._records]
        if self.path.suffix == ".csv" and self._columns:
            lines.insert(0, _csv(self._columns))
        with replacing(self.path) as file:
            file.write("".join(lines).encode())

    def _line(self, record: Record) -> str:
        if self.path.suffix == ".jsonl":
            return json.dumps(dict(record)) + "\n"
        return _csv([record.get(name, "") for name in self._columns])

    def _set_aside(self) -> None:
        if not self.path.exists() or not self.path.stat().st_size:
            return
        number = 1
        while (old := self.path.with_suffix(f".{number}{self.path.suffix}")).exists():
            number += 1
        self.path.rename(old)

    def _failed(self, error: OSError) -> TrainingError:
        return TrainingError(f"cannot write the log {self.path}: {error.strerror}")


def _columns(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record))


def _csv(fields: Sequence[object]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue()
