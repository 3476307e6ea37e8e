"""What the kernel families that begin with one node share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..graph import Value
from ..types import DType, Shape
from .binding import Binding


@dataclass
class Anchored:
    """The loops of one node and what follows on it.

    Arguments:
        binding: the group.
        result: what the node gives.
    """

    binding: Binding
    result: Value

    @cached_property
    def inputs(self) -> tuple[Value, ...]:
        """What the node reads."""
        return tuple(self.binding.graph.inputs_of(self.result.node))

    @cached_property
    def dtype(self) -> DType:
        """Of the result."""
        return self.binding.graph.type_of(self.result).dtype

    @cached_property
    def shape(self) -> Shape:
        """Of the result."""
        return self.binding.graph.type_of(self.result).shape

    @property
    def lanes(self) -> int:
        """Of a vector of results."""
        return self.binding.lanes(self.dtype)
