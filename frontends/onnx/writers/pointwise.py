"""Operations that work element by element."""

from __future__ import annotations

from ....compiler.ops import pointwise as pw
from ....compiler.ops import trigonometry as tr
from ....compiler.ops.base import Op
from ....compiler.types import DType
from ..proto import element_type
from ..writer import Draft, Outputs, Ref, writes

# Operations that ONNX has as they are, and what it calls them.
_SAME: dict[type[Op], str] = {
    pw.Negate: "Neg",
    pw.Abs: "Abs",
    pw.Sign: "Sign",
    pw.Exp: "Exp",
    pw.Log: "Log",
    pw.Sqrt: "Sqrt",
    pw.Sin: "Sin",
    pw.Cos: "Cos",
    pw.Tanh: "Tanh",
    pw.Sigmoid: "Sigmoid",
    pw.Erf: "Erf",
    pw.Floor: "Floor",
    pw.Ceil: "Ceil",
    pw.Round: "Round",
    pw.IsNaN: "IsNaN",
    pw.Add: "Add",
    pw.Subtract: "Sub",
    pw.Multiply: "Mul",
    pw.Divide: "Div",
    pw.Power: "Pow",
    pw.Maximum: "Max",
    pw.Minimum: "Min",
    pw.Equal: "Equal",
    pw.Less: "Less",
    pw.LessEqual: "LessOrEqual",
    pw.Greater: "Greater",
    pw.GreaterEqual: "GreaterOrEqual",
    pw.Where: "Where",
    tr.Tan: "Tan",
    tr.Asin: "Asin",
    tr.Acos: "Acos",
    tr.Atan: "Atan",
    tr.Sinh: "Sinh",
    tr.Cosh: "Cosh",
    tr.Asinh: "Asinh",
    tr.Acosh: "Acosh",
    tr.Atanh: "Atanh",
}


@writes(*_SAME)
def _same(draft: Draft, op: Op, *inputs: Ref) -> Outputs:
    return draft.node(_SAME[type(op)], *inputs)


@writes(pw.Not, pw.And, pw.Or, pw.Xor)
def _logical(draft: Draft, op: Op, *inputs: Ref) -> Outputs:
    bits = "" if inputs[0].type.dtype is DType.BOOL else "Bitwise"
    return draft.node(bits + op.name, *inputs)


@writes(pw.Relu)
def _relu(draft: Draft, op: pw.Relu, x: Ref) -> Outputs:
    if x.type.dtype.is_float:
        return draft.node("Relu", x)
    return draft.node("Max", x, draft.like(0, x))


@writes(pw.NotEqual)
def _not_equal(draft: Draft, op: pw.NotEqual, a: Ref, b: Ref) -> Outputs:
    return draft.node("Not", draft.node("Equal", a, b))


@writes(pw.Cast)
def _cast(draft: Draft, op: pw.Cast, x: Ref) -> Outputs:
    return x if op.dtype is x.type.dtype else draft.node("Cast", x, to=element_type(op.dtype.numpy))


@writes(pw.Expm1)
def _expm1(draft: Draft, op: pw.Expm1, x: Ref) -> Outputs:
    """tanh(x / 2) * (e**x + 1), which keeps its digits where x is small."""
    half = draft.node("Tanh", draft.node("Mul", x, draft.like(0.5, x)))
    above = draft.node("Add", draft.node("Exp", x), draft.like(1, x))
    return draft.node("Mul", half, above)


@writes(pw.Log1p)
def _log1p(draft: Draft, op: pw.Log1p, x: Ref) -> Outputs:
    """With u = 1 + x rounded: log(u) * x / (u - 1), and x itself where u is 1 (Kahan).

    Where u is x, so large is it, that is log(u); infinity is such a place.
    """
    one = draft.like(1, x)
    u = draft.node("Add", x, one)
    log = draft.node("Log", u)
    corrected = draft.node("Mul", log, draft.node("Div", x, draft.node("Sub", u, one)))
    small = draft.node("Where", draft.node("Equal", u, one), x, corrected)
    return draft.node("Where", draft.node("Equal", u, x), log, small)


@writes(pw.FloorDivide)
def _floor_divide(draft: Draft, op: pw.FloorDivide, a: Ref, b: Ref) -> Outputs:
    if a.type.dtype.is_float:
        return draft.node("Floor", draft.node("Div", a, b))
    whole = draft.node("Sub", a, draft.node("Mod", a, b))
    return draft.node("Div", whole, b)


@writes(pw.Remainder)
def _remainder(draft: Draft, op: pw.Remainder, a: Ref, b: Ref) -> Outputs:
    if a.type.dtype.is_integer or a.type.dtype is DType.BOOL:
        return draft.node("Mod", a, b)
    quotient = draft.node("Floor", draft.node("Div", a, b))
    return draft.node("Sub", a, draft.node("Mul", quotient, b))
