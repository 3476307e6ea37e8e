"""Learning-rate schedules: how the rate follows from the number of steps done.

A schedule is data. It is computed inside the training step, from the step counter, in float64.
Steps are steps of the optimizer (batches): multiply by the number of batches to count in epochs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from ...compiler.errors import UsageError
from ...compiler.tensor import Tensor
from ...compiler.types import Array
from ...runtime.log import Record
from ...runtime.training import watched


@dataclass(frozen=True)
class Schedule(ABC):
    """Base of the schedules."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if args and hasattr(args[0], "schedule"):
            raise UsageError(
                f"{cls.__name__} does not take an optimizer, an optimizer takes it: "
                f"{type(args[0]).__name__}(lr, schedule={cls.__name__}(…))"
            )
        return super().__new__(cls)

    @property
    def plateau(self) -> ReduceLROnPlateau | None:
        """The part of it that depends on how training goes."""
        return None

    @abstractmethod
    def rate(self, base: float, step: Tensor) -> Tensor | float:
        """The learning rate.

        Arguments:
            base: the optimizer's own rate, `lr`.
            step: number of steps done so far, a float64 scalar.
        """


@dataclass(frozen=True)
class Constant(Schedule):
    """Always the base rate."""

    def rate(self, base: float, step: Tensor) -> Tensor | float:
        return base


@dataclass(frozen=True)
class StepLR(Schedule):
    """base * gamma ** (step // step_size)"""

    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _require(self.step_size >= 1, f"step_size is at least 1, got {self.step_size}")

    def rate(self, base: float, step: Tensor) -> Tensor | float:
        return base * self.gamma ** (step / self.step_size).floor()


@dataclass(frozen=True)
class MultiStepLR(Schedule):
    """The base rate times gamma for each milestone (a number of steps) that is passed."""

    milestones: tuple[int, ...]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(sorted(self.milestones)))

    def rate(self, base: float, step: Tensor) -> Tensor | float:
        result = step.constant(base)
        for passed, milestone in enumerate(self.milestones, 1):
            result = (step >= milestone).where(base * self.gamma**passed, result)
        return result


@dataclass(frozen=True)
class ExponentialLR(Schedule):
    """base * gamma ** step"""

    gamma: float

    def rate(self, base: float, step: Tensor) -> Tensor | float:
        return base * self.gamma**step


@dataclass(frozen=True)
class CosineAnnealingLR(Schedule):
    """From the base rate to eta_min along half a cosine of T_max steps, and back again
    (Loshchilov and Hutter, SGDR, 2017).
    """

    T_max: int
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        _require(self.T_max >= 1, f"T_max is at least 1, got {self.T_max}")

    def rate(self, base: float, step: Tensor) -> Tensor | float:
        return _cosine(base, self.eta_min, step / self.T_max)


@dataclass(frozen=True)
class CosineAnnealingWarmRestarts(Schedule):
    """From the base rate to eta_min along half a cosine, again and again; each run is T_mult times
    as long as the one before, the first takes T_0 steps (Loshchilov and Hutter, SGDR, 2017).
    """

    T_0: int
    T_mult: int = 1
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        _require(self.T_0 >= 1, f"T_0 is at least 1, got {self.T_0}")
        _require(self.T_mult >= 1, f"T_mult is at least 1, got {self.T_mult}")

    def rate(self, base: float, step: Tensor) -> Tensor | float:
        if self.T_mult == 1:
            return _cosine(base, self.eta_min, step / self.T_0 - (step / self.T_0).floor())
        # So many runs are over: T_0 (m**n - 1) / (m - 1) <= step. Rounding must not lose one.
        m = float(self.T_mult)
        passed = step * ((m - 1.0) / self.T_0) + 1.0
        runs = (passed.log() * (1.0 / math.log(m)) + 1e-9).floor()
        length = m**runs
        return _cosine(base, self.eta_min, (passed / length - 1.0).maximum(0.0) / (m - 1.0))


@dataclass(frozen=True)
class LinearLR(Schedule):
    """The base rate times a factor that goes evenly from one to another within total_iters steps
    and stays there.
    """

    start_factor: float = 1.0 / 3
    end_factor: float = 1.0
    total_iters: int = 5

    def __post_init__(self) -> None:
        _require(self.total_iters >= 1, f"total_iters is at least 1, got {self.total_iters}")

    def rate(self, base: float, step: Tensor) -> Tensor | float:
        share = (step / self.total_iters).minimum(1.0)
        return base * (self.start_factor + (self.end_factor - self.start_factor) * share)


