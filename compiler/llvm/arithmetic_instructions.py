"""Instructions that compute: numbers, comparisons, choices, casts."""

from __future__ import annotations

from functools import cache

from .instructions import Instructions
from .values import I1, I64, Operand, Type, Value, constant, vector

_FLAGS = frozenset({"contract", "nsz", "arcp", "reassoc"})


@cache
def _checked_flags(flags: str) -> str:
    refused = set(flags.split()) - _FLAGS
    if refused:
        raise ValueError(f"fast-math flags {sorted(refused)} are not allowed: {sorted(_FLAGS)} are")
    return flags and flags + " "


class ArithmeticInstructions(Instructions):
    """Floating point, integers, choices and casts, lane by lane."""

    # ---------------------------------------------------------------- floating point

    def _float(self, opcode: str, a: Operand, b: Operand, flags: str) -> Value:
        a, b = self.pair(a, b)
        return self.assign(a.type, f"{opcode} {_checked_flags(flags)}{a.typed}, {b.text}")

    def fadd(self, a: Operand, b: Operand, flags: str = "") -> Value:
        return self._float("fadd", a, b, flags)

    def fsub(self, a: Operand, b: Operand, flags: str = "") -> Value:
        return self._float("fsub", a, b, flags)

    def fmul(self, a: Operand, b: Operand, flags: str = "") -> Value:
        return self._float("fmul", a, b, flags)

    def fdiv(self, a: Operand, b: Operand, flags: str = "") -> Value:
        return self._float("fdiv", a, b, flags)

    def frem(self, a: Operand, b: Operand, flags: str = "") -> Value:
        """The remainder with the sign of `a` (C's fmod): a library call a lane."""
        return self._float("frem", a, b, flags)

    def fneg(self, a: Value) -> Value:
        return self.assign(a.type, f"fneg {a.typed}")

    def fma(self, a: Operand, b: Operand, c: Operand) -> Value:
        """Gives a * b + c in one rounding, always: a library call where the target has no FMA."""
        typed = a if isinstance(a, Value) else b if isinstance(b, Value) else c
        a, typed = self.pair(a, typed)
        type = typed.type
        b, c = self.pair(b, typed)[0], self.pair(c, typed)[0]
        return self.call(f"llvm.fma.{type.suffix}", (a, b, c), type)

    def multiply_add(self, a: Operand, b: Operand, c: Operand) -> Value:
        """Gives a * b + c: fused where the target has FMA, else multiply then add."""
        if self.module.has_fma:
            return self.fma(a, b, c)
        return self.fadd(self.fmul(a, b), c)

    def fcmp(self, predicate: str, a: Operand, b: Operand) -> Value:
        """Predicates: oeq one olt ole ogt oge ord, and ueq … uno, true for a NaN."""
        a, b = self.pair(a, b)
        return self.assign(vector(a.type.lanes, I1), f"fcmp {predicate} {a.typed}, {b.text}")

    # ---------------------------------------------------------------- integers

    def _integer(self, opcode: str, a: Value, b: Value, flags: str = "") -> Value:
        spelled = f"{opcode} {flags} " if flags else f"{opcode} "
        return self.assign(a.type, f"{spelled}{a.typed}, {b.text}")

    def add(self, a: Operand, b: Operand, flags: str = "") -> Value:
        """Wraps; `flags` may promise "nsw" or "nuw"."""
        a, b = self.pair(a, b)
        if a.number is not None and b.number is not None:
            return constant(a.type, int(a.number) + int(b.number))
        if b.number == 0:
            return a
        return b if a.number == 0 else self._integer("add", a, b, flags)

    def sub(self, a: Operand, b: Operand, flags: str = "") -> Value:
        a, b = self.pair(a, b)
        if a.number is not None and b.number is not None:
            return constant(a.type, int(a.number) - int(b.number))
        return a if b.number == 0 else self._integer("sub", a, b, flags)

    def mul(self, a: Operand, b: Operand, flags: str = "") -> Value:
        a, b = self.pair(a, b)
        if a.number is not None and b.number is not None:
            return constant(a.type, int(a.number) * int(b.number))
        if a.number is not None:
            a, b = b, a
        if b.number == 0:
            return b
        return a if b.number == 1 else self._integer("mul", a, b, flags)

    def _divide(self, opcode: str, a: Operand, b: Operand) -> Value:
        a, b = self.pair(a, b)
        remainder = opcode.endswith("rem")
        if b.number == 1:
            return constant(a.type, 0) if remainder else a
        known = a.number is not None and b.number is not None
        if known and int(a.number or 0) >= 0 and int(b.number or 0) > 0:
            quotient, rest = divmod(int(a.number or 0), int(b.number or 1))
            return constant(a.type, rest if remainder else quotient)
        return self._integer(opcode, a, b)

    def sdiv(self, a: Operand, b: Operand) -> Value:
        """Truncates towards zero, as C does."""
        return self._divide("sdiv", a, b)

    def srem(self, a: Operand, b: Operand) -> Value:
        """The remainder of `sdiv`: it has the sign of `a`."""
        return self._divide("srem", a, b)

    def udiv(self, a: Operand, b: Operand) -> Value:
        return self._divide("udiv", a, b)

    def urem(self, a: Operand, b: Operand) -> Value:
        return self._divide("urem", a, b)

    def and_(self, a: Operand, b: Operand) -> Value:
        a, b = self.pair(a, b)
        ones = 1 if a.type.element == "i1" else -1
        if a.number is not None:
            a, b = b, a
        if b.number == 0:
            return b
        return a if b.number == ones else self._integer("and", a, b)

    def or_(self, a: Operand, b: Operand) -> Value:
        a, b = self.pair(a, b)
        if a.number is not None:
            a, b = b, a
        return a if b.number == 0 else self._integer("or", a, b)

    def xor(self, a: Operand, b: Operand) -> Value:
        a, b = self.pair(a, b)
        return a if b.number == 0 else self._integer("xor", a, b)

    def not_(self, a: Value) -> Value:
        return self.xor(a, 1 if a.type.element == "i1" else -1)

    def _shift(self, opcode: str, a: Operand, b: Operand) -> Value:
        a, b = self.pair(a, b)
        return a if b.number == 0 else self._integer(opcode, a, b)

    def shl(self, a: Operand, b: Operand) -> Value:
        return self._shift("shl", a, b)

    def lshr(self, a: Operand, b: Operand) -> Value:
        """Shift right, filling with zeros."""
        return self._shift("lshr", a, b)

    def ashr(self, a: Operand, b: Operand) -> Value:
        """Shift right, filling with the sign."""
        return self._shift("ashr", a, b)

    def smin(self, a: Operand, b: Operand) -> Value:
        return self.intrinsic("smin", *self.pair(a, b))

    def smax(self, a: Operand, b: Operand) -> Value:
        return self.intrinsic("smax", *self.pair(a, b))

    def icmp(self, predicate: str, a: Operand, b: Operand) -> Value:
        """Predicates: eq ne slt sle sgt sge ult ule ugt uge. Takes pointers too."""
        a, b = self.pair(a, b)
        return self.assign(vector(a.type.lanes, I1), f"icmp {predicate} {a.typed}, {b.text}")

    # ---------------------------------------------------------------- choice and casts

    def select(self, condition: Value, a: Operand, b: Operand) -> Value:
        """Takes a where the condition holds, else b; a scalar condition chooses whole vectors."""
        a, b = self.pair(a, b)
        if condition.number is not None:
            return a if condition.number else b
        if condition.type.element != "i1" or condition.type.lanes not in (1, a.type.lanes):
            raise TypeError(f"@{self.name}: select of {a.type} by {condition.type}")
        return self.assign(a.type, f"select {condition.typed}, {a.typed}, {b.typed}")

    def _cast(self, opcode: str, value: Value, to: Type) -> Value:
        to = vector(value.type.lanes, to)
        if to == value.type:
            return value
        return self.assign(to, f"{opcode} {value.typed} to {to}")

    # The target of a cast gives the element; the lanes are those of the value.

    def sitofp(self, value: Value, to: Type) -> Value:
        return self._cast("sitofp", value, to)

    def fptosi(self, value: Value, to: Type, saturate: bool = True) -> Value:
        """Truncates towards zero.

        Saturating: NaN gives 0 and what is outside the nearest bound. Else it must be known to fit.
        """
        if not saturate:
            return self._cast("fptosi", value, to)
        to = vector(value.type.lanes, to)
        return self.intrinsic("fptosi.sat", value, returns=to, overloads=(to, value.type))

    def sext(self, value: Value, to: Type) -> Value:
        if value.number is not None and value.type.element != "i1":
            return constant(vector(value.type.lanes, to), value.number)
        return self._cast("sext", value, to)

    def zext(self, value: Value, to: Type) -> Value:
        return self._cast("zext", value, to)

    def trunc(self, value: Value, to: Type) -> Value:
        return self._cast("trunc", value, to)

    def fpext(self, value: Value, to: Type) -> Value:
        return self._cast("fpext", value, to)

    def fptrunc(self, value: Value, to: Type) -> Value:
        return self._cast("fptrunc", value, to)

    def bitcast(self, value: Value, to: Type) -> Value:
        """Reinterprets each lane; `to` must be as wide as the element."""
        if to.bits != value.type.bits:
            raise TypeError(f"@{self.name}: bitcast of {value.type} to {to} changes the width")
        return self._cast("bitcast", value, to)

    def ptrtoint(self, pointer: Value) -> Value:
        """The address as an I64."""
        return self._cast("ptrtoint", pointer, I64)
