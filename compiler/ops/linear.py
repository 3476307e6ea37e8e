"""Matrix products and the fully connected layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import DTypeError, ShapeError
from ..types import Array, DType, TensorType, broadcast_shapes
from .base import Op, apply
from .composite import Composite
from .pointwise import Gradients, Signals, Tensors

if TYPE_CHECKING:
    from ..tensor import Tensor

FLOATS = frozenset({DType.FLOAT32, DType.FLOAT64})
NUMBERS = frozenset(d for d in DType if d is not DType.BOOL)


@dataclass(frozen=True)
class MatMul(Op):
    """Matrix product of the last two axes: (…, M, K) @ (…, K, N) -> (…, M, N).

    Both have the same rank, at least 2; the axes before the last two broadcast (NumPy: matmul,
    ONNX: MatMul). For vectors and unequal ranks see `matmul`.
    """

    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        a, b = inputs
        dtype = common_dtype(self.name, inputs, NUMBERS)
        if a.rank != b.rank or a.rank < 2:
            raise ShapeError(
                f"MatMul takes two values of the same rank, at least 2, got {a} and {b}; "
                "use matmul(a, b), which adds axes"
            )
        if a.shape[-1] != b.shape[-2]:
            raise ShapeError(
                f"{a} has {a.shape[-1]} columns, {b} has {b.shape[-2]} rows; they must be equal, "
                "transpose one side?"
            )
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        return (TensorType(batch + (a.shape[-2], b.shape[-1]), dtype),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        a, b = inputs
        with np.errstate(all="ignore"):
            return (np.matmul(in_double(a), in_double(b)).astype(a.dtype),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (a, b), (signal,) = inputs, signals
        if signal is None:
            return (None, None)
        to_a = apply(MatMul(), signal, b.transpose())
        to_b = apply(MatMul(), a.transpose(), signal)
        return to_a.sum_to(a.shape), to_b.sum_to(b.shape)


@dataclass(frozen=True)
class PackedMatMul(Op):
    """Matrix product (M, K) @ (K, N) -> (M, N), whose right operand has been packed.

    Inputs are x (M, K) and (groups, panels, K, panel), what `PackWeight` makes of a weight: columns
    side by side in panels, zeros behind the last of a group. Groups are equal parts of the columns.
    Where the same matrix is multiplied often, as in the steps of a recurrence, it is packed once.

    Arguments:
        columns: N.
    """

    columns: int
    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    differentiable: ClassVar[bool] = False

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, packed = inputs
        common_dtype(self.name, inputs, NUMBERS)
        fits = packed.rank == 4 and min(packed.shape[0], packed.shape[3]) > 0
        if not fits or self.columns % packed.shape[0]:
            raise ShapeError(f"{packed} is no matrix of {self.columns} columns in panels")
        groups, panels, _, panel = packed.shape
        if panels != -(-(self.columns // groups) // panel):
            raise ShapeError(f"{packed} is no matrix of {self.columns} columns in panels")
        if x.rank != 2 or x.shape[1] != packed.shape[2]:
            raise ShapeError(f"x {x} does not have the {packed.shape[2]} columns of {packed}")
        return (x.with_shape((x.shape[0], self.columns)),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        x, packed = inputs
        groups, _, depth, _ = packed.shape
        parts = packed.transpose(2, 0, 1, 3).reshape(depth, groups, -1)
        right = parts[..., : self.columns // groups].reshape(depth, self.columns)
        return MatMul().evaluate(x, right)


@dataclass(frozen=True)
class Linear(Composite):
    """x @ weightᵀ + bias over the last axis (PyTorch: Linear, ONNX: Gemm with transB).

    Inputs are x (…, I), weight (O, I) and, optionally, bias (O,); the output is (…, O).
    """

    arity: ClassVar[tuple[int, int | None]] = (2, 3)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, weight, *bias = inputs
        dtype = common_dtype(self.name, inputs, NUMBERS)
        if x.rank < 1 or weight.rank != 2:
            raise ShapeError(f"Linear takes x (…, I) and weight (O, I), got {x} and {weight}")
        if x.shape[-1] != weight.shape[1]:
            raise ShapeError(
                f"x {x} has {x.shape[-1]} features, weight {weight} reads {weight.shape[1]}; "
                f"make in_features {x.shape[-1]}"
            )
        check_bias(weight, bias)
        return (TensorType(x.shape[:-1] + (weight.shape[0],), dtype),)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, weight, *bias = inputs
        rows = as_rows(x)
        y = apply(MatMul(), rows, weight.transpose())
        if bias:
            y = y + bias[0]
        return (y.reshape(x.shape[:-1] + (weight.shape[0],)),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (x, weight, *bias), (signal,) = inputs, signals
        if signal is None:
            return [None] * len(inputs)
        rows = as_rows(signal)
        to_x = apply(MatMul(), rows, weight).reshape(x.shape)
        to_weight = apply(MatMul(), rows.transpose(), as_rows(x))
        return (to_x, to_weight, *(rows.sum(0) for _ in bias))


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """NumPy's and PyTorch's matmul: any ranks from 1 on.

    A vector on the left is a row, one on the right a column, and that axis is dropped again; the
    axes before the last two broadcast. Dtypes are promoted.

    Raises:
        ShapeError: for scalars, or extents that clash.
    """
    from ..tensor import promote

    a, b = promote(a, b)
    if not a.rank or not b.rank:
        raise ShapeError(f"matmul takes no scalars, got {a.type} and {b.type}; multiply with *")
    if a.shape[-1] != b.shape[-2 if b.rank > 1 else 0]:
        raise ShapeError(
            f"{a.type} has {a.shape[-1]} columns, {b.type} has {b.shape[-2 if b.rank > 1 else 0]} "
            "rows; they must be equal, transpose one side?"
        )
    left = a.unsqueeze(0) if a.rank == 1 else a
    right = b.unsqueeze(1) if b.rank == 1 else b
    batch = broadcast_shapes(left.shape[:-2], right.shape[:-2])
    row = () if a.rank == 1 else left.shape[-2:-1]
    column = () if b.rank == 1 else right.shape[-1:]
    if right.rank == 2:  # one large product in place of many small ones
        left = as_rows(left)
    else:
        left, right = (_with_rank(t, len(batch) + 2) for t in (left, right))
    return apply(MatMul(), left, right).reshape(batch + row + column)


def _with_rank(x: Tensor, rank: int) -> Tensor:
    return x.reshape((1,) * (rank - x.rank) + x.shape)


def as_rows(x: Tensor) -> Tensor:
    """(…, I) as a matrix (rows, I)."""
    return x.reshape((math.prod(x.shape[:-1]), x.shape[-1]))


def check_bias(weight: TensorType, bias: Sequence[TensorType]) -> None:
    """
    Raises:
        ShapeError: for a bias that does not have one entry an output of `weight` (O, …).
    """
    for b in bias:
        if b.shape != weight.shape[:1]:
            raise ShapeError(
                f"bias {b} must have the shape ({weight.shape[0]},): one entry an output of "
                f"weight {weight}"
            )


def common_dtype(name: str, types: Sequence[TensorType], allowed: frozenset[DType]) -> DType:
    """The one dtype of all inputs.

    Raises:
        DTypeError: when they differ, or when it is not one of `allowed`.
    """
    dtypes = {t.dtype for t in types}
    if len(dtypes) != 1:
        listed = ", ".join(str(t) for t in types)
        raise DTypeError(f"{name} takes one dtype, got {listed}; cast one side")
    (dtype,) = dtypes
    if dtype not in allowed:
        wanted = ", ".join(sorted(d.value for d in allowed))
        raise DTypeError(f"{name} takes {wanted}, got {dtype}; cast first")
    return dtype


def in_double(x: Array) -> Array:
    """float32 as float64, so that what the oracle sums has no rounding of its own to speak of."""
    return x.astype(np.float64) if x.dtype == np.float32 else x
