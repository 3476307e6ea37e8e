"""What the zoo knows of a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...compiler.types import TensorType
from ..nn.module import Module


@dataclass(frozen=True)
class ZooEntry:
    """A network of the literature.

    Arguments:
        name: what it is called.
        year: of the paper.
        paper: authors and title.
        input: type of the input it is meant for, for one sample.
        builder: makes it, with new contents from `manual_seed`'s generator.
        parameters: elements of all its parameters.
        flops: floating-point operations of inference on `input`, two for a multiply-add.
    """

    name: str
    year: int
    paper: str
    input: TensorType
    builder: Callable[[], Module]
    parameters: int
    flops: int

    def build(self) -> Module:
        """A new network."""
        return self.builder()
