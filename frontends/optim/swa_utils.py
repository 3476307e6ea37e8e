"""Means of the weights that a network had in training: often better than the last ones.

Polyak and Juditsky, 1992; Izmailov et al., 2018 (stochastic weight averaging).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...compiler.errors import UsageError
from ...compiler.graph import Graph
from ...compiler.tensor import Tensor
from ...compiler.training import Descent, Optimizer
from ...compiler.types import Array
from ..nn.module import Module


def average_of(parameter: str) -> str:
    """The name of a parameter's moving average."""
    return f"optim.{parameter}.average"


@dataclass(frozen=True)
class Averaging:
    """An optimizer whose step keeps moving averages of the parameters too, in buffers
    `optim.PARAMETER.average`.

    Arguments:
        optimizer: moves the parameters.
        decay: how much of the averages stays in a step.
    """

    optimizer: Optimizer
    decay: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < 1.0:
            raise UsageError(f"a moving average keeps from 0 to below 1 of itself: {self.decay}")

    def update(self, graph: Graph, descents: Mapping[str, Descent]) -> dict[str, Tensor]:
        result = self.optimizer.update(graph, descents)
        for name, new in result.items():
            with graph.scope(prefix=""):
                average = graph.buffer(np.array(graph.data[name]), average_of(name))
            moved = average + (new - average) * (1.0 - self.decay)
            graph.updates[average.value.node] = moved.value
        return result


class AveragedModel(Module):
    """A copy of a network whose parameters are means of what the network's were, whenever
    `update_parameters` was called; its buffers are those of the last time. For a moving average
    over all steps `Trainer(…, average=0.999)` is less work: it is a part of the step then.

    Arguments:
        model: the network.
        avg_fn: takes the mean, the new contents and how many the mean is of; gives the next mean.
            Their plain mean by default.
        multi_avg_fn: takes lists of all means and all new contents, and that number; changes the
            means in place.
    """

    def __init__(
        self,
        model: Module,
        avg_fn: Callable[[Array, Array, int], Array] | None = None,
        multi_avg_fn: Callable[[Sequence[Array], Sequence[Array], int], None] | None = None,
    ) -> None:
        super().__init__()
        self.module = copy.deepcopy(model)
        self.register_buffer("n_averaged", np.array(0))
        self._next, self._change = avg_fn or _plain_mean, multi_avg_fn

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Takes in what the network's parameters are now."""
        count = int(self.n_averaged.data)
        means, new = list(self.module.parameters()), list(model.parameters())
        if count and self._change is not None:
            self._change([p.data for p in means], [p.data for p in new], count)
        else:
            for mean, now in zip(means, new, strict=True):
                mean.data = self._next(mean.data, now.data, count) if count else now.data.copy()
        for own, theirs in zip(self.module.buffers(), model.buffers(), strict=True):
            own.data = theirs.data.copy()
        self.n_averaged.data = np.array(count + 1)


def get_ema_avg_fn(decay: float = 0.999) -> Callable[[Array, Array, int], Array]:
    """For `avg_fn`: a moving average, of which so much stays each time."""

    def moved(mean: Array, new: Array, count: int) -> Array:
        result: Array = mean * np.asarray(decay, mean.dtype)
        result += new * np.asarray(1 - decay, mean.dtype)
        return result

    return moved


def get_ema_multi_avg_fn(
    decay: float = 0.999,
) -> Callable[[Sequence[Array], Sequence[Array], int], None]:
    """For `multi_avg_fn`: a moving average, of which so much stays each time."""
    next_of = get_ema_avg_fn(decay)

    def move(means: Sequence[Array], new: Sequence[Array], count: int) -> None:
        for mean, now in zip(means, new, strict=True):
            mean[...] = next_of(mean, now, count)

    return move


def _plain_mean(mean: Array, new: Array, count: int) -> Array:
    result: Array = mean + (new - mean) / np.asarray(count + 1, mean.dtype)
    return result
