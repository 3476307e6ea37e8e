"""The loop IR: what a kernel does, as data.

    Kernel   parameters, scratch, body
    stmt  =  For(var, extent, kind, body) | If(condition, body, orelse) | Let(var, value)
           | Alloc(buffer) | Store(buffer, index, value) | Accumulate(buffer, index, op, value)
           | Prefetch(buffer, index)
    expr  =  Var | Const | Load(buffer, index) | Binary(op, a, b) | Call(function, arguments)
           | Select(condition, a, b) | Cast(value, dtype)

Every loop starts at 0 and has an extent that is known. A `parallel` loop's iterations may run on
any thread, a `vector` loop's in any lane: they are independent, but for `Accumulate` into a place
that is the same for all of them, which is a reduction (its order is then the machine's to choose,
the same on every run). An `unrolled` loop is written out. `parallel` loops stand outermost;
directly nested ones are one loop over both. Those that follow each other are phases: the next one
starts when the last one is done on all threads.

Indices are int64. Scalars are buffers of shape (). A buffer that is allocated inside a vector loop
has one copy a lane. Registers hold small buffers whose indices are known after unrolling.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from ..types import DType, Shape, row_major_strides

INDEX = DType.INT64

# What a kernel should take of a thread's stack, so that it stays in the second-level cache.
STACK_BYTES = 128 * 1024


class LoopKind(Enum):
    """How a loop's iterations are run."""

    SERIAL = "serial"
    PARALLEL = "parallel"
    UNROLLED = "unrolled"
    VECTOR = "vector"


class Space(Enum):
    """Where a buffer lives."""

    ARGUMENT = "argument"
    SCRATCH = "scratch"
    STACK = "stack"
    REGISTER = "register"


class BinaryOp(Enum):
    """Arithmetic of two values of one dtype. Comparisons give bool.

    Floats: MIN and MAX give NaN if either is, DIV is the quotient. Integers: FLOORDIV and MOD round
    down and give 0 when divided by 0, SHR fills with zeros, ADD, SUB and MUL wrap around.
    """

    ADD = "+"
    SUB = "-"
    MUL = "*"
    DIV = "/"
    FLOORDIV = "//"
    MOD = "%"
    MIN = "min"
    MAX = "max"
    POW = "**"
    AND = "&"
    OR = "|"
    XOR = "^"
    SHL = "<<"
    SHR = ">>"
    LT = "<"
    LE = "<="
    EQ = "=="
    NE = "!="


COMPARISONS = frozenset({BinaryOp.LT, BinaryOp.LE, BinaryOp.EQ, BinaryOp.NE})


class Function(Enum):
    """Functions of one value (FMA: three) that keep the dtype; ISNAN gives bool."""

    NEG = "neg"
    ABS = "abs"
    SIGN = "sign"
    NOT = "not"
    EXP = "exp"
    EXPM1 = "expm1"
    LOG = "log"
    LOG1P = "log1p"
    SQRT = "sqrt"
    SIN = "sin"
    COS = "cos"
    TANH = "tanh"
    SIGMOID = "sigmoid"
    ERF = "erf"
    FLOOR = "floor"
    CEIL = "ceil"
    ROUND = "round"
    ISNAN = "isnan"


class ReduceOp(Enum):
    """How Accumulate combines; MIN and MAX give NaN if anything is."""

    ADD = "+="
    MUL = "*="
    MIN = "min="
    MAX = "max="

    def identity(self, dtype: DType) -> int | float:
        """What an accumulator starts from."""
        if self in (ReduceOp.ADD, ReduceOp.MUL):
            return 0 if self is ReduceOp.ADD else 1
        sign = 1 if self is ReduceOp.MIN else -1
        if dtype.is_float:
            return sign * float("inf")
        bits = 8 * dtype.size - (0 if dtype in (DType.UINT8, DType.BOOL) else 1)
        unsigned = dtype in (DType.UINT8, DType.BOOL)
        top = (1 << bits) - 1
        return top if sign == 1 else (0 if unsigned else -top - 1)


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


# -- expressions ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expr:
    """Base of the expressions; index arithmetic folds constants as it is written."""

    @property
    def dtype(self) -> DType:
        raise NotImplementedError

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