@dataclass(frozen=True)
class ConstantLR(Schedule):
    """The base rate times a factor for the first total_iters steps, then the base rate."""

    factor: float = 1.0 / 3
    total_iters: int = 5

    def rate(self, base: float, step: Tensor) -> Tensor | float:
        return (step < self.total_iters).where(base * self.factor, step.constant(base))


@dataclass(frozen=True)
class PolynomialLR(Schedule):
    """base * (1 - step / total_iters) ** power, and 0 after total_iters steps."""

    total_iters: int = 5
    power: float = 1.0

    def __post_init__(self) -> None:
        _require(self.total_iters >= 1, f"total_iters is at least 1, got {self.total_iters}")

    def rate(self, base: float, step: Tensor) -> Tensor | float:
        rest = (1.0 - step / self.total_iters).maximum(0.0)
        return base * rest.pow(self.power)


@dataclass(frozen=True)
class CyclicLR(Schedule):
    """Up and down evenly between two rates (Smith, 2017). The optimizer's `lr` does not count.

    Arguments:
        base_lr: the lowest rate, where a cycle starts.
        max_lr: the highest one.
        step_size_up: steps from the one to the other.
        step_size_down: steps back; as many by default.
        mode: "triangular"; "triangular2" halves the height with every cycle, "exp_range" multiplies
            it by gamma with every step.
        gamma: of "exp_range".
    """

    base_lr: float
    max_lr: float
    step_size_up: int = 2000
    step_size_down: int | None = None
    mode: str = "triangular"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        known = ("triangular", "triangular2", "exp_range")
        _require(self.mode in known, f"mode is one of {', '.join(known)}, not {self.mode!r}")
        _require(self.step_size_up >= 1, f"step_size_up is at least 1, got {self.step_size_up}")

    def rate(self, base: float, step: Tensor) -> Tensor | float:
        up = self.step_size_up
        down = up if self.step_size_down is None else self.step_size_down
        cycles = (step / (up + down)).floor()
        inside = step - cycles * (up + down)
        height = (inside <= up).where(inside / up, (up + down - inside) / down)
        if self.mode == "triangular2":
            height = height * 0.5**cycles
        elif self.mode == "exp_range":
            height = height * self.gamma**step
        return self.base_lr + (self.max_lr - self.base_lr) * height


@dataclass(frozen=True)
class SequentialLR(Schedule):
    """Schedules one after the other, each counting from its own start.

    Arguments:
        schedulers: in order.
        milestones: numbers of steps after which the next one begins.
    """

    schedulers: tuple[Schedule, ...]
    milestones: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedulers", tuple(self.schedulers))
        object.__setattr__(self, "milestones", tuple(self.milestones))
        _require(
            len(self.milestones) == len(self.schedulers) - 1
            and list(self.milestones) == sorted(self.milestones),
            f"{len(self.schedulers)} schedules take one milestone less, in order: "
            f"{self.milestones}",
        )

    def rate(self, base: float, step: Tensor) -> Tensor | float:
        result = self.schedulers[0].rate(base, step)
        for start, schedule in zip(self.milestones, self.schedulers[1:], strict=True):
            later = schedule.rate(base, (step - start).maximum(0.0))
            result = (step >= start).where(later, result)
        return result

    @property
    def plateau(self) -> ReduceLROnPlateau | None:
        return next((s.plateau for s in self.schedulers if s.plateau is not None), None)


@dataclass(frozen=True)
class LambdaLR(Schedule):
    """The base rate times a function of the step, which is traced like a module's forward.

    Arguments:
        lr_lambda: takes the number of steps done (a float64 scalar tensor) and gives a factor.
    """

    lr_lambda: Callable[[Tensor], Tensor | float]

    def rate(self, base: float, step: Tensor) -> Tensor | float:
        return base * self.lr_lambda(step)


@dataclass(frozen=True)
class InverseDecay(Schedule):
    """base / (1 + gamma * step) ** power"""

    gamma: float
    power: float = 1.0

    def rate(self, base: float, step: Tensor) -> Tensor | float:
        divisor = step * self.gamma + 1.0
        return base / (divisor if self.power == 1.0 else divisor**self.power)


