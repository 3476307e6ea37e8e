"""A name for what a kernel does, whatever its layers and variables are called."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from .ir import (
    Accumulate,
    Alloc,
    Binary,
    Block,
    Buffer,
    Call,
    Cast,
    Const,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    Prefetch,
    Select,
    Stmt,
    Store,
    Var,
)


def canonical_key(kernel: Kernel) -> str:
    """The kernel's structure as 64 hexadecimal digits; kernels with one key are one function.

    Buffers and variables count as numbers in the order in which they appear, and neither the
    kernel's name nor its note counts. Within a statement an expression object that occurs again is
    written as a reference to the first time, so that shared expressions cost their nodes, not
    their tree.
    """
    writer = _Writer()
    for buffers in (kernel.parameters, kernel.scratch):
        writer.out(f"{len(buffers)}[")
        for buffer in buffers:
            writer.out(writer.buffer(buffer))
    writer.block(kernel.body)
    return hashlib.sha256(";".join(writer.parts).encode()).hexdigest()


class _Writer:
    """Collects the tokens; every binding of a name takes a new number until its block ends."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.out = self.parts.append
        self.names: dict[str, int] = {}
        self.buffers: dict[str, tuple[Buffer, str]] = {}
        self.bound = 0
        self.seen: dict[int, int] = {}

    def bind(self, name: str) -> None:
        self.names[name] = self.bound
        self.bound += 1

    def buffer(self, buffer: Buffer) -> str:
        known = self.buffers.get(buffer.name)
        if known is not None and (known[0] is buffer or known[0] == buffer):
            return known[1]
        number = f"m{len(self.buffers)}"
        self.buffers[buffer.name] = buffer, number
        shape = ",".join(map(str, buffer.shape))
        gaps = "" if buffer.gaps is None else f"/{','.join(map(str, buffer.gaps))}"
        return f"{number}:{buffer.space._value_}:{buffer.dtype._value_}:{shape}{gaps}"

    # ---------------------------------------------------------------- statements

    def block(self, block: Block) -> None:
        outer = self.names
        self.names = dict(outer)
        self.out("{")
        for stmt in block:
            self.seen.clear()
            _STATEMENTS[type(stmt)](self, stmt)
        self.out("}")
        self.names = outer

    def loop(self, stmt: For) -> None:
        self.out(f"for {stmt.kind._value_} {stmt.extent} {stmt.lanes}")
        outer = self.names
        self.names = dict(outer)
        self.bind(stmt.var.name)
        self.block(stmt.body)
        self.names = outer

    def branch(self, stmt: If) -> None:
        self.out("if")
        self.expr(stmt.condition)
        self.block(stmt.body)
        self.block(stmt.orelse)

    def let(self, stmt: Let) -> None:
        self.out(f"let {stmt.var.type._value_}")
        self.expr(stmt.value)
        self.bind(stmt.var.name)

    def alloc(self, stmt: Alloc) -> None:
        self.out("alloc")
        self.out(self.buffer(stmt.buffer))

    def store(self, stmt: Store | Accumulate) -> None:
        if isinstance(stmt, Accumulate):
            self.out(stmt.op._value_)
        else:
            self.out("stream" if stmt.streaming else "=")
        self.out(self.buffer(stmt.buffer))
        for index in stmt.index:
            self.expr(index)
        self.expr(stmt.value)

    def prefetch(self, stmt: Prefetch) -> None:
        self.out("prefetch")
        self.out(self.buffer(stmt.buffer))
        for index in stmt.index:
            self.expr(index)

    # ---------------------------------------------------------------- expressions

    def expr(self, expr: Expr) -> None:
        if isinstance(expr, Var):
            number = self.names.get(expr.name)
            self.out(f"v{number}" if number is not None else f"free {expr!r}")
            return
        if isinstance(expr, Const):
            # repr tells True from 1 and -0.0 from 0.0.
            self.out(f"{expr.value!r}:{expr.type._value_}")
            return
        again = self.seen.get(id(expr))
        if again is not None:
            self.out(f"#{again}")
            return
        self.seen[id(expr)] = len(self.seen)
        _EXPRESSIONS[type(expr)](self, expr)

    def load(self, expr: Load) -> None:
        self.out("[" + self.buffer(expr.buffer))
        for index in expr.index:
            self.expr(index)

    def binary(self, expr: Binary) -> None:
        self.out(expr.op._value_)
        self.expr(expr.a)
        self.expr(expr.b)

    def call(self, expr: Call) -> None:
        self.out(expr.function._value_)
        self.expr(expr.argument)

    def select(self, expr: Select) -> None:
        self.out("?")
        self.expr(expr.condition)
        self.expr(expr.a)
        self.expr(expr.b)

    def cast(self, expr: Cast) -> None:
        self.out(f"to {expr.type._value_}")
        self.expr(expr.value)


_STATEMENTS: dict[type[Stmt], Callable[..., None]] = {
    For: _Writer.loop,
    If: _Writer.branch,
    Let: _Writer.let,
    Alloc: _Writer.alloc,
    Store: _Writer.store,
    Accumulate: _Writer.store,
    Prefetch: _Writer.prefetch,
}

_EXPRESSIONS: dict[type[Expr], Callable[..., None]] = {
    Load: _Writer.load,
    Binary: _Writer.binary,
    Call: _Writer.call,
    Select: _Writer.select,
    Cast: _Writer.cast,
}
