"""Kinds of loops and of memory, and what is computed with."""

from __future__ import annotations

from enum import Enum

from ...types import DType

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
    """Functions of one value that keep the dtype; ISNAN gives bool.

    DECAY is EXP of what is not above 1: where that is less than 2^-126 it may be zero.
    """

    NEG = "neg"
    ABS = "abs"
    SIGN = "sign"
    NOT = "not"
    EXP = "exp"
    DECAY = "decay"
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
