"""A small matrix with known numbers times a vector of expressions, in few instructions.

Matrices of Winograd's algorithms come in mirrored pairs, for a point and its negative: rows (or
columns) that are equal in some places and negated in the others. Each pair shares its two halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from ..loops import ir
from ..loops.ir import BinaryOp, Expr
from ..ops.toom_cook import Matrix
from .elements import Elements

Row = Sequence[Fraction]


def linear_map(elements: Elements, matrix: Matrix, vector: Sequence[Expr]) -> list[Expr]:
    """The product of a matrix and a vector of floats, none of whose rows is zero.

    Shared parts are named in the block of `elements`.
    """
    columns: dict[int, Row] = dict(enumerate(zip(*matrix, strict=True)))
    terms: list[tuple[Row, Expr]] = []
    for first, second in _mirrored(columns):
        a, b, column = vector[first], vector[second], columns[first]
        same = [x == y for x, y in zip(column, columns[second], strict=True)]
        total = elements.name(ir.binary(BinaryOp.ADD, a, b), "sum")
        apart = elements.name(ir.binary(BinaryOp.SUB, a, b), "difference")
        terms.append(([x if s else Fraction(0) for x, s in zip(column, same, strict=True)], total))
        terms.append(([Fraction(0) if s else x for x, s in zip(column, same, strict=True)], apart))
        del columns[first], columns[second]
    terms += [(column, vector[j]) for j, column in columns.items()]
    rows: dict[int, Row] = dict(enumerate(zip(*(c for c, _ in terms), strict=True)))
    values = [x for _, x in terms]
    found: dict[int, Expr] = {}
    for first, second in _mirrored(rows):
        row = rows[first]
        same = [x == y for x, y in zip(row, rows[second], strict=True)]
        even = [x if s else Fraction(0) for x, s in zip(row, same, strict=True)]
        odd = [Fraction(0) if s else x for x, s in zip(row, same, strict=True)]
        lead = [x for x in odd if x][-1]
        a = elements.name(_combination(even, values), "even")
        b = elements.name(_combination([x / lead for x in odd], values), "odd")
        found[first] = elements.name(_plus(a, _times(b, lead)), "y")
        found[second] = elements.name(_plus(a, _times(b, -lead)), "y")
        del rows[first], rows[second]
    for i, row in rows.items():
        found[i] = elements.name(_combination(row, values), "y")
    return [found[i] for i in range(len(matrix))]


def _mirrored(rows: dict[int, Row]) -> list[tuple[int, int]]:
    """Pairs of rows that differ in signs only, and not in all of them."""
    pairs: list[tuple[int, int]] = []
    free = list(rows)
    while free:
        first = free.pop(0)
        for second in free:
            both = list(zip(rows[first], rows[second], strict=True))
            sizes = all(abs(x) == abs(y) for x, y in both)
            if sizes and any(x == y != 0 for x, y in both) and any(x == -y != 0 for x, y in both):
                pairs.append((first, second))
                free.remove(second)
                break
    return pairs


def _combination(row: Row, vector: Sequence[Expr]) -> Expr:
    """The sum of numbers times expressions; what needs no product comes last."""
    terms = [(c, x) for c, x in zip(row, vector, strict=True) if c]
    terms.sort(key=lambda term: term[0] == 1)
    (first, x), *rest = terms
    total = _times(x, first)
    for c, x in rest:
        total = _plus(total, _times(x, c))
    return total


def _times(x: Expr, factor: Fraction) -> Expr:
    if factor == 1:
        return x
    return ir.Binary(BinaryOp.MUL, x, ir.Const(float(factor), x.dtype))


def _plus(a: Expr, b: Expr) -> Expr:
    return ir.Binary(BinaryOp.ADD, a, b)
