"""A pass: a small frozen dataclass with a name, graph in and graph out, valid before and after."""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass

from ..graph import Graph


@dataclass(frozen=True)
class Pass:
    """Base of the passes; the fields of a subclass are its options."""

    @property
    def name(self) -> str:
        """As `--dump` and `-v` call it."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(self).__name__).lower()

    @abstractmethod
    def apply(self, graph: Graph) -> Graph:
        """A new graph of the same meaning; the given one stays as it is."""