# -- statements -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stmt:
    """Base of the statements."""


Block: TypeAlias = tuple[Stmt, ...]


@dataclass(frozen=True)
class For(Stmt):
    """`body` for var = 0 … extent - 1.

    Arguments:
        lanes: of a vector loop: how many iterations run side by side; what remains at the end of an
            extent that is no multiple runs in fewer lanes.
    """

    var: Var
    extent: int
    body: Block
    kind: LoopKind = LoopKind.SERIAL
    lanes: int = 1


@dataclass(frozen=True)
class If(Stmt):
    """`body` where the condition holds, else `orelse`. The condition is the same for all lanes."""

    condition: Expr
    body: Block
    orelse: Block = ()


@dataclass(frozen=True)
class Let(Stmt):
    """Names a value for the rest of the block."""

    var: Var
    value: Expr


@dataclass(frozen=True)
class Alloc(Stmt):
    """A stack or register buffer for the rest of the block; its contents are undefined."""

    buffer: Buffer


@dataclass(frozen=True)
class Store(Stmt):
    """buffer[index] = value"""

    buffer: Buffer
    index: tuple[Expr, ...]
    value: Expr


@dataclass(frozen=True)
class Accumulate(Stmt):
    """buffer[index] = buffer[index] op value"""

    buffer: Buffer
    index: tuple[Expr, ...]
    op: ReduceOp
    value: Expr


@dataclass(frozen=True)
class Prefetch(Stmt):
    """A hint that the element is going to be read soon. It may lie outside of the buffer."""

    buffer: Buffer
    index: tuple[Expr, ...]


@dataclass(frozen=True)
class Kernel:
    """A function over buffers.

    Arguments:
        name: from the user's nodes, `conv1_relu1_pool1`.
        parameters: buffers it is given, in order.
        scratch: buffers that are its own while it runs, given behind the parameters.
        body: statements; each outermost parallel loop is a phase of its own.
        note: how it works, in a line, for `explain` and profiles ("direct 6x16").
    """

    name: str
    parameters: tuple[Buffer, ...]
    body: Block
    scratch: tuple[Buffer, ...] = ()
    note: str = field(default="", compare=False)

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Parameters, then scratch: the order of the arguments."""
        return self.parameters + self.scratch


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


# Variables of nested loops and their extents, the outermost first.
Loops: TypeAlias = tuple[tuple[Var, int], ...]


def loop_nest(variables: Loops, body: Block, kind: LoopKind = LoopKind.SERIAL) -> Block:
    """Loops around a body, the first one outermost."""
    for var, extent in reversed(variables):
        body = (For(var, extent, body, kind),)
    return body


# -- walking --------------------------------------------------------------------------------------


def children(expr: Expr) -> tuple[Expr, ...]:
    """The expressions an expression is made of."""
    if isinstance(expr, Load):
        return expr.index
    if isinstance(expr, Binary):
        return (expr.a, expr.b)
    if isinstance(expr, Call):
        return (expr.argument,)
    if isinstance(expr, Select):
        return (expr.condition, expr.a, expr.b)
    if isinstance(expr, Cast):
        return (expr.value,)
    return ()


def walk_expr(expr: Expr) -> Iterator[Expr]:
    """An expression and everything below it."""
    yield expr
    for child in children(expr):
        yield from walk_expr(child)


def expressions(stmt: Stmt) -> tuple[Expr, ...]:
    """The expressions a statement holds itself (not those of nested statements)."""
    if isinstance(stmt, Store | Accumulate):
        return (*stmt.index, stmt.value)
    if isinstance(stmt, Prefetch):
        return stmt.index
    if isinstance(stmt, Let):
        return (stmt.value,)
    if isinstance(stmt, If):
        return (stmt.condition,)
    return ()


def nested(stmt: Stmt) -> Block:
    """The statements directly inside a statement."""
    if isinstance(stmt, For):
        return stmt.body
    if isinstance(stmt, If):
        return stmt.body + stmt.orelse
    return ()


def walk(block: Block) -> Iterator[Stmt]:
    """All statements, outer ones first."""
    for stmt in block:
        yield stmt
        yield from walk(nested(stmt))
