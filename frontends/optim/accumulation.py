"""Gradients of several parts of a batch, added up before the parameters are moved.

Both are optimizers to `build_training_step`: one gives the step of every part but the last, which
moves nothing, the other that of the last. They share the sums, buffers `optim.PARAMETER.gathered`,
which are zero between two updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ...compiler.graph import Graph
from ...compiler.tensor import Tensor
from ...compiler.training import Descent, Optimizer

_PREFIX, _SUFFIX = "optim.", ".gathered"


def is_gathered(name: str) -> bool:
    """Whether a state of this name is a sum of gradients."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


@dataclass(frozen=True)
class Gather:
    """Adds gradients to what is gathered; no parameter moves."""

    def update(self, graph: Graph, descents: Mapping[str, Descent]) -> dict[str, Tensor]:
        for name, descent in descents.items():
            gathered = _gathered(graph, name, descent)
            graph.updates[gathered.value.node] = (gathered + descent.gradient).value
        return {}


@dataclass(frozen=True)
class Gathered:
    """An optimizer that is given the mean gradient of so many parts, of which this is the last."""

    optimizer: Optimizer
    parts: int

    def update(self, graph: Graph, descents: Mapping[str, Descent]) -> dict[str, Tensor]:
        means = {}
        for name, descent in descents.items():
            gathered = _gathered(graph, name, descent)
            zero = gathered.constant(0.0).broadcast_to(gathered.shape)
            graph.updates[gathered.value.node] = zero.value
            mean = (gathered + descent.gradient) * (1.0 / self.parts)
            means[name] = replace(descent, gradient=mean)
        return self.optimizer.update(graph, means)


def _gathered(graph: Graph, name: str, descent: Descent) -> Tensor:
    type = descent.parameter.type
    with graph.scope(prefix=""):
        return graph.buffer(np.zeros(type.shape, type.dtype.numpy), f"{_PREFIX}{name}{_SUFFIX}")
