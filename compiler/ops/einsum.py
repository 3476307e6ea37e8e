"""Einstein's summation convention."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import ShapeError
from ..types import DType
from .base import apply
from .composite import Composite
from .indexing import own_indices
from .linear import MatMul

if TYPE_CHECKING:
    from ..tensor import Tensor

_NAMELESS = "0123456789"  # the axes that an ellipsis stands for


@dataclass(frozen=True)
class Einsum(Composite):
    """Products of elements, summed over every index that the result does not name (ONNX: Einsum).

    Operands are contracted from left to right, each pair as one batched matrix product. An index
    that occurs twice in an operand takes the diagonal; an ellipsis stands for axes that broadcast.

    Arguments:
        equation: `bij,bjk->bik`; without an arrow, the indices that occur once, sorted.
    """

    equation: str
    arity: ClassVar[tuple[int, int | None]] = (1, None)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        terms, result = self._terms([x.rank for x in inputs])
        extents = self._extents(inputs, terms)
        operands = [self._simple(x, t) for x, t in zip(inputs, terms, strict=True)]
        value, term = operands[0]
        for i, (other, indices) in enumerate(operands[1:], start=1):
            later = set(result).union(*(t for _, t in operands[i + 1 :]))
            value, term = _contracted(value, term, other, indices, later, extents)
        value, term = _summed(value, term, set(result))
        value = value.permute(tuple(term.index(c) for c in result)) if result else value
        return (value.broadcast_to(tuple(extents[c] for c in result)),)

    def _terms(self, ranks: Sequence[int]) -> tuple[list[str], str]:
        """The indices of each operand and of the result, ellipses spelt out."""
        left, arrow, right = self.equation.replace(" ", "").partition("->")
        terms = left.split(",")
        if len(terms) != len(ranks):
            raise ShapeError(f"{self.equation!r} names {len(terms)} operands, got {len(ranks)}")
        most = 0
        for i, (term, rank) in enumerate(zip(terms, ranks, strict=True)):
            hidden = rank - len(term.replace("...", ""))
            if hidden < 0 or (hidden and "..." not in term) or hidden > len(_NAMELESS):
                raise ShapeError(f"{term!r} of {self.equation!r} does not fit an operand of rank "
                                 f"{rank}")  # fmt: skip
            most = max(most, hidden)
            terms[i] = term.replace("...", _NAMELESS[len(_NAMELESS) - hidden :])
        nameless = _NAMELESS[len(_NAMELESS) - most :]
        if not arrow:
            counts = Counter("".join(terms))
            named = sorted(c for c, n in counts.items() if n == 1 and c not in nameless)
            right = "..." + "".join(named)
        result = right.replace("...", nameless)
        unknown = set(result) - set("".join(terms))
        if unknown or len(set(result)) != len(result):
            raise ShapeError(f"the result of {self.equation!r} names an index twice or anew")
        return terms, result

    def _extents(self, inputs: Sequence[Tensor], terms: Sequence[str]) -> dict[str, int]:
        extents: dict[str, int] = {}
        for x, term in zip(inputs, terms, strict=True):
            for index, extent in zip(term, x.shape, strict=True):
                known = extents.get(index, 1)
                if 1 not in (known, extent) and known != extent:
                    raise ShapeError(
                        f"the index {index} of {self.equation!r} has extents {known} and {extent}"
                    )
                extents[index] = known if extent == 1 else extent
        return extents

    def _simple(self, x: Tensor, term: str) -> tuple[Tensor, str]:
        """An operand that names each index once: only its diagonals."""
        while len(set(term)) < len(term):
            index = next(c for c, n in Counter(term).items() if n > 1)
            first = term.index(index)
            second = term.index(index, first + 1)
            places = [own_indices(x, axis, x.shape[axis], DType.INT64) for axis in (first, second)]
            on = places[0].equal(places[1])
            x = on.where(x, x.constant(0)).sum(second, dtype=x.dtype)
            term = term[:second] + term[second + 1 :]
        return x, term


def _summed(x: Tensor, term: str, kept: set[str]) -> tuple[Tensor, str]:
    """Without the indices that nothing names any more."""
    gone = tuple(d for d, c in enumerate(term) if c not in kept)
    return (x.sum(gone) if gone else x), "".join(c for c in term if c in kept)


def _contracted(
    a: Tensor, left: str, b: Tensor, right: str, later: set[str], extents: Mapping[str, int]
) -> tuple[Tensor, str]:
    """Two operands as one: a product of matrices over the indices that only they share."""
    a, left = _summed(a, left, later | set(right))
    b, right = _summed(b, right, later | set(left))
    batch = [c for c in left if c in right and c in later]
    inner = [c for c in left if c in right and c not in later]
    rows = [c for c in left if c not in right]
    columns = [c for c in right if c not in left]
    a = _matrix(a, left, batch, rows, inner, extents)
    b = _matrix(b, right, batch, inner, columns, extents)
    shape = tuple(extents[c] for c in (*batch, *rows, *columns))
    return apply(MatMul(), a, b).reshape(shape), "".join((*batch, *rows, *columns))


def _matrix(
    x: Tensor,
    term: str,
    batch: Sequence[str],
    rows: Sequence[str],
    columns: Sequence[str],
    extents: Mapping[str, int],
) -> Tensor:
    order = (*batch, *rows, *columns)
    x = x.permute(tuple(term.index(c) for c in order)) if order else x
    x = x.broadcast_to(tuple(extents[c] for c in order))
    return x.reshape(tuple(math.prod(extents[c] for c in part) for part in (batch, rows, columns)))
