"""Matrix products."""

from __future__ import annotations

from ....compiler.errors import OnnxError
from ....compiler.ops.base import apply
from ....compiler.ops.einsum import Einsum
from ....compiler.ops.linear import Linear, matmul
from ....compiler.tensor import Tensor
from ..call import Call, Result, operator

_LARGEST_DETERMINANT = 4


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


@operator("Det")
def _det(call: Call) -> Result:
    """By expansion along rows, as long as that is short."""
    x = call.x()
    n = x.shape[-1]
    if x.rank < 2 or x.shape[-2] != n or not 1 <= n <= _LARGEST_DETERMINANT:
        raise OnnxError(f"determinants of {x.type} are not supported")
    return _determinant(x, 0, tuple(range(n)))


def _determinant(x: Tensor, row: int, columns: tuple[int, ...]) -> Tensor:
    """Of the rows from `row` on and these columns."""
    terms = []
    for i, column in enumerate(columns):
        element = x[..., row, column]
        if len(columns) > 1:
            element = element * _determinant(x, row + 1, columns[:i] + columns[i + 1 :])
        terms.append(-element if i % 2 else element)
    return sum(terms[1:], terms[0])
