"""Kernels as text: golden files, and expressions that Python itself reads as they are meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_kernels import F32, I64, convolution, gather, i, j, k, matmul, number, pointwise, softmax

from quern.compiler.loops import ir
from quern.compiler.loops.ir import (
    Binary,
    BinaryOp,
    Buffer,
    Call,
    Cast,
    Const,
    Expr,
    Function,
    Kernel,
    Load,
    Select,
    Space,
    Store,
    Var,
    index,
)
from quern.compiler.loops.printer import print_expr, print_kernel
from quern.compiler.types import DType

GOLDEN = Path(__file__).parent / "golden"

x, y = Var("x", F32), Var("y", F32)
p, q = Var("p", DType.BOOL), Var("q", DType.BOOL)


@pytest.mark.parametrize(
    "kernel", [pointwise(), softmax(), matmul(), convolution(), gather()], ids=lambda k: k.name
)
def test_golden(kernel: Kernel) -> None:
    """Set QUERN_UPDATE_GOLDEN=1 to write the files anew."""
    path = GOLDEN / f"loops_{kernel.name}.txt"
    text = print_kernel(kernel) + "\n"
    if "QUERN_UPDATE_GOLDEN" in os.environ:
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (i + j * 2, "i + j * 2"),
        ((i + j) * 2, "(i + j) * 2"),
        (i - (j - k), "i - (j - k)"),
        ((i - j) - k, "i - j - k"),
        (i - 3, "i - 3"),
        (i // 4 % 3, "i // 4 % 3"),
        (i * -1, "i * -1"),
        (Binary(BinaryOp.POW, x, Call(Function.NEG, y)), "x ** -y"),
        (Binary(BinaryOp.POW, Call(Function.NEG, x), y), "(-x) ** y"),
        (Call(Function.NEG, Binary(BinaryOp.POW, x, y)), "-x ** y"),
        (Binary(BinaryOp.POW, Binary(BinaryOp.POW, x, y), x), "(x ** y) ** x"),
        (Call(Function.NEG, Binary(BinaryOp.ADD, x, y)), "-(x + y)"),
        (Binary(BinaryOp.MAX, x, number(0.0)), "max(x, 0.0)"),
        (Call(Function.EXP, Binary(BinaryOp.SUB, x, y)), "exp(x - y)"),
        (Select(i < 3, x, y), "x if i < 3 else y"),
        (Select(p, Select(q, x, y), Select(q, y, x)), "(x if q else y) if p else y if q else x"),
        (Binary(BinaryOp.ADD, Select(p, x, y), x), "(x if p else y) + x"),
        ((i >= 0) & (i < 8), "0 <= i < 8"),
        ((i >= 0) & (i < 8) & (j >= 0) & (j < 4), "0 <= i < 8 and 0 <= j < 4"),
        (Binary(BinaryOp.OR, (i >= 0) & p, q), "0 <= i and p or q"),
        (Binary(BinaryOp.AND, Binary(BinaryOp.OR, p, q), q), "(p or q) and q"),
        (Call(Function.NOT, Binary(BinaryOp.AND, p, q)), "not (p and q)"),
        (Call(Function.NOT, i < 3), "not i < 3"),
        (Call(Function.NOT, i), "~i"),
        (Binary(BinaryOp.AND, i, Binary(BinaryOp.SHL, j, index(2))), "i & j << 2"),
        (Binary(BinaryOp.EQ, i < j, p), "(i < j) == p"),
        (Cast(i + 1, F32), "float32(i + 1)"),
        (Load(Buffer("w", (3, 4)), (i, j + 1)), "w[i, j + 1]"),
        (Load(Buffer("seed", (), I64), ()), "seed"),
    ],
)  # fmt: skip
def test_expressions_have_the_parentheses_they_need(expr: Expr, text: str) -> None:
    assert print_expr(expr) == text


@pytest.mark.parametrize(
    ("const", "text"),
    [
        (number(0.1), "0.1"),
        (number(1 / 3), "0.33333334"),
        (number(1 / 3, DType.FLOAT64), "0.3333333333333333"),
        (number(1e-30), "1e-30"),
        (number(2.0), "2.0"),
        (number(-0.0), "-0.0"),
        (number(float("-inf")), "-inf"),
        (number(float("nan")), "nan"),
        (Const(7, DType.UINT8), "7"),
        (Const(True, DType.BOOL), "True"),
    ],
)
def test_numbers_are_as_short_as_they_can_be(const: Const, text: str) -> None:
    assert print_expr(const) == text


def test_a_long_signature_takes_a_line_for_each_buffer() -> None:
    parameters = tuple(Buffer(f"parameter_{n}", (64, 128, 28, 28)) for n in range(3))
    scratch = (Buffer("packed", (16,), F32, Space.SCRATCH),)
    kernel = Kernel("wide", parameters, (Store(scratch[0], (index(0),), number(1.0)),), scratch)
    assert print_kernel(kernel).splitlines() == [
        "def wide(",
        "    parameter_0: float32[64, 128, 28, 28],",
        "    parameter_1: float32[64, 128, 28, 28],",
        "    parameter_2: float32[64, 128, 28, 28];",
        "    packed: scratch float32[16],",
        "):",
        "    packed[0] = 1.0",
    ]


def test_a_kernel_that_does_nothing_is_still_a_function() -> None:
    assert print_kernel(Kernel("idle", (), ())) == "def idle():\n    pass"


_INTEGERS = (
    BinaryOp.ADD, BinaryOp.SUB, BinaryOp.MUL, BinaryOp.MIN, BinaryOp.MAX,
    BinaryOp.AND, BinaryOp.OR, BinaryOp.XOR, BinaryOp.FLOORDIV, BinaryOp.MOD,
)  # fmt: skip
_COMPARE = (BinaryOp.LT, BinaryOp.LE, BinaryOp.EQ, BinaryOp.NE)
VALUES = {"i": 3, "j": -2, "k": 7, "p": True, "q": False}


@st.composite
def trees(draw: st.DrawFn, depth: int = 4, boolean: bool = False) -> tuple[Expr, int | bool]:
    """An expression, and what it is for `VALUES`."""
    if depth == 0 or draw(st.integers(0, 5)) == 0:
        name = draw(st.sampled_from("pq" if boolean else "ijk"))
        return Var(name, DType.BOOL if boolean else I64), VALUES[name]
    down = trees(depth - 1)
    test = trees(depth - 1, boolean=True)
    if boolean:
        kind = draw(st.integers(0, 2))
        if kind == 0:
            (a, u) = draw(test)
            return Call(Function.NOT, a), not u
        if kind == 1:
            (a, u), (b, w) = draw(test), draw(test)
            either = draw(st.booleans())
            return Binary(BinaryOp.OR if either else BinaryOp.AND, a, b), (
                (u or w) if either else (u and w)
            )
        (a, u), (b, w) = draw(down), draw(down)
        op = draw(st.sampled_from(_COMPARE))
        return Binary(op, a, b), {"<": u < w, "<=": u <= w, "==": u == w, "!=": u != w}[op.value]
    kind = draw(st.integers(0, 3))
    (a, u) = draw(down)
    if kind == 0:
        function = draw(st.sampled_from([Function.NEG, Function.NOT, Function.ABS]))
        return Call(function, a), {"neg": -u, "not": ~u, "abs": abs(u)}[function.value]
    (b, w) = draw(down)
    if kind == 1:
        (c, t) = draw(test)
        return Select(c, a, b), u if t else w
    op = draw(st.sampled_from(_INTEGERS))
    if op in (BinaryOp.FLOORDIV, BinaryOp.MOD) and w == 0:
        op = BinaryOp.SUB
    value = {
        BinaryOp.ADD: lambda: u + w,
        BinaryOp.SUB: lambda: u - w,
        BinaryOp.MUL: lambda: u * w,
        BinaryOp.MIN: lambda: min(u, w),
        BinaryOp.MAX: lambda: max(u, w),
        BinaryOp.AND: lambda: u & w,
        BinaryOp.OR: lambda: u | w,
        BinaryOp.XOR: lambda: u ^ w,
        BinaryOp.FLOORDIV: lambda: u // w,
        BinaryOp.MOD: lambda: u % w,
    }[op]()
    return Binary(op, a, b), value


@given(trees())
@settings(max_examples=200)
def test_python_reads_an_expression_as_it_is_meant(tree: tuple[Expr, int | bool]) -> None:
    expr, value = tree
    assert eval(print_expr(expr), dict(VALUES)) == value


def test_folding_of_written_indices_shows() -> None:
    assert print_expr(ir.clamp(i * 1 + 2 - 2, 0, 3)) == "min(max(i, 0), 3)"
