"""Buffers, and expressions over their elements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from ...types import DType, Shape, row_major_strides
from .operators import COMPARISONS, INDEX, BinaryOp, Function, Space


@dataclass(frozen=True)
class Buffer:
    """Row-major memory, contiguous unless it is part of something larger.

    Arguments:
        name: unique in its kernel.
        shape: extents.
        dtype: of an element.
        space: where it lives.
        gaps: elements from one place to the next along each axis, where rows do not follow on each
            other; no two places share an element.
    """

    name: str
    shape: Shape
    dtype: DType = DType.FLOAT32
    space: Space = Space.ARGUMENT
    gaps: Shape | None = None

    @property
    def strides(self) -> Shape:
        """Elements from one place to the next along each axis."""
        return row_major_strides(self.shape) if self.gaps is None else self.gaps

    @property
    def size(self) -> int:
        """Number of elements."""
        total = 1
        for extent in self.shape:
            total *= extent
        return total

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.size


@dataclass(frozen=True)
class Expr:
    """Base of the expressions; index arithmetic folds constants as it is written."""

    @property
    def dtype(self) -> DType:
        raise NotImplementedError(f"{type(self).__name__} has no dtype")

    def __add__(self, other: Expr | int) -> Expr:
        return binary(BinaryOp.ADD, self, other)

    def __radd__(self, other: int) -> Expr:
        return binary(BinaryOp.ADD, other, self)

    def __sub__(self, other: Expr | int) -> Expr:
        return binary(BinaryOp.SUB, self, other)

    def __rsub__(self, other: int) -> Expr:
        return binary(BinaryOp.SUB, other, self)

    def __mul__(self, other: Expr | int) -> Expr:
        return binary(BinaryOp.MUL, self, other)

    def __rmul__(self, other: int) -> Expr:
        return binary(BinaryOp.MUL, other, self)

    def __floordiv__(self, other: Expr | int) -> Expr:
        return binary(BinaryOp.FLOORDIV, self, other)

    def __mod__(self, other: Expr | int) -> Expr:
        return binary(BinaryOp.MOD, self, other)

    def __lt__(self, other: Expr | int) -> Expr:
        return binary(BinaryOp.LT, self, other)

    def __le__(self, other: Expr | int) -> Expr:
        return binary(BinaryOp.LE, self, other)

    def __gt__(self, other: Expr | int) -> Expr:
        return binary(BinaryOp.LT, other, self)

    def __ge__(self, other: Expr | int) -> Expr:
        return binary(BinaryOp.LE, other, self)

    def __and__(self, other: Expr) -> Expr:
        return binary(BinaryOp.AND, self, other)


@dataclass(frozen=True)
class Var(Expr):
    """A loop variable (int64) or what a Let has named."""

    name: str
    type: DType = INDEX

    @property
    def dtype(self) -> DType:
        return self.type


@dataclass(frozen=True)
class Const(Expr):
    """A known number."""

    value: bool | int | float
    type: DType = INDEX

    @property
    def dtype(self) -> DType:
        return self.type


@dataclass(frozen=True)
class Load(Expr):
    """One element of a buffer."""

    buffer: Buffer
    index: tuple[Expr, ...]

    @property
    def dtype(self) -> DType:
        return self.buffer.dtype


@dataclass(frozen=True)
class Binary(Expr):
    """`a op b`, both of one dtype."""

    op: BinaryOp
    a: Expr
    b: Expr

    @property
    def dtype(self) -> DType:
        return DType.BOOL if self.op in COMPARISONS else self.a.dtype


@dataclass(frozen=True)
class Call(Expr):
    """A function of floats (NEG, ABS, SIGN, NOT: of integers too)."""

    function: Function
    argument: Expr

    @property
    def dtype(self) -> DType:
        return DType.BOOL if self.function is Function.ISNAN else self.argument.dtype


@dataclass(frozen=True)
class Select(Expr):
    """a where the condition holds, else b; both are computed."""

    condition: Expr
    a: Expr
    b: Expr

    @property
    def dtype(self) -> DType:
        return self.a.dtype


@dataclass(frozen=True)
class Cast(Expr):
    """The value in another dtype; floats to integers round towards zero, to bool is `!= 0`."""

    value: Expr
    type: DType

    @property
    def dtype(self) -> DType:
        return self.type


# -- construction ---------------------------------------------------------------------------------


def index(value: int) -> Const:
    """A constant index."""
    return Const(value, INDEX)


def binary(op: BinaryOp, a: Expr | int, b: Expr | int) -> Expr:
    """`a op b`; Python integers take the other side's dtype, integer constants fold."""
    if isinstance(a, int):
        a = Const(a, b.dtype if isinstance(b, Expr) else INDEX)
    if isinstance(b, int):
        b = Const(b, a.dtype)
    if a.dtype is INDEX and b.dtype is INDEX:
        return _fold(op, a, b)
    return Binary(op, a, b)


