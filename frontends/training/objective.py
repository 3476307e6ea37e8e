"""What training makes small, and what it reports: losses and metrics, traced into the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ...compiler.errors import ShapeError, UsageError
from ...compiler.tensor import Tensor
from ...compiler.types import DType
from ..nn.context import snake_case
from ..nn.functional import loss as losses
from ..nn.functional.shape import argmax
from ..nn.loss import Loss as LossModule

Measure: TypeAlias = Callable[[Any, Tensor], Tensor]
"""Takes the network's outputs and the targets, gives one float."""

Loss: TypeAlias = str | Measure | Sequence[str | Measure] | Mapping[str, str | Measure]
Metrics: TypeAlias = Sequence[str] | Mapping[str, Measure] | None


def accuracy(outputs: Any, target: Tensor) -> Tensor:
    """Share of samples whose largest output (N, C, *) is at the target class.

    Targets are classes (N, *), of which those below 0 count for nothing, or one number for each
    class, of which the largest counts.
    """
    logits = _first(outputs)
    guess = argmax(logits, 1)
    if target.shape == logits.shape:
        target = argmax(target, 1)
    if target.shape != guess.shape:
        raise ShapeError(
            f"the accuracy of outputs {logits.type} needs classes of the shape {guess.shape}, "
            f"the targets are {target.type}"
        )
    known = (target >= 0).cast(DType.FLOAT32)
    right = guess.equal(target.cast(guess.dtype)).cast(DType.FLOAT32)
    return (right * known).sum() / known.sum().maximum(1.0)


METRICS: Mapping[str, Measure] = {"accuracy": accuracy}


@dataclass(frozen=True)
class Objective:
    """Losses, whose sum is made small, and metrics, which are only reported.

    Arguments:
        losses: by name.
        metrics: by name; None for the accuracy where targets are classes.
    """

    losses: Mapping[str, Measure]
    metrics: Mapping[str, Measure] | None = None

    @staticmethod
    def of(loss: Loss, metrics: Metrics = None) -> Objective:
        """From what a person gives.

        Raises:
            UsageError: no such loss or metric.
        """
        found: Mapping[str, Measure] | None
        if metrics is None or isinstance(metrics, Mapping):
            found = metrics
        else:
            listed = [metrics] if isinstance(metrics, str) else metrics
            found = {name: _metric(name) for name in listed}
        return Objective(_losses(loss), found)

    def measure(self, outputs: Any, target: Tensor) -> dict[str, Tensor]:
        """All values by name: `loss`, its parts where there are several, and the metrics."""
        parts = {name: _scalar(name, f(outputs, target)) for name, f in self.losses.items()}
        first, *others = parts.values()
        total = sum(others, start=first)
        metrics = self.metrics
        if metrics is None:
            metrics = METRICS if _are_classes(outputs, target) else {}
        values = {name: _scalar(name, f(outputs, target)) for name, f in metrics.items()}
        return {"loss": total, **(parts if others else {}), **values}


def _losses(loss: Loss) -> dict[str, Measure]:
    if isinstance(loss, Mapping):
        named = {name: _loss(part) for name, part in loss.items()}
    elif isinstance(loss, Sequence) and not isinstance(loss, str):
        named = {}
        for part in loss:
            base = _name_of(part)
            number = sum(name.rstrip("_0123456789") == base for name in named)
            named[f"{base}_{number}" if number else base] = _loss(part)
    else:
        named = {_name_of(loss): _loss(loss)}
    if not named or ("loss" in named and len(named) > 1):
        raise UsageError("give at least one loss, and none of several the name 'loss'")
    return named


def _loss(loss: str | Measure) -> Measure:
    if not isinstance(loss, str):
        if not callable(loss):
            raise UsageError(f"{loss!r} is no loss; give a module, a function, or a name")
        return _of_each_output(loss, type(loss).__name__) if isinstance(loss, LossModule) else loss
    known = {name.removesuffix("_loss"): name for name in losses.__all__}
    if loss.removesuffix("_loss") not in known:
        raise UsageError(f"there is no loss {loss!r}; there are {', '.join(known)}")
    return _of_each_output(getattr(losses, known[loss.removesuffix("_loss")]), loss)


def _of_each_output(measure: Measure, name: str) -> Measure:
    """The loss of a tensor; of several outputs that say what each counts, of each of them."""

    def total(outputs: Any, target: Tensor) -> Tensor:
        if isinstance(outputs, Tensor):
            return measure(outputs, target)
        weights = getattr(outputs, "loss_weights", None)
        if weights is None:
            raise UsageError(
                f"{name} takes one tensor, the network returns {type(outputs).__name__} of "
                f"{len(outputs)}; give a loss that is a function of (outputs, target)"
            )
        present = [(o, weight) for o, weight in zip(outputs, weights, strict=True) if o is not None]
        parts: list[Tensor] = [measure(output, target) * weight for output, weight in present]
        return sum(parts[1:], start=parts[0])

    return total


def _metric(name: str) -> Measure:
    if name not in METRICS:
        raise UsageError(
            f"there is no metric {name!r}; there is {', '.join(METRICS)}, or give "
            "{NAME: function(outputs, target)}"
        )
    return METRICS[name]


def _name_of(loss: str | Measure) -> str:
    if isinstance(loss, str):
        return loss
    name = getattr(loss, "__name__", "") or snake_case(loss)
    return "function" if name == "<lambda>" else name


def _scalar(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise UsageError(f"{name} gives {value!r} where a tensor is wanted")
    if value.type.size != 1 or not value.dtype.is_float:
        raise ShapeError(f"{name} is {value.type}, it has to be one float; take its mean")
    return value.reshape(()) if value.shape else value


def _first(outputs: Any) -> Tensor:
    while not isinstance(outputs, Tensor):
        values = outputs.values() if isinstance(outputs, Mapping) else outputs
        outputs = next(iter(values))
    return outputs


def _are_classes(outputs: Any, target: Tensor) -> bool:
    logits = _first(outputs)
    return target.dtype.is_integer and target.shape == logits.shape[:1] + logits.shape[2:]
