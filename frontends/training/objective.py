"""What training makes small, and what it reports: losses and metrics, traced into the graph."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ...compiler.errors import ShapeError, UsageError
from ...compiler.tensor import Tensor
from ...compiler.types import Array
from ..nn.context import snake_case
from ..nn.functional import loss as losses
from ..nn.loss import Loss as LossModule
from .metrics import LOSSES, METRICS, Metric, first, metric

Measure: TypeAlias = Callable[[Any, Any], Tensor]
"""Takes the network's outputs and the targets, gives one float."""

Loss: TypeAlias = str | Measure | Sequence[str | Measure] | Mapping[str, str | Measure]
Metrics: TypeAlias = str | Sequence[str] | Mapping[str, str | Measure | Metric] | None


@dataclass(frozen=True)
class Objective:
    """Losses, whose sum is made small, and metrics, which are only reported.

    Where there are several targets, losses and metrics that are known by name or are modules are of
    one output and its target: those at the same place of a list, or of the same name. Functions are
    given all outputs and all targets. Of an output that has a name, metrics are "NAME_accuracy",
    of the first of a tuple "0_accuracy".

    Arguments:
        losses: by name.
        metrics: by name; None for the accuracy where targets are classes.
    """

    losses: Mapping[str, Measure]
    metrics: Mapping[str, Metric] | None = None

    @staticmethod
    def of(loss: Loss, metrics: Metrics = None) -> Objective:
        """From what a person gives.

        Raises:
            UsageError: no such loss or metric.
        """
        found = _metrics(metrics)
        named = _losses(loss)
        both = sorted(({"loss"} | named.keys() if len(named) > 1 else {"loss"}) & set(found or ()))
        if both:
            raise UsageError(f"a loss and a metric are both called {both[0]!r}; rename one")
        return Objective(named, found)

    def measure(self, outputs: Any, target: Any) -> dict[str, Tensor]:
        """Of all values by name what they follow from: `loss`, its parts where there are several,
        and the metrics.
        """
        parts = {name: _scalar(name, f(outputs, target)) for name, f in self.losses.items()}
        one, *others = parts.values()
        total = sum(others, start=one)
        metrics = self.metrics
        if metrics is None:
            metrics = {
                f"{_prefix(key)}accuracy": _at(METRICS["accuracy"], "accuracy", key)
                for key in _keys(target)
                if _are_classes(_part(outputs, key), _part(target, key))
            }
        values = {name: _floats(name, m.means(outputs, target)) for name, m in metrics.items()}
        return {"loss": total, **(parts if others else {}), **values}

    def value(self, name: str, mean: Array) -> float:
        """A value of `measure`, from the mean over rows of what it follows from."""
        if name == "loss" or (len(self.losses) > 1 and name in self.losses):
            return float(mean)
        found = METRICS["accuracy"] if self.metrics is None else self.metrics[name]
        return found.value(mean)


# -- what a person gives --------------------------------------------------------------------------


def _losses(loss: Loss) -> dict[str, Measure]:
    if isinstance(loss, Mapping):
        named = {name: _loss(part, name) for name, part in loss.items()}
    elif isinstance(loss, Sequence) and not isinstance(loss, str):
        named = {}
        for place, part in enumerate(loss):
            base = _name_of(part)
            number = sum(name.rstrip("_0123456789") == base for name in named)
            named[f"{base}_{number}" if number else base] = _loss(part, place)
    else:
        named = {_name_of(loss): _loss(loss, None)}
    if not named or ("loss" in named and len(named) > 1):
        raise UsageError("give at least one loss, and none of several the name 'loss'")
    return named


def _loss(loss: str | Measure, key: Any) -> Measure:
    if not isinstance(loss, str):
        if not callable(loss):
            raise UsageError(f"{loss!r} is no loss; give a module, a function, or a name")
        return _of_one(loss, type(loss).__name__, key) if isinstance(loss, LossModule) else loss
    known = loss.removesuffix("_loss")
    if known not in LOSSES:
        raise UsageError(f"there is no loss {loss!r}; there are {', '.join(LOSSES)}")
    return _of_one(getattr(losses, LOSSES[known]), loss, key)