def _fold(op: BinaryOp, a: Expr, b: Expr) -> Expr:
    """Index arithmetic, with constants folded and moved to the right."""
    if isinstance(a, Const) and isinstance(b, Const):
        return _compute(op, int(a.value), int(b.value))
    if isinstance(a, Const) and op in (BinaryOp.ADD, BinaryOp.MUL):
        a, b = b, a
    if not isinstance(b, Const):
        return Binary(op, a, b)
    n = int(b.value)
    if n == 0 and op in (BinaryOp.ADD, BinaryOp.SUB):
        return a
    if op is BinaryOp.SUB:
        op, n = BinaryOp.ADD, -n
    if op is BinaryOp.ADD and isinstance(a, Binary) and a.op is op and isinstance(a.b, Const):
        return _fold(op, a.a, index(int(a.b.value) + n))
    if op is BinaryOp.MUL and n == 0:
        return index(0)
    if n == 1 and op in (BinaryOp.MUL, BinaryOp.FLOORDIV):
        return a
    if n == 1 and op is BinaryOp.MOD:
        return index(0)
    return Binary(op, a, index(n))


def _compute(op: BinaryOp, a: int, b: int) -> Expr:
    if op in COMPARISONS:
        truth = {
            BinaryOp.LT: a < b,
            BinaryOp.LE: a <= b,
            BinaryOp.EQ: a == b,
            BinaryOp.NE: a != b,
        }
        return Const(truth[op], DType.BOOL)
    if op is BinaryOp.ADD:
        return index(a + b)
    if op is BinaryOp.SUB:
        return index(a - b)
    if op is BinaryOp.MUL:
        return index(a * b)
    if op is BinaryOp.FLOORDIV:
        return index(a // b if b else 0)
    if op is BinaryOp.MOD:
        return index(a % b if b else 0)
    if op is BinaryOp.MIN:
        return index(min(a, b))
    if op is BinaryOp.MAX:
        return index(max(a, b))
    return Binary(op, index(a), index(b))


def minimum(a: Expr | int, b: Expr | int) -> Expr:
    """The smaller one."""
    return binary(BinaryOp.MIN, a, b)


def maximum(a: Expr | int, b: Expr | int) -> Expr:
    """The larger one."""
    return binary(BinaryOp.MAX, a, b)


def clamp(value: Expr, low: int, high: int) -> Expr:
    """The nearest index in [low, high]."""
    return minimum(maximum(value, low), high)


# -- walking --------------------------------------------------------------------------------------


_CHILDREN: dict[type[Expr], Callable[[Any], tuple[Expr, ...]]] = {
    Load: attrgetter("index"),
    Binary: attrgetter("a", "b"),
    Call: lambda call: (call.argument,),
    Select: attrgetter("condition", "a", "b"),
    Cast: lambda cast: (cast.value,),
    Var: lambda _: (),
    Const: lambda _: (),
}


def children(expr: Expr) -> tuple[Expr, ...]:
    """The expressions an expression is made of."""
    return _CHILDREN[type(expr)](expr)


def walk_shared(roots: Iterable[Expr]) -> Iterator[Expr]:
    """The expressions and everything below them, what they share once."""
    seen: set[int] = set()
    pending = list(roots)
    while pending:
        expr = pending.pop()
        if id(expr) not in seen:
            seen.add(id(expr))
            pending.extend(children(expr))
            yield expr


def walk_expr(expr: Expr) -> Iterator[Expr]:
    """An expression and everything below it."""
    yield expr
    for child in children(expr):
        yield from walk_expr(child)
