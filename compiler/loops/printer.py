"""Kernels as text that reads as on paper."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..types import DType
from .ir import (
    INDEX,
    Accumulate,
    Alloc,
    Binary,
    BinaryOp,
    Block,
    Buffer,
    Call,
    Cast,
    Const,
    Expr,
    For,
    Function,
    If,
    Kernel,
    Let,
    Load,
    LoopKind,
    Prefetch,
    ReduceOp,
    Select,
    Space,
    Stmt,
    Store,
    Var,
)

_WIDTH = 100
_INDENT = "    "

# How tightly things bind, loosest first, as in Python.
_SELECT, _OR, _AND, _NOT, _COMPARE, _BIT_OR, _BIT_XOR = range(7)
_BIT_AND, _SHIFT, _SUM, _PRODUCT, _SIGN, _POWER, _ATOM = range(7, 14)

_INFIX: dict[BinaryOp, tuple[str, int]] = {
    BinaryOp.ADD: ("+", _SUM),
    BinaryOp.SUB: ("-", _SUM),
    BinaryOp.MUL: ("*", _PRODUCT),
    BinaryOp.DIV: ("/", _PRODUCT),
    BinaryOp.FLOORDIV: ("//", _PRODUCT),
    BinaryOp.MOD: ("%", _PRODUCT),
    BinaryOp.POW: ("**", _POWER),
    BinaryOp.AND: ("&", _BIT_AND),
    BinaryOp.OR: ("|", _BIT_OR),
    BinaryOp.XOR: ("^", _BIT_XOR),
    BinaryOp.SHL: ("<<", _SHIFT),
    BinaryOp.SHR: (">>", _SHIFT),
    BinaryOp.LT: ("<", _COMPARE),
    BinaryOp.LE: ("<=", _COMPARE),
    BinaryOp.EQ: ("==", _COMPARE),
    BinaryOp.NE: ("!=", _COMPARE),
}
_ORDER = (BinaryOp.LT, BinaryOp.LE)


def print_kernel(kernel: Kernel) -> str:
    """A kernel as text, without a newline at the end.

    Serial loops are `range`, the others are named by their kind; a buffer of shape () stands under
    its bare name; scratch comes behind `;` in the signature.
    """
    lines = _signature(kernel)
    if kernel.note:
        lines.append(f"{_INDENT}# {kernel.note}")
    lines += _block(kernel.body, 1)
    return "\n".join(lines)


def print_expr(expr: Expr) -> str:
    """An expression as text."""
    return _expr(expr)[0]


def print_access(buffer: Buffer, index: tuple[Expr, ...]) -> str:
    """An element of a buffer as text: `x[i, j + 1]`."""
    return f"{buffer.name}[{', '.join(map(print_expr, index))}]" if index else buffer.name


# -- statements -----------------------------------------------------------------------------------


def _signature(kernel: Kernel) -> list[str]:
    parameters = [f"{b.name}: {_type(b)}" for b in kernel.parameters]
    scratch = [f"{b.name}: {_type(b)}" for b in kernel.scratch]
    line = f"def {kernel.name}({', '.join(parameters)}"
    line += f"; {', '.join(scratch)}):" if scratch else "):"
    if len(line) <= _WIDTH:
        return [line]
    lines = [f"def {kernel.name}("]
    lines += [f"{_INDENT}{p}," for p in parameters]
    if scratch:
        lines[-1] = lines[-1].rstrip(",") + ";"
        lines += [f"{_INDENT}{s}," for s in scratch]
    return [*lines, "):"]


def _type(buffer: Buffer) -> str:
    space = "" if buffer.space is Space.ARGUMENT else f"{buffer.space.value} "
    shape = f"[{', '.join(map(str, buffer.shape))}]" if buffer.shape else ""
    gaps = f" by {', '.join(map(str, buffer.gaps))}" if buffer.gaps is not None else ""
    return f"{space}{buffer.dtype}{shape}{gaps}"


def _block(block: Block, depth: int) -> list[str]:
    lines = [line for stmt in block for line in _STATEMENTS[type(stmt)](stmt, depth)]
    return lines or [f"{_INDENT * depth}pass"]


def _for(stmt: For, depth: int) -> list[str]:
    kind = "range" if stmt.kind is LoopKind.SERIAL else stmt.kind.value
    lanes = f", lanes={stmt.lanes}" if stmt.kind is LoopKind.VECTOR else ""
    head = f"{_INDENT * depth}for {stmt.var.name} in {kind}({stmt.extent}{lanes}):"
    return [head, *_block(stmt.body, depth + 1)]


def _if(stmt: If, depth: int) -> list[str]:
    indent = _INDENT * depth
    lines = [f"{indent}if {print_expr(stmt.condition)}:", *_block(stmt.body, depth + 1)]
    if stmt.orelse:
        lines += [f"{indent}else:", *_block(stmt.orelse, depth + 1)]
    return lines


def _let(stmt: Let, depth: int) -> list[str]:
    return [f"{_INDENT * depth}{stmt.var.name} = {print_expr(stmt.value)}"]


def _alloc(stmt: Alloc, depth: int) -> list[str]:
    return [f"{_INDENT * depth}{stmt.buffer.name}: {_type(stmt.buffer)}"]


def _store(stmt: Store, depth: int) -> list[str]:
    place = print_access(stmt.buffer, stmt.index)
    how = "stream " if stmt.streaming else ""
    return [f"{_INDENT * depth}{how}{place} = {print_expr(stmt.value)}"]


def _accumulate(stmt: Accumulate, depth: int) -> list[str]:
    place, value = print_access(stmt.buffer, stmt.index), print_expr(stmt.value)
    if stmt.op in (ReduceOp.ADD, ReduceOp.MUL):
        return [f"{_INDENT * depth}{place} {stmt.op.value} {value}"]
    return [f"{_INDENT * depth}{place} = {stmt.op.value.rstrip('=')}({place}, {value})"]


def _prefetch(stmt: Prefetch, depth: int) -> list[str]:
    return [f"{_INDENT * depth}prefetch {print_access(stmt.buffer, stmt.index)}"]


_STATEMENTS: dict[type[Stmt], Callable[..., list[str]]] = {
    For: _for,
    If: _if,
    Let: _let,
    Alloc: _alloc,
    Store: _store,
    Accumulate: _accumulate,
    Prefetch: _prefetch,
}


# -- expressions: text, and how tightly it binds ---------------------------------------------------


def _expr(expr: Expr) -> tuple[str, int]:
    if isinstance(expr, Var):
        return expr.name, _ATOM
    if isinstance(expr, Const):
        text = _number(expr)
        return text, _SIGN if text.startswith("-") else _ATOM
    if isinstance(expr, Load):
        return print_access(expr.buffer, expr.index), _ATOM
    if isinstance(expr, Binary):
        return _binary(expr)
    if isinstance(expr, Call):
        return _call(expr)
    if isinstance(expr, Cast):
        return f"{expr.type}({print_expr(expr.value)})", _ATOM
    if isinstance(expr, Select):
        a, c, b = _in(expr.a, _OR), _in(expr.condition, _OR), _in(expr.b, _SELECT)
        return f"{a} if {c} else {b}", _SELECT
    raise TypeError(f"{expr!r} is no expression")


def _in(expr: Expr, level: int) -> str:
    """An expression where things bind at least as tightly as `level`."""
    text, own = _expr(expr)
    return text if own >= level else f"({text})"


def _binary(expr: Binary) -> tuple[str, int]:
    if expr.op in (BinaryOp.MIN, BinaryOp.MAX):
        return f"{expr.op.value}({print_expr(expr.a)}, {print_expr(expr.b)})", _ATOM
    if expr.dtype is DType.BOOL and expr.op in (BinaryOp.AND, BinaryOp.OR):
        return _logical(expr)
    symbol, level = _INFIX[expr.op]
    if expr.op is BinaryOp.ADD and isinstance(expr.b, Const) and expr.dtype is INDEX:
        if expr.b.value < 0:
            return f"{_in(expr.a, _SUM)} - {-expr.b.value}", _SUM
    # Operators group from the left; comparisons not at all, powers from the right.
    left = level + 1 if level in (_COMPARE, _POWER) else level
    right = _SIGN if level == _POWER else level + 1
    return f"{_in(expr.a, left)} {symbol} {_in(expr.b, right)}", level


def _logical(expr: Binary) -> tuple[str, int]:
    """and, or; `a <= b and b < c` is `a <= b < c`."""
    word, level = ("and", _AND) if expr.op is BinaryOp.AND else ("or", _OR)
    parts: list[Expr] = []
    pending: list[Expr] = [expr]
    while pending:
        part = pending.pop()
        if isinstance(part, Binary) and part.op is expr.op and part.dtype is DType.BOOL:
            pending += [part.b, part.a]
        else:
            parts.append(part)
    texts: list[str] = []
    last: Expr | None = None
    for part in parts:
        ordered = isinstance(part, Binary) and part.op in _ORDER
        if expr.op is BinaryOp.AND and isinstance(part, Binary) and ordered and last == part.a:
            texts[-1] += f" {part.op.value} {_in(part.b, _BIT_OR)}"
        else:
            texts.append(_in(part, level + 1))
        last = part.b if isinstance(part, Binary) and ordered else None
    return f" {word} ".join(texts), level if len(texts) > 1 else _COMPARE


def _call(expr: Call) -> tuple[str, int]:
    if expr.function is Function.NEG:
        return f"-{_in(expr.argument, _SIGN)}", _SIGN
    if expr.function is Function.NOT and expr.dtype is DType.BOOL:
        return f"not {_in(expr.argument, _NOT)}", _NOT
    if expr.function is Function.NOT:
        return f"~{_in(expr.argument, _SIGN)}", _SIGN
    return f"{expr.function.value}({print_expr(expr.argument)})", _ATOM


def _number(const: Const) -> str:
    """The shortest number that is this one in its dtype."""
    if const.type is DType.BOOL:
        return str(bool(const.value))
    if not const.type.is_float:
        return str(int(const.value))
    if const.type is DType.FLOAT64:
        return repr(float(const.value))
    with np.errstate(over="ignore"):
        return str(np.float32(const.value))
