"""Learning-rate schedules: how the rate follows from the number of steps done.

A schedule is data. It is computed inside the training step, from the step counter, in float64.
Steps are steps of the optimizer (batches): multiply by the number of batches to count in epochs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ...compiler.errors import UsageError
from ...compiler.ops.base import apply
from ...compiler.ops.pointwise import Cos, Floor
from ...compiler.tensor import Tensor


@dataclass(frozen=True)
class Schedule:
    """Base of the schedules."""

    def rate(self, base: float, step: Tensor) -> Tensor | float:
        """The learning rate.

        Arguments:
            base: the optimizer's own rate, `lr`.
            step: number of steps done so far, a float64 scalar.
        """
        raise NotImplementedError


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
        return base * self.gamma ** apply(Floor(), step / self.step_size)


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


def _cosine(start: float, end: float, share: Tensor) -> Tensor:
    """From start to end along half a cosine."""
    return end + (start - end) * 0.5 * (apply(Cos(), share * math.pi) + 1.0)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)
