"""Matrix products."""

from __future__ import annotations

from ....compiler.ops.einsum import Einsum
from ....compiler.ops.linear import Linear, MatMul
from ..writer import Draft, Outputs, Ref, writes


@writes(MatMul)
def _matmul(draft: Draft, op: MatMul, a: Ref, b: Ref) -> Outputs:
    return draft.node("MatMul", a, b)


@writes(Linear)
def _linear(draft: Draft, op: Linear, x: Ref, weight: Ref, *bias: Ref) -> Outputs:
    if x.rank == 2:
        return draft.node("Gemm", x, weight, *bias, transB=1)
    if x.rank == 1:
        return None
    product = draft.node("MatMul", x, draft.node("Transpose", weight, perm=(1, 0)))
    return draft.node("Add", product, bias[0]) if bias else product


@writes(Einsum)
def _einsum(draft: Draft, op: Einsum, *operands: Ref) -> Outputs:
    if "..." in op.equation:
        return None  # in ONNX an ellipsis stands for the same number of axes everywhere
    return draft.node("Einsum", *operands, equation=op.equation)
