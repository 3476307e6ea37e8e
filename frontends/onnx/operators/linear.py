"""Matrix products."""

from __future__ import annotations

from ....compiler.ops.base import apply
from ....compiler.ops.einsum import Einsum
from ....compiler.ops.linear import Linear, matmul
from ..call import Call, Result, operator


@operator("MatMul")
def _matmul(call: Call) -> Result:
    return matmul(call.x(0), call.x(1))


@operator("Gemm")
def _gemm(call: Call) -> Result:
    a, b, c = call.x(0), call.x(1), call.optional(2)
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    if call.flag("transA"):
        a = a.transpose()
    plain = call.flag("transB") and alpha == beta == 1.0
    if plain and (c is None or c.shape == b.shape[:1]):  # a fully connected layer
        return apply(Linear(), a, b, *(() if c is None else (c,)))
    y = matmul(a, b.transpose() if call.flag("transB") else b)
    if alpha != 1.0:
        y = y * (alpha if y.dtype.is_float else int(alpha))
    if c is None:
        return y
    scale = beta if y.dtype.is_float else int(beta)
    return y + (c if beta == 1.0 else c * scale)


@operator("Einsum")
def _einsum(call: Call) -> Result:
    return call.apply(Einsum(call.text("equation")))
