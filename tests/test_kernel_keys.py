"""Keys of kernels: equal structure, equal key, whatever the names."""

from __future__ import annotations

import numpy as np
from emitting import ADD, F32, F64, MAX, PARALLEL, VECTOR, i, j, renamed, vector
from kernels import host, run_kernel

from quern.compiler.llvm.emit import emit, fingerprint
from quern.compiler.loops.canonical import canonical_key
from quern.compiler.loops.ir import (
    Accumulate,
    Binary,
    BinaryOp,
    Block,
    Buffer,
    Call,
    Const,
    Expr,
    For,
    Function,
    If,
    Kernel,
    Load,
    Store,
    index,
)


def test_keys_do_not_see_names() -> None:
    assert canonical_key(renamed("a")) == canonical_key(renamed("b"))
    assert emit(renamed("a"), host()) == emit(renamed("b"), host())


def test_fingerprint_is_that_of_the_emitter() -> None:
    assert fingerprint() == fingerprint()
    assert len(bytes.fromhex(fingerprint())) == 32


def test_keys_see_everything_else() -> None:
    out = Buffer("out", (8,))
    other = Buffer("other", (8,))
    value = Const(0.0, F32)
    bodies: list[Block] = [
        (For(i, 8, (Store(out, (i,), value),)),),
        (For(i, 7, (Store(out, (i,), value),)),),
        (For(i, 8, (Store(out, (i,), value),), PARALLEL),),
        (For(i, 8, (Store(out, (i,), value),), VECTOR, 4),),
        (For(i, 8, (Store(out, (i,), value),), VECTOR, 8),),
        (For(i, 8, (Store(other, (i,), value),)),),
        (For(i, 8, (Store(out, (i,), Const(-0.0, F32)),)),),
        (For(i, 8, (Accumulate(out, (i,), ADD, value),)),),
        (For(i, 8, (Accumulate(out, (i,), MAX, value),)),),
        (For(i, 8, (For(j, 8, (Store(out, (i,), value),)),)),),
        (For(i, 8, (For(j, 8, (Store(out, (j,), value),)),)),),
        (For(i, 8, (If(i < index(3), (Store(out, (i,), value),)),)),),
        (For(i, 8, (If(i < index(3), (), (Store(out, (i,), value),)),)),),
        (For(i, 8, (Store(out, (i,), Load(other, (i,))),)),),
        (For(i, 8, (Store(out, (i,), Call(Function.EXP, Load(other, (i,)))),)),),
    ]
    kernels = [Kernel("k", (out, other), body) for body in bodies]
    kernels.append(Kernel("k", (out,), bodies[0], (other,)))
    kernels.append(Kernel("k", (out, Buffer("other", (8,), F64)), bodies[0]))
    keys = [canonical_key(kernel) for kernel in kernels]
    assert len(set(keys)) == len(keys)


def test_keys_of_shared_expressions_take_no_time() -> None:
    out = Buffer("out", (8,))
    value: Expr = Load(out, (i,))
    for _ in range(200):
        value = Binary(BinaryOp.MUL, value, value)
    kernel = Kernel("k", (out,), (vector(i, 8, Store(out, (i,), value)),))
    np.testing.assert_array_equal(run_kernel(kernel, [np.ones(8, np.float32)])[0], 1)