@dataclass(frozen=True)
class LinearWarmup(Schedule):
    """In equal steps up to the base rate, which is reached with the last of `steps`; then another
    schedule, which counts from there.
    """

    steps: int
    then: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        _require(self.steps >= 1, f"a warm-up takes at least 1 step, got {self.steps}")

    def rate(self, base: float, step: Tensor) -> Tensor | float:
        later = self.then.rate(base, (step - self.steps).maximum(0.0))
        return (step < self.steps).where((step + 1.0) * (base / self.steps), later)

    @property
    def plateau(self) -> ReduceLROnPlateau | None:
        return self.then.plateau


@dataclass(frozen=True)
class OneCycleLR(Schedule):
    """Up to the base rate and far down again, each along half a cosine (Smith and Topin, 2018).

    Arguments:
        total_steps: length of the cycle.
        pct_start: share of the cycle that goes up.
        div_factor: the base rate is this many times the first one.
        final_div_factor: the first rate is this many times the last one.
    """

    total_steps: int
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    def __post_init__(self) -> None:
        up = self.pct_start * self.total_steps - 1
        _require(0 < up < self.total_steps - 1, f"{self} has no way up or no way down")

    def rate(self, base: float, step: Tensor) -> Tensor | float:
        first = base / self.div_factor
        last = first / self.final_div_factor
        top, end = self.pct_start * self.total_steps - 1.0, self.total_steps - 1.0
        up = _cosine(first, base, step / top)
        down = _cosine(base, last, ((step - top) / (end - top)).minimum(1.0))
        return (step <= top).where(up, down)


PLATEAU = "optim.plateau"


@dataclass(frozen=True)
class ReduceLROnPlateau(Schedule):
    """The base rate, multiplied by a factor whenever a figure gets no better any more.

    `Trainer.fit` looks at the figure after every epoch. What the rule knows is a state of the step,
    in checkpoints like all others: a buffer `optim.plateau` of what the base rate is multiplied by,
    the best figure so far, the epochs since then, and those that are still to be left alone.

    Arguments:
        mode: "min" or "max"; by default accuracies and such are to grow, all else to shrink.
        factor: of the rate, below 1.
        patience: epochs without improvement that are put up with.
        threshold: less than this is no improvement.
        threshold_mode: "rel" for a share of the best figure, "abs" for a difference.
        cooldown: epochs after a change that do not count.
        min_lr: the rate does not fall below this.
        monitor: the figure; `val_loss`, or `loss` without validation, by default.
    """

    mode: str | None = None
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: str = "rel"
    cooldown: int = 0
    min_lr: float = 0.0
    monitor: str | None = None

    def __post_init__(self) -> None:
        _require(self.mode in (None, "min", "max"), f"mode is 'min' or 'max', not {self.mode!r}")
        known = ("rel", "abs")
        _require(self.threshold_mode in known, f"threshold_mode is one of {', '.join(known)}")
        _require(0 <= self.factor < 1, f"factor is from 0 to below 1, got {self.factor}")

    @property
    def plateau(self) -> ReduceLROnPlateau | None:
        return self

    def rate(self, base: float, step: Tensor) -> Tensor | float:
        graph = step.graph
        if PLATEAU in graph:
            (state,) = graph.outputs_of(PLATEAU)
            known = graph.tensor(state)
        else:
            with graph.scope(prefix=""):
                known = graph.buffer(np.array([1.0, np.inf, 0.0, 0.0]), PLATEAU)
        return (known[0] * base).maximum(min(base, self.min_lr))

    def after(self, state: Array, record: Record) -> Array:
        """The state (4,) after another epoch.

        Raises:
            UsageError: the record does not have the figure.
        """
        value = watched(record, self.monitor, self.mode, type(self).__name__)
        scale, best, waited, cooling = state
        margin = self.threshold * (abs(best) if self.threshold_mode == "rel" else 1.0)
        better = value < best - margin if math.isfinite(best) else value < best
        best, waited = (value, 0) if better else (best, waited + 1)
        if cooling > 0:
            cooling, waited = cooling - 1, 0
        if waited > self.patience:
            scale, waited, cooling = scale * self.factor, 0, self.cooldown
        return np.array([scale, best, waited, cooling])


def _cosine(start: float, end: float, share: Tensor) -> Tensor:
    """From start to end along half a cosine."""
    return end + (start - end) * 0.5 * ((share * math.pi).cos() + 1.0)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)
