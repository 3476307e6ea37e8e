"""The loop IR: what a kernel does, as data.

    Kernel   parameters, scratch, body
    stmt  =  For(var, extent, kind, body) | If(condition, body, orelse) | Let(var, value)
           | Alloc(buffer) | Store(buffer, index, value, streaming) | Prefetch(buffer, index)
           | Accumulate(buffer, index, op, value)
    expr  =  Var | Const | Load(buffer, index) | Binary(op, a, b) | Call(function, arguments)
           | Select(condition, a, b) | Cast(value, dtype)

Every loop starts at 0 and has an extent that is known. A `parallel` loop's iterations may run on
any thread, a `vector` loop's in any lane: they are independent, but for `Accumulate` into a place
that is the same for all of them, which is a reduction (its order is then the machine's to choose,
the same on every run). An `unrolled` loop is written out. `parallel` loops stand outermost;
directly nested ones are one loop over both. Those that follow each other are phases: the next one
starts when the last one is done on all threads.

Indices are int64. Scalars are buffers of shape (). A buffer that is allocated inside a vector loop
has one copy a lane. Registers hold small buffers whose indices are known after unrolling.
"""

from __future__ import annotations

from .expressions import (
    Binary,
    Buffer,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Select,
    Var,
    binary,
    children,
    clamp,
    index,
    maximum,
    minimum,
    walk_expr,
    walk_shared,
)
from .operators import (
    COMPARISONS,
    INDEX,
    STACK_BYTES,
    BinaryOp,
    Function,
    LoopKind,
    ReduceOp,
    Space,
)
from .statements import (
    Accumulate,
    Alloc,
    Block,
    For,
    If,
    Kernel,
    Let,
    Loops,
    Prefetch,
    Stmt,
    Store,
    expressions,
    loop_nest,
    nested,
    walk,
)

__all__ = [
    "COMPARISONS",
    "INDEX",
    "STACK_BYTES",
    "Accumulate",
    "Alloc",
    "Binary",
    "BinaryOp",
    "Block",
    "Buffer",
    "Call",
    "Cast",
    "Const",
    "Expr",
    "For",
    "Function",
    "If",
    "Kernel",
    "Let",
    "Load",
    "LoopKind",
    "Loops",
    "Prefetch",
    "ReduceOp",
    "Select",
    "Space",
    "Stmt",
    "Store",
    "Var",
    "binary",
    "children",
    "clamp",
    "expressions",
    "index",
    "loop_nest",
    "maximum",
    "minimum",
    "nested",
    "walk",
    "walk_expr",
    "walk_shared",
]