def _metrics(metrics: Metrics) -> dict[str, Metric] | None:
    if metrics is None:
        return None
    if not isinstance(metrics, Mapping):
        metrics = {name: name for name in ([metrics] if isinstance(metrics, str) else metrics)}
    return {name: _metric(name, given) for name, given in metrics.items()}


def _metric(name: str, given: str | Measure | Metric) -> Metric:
    if isinstance(given, Metric):
        return given
    if not isinstance(given, str):
        return Metric(lambda outputs, target: _scalar(name, given(outputs, target)), float)
    for begin in (0, *(found.end() for found in re.finditer("_", given))):
        found = metric(given[begin:])
        if found is not None:
            key = given[: max(begin - 1, 0)]
            return _at(found, given, int(key) if key.isdecimal() else key or None)
    raise UsageError(
        f"there is no metric {given!r}; there is {', '.join(METRICS)}, top_5_accuracy, each loss, "
        "or give {NAME: function(outputs, target)}"
    )


# -- one output and its target, of several --------------------------------------------------------


def _of_one(measure: Measure, name: str, key: Any) -> Measure:
    """The loss of a tensor; of several outputs that say what each counts, of each of them."""

    def total(outputs: Any, target: Any) -> Tensor:
        outputs, target = _pair(outputs, target, key, name)
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


def _at(found: Metric, name: str, key: Any) -> Metric:
    """A metric of the output and target of a key, where there are several."""

    def means(outputs: Any, target: Any) -> Tensor:
        output, target = _pair(outputs, target, key, name)
        return found.means(first(output), target)

    return Metric(means, found.value)


def _pair(outputs: Any, target: Any, key: Any, name: str) -> tuple[Any, Any]:
    if isinstance(target, Tensor):
        return outputs, target
    if key is None:
        raise UsageError(
            f"{name} is of one output and one target, there are {len(target)} targets; give losses "
            "as a list or dict, one for each, metrics as 'NAME_accuracy', or a function of "
            "(outputs, targets)"
        )
    try:
        return _part(outputs, key), _part(target, key)
    except (KeyError, IndexError, TypeError):
        raise UsageError(
            f"there is no output and no target for {name} at {key!r}: the outputs are "
            f"{_described(outputs)}, the targets {_described(target)}"
        ) from None


def _keys(target: Any) -> list[Any]:
    """Of what there are targets; None for one tensor."""
    if isinstance(target, Tensor):
        return [None]
    return list(target) if isinstance(target, Mapping) else list(range(len(target)))


def _part(values: Any, key: Any) -> Any:
    return values if key is None else values[key]


def _prefix(key: Any) -> str:
    return "" if key is None else f"{key}_"


def _described(values: Any) -> str:
    if isinstance(values, Mapping):
        return f"a dict of {', '.join(map(str, values))}"
    return "one tensor" if isinstance(values, Tensor) else f"{len(values)} in a row"


def _name_of(loss: str | Measure) -> str:
    if isinstance(loss, str):
        return loss
    name = getattr(loss, "__name__", "") or snake_case(loss)
    return "function" if name == "<lambda>" else name


def _scalar(name: str, value: Any) -> Tensor:
    scalar = _floats(name, value)
    if scalar.type.size != 1:
        raise ShapeError(f"{name} is {scalar.type}, it has to be one float; take its mean")
    return scalar.reshape(()) if scalar.shape else scalar


def _floats(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise UsageError(f"{name} gives {value!r} where a tensor is wanted")
    if not value.dtype.is_float:
        raise ShapeError(f"{name} is {value.type}, it has to be one float; take its mean")
    return value


def _are_classes(outputs: Any, target: Tensor) -> bool:
    logits = first(outputs)
    return target.dtype.is_integer and target.shape == logits.shape[:1] + logits.shape[2:]
