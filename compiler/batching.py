"""Operations on all steps of a sequence at once: the steps become one more axis, the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from .errors import CompileError
from .ops.base import Op, apply
from .ops.conv import Conv
from .ops.linear import Linear, MatMul
from .ops.movement import Broadcast, Concat, Reshape, Slice, Transpose
from .ops.pointwise import Cast, Pointwise
from .ops.reduce import Reduction
from .tensor import Tensor
from .types import TensorType


def can_batch(op: Op, varying: Sequence[bool]) -> bool:
    """Whether `batched` knows the operation, where these of its inputs have steps."""
    match op:
        case Linear() | Conv():
            return not any(varying[1:])
        case Pointwise() | Cast() | MatMul() | Reduction():
            return True
        case Reshape() | Transpose() | Broadcast() | Slice() | Concat():
            return True
    return False


def batched(op: Op, inputs: Sequence[Tensor], varying: Sequence[bool], type: TensorType) -> Tensor:
    """The operation for all steps.

    Arguments:
        op: one that `can_batch`.
        inputs: of shape (steps, *) where they vary, else (*).
        varying: which of them do; at least one.
        type: of the result of one step.

    Returns:
        The results of all steps, (steps, *).

    Raises:
        CompileError: it is none that `can_batch`.
    """
    steps = next(x.shape[0] for x, varies in zip(inputs, varying, strict=True) if varies)
    shape = (steps, *type.shape)
    x = inputs[0]
    match op:
        case Linear():
            return apply(op, *inputs)
        case Conv() | MatMul() if isinstance(op, Conv) or (type.rank == 2 and not varying[1]):
            rows = x.reshape((math.prod(x.shape[:2]), *x.shape[2:]))
            return apply(op, rows, *inputs[1:]).reshape(shape)
        case Pointwise() | Cast() | MatMul():
            aligned = (
                _aligned(x, type.rank) if varies else x
                for x, varies in zip(inputs, varying, strict=True)
            )
            if isinstance(op, MatMul):
                aligned = (x.reshape((1,) * (type.rank + 1 - x.rank) + x.shape) for x in aligned)
            return apply(op, *aligned)
        case Reduction():
            return apply(replace(op, axes=tuple(d + 1 for d in op.axes)), x)
        case Reshape():
            return x.reshape(shape)
        case Transpose():
            return x.permute((0, *(d + 1 for d in op.permutation)))
        case Broadcast():
            return _aligned(x, type.rank).broadcast_to(shape)
        case Slice():
            return apply(Slice((0, *op.start), (steps, *op.size), (1, *op.step)), x)
        case Concat():
            parts = (
                x if varies else x.broadcast_to((steps, *x.shape))
                for x, varies in zip(inputs, varying, strict=True)
            )
            return apply(Concat(op.axis + 1), *parts)
    raise CompileError(f"{op.name} cannot be computed for all steps of a sequence at once")


def _aligned(x: Tensor, rank: int) -> Tensor:
    """(steps, *) with axes of extent 1 behind the steps, so that it has `rank` axes beside them."""
    return x.reshape((x.shape[0], *(1,) * (rank + 1 - x.rank), *x.shape[1:]))
