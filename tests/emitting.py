"""What the tests of emitted code share: targets that run here, arrays, single expressions."""

from __future__ import annotations

import math

import numpy as np
from kernels import run_kernel, runs

from quern.compiler.llvm.target import Target
from quern.compiler.loops.ir import (
    COMPARISONS,
    Binary,
    BinaryOp,
    Buffer,
    Expr,
    For,
    Kernel,
    Load,
    LoopKind,
    ReduceOp,
    Stmt,
    Store,
    Var,
)
from quern.compiler.types import Array, DType

F32, F64, I32, I64, U8, BOOL = (
    DType.FLOAT32,
    DType.FLOAT64,
    DType.INT32,
    DType.INT64,
    DType.UINT8,
    DType.BOOL,
)
SERIAL, PARALLEL, UNROLLED, VECTOR = LoopKind
ADD, MUL, MIN, MAX = ReduceOp
i, j, k, r, c = (Var(name) for name in "ijkrc")

# Narrower vectors run here too; the widest only if the machine has them, or an emulator.
RUNNABLE = [t for t in map(Target.named, ("sse", "avx2", "avx512")) if runs(t)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def normal(*shape: int, dtype: type = np.float32, seed: int = 0) -> Array:
    return rng(seed).standard_normal(shape).astype(dtype)


def vector(var: Var, extent: int, *body: Stmt, lanes: int = 8) -> For:
    return For(var, extent, body, VECTOR, lanes)


def pointwise(expr: Expr, buffers: tuple[Buffer, ...], lanes: int) -> Kernel:
    """out[i] = expr for all i."""
    n = buffers[0].shape[0]
    out = Buffer("out", (n,), expr.dtype)
    store = Store(out, (i,), expr)
    return Kernel("pointwise", (*buffers, out), (For(i, n, (store,), VECTOR, lanes),))


def evaluate(expr: Expr, arrays: dict[str, Array], lanes: int) -> Array:
    buffers = tuple(Buffer(n, a.shape, DType.of(a.dtype)) for n, a in arrays.items())
    return run_kernel(pointwise(expr, buffers, lanes), [*arrays.values(), None])[-1]


FLOATS = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, -1.5, 2.5, 3.0, -3.0, 7.25, 1e-40, -1e-40, 3e38, -3e38,
     math.inf, -math.inf, math.nan, 1e-3, 100.0, -7.75, 2.0, -2.0]
)  # fmt: skip
INTEGERS = {
    I32: np.array([0, 1, -1, 2, -2, 3, -3, 7, -7, 31, 32, 33, 100, -100, 2**31 - 1, -(2**31)]),
    I64: np.array([0, 1, -1, 2, -2, 3, -3, 7, -7, 63, 64, 65, 1000, -1000, 2**63 - 1, -(2**63)]),
    U8: np.array([0, 1, 2, 3, 5, 7, 8, 9, 31, 100, 127, 128, 200, 254, 255]),
    BOOL: np.array([False, True]),
}


def samples(dtype: DType) -> Array:
    values = FLOATS if dtype.is_float else INTEGERS[dtype]
    return values.astype(dtype.numpy)


def pairs(dtype: DType) -> tuple[Array, Array]:
    values = samples(dtype)
    a, b = np.meshgrid(values, values)
    return a.ravel(), b.ravel()


COMPARED = [op for op in BinaryOp if op in COMPARISONS]  # in an order of their own
OF_FLOAT = [BinaryOp.ADD, BinaryOp.SUB, BinaryOp.MUL, BinaryOp.DIV, BinaryOp.FLOORDIV, BinaryOp.MOD,
            BinaryOp.MIN, BinaryOp.MAX, BinaryOp.POW, *COMPARED]  # fmt: skip


def renamed(prefix: str, extent: int = 8, lanes: int = 8) -> Kernel:
    v, x, y = Var(f"{prefix}i"), Buffer(f"{prefix}x", (extent,)), Buffer(f"{prefix}y", (extent,))
    twice = Binary(BinaryOp.ADD, Load(x, (v,)), Load(x, (v,)))
    body = vector(v, extent, Store(y, (v,), twice), lanes=lanes)
    return Kernel(f"{prefix}layer", (x, y), (body,), note=prefix)
