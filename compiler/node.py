"""What a graph consists of: nodes, the values that they give, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from .errors import SourceLocation
from .ops.base import Op
from .types import TensorType


class Phase(Enum):
    """Which part of a training step a node belongs to."""

    FORWARD = "forward"
    BACKWARD = "backward"
    UPDATE = "update"


@dataclass(frozen=True)
class Origin:
    """One of the user's nodes: its name and where it was declared."""

    name: str
    source: SourceLocation | None = None


class Value(NamedTuple):
    """One output of a node. A tuple: there are many, they are hashed all the time."""

    node: str
    port: int = 0

    def __str__(self) -> str:
        return self.node if self.port == 0 else f"{self.node}:{self.port}"


@dataclass(frozen=True)
class Node:
    """A node of the graph.

    Arguments:
        name: unique and readable, `features.conv1`.
        op: what it computes.
        types: type of each output.
        origins: the user's nodes it came from, through every rewrite and fusion.
        phase: forward, backward or update.
    """

    name: str
    op: Op
    types: tuple[TensorType, ...]
    origins: tuple[Origin, ...] = ()
    phase: Phase = Phase.FORWARD

    @property
    def source(self) -> SourceLocation | None:
        """The user's line, where one is known."""
        return next((o.source for o in self.origins if o.source), None)


class Use(NamedTuple):
    """An edge, as the node knows it that is read."""

    port: int
    user: str
    input_port: int


@dataclass(frozen=True)
class Scope:
    """What nodes get that are added inside `Graph.scope`."""

    prefix: str = ""
    origins: tuple[Origin, ...] = ()
    phase: Phase = Phase.FORWARD
    detached: bool = False


def merge_origins(*nodes: Node) -> tuple[Origin, ...]:
    """The origins of several nodes, each once, in order."""
    return tuple(dict.fromkeys(origin for node in nodes for origin in node.origins))
