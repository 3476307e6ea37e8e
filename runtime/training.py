"""The training loop: epochs of steps, validation, early stopping, log and checkpoints.

It knows nothing of networks: a step is a function that changes the arrays of `state`. All else that
a run consists of is in `Run`; both together are a checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..compiler.errors import ArtifactError, TrainingError, UsageError
from ..compiler.types import Array
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .data import Batch, Batches, Prefetcher
from .interrupts import Interrupts
from .log import Log, Record
from .progress import Display

Values: TypeAlias = dict[str, float]


@dataclass(frozen=True)
class EarlyStopping:
    """When to stop before the last epoch.

    Arguments:
        patience: epochs without improvement after which training ends.
        min_delta: less than this is no improvement.
        monitor: what is looked at; `val_loss`, or `loss` without validation, by default.
        mode: "min" or "max"; by default accuracies and such are to grow, all else to shrink.
        restore_best: go back to the state after the best epoch when training is over.
    """

    patience: int = 5
    min_delta: float = 0.0
    monitor: str | None = None
    mode: str | None = None
    restore_best: bool = True

    def __post_init__(self) -> None:
        if self.patience < 1 or self.min_delta < 0 or self.mode not in (None, "min", "max"):
            raise UsageError(
                f"{self}: patience is at least 1, min_delta at least 0, mode 'min' or 'max'"
            )

    def value(self, record: Record) -> float:
        """What is looked at, turned so that less is better.

        Raises:
            UsageError: there is nothing of that name.
        """
        return watched(record, self.monitor, self.mode, "early stopping")


# Endings of names of what is to grow.
_GROWING = ("accuracy", "precision", "recall", "f1", "iou")


def watched(record: Record, monitor: str | None, mode: str | None, who: str) -> float:
    """A figure of an epoch, turned so that less is better.

    Arguments:
        record: of the epoch.
        monitor: name of the figure; `val_loss`, or `loss` without validation, by default.
        mode: "min" or "max"; by default accuracies and such are to grow, all else to shrink.
        who: looks at it, for the error.

    Raises:
        UsageError: there is nothing of that name.
    """
    name = monitor or ("val_loss" if "val_loss" in record else "loss")
    if name not in record:
        raise UsageError(f"{who} looks at {name!r}; there is {', '.join(record)}")
    grows = mode == "max" or (mode is None and name.endswith(_GROWING))
    return -record[name] if grows else record[name]


@dataclass
class Run:
    """Where a training run stands, between two steps.

    Attributes:
        epoch: number of epochs that are over.
        batch: number of batches done in the epoch under way.
        step: number of steps done in all.
        samples: that went through in this epoch.
        seconds: spent on steps in this epoch.
        sums: over the samples of this epoch, of what each figure follows from: an array.
        history: a record of each epoch that is over.
        best: least value so far of what early stopping looks at.
        best_epoch: the epoch that gave it.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    sums: dict[str, Any] = field(default_factory=dict)
    history: list[Record] = field(default_factory=list)
    best: float | None = None
    best_epoch: int = 0

    def add(self, means: Mapping[str, Array], samples: int, seconds: float) -> None:
        """One more step."""
        for name, mean in means.items():
            self.sums[name] = np.add(self.sums.get(name, 0.0), mean * samples)
        self.batch += 1
        self.step += 1
        self.samples += samples
        self.seconds += seconds

    def means(self) -> dict[str, Array]:
        """Over the samples of the epoch so far."""
        return {name: np.divide(total, self.samples) for name, total in self.sums.items()}

    def rate(self) -> float:
        """Samples per second."""
        return self.samples / max(self.seconds, 1e-9)

    def facts(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        sums = {name: np.asarray(total).tolist() for name, total in self.sums.items()}
        return {**asdict(self), "sums": sums}

    def close_epoch(self, record: Record) -> None:
        """The epoch is over."""
        self.history.append(record)
        self.epoch += 1
        self.batch = self.samples = 0
        self.seconds, self.sums = 0.0, {}

    @staticmethod
    def from_facts(facts: Any) -> Run:
        """The run that a checkpoint tells of."""
        kinds = {f.name: type(getattr(Run(), f.name)) for f in fields(Run)}
        kinds["best"] = type(facts.get("best"))
        if {k: type(v) for k, v in facts.items()} != kinds:
            raise ArtifactError("it does not say where the run stands")
        return Run(**facts)


Callback: TypeAlias = Callable[[Run], object]


@dataclass
class Loop:
    """A training run.

    Attributes:
        batches: what it learns from.
        step: takes a batch, changes `state`, gives means over its rows by name.
        figures: what is reported, from means over rows.
        state: contents of all states, by name.
        identity: what a run that goes on from a checkpoint must have in common with the one that
            wrote it.
        epochs: to be done in all; None for as many as `steps` takes.
        steps: to be done in all; None for as many as `epochs` takes.
        validate: gives what is known of held-out data; changes no state.
        about: what else there is to say at the end of an epoch.
        learn: takes the record of an epoch that is over; may change `state`.
        early_stopping: when to end before.
        log: file with a line for every epoch.
        checkpoint: file that the run can go on from, written after every epoch and when it ends.
        checkpoint_every: number of steps after which it is written too.
        resume: whether to go on from `checkpoint`, where that exists.
        callbacks: called after every step and epoch; one that returns True ends the run.
        display: what a person sees of it.
    """

    batches: Batches
    step: Callable[[Batch], Mapping[str, Array]]
    figures: Callable[[Mapping[str, Array]], Values]
    state: Mapping[str, Array]
    identity: Mapping[str, Any]
    epochs: int | None = None
    steps: int | None = None
    validate: Callable[[], Values] | None = None
    about: Callable[[], Values] = dict
    learn: Callable[[Record], None] = lambda record: None
    early_stopping: EarlyStopping | None = None
    log: str | Path | None = None
    checkpoint: str | Path | None = None
    checkpoint_every: int | None = None
    resume: bool = False
    callbacks: Sequence[Callback] = ()
    display: Display = field(default_factory=Display)
    current: Run = field(default_factory=Run, init=False)
    _best: dict[str, Array] = field(default_factory=dict, init=False)
    _ended: bool = field(default=False, init=False)
    _interrupts: Interrupts = field(default_factory=Interrupts, init=False)

    def run(self) -> list[Record]:
        """Trains; returns the record of each epoch.

        Raises:
            TrainingError: it cannot go on, or not from this checkpoint.
            ArtifactError: the checkpoint cannot be read or written.
            KeyboardInterrupt: after Ctrl-C; the checkpoint, where one was asked for, is written.
        """
        if self.resume:
            self._load()
        log = Log(self.log, self.current.history) if self.log else None
        with self._interrupts, self.display:
            self.display.begin(self.epochs or self._last_epoch(), self._total(), self.current.step)
            try:
                while not self._is_over():
                    self._epoch(log)
            except KeyboardInterrupt:
                self._interrupted()
                raise
        if self._best:
            restore(self.state, self._best)
        return self.current.history

    # -- one epoch --------------------------------------------------------------------------------

    def _epoch(self, log: Log | None) -> None:
        run = self.current
        with Prefetcher(self.batches.batches(run.epoch, run.batch)) as ahead:
            for batch in ahead:
                self._step(batch)
                if self._is_over() and run.batch < len(self.batches):
                    self._save()
                    return
        values = {f"val_{k}": v for k, v in self.validate().items()} if self.validate else {}
        record = {
            "epoch": run.epoch + 1,
            "step": run.step,
            **self.figures(run.means()),
            **values,
            **self.about(),
            "samples_per_second": round(run.rate(), 1),
            "seconds": round(run.seconds, 3),
        }
        with self._interrupts.deferred():
            run.close_epoch(record)
            self.learn(record)
            self._judge(record)
            if log:
                log.write(record)
            self.display.epoch(record, self.epochs or self._last_epoch())
            self._save()
        self._call_back()

    def _step(self, batch: Batch) -> None:
        run = self.current
        with self._interrupts.deferred():
            begin = time.perf_counter()
            means = self.step(batch)
            run.add(means, batch.count, time.perf_counter() - begin)
            if self.checkpoint_every and run.step % self.checkpoint_every == 0:
                self._save()
        if self.display.is_due():
            values = {**self.figures(run.means()), "samples_per_second": run.rate()}
            self.display.step(run.epoch + 1, run.step, values)
        self._call_back()

    def _call_back(self) -> None:
        for callback in self.callbacks:
            self._ended |= callback(self.current) is True

    def _judge(self, record: Record) -> None:
        rule, run = self.early_stopping, self.current
        if rule is None:
            return
        value = rule.value(record)
        if math.isfinite(value) and (run.best is None or value < run.best - rule.min_delta):
            run.best, run.best_epoch = value, run.epoch
            if rule.restore_best:
                self._best = {name: array.copy() for name, array in self.state.items()}

    # -- its end ----------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        run, rule = self.current, self.early_stopping
        late = rule is not None and run.epoch - run.best_epoch >= rule.patience
        return (
            self._ended
            or late
            or (self.epochs is not None and run.epoch >= self.epochs)
            or (self.steps is not None and run.step >= self.steps)
        )

    def _total(self) -> int:
        """Steps of the whole run, if nothing ends it before."""
        by_epochs = math.inf if self.epochs is None else self.epochs * len(self.batches)
        return int(min(by_epochs, math.inf if self.steps is None else self.steps))

    def _last_epoch(self) -> int:
        return -(-self._total() // len(self.batches))

    def _interrupted(self) -> None:
        run = self.current
        where = f"in epoch {run.epoch + 1} after batch {run.batch} (step {run.step})"
        if self._interrupts.in_the_middle:
            self.display.say(f"stopped {where}, in the middle of the next step; nothing was saved")
        elif self.checkpoint is None:
            self.display.say(f"stopped {where}")
        else:
            self._save()
            self.display.say(
                f"stopped {where}; saved {self.checkpoint}: the same call with resume=True goes on"
            )

    # -- checkpoints ------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.checkpoint is not None:
            facts = {"run": self.current.facts(), "identity": dict(self.identity)}
            save_checkpoint(Checkpoint(self.state, self._best, facts), self.checkpoint)

    def _load(self) -> None:
        if self.checkpoint is None:
            raise UsageError("resume=True goes on from a checkpoint; say which: checkpoint='FILE'")
        if not Path(self.checkpoint).exists():
            return
        found = load_checkpoint(self.checkpoint)
        there = found.facts.get("identity", {})
        for name, value in self.identity.items():
            if there.get(name) != value:
                raise TrainingError(
                    f"{self.checkpoint} is of a run with {name} {there.get(name)}, this one has "
                    f"{value}: make them equal, or begin anew with resume=False"
                )
        try:
            run = Run.from_facts(found.facts.get("run", {}))
        except (ArtifactError, AttributeError) as error:
            raise ArtifactError(f"{self.checkpoint} is damaged: {error}") from None
        check_state(self.state, found.state, self.checkpoint)
        if found.best:
            check_state(self.state, found.best, self.checkpoint)
        self.current, self._best = run, dict(found.best)
        restore(self.state, found.state)


def check_state(own: Mapping[str, Array], given: Mapping[str, Array], path: str | Path) -> None:
    """
    Raises:
        TrainingError: what a checkpoint holds is of other names, shapes or dtypes.
    """
    missing, unknown = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    if missing or unknown:
        told = [f"it lacks {name}" for name in missing[:1]]
        told += [f"{name} is not known here" for name in unknown[:1]]
        raise TrainingError(f"{path} is of another network or optimizer: {' and '.join(told)}")
    for name, array in own.items():
        there = given[name]
        if array.shape != there.shape or array.dtype != there.dtype:
            raise TrainingError(
                f"{path} is of another network: there {name} is "
                f"{there.dtype}{list(there.shape)}, here {array.dtype}{list(array.shape)}"
            )


def restore(own: Mapping[str, Array], given: Mapping[str, Array]) -> None:
    """Copies contents into the arrays of a state."""
    for name, array in given.items():
        np.copyto(own[name], array)
