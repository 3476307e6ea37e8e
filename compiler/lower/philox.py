"""Philox4x32-10 for one element, in 64-bit integer arithmetic (see `ops/random.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..loops import ir
from ..loops.ir import BinaryOp, Const, Expr
from ..ops.random import MULTIPLIERS, ROUNDS, WEYL, Philox

if TYPE_CHECKING:
    from .elements import Elements

_WORD = 0xFFFFFFFF


def uniform(op: Philox, number: Expr, seed: Expr, step: Expr, elements: Elements) -> Expr:
    """The uniform number of element `number`: word 0 without its low 8 bits, times 2**-24."""
    counter = [_low(number), _high(number), _low(step), ir.index(op.stream)]
    keys = [_low(seed), _high(seed)]
    for turn in range(ROUNDS):
        counter = [elements.name(x, "word") for x in _round(counter, keys)]
        if turn + 1 < ROUNDS:
            keys = [
                elements.name(_low(k + weyl), "key") for k, weyl in zip(keys, WEYL, strict=True)
            ]
    bits = ir.binary(BinaryOp.SHR, counter[0], 8)
    dtype = op.type.dtype
    return ir.binary(BinaryOp.MUL, ir.Cast(bits, dtype), Const(2.0**-24, dtype))


def _round(counter: list[Expr], keys: list[Expr]) -> list[Expr]:
    c0, c1, c2, c3 = counter
    first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
    return [
        _xor(_xor(_high(second), c1), keys[0]),
        _low(second),
        _xor(_xor(_high(first), c3), keys[1]),
        _low(first),
    ]


def _low(x: Expr) -> Expr:
    return ir.binary(BinaryOp.AND, x, _WORD)


def _high(x: Expr) -> Expr:
    """The upper word, of a product or of a negative number too."""
    return ir.binary(BinaryOp.SHR, x, 32)


def _xor(a: Expr, b: Expr) -> Expr:
    return ir.binary(BinaryOp.XOR, a, b)
