"""All that a compiled network consists of, before it is loaded: what a file holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ..compiler.errors import GraphError
from ..compiler.llvm.target import Target
from ..compiler.types import Array
from .program import Program

if TYPE_CHECKING:
    from ..compiler.graph import Graph


class StoredGraph:
    """A graph, or its JSON, which is only decoded when somebody looks at it.

    Running a network needs no graph: what works on graphs is imported here when it is needed.
    """

    def __init__(self, content: Graph | str) -> None:
        self._content = content

    @cached_property
    def graph(self) -> Graph:
        """
        Raises:
            GraphError: the text is damaged.
        """
        if not isinstance(self._content, str):
            return self._content
        from ..compiler.serialize import graph_from_json

        try:
            return graph_from_json(json.loads(self._content))
        except json.JSONDecodeError as error:
            raise GraphError(f"the graph is damaged: {error}") from None

    @cached_property
    def text(self) -> str:
        """The graph as JSON, without the contents of parameters and buffers."""
        if isinstance(self._content, str):
            return self._content
        from ..compiler.serialize import graph_to_json

        return json.dumps(graph_to_json(self._content), separators=(",", ":"))


@dataclass(frozen=True)
class Image:
    """A compiled network.

    Arguments:
        program: what runs.
        objects: machine code, by symbol of the kernel.
        target: the machine it is for.
        constants: contents of constants, by name; those that follow from states may be missing.
        source: the graph as it was given: what is compiled anew where the objects do not fit.
        preparation: gives constants from states, by name; None if there are none of that kind.
        preparing: the preparation, compiled too, where that pays; files do not hold it.
    """

    program: Program
    objects: Mapping[str, bytes]
    target: Target
    constants: Mapping[str, Array]
    source: StoredGraph
    preparation: StoredGraph | None
    preparing: Image | None = None
