"""Which block of channels a channel is in."""

from __future__ import annotations

from ..loops import ir
from ..loops.ir import Expr


def divided(channel: Expr, block: int) -> tuple[Expr, Expr]:
    """The block a channel is in, and its place there."""
    whole, rest = _multiples(channel, block)
    return whole + rest // block, rest % block


def _multiples(number: Expr, by: int) -> tuple[Expr, Expr]:
    """(a, b) so that a number is a * by + b, with as much as is seen in a."""
    zero = ir.index(0)
    if isinstance(number, ir.Const):
        return ir.index(int(number.value) // by), ir.index(int(number.value) % by)
    if isinstance(number, ir.Binary) and number.op is ir.BinaryOp.ADD:
        (a, b), (c, d) = _multiples(number.a, by), _multiples(number.b, by)
        return a + c, b + d
    if isinstance(number, ir.Binary) and number.op is ir.BinaryOp.MUL:
        factor = number.b
        if isinstance(factor, ir.Const) and int(factor.value) % by == 0:
            return number.a * (int(factor.value) // by), zero
    return zero, number
