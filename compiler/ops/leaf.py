"""Nodes without inputs: what a network is given (inputs), keeps (parameters, buffers) or knows
(constants). Their contents live in `Graph.data`, by node name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..types import TensorType
from .base import Op


@dataclass(frozen=True)
class Leaf(Op, abstract=True):
    """A value that no operation computes.

    Arguments:
        type: shape and dtype of the value.
    """

    type: TensorType
    arity: ClassVar[tuple[int, int | None]] = (0, 0)
    differentiable: ClassVar[bool] = False

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return (self.type,)


@dataclass(frozen=True)
class Input(Leaf):
    """Given anew at every run."""


@dataclass(frozen=True)
class State(Leaf, abstract=True):
    """Kept from run to run; `Graph.updates` may replace it after one."""


@dataclass(frozen=True)
class Parameter(State):
    """State that is learned. `trainable=False` freezes it: no gradient is asked for by default."""

    trainable: bool = True


@dataclass(frozen=True)
class Buffer(State):
    """State that is not learned: running means, optimizer moments, random counters."""


@dataclass(frozen=True)
class Constant(Leaf):
    """Known when the graph is built."""
