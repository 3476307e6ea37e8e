"""Statements, and kernels, which are made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, TypeAlias

from .expressions import Buffer, Expr, Var
from .operators import LoopKind, ReduceOp


@dataclass(frozen=True)
class Stmt:
    """Base of the statements."""


Block: TypeAlias = tuple[Stmt, ...]


@dataclass(frozen=True)
class For(Stmt):
    """`body` for var = 0 … extent - 1.

    Arguments:
        lanes: of a vector loop: how many iterations run side by side; what remains at the end of an
            extent that is no multiple runs in fewer lanes.
    """

    var: Var
    extent: int
    body: Block
    kind: LoopKind = LoopKind.SERIAL
    lanes: int = 1


@dataclass(frozen=True)
class If(Stmt):
    """`body` where the condition holds, else `orelse`. The condition is the same for all lanes."""

    condition: Expr
    body: Block
    orelse: Block = ()


@dataclass(frozen=True)
class Let(Stmt):
    """Names a value for the rest of the block."""

    var: Var
    value: Expr


@dataclass(frozen=True)
class Alloc(Stmt):
    """A stack or register buffer for the rest of the block; its contents are undefined."""

    buffer: Buffer


@dataclass(frozen=True)
class Store(Stmt):
    """buffer[index] = value

    Arguments:
        streaming: whether the element had better go to memory past the caches, without its line
            being read first. It is a hint.
    """

    buffer: Buffer
    index: tuple[Expr, ...]
    value: Expr
    streaming: bool = False


@dataclass(frozen=True)
class Accumulate(Stmt):
    """buffer[index] = buffer[index] op value"""

    buffer: Buffer
    index: tuple[Expr, ...]
    op: ReduceOp
    value: Expr


@dataclass(frozen=True)
class Prefetch(Stmt):
    """A hint that the element is going to be read soon. It may lie outside of the buffer."""

    buffer: Buffer
    index: tuple[Expr, ...]


@dataclass(frozen=True)
class Kernel:
    """A function over buffers.

    Arguments:
        name: from the user's nodes, `conv1_relu1_pool1`.
        parameters: buffers it is given, in order.
        scratch: buffers that are its own while it runs, given behind the parameters.
        body: statements; each outermost parallel loop is a phase of its own.
        note: how it works, in a line, for `explain` and profiles ("direct 6x16").
    """

    name: str
    parameters: tuple[Buffer, ...]
    body: Block
    scratch: tuple[Buffer, ...] = ()
    note: str = field(default="", compare=False)

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Parameters, then scratch: the order of the arguments."""
        return self.parameters + self.scratch


# Variables of nested loops and their extents, the outermost first.
Loops: TypeAlias = tuple[tuple[Var, int], ...]


def loop_nest(variables: Loops, body: Block, kind: LoopKind = LoopKind.SERIAL) -> Block:
    """Loops around a body, the first one outermost."""
    for var, extent in reversed(variables):
        body = (For(var, extent, body, kind),)
    return body


# -- walking --------------------------------------------------------------------------------------


_EXPRESSIONS: dict[type[Stmt], Callable[[Any], tuple[Expr, ...]]] = {
    Store: lambda store: (*store.index, store.value),
    Accumulate: lambda store: (*store.index, store.value),
    Prefetch: attrgetter("index"),
    Let: lambda let: (let.value,),
    If: lambda branch: (branch.condition,),
}


def expressions(stmt: Stmt) -> tuple[Expr, ...]:
    """The expressions a statement holds itself (not those of nested statements)."""
    held = _EXPRESSIONS.get(type(stmt))
    return held(stmt) if held else ()


def nested(stmt: Stmt) -> Block:
    """The statements directly inside a statement."""
    if isinstance(stmt, For):
        return stmt.body
    if isinstance(stmt, If):
        return stmt.body + stmt.orelse
    return ()


def walk(block: Block) -> Iterator[Stmt]:
    """All statements, outer ones first."""
    for stmt in block:
        yield stmt
        yield from walk(nested(stmt))
