"""Instructions of LLVM IR, each as a line of text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Protocol

from .values import (
    I1,
    I32,
    I64,
    PTR,
    VOID,
    Operand,
    Type,
    Value,
    constant,
    constants,
    poison,
    symbol_text,
    vector,
)

_FLAGS = frozenset({"contract", "nsz", "arcp", "reassoc"})


@cache
def _checked_flags(flags: str) -> str:
    refused = set(flags.split()) - _FLAGS
    if refused:
        raise ValueError(f"fast-math flags {sorted(refused)} are not allowed: {sorted(_FLAGS)} are")
    return flags and flags + " "


class Declarations(Protocol):
    """What instructions need to know of their module."""

    @property
    def has_fma(self) -> bool:
        """Whether the target multiplies and adds in one rounding."""

    def declare(
        self, name: str, returns: Type, parameters: Sequence[Type], attributes: str = ""
    ) -> None:
        """Declares an external function."""


class Instructions(ABC):
    """Everything that computes; where it goes is for `FunctionBuilder` to say."""

    name: str
    module: Declarations

    @abstractmethod
    def emit(self, text: str) -> None:
        """Appends an instruction that has no result."""

    @abstractmethod
    def assign(self, type: Type, text: str, *, pure: bool = True) -> Value:
        """Appends an instruction and names its result."""

    # ---------------------------------------------------------------- constants and operands

    def constant(self, type: Type, number: int | float) -> Value:
        return constant(type, number)

    def _pair(self, a: Operand, b: Operand) -> tuple[Value, Value]:
        if not isinstance(a, Value):
            if not isinstance(b, Value):
                raise TypeError(f"@{self.name}: operands {a!r} and {b!r} have no type")
            a = constant(b.type, a)
        elif not isinstance(b, Value):
            b = constant(a.type, b)
        if a.type is not b.type and a.type != b.type:
            raise TypeError(f"@{self.name}: operand types differ: {a.typed} and {b.typed}")
        return a, b

    def _index(self, index: Operand) -> Value:
        return index if isinstance(index, Value) else constant(I64, index)

    # ---------------------------------------------------------------- floating point

    def _float(self, opcode: str, a: Operand, b: Operand, flags: str) -> Value:
        a, b = self._pair(a, b)
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
        a, typed = self._pair(a, typed)
        type = typed.type
        b, c = self._pair(b, typed)[0], self._pair(c, typed)[0]
        return self.call(f"llvm.fma.{type.suffix}", (a, b, c), type)

    def multiply_add(self, a: Operand, b: Operand, c: Operand) -> Value:
        """Gives a * b + c: fused where the target has FMA, else multiply then add."""
        if self.module.has_fma:
            return self.fma(a, b, c)
        return self.fadd(self.fmul(a, b), c)

    def fcmp(self, predicate: str, a: Operand, b: Operand) -> Value:
        """Predicates: oeq one olt ole ogt oge ord, and ueq … uno, true for a NaN."""
        a, b = self._pair(a, b)
        return self.assign(vector(a.type.lanes, I1), f"fcmp {predicate} {a.typed}, {b.text}")

    # ---------------------------------------------------------------- integers

    def _integer(self, opcode: str, a: Value, b: Value, flags: str = "") -> Value:
        spelled = f"{opcode} {flags} " if flags else f"{opcode} "
        return self.assign(a.type, f"{spelled}{a.typed}, {b.text}")

    def add(self, a: Operand, b: Operand, flags: str = "") -> Value:
        """Wraps; `flags` may promise "nsw" or "nuw"."""
        a, b = self._pair(a, b)
        if a.number is not None and b.number is not None:
            return constant(a.type, int(a.number) + int(b.number))
        if b.number == 0:
            return a
        return b if a.number == 0 else self._integer("add", a, b, flags)

    def sub(self, a: Operand, b: Operand, flags: str = "") -> Value:
        a, b = self._pair(a, b)
        if a.number is not None and b.number is not None:
            return constant(a.type, int(a.number) - int(b.number))
        return a if b.number == 0 else self._integer("sub", a, b, flags)

    def mul(self, a: Operand, b: Operand, flags: str = "") -> Value:
        a, b = self._pair(a, b)
        if a.number is not None and b.number is not None:
            return constant(a.type, int(a.number) * int(b.number))
        if a.number is not None:
            a, b = b, a
        if b.number == 0:
            return b
        return a if b.number == 1 else self._integer("mul", a, b, flags)

    def _divide(self, opcode: str, a: Operand, b: Operand) -> Value:
        a, b = self._pair(a, b)
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
        a, b = self._pair(a, b)
        ones = 1 if a.type.element == "i1" else -1
        if a.number is not None:
            a, b = b, a
        if b.number == 0:
            return b
        return a if b.number == ones else self._integer("and", a, b)

    def or_(self, a: Operand, b: Operand) -> Value:
        a, b = self._pair(a, b)
        if a.number is not None:
            a, b = b, a
        return a if b.number == 0 else self._integer("or", a, b)

    def xor(self, a: Operand, b: Operand) -> Value:
        a, b = self._pair(a, b)
        return a if b.number == 0 else self._integer("xor", a, b)

    def not_(self, a: Value) -> Value:
        return self.xor(a, 1 if a.type.element == "i1" else -1)

    def _shift(self, opcode: str, a: Operand, b: Operand) -> Value:
        a, b = self._pair(a, b)
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
        return self.intrinsic("smin", *self._pair(a, b))

    def smax(self, a: Operand, b: Operand) -> Value:
        return self.intrinsic("smax", *self._pair(a, b))

    def icmp(self, predicate: str, a: Operand, b: Operand) -> Value:
        """Predicates: eq ne slt sle sgt sge ult ule ugt uge. Takes pointers too."""
        a, b = self._pair(a, b)
        return self.assign(vector(a.type.lanes, I1), f"icmp {predicate} {a.typed}, {b.text}")

    # ---------------------------------------------------------------- choice and casts

    def select(self, condition: Value, a: Operand, b: Operand) -> Value:
        """Takes a where the condition holds, else b; a scalar condition chooses whole vectors."""
        a, b = self._pair(a, b)
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

    def uitofp(self, value: Value, to: Type) -> Value:
        return self._cast("uitofp", value, to)

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

    # ---------------------------------------------------------------- memory

    def gep(self, element: Type, pointer: Value, index: Operand, inbounds: bool = True) -> Value:
        """The address of element `index` (an integer, or a vector of them) counted from `pointer`.

        `element` I8 counts bytes. A vector of indices gives a vector of pointers.
        """
        index = self._index(index)
        if index.number == 0 and index.type.lanes == 1:
            return pointer
        keyword = "getelementptr inbounds" if inbounds else "getelementptr"
        lanes = max(index.type.lanes, pointer.type.lanes)
        return self.assign(
            vector(lanes, PTR), f"{keyword} {element}, {pointer.typed}, {index.typed}"
        )

    def load(self, type: Type, pointer: Value, align: int | None = None) -> Value:
        """`align` in bytes; by default the size of one element, which is always safe."""
        text = f"load {type}, ptr {pointer.text}, align {align or type.bytes}"
        return self.assign(type, text, pure=False)

    def store(
        self, value: Value, pointer: Value, align: int | None = None, streaming: bool = False
    ) -> None:
        """`streaming`: past the caches; other threads see it for certain behind a `store_fence`."""
        hint = ", !nontemporal !{i32 1}" if streaming else ""
        align = align or value.type.bytes
        self.emit(f"store {value.typed}, ptr {pointer.text}, align {align}{hint}")

    def store_fence(self) -> None:
        """Streaming stores before it are seen before any store behind it."""
        self.module.declare("llvm.x86.sse.sfence", VOID, ())
        self.emit("call void @llvm.x86.sse.sfence()")

    def masked_load(
        self, type: Type, pointer: Value, mask: Value, otherwise: Operand = 0,
        align: int | None = None,
    ) -> Value:  # fmt: skip
        """Loads the lanes whose mask is set; others get `otherwise` and are not touched."""
        self._need_lanes("masked_load", type)
        passthru = otherwise if isinstance(otherwise, Value) else constant(type, otherwise)
        name = f"llvm.masked.load.{type.suffix}.p0"
        self.module.declare(name, type, (PTR, mask.type, type))
        where = f"ptr align {align or type.bytes} {pointer.text}"
        text = f"call {type} @{name}({where}, {mask.typed}, {passthru.typed})"
        return self.assign(type, text, pure=False)

    def masked_store(
        self, value: Value, pointer: Value, mask: Value, align: int | None = None
    ) -> None:
        type = value.type
        self._need_lanes("masked_store", type)
        name = f"llvm.masked.store.{type.suffix}.p0"
        self.module.declare(name, VOID, (type, PTR, mask.type))
        where = f"ptr align {align or type.bytes} {pointer.text}"
        self.emit(f"call void @{name}({value.typed}, {where}, {mask.typed})")

    def _need_lanes(self, what: str, type: Type) -> None:
        if type.lanes == 1:
            raise TypeError(f"@{self.name}: {what} of the scalar {type}: use a branch (`when`)")

    def gather(self, element: Type, pointer: Value, indices: Value) -> Value:
        """Element `indices[lane]` from `pointer` in each lane; all must be readable."""
        where = self.gep(element, pointer, indices)
        type = vector(indices.type.lanes, element)
        if type.lanes == 1:
            return self.load(type, where)
        name = f"llvm.masked.gather.{type.suffix}.{where.type.suffix}"
        mask = constant(vector(type.lanes, I1), 1)
        self.module.declare(name, type, (where.type, mask.type, type))
        aligned = f"{where.type} align {type.bytes} {where.text}"
        text = f"call {type} @{name}({aligned}, {mask.typed}, {type} poison)"
        return self.assign(type, text, pure=False)

    def prefetch(self, pointer: Value, write: bool = False, locality: int = 3) -> None:
        """Locality 3 asks for L1, 2 for L2, 1 for L3, 0 for no trace in the caches."""
        self.module.declare("llvm.prefetch.p0", VOID, (PTR, I32, I32, I32))
        hint = f"i32 {int(write)}, i32 {locality}, i32 1"
        self.emit(f"call void @llvm.prefetch.p0(ptr {pointer.text}, {hint})")

    # ---------------------------------------------------------------- lanes

    def splat(self, value: Value, lanes: int) -> Value:
        """The scalar in every lane."""
        if lanes == 1 or value.type.lanes == lanes:
            return value
        type = vector(lanes, value.type)
        if value.number is not None:
            return constant(type, value.number)
        first = self.assign(type, f"insertelement {type} poison, {value.typed}, i64 0")
        zeros = f"<{lanes} x i32> zeroinitializer"
        return self.assign(type, f"shufflevector {first.typed}, {type} poison, {zeros}")

    def ramp(self, start: Value, step: int, lanes: int) -> Value:
        """The integer vector start, start + step, … ."""
        steps = constants(start.type, [step * lane for lane in range(lanes)])
        if lanes > 1 and start.number == 0:
            return steps
        return self.add(self.splat(start, lanes), steps)

    def extract(self, value: Value, index: Operand) -> Value:
        if value.type.lanes == 1:
            return value
        if value.number is not None:
            return constant(value.type.scalar, value.number)
        return self.assign(
            value.type.scalar, f"extractelement {value.typed}, {self._index(index).typed}"
        )

    def insert(self, value: Value, element: Value, index: Operand) -> Value:
        if value.type.lanes == 1:
            return element
        at = self._index(index).typed
        return self.assign(value.type, f"insertelement {value.typed}, {element.typed}, {at}")

    def shuffle(self, a: Value, b: Value | None, mask: Sequence[int]) -> Value:
        """Picks lanes of `a` (0 …) then of `b` (a.lanes …) in the mask's order; -1 is undefined."""
        if a.type.lanes == 1:
            parts = [a] if b is None else [a, b]
            joined = poison(vector(len(mask), a.type))
            for lane, source in enumerate(mask):
                if source >= 0:
                    joined = self.insert(joined, parts[source], lane)
            return joined
        if len(mask) == 1:
            first = mask[0] < a.type.lanes or b is None
            return self.extract(a if first or b is None else b, mask[0] % a.type.lanes)
        other = poison(a.type) if b is None else b
        order = ", ".join("i32 poison" if lane < 0 else f"i32 {lane}" for lane in mask)
        return self.assign(
            vector(len(mask), a.type), f"shufflevector {a.typed}, {other.typed}, "
            f"<{len(mask)} x i32> <{order}>",
        )  # fmt: skip

    def reduce(self, operation: str, value: Value) -> Value:
        """Folds the lanes by add, mul, and, or, xor, smin, smax, umin, umax, fmaximum, fminimum …

        Floating-point sums have an order to choose: write them with `shuffle`.
        """
        if value.type.lanes == 1:
            return value
        return self.intrinsic(
            f"vector.reduce.{operation}", value, returns=value.type.scalar, overloads=(value.type,)
        )

    # ---------------------------------------------------------------- calls

    def call(
        self, name: str, arguments: Sequence[Value], returns: Type = VOID, attributes: str = ""
    ) -> Value:
        """Calls @name, declaring it (with `attributes`) unless the module defines it."""
        self.module.declare(name, returns, [a.type for a in arguments], attributes)
        typed = ", ".join(a.typed for a in arguments)
        text = f"call {returns} @{symbol_text(name)}({typed})"
        if returns == VOID:
            self.emit(text)
            return Value("", VOID)
        return self.assign(returns, text, pure=False)

    def call_pointer(
        self, target: Value, arguments: Sequence[Value], returns: Type = VOID
    ) -> Value:
        """Calls through a pointer."""
        text = f"call {returns} {target.text}({', '.join(a.typed for a in arguments)})"
        if returns == VOID:
            self.emit(text)
            return Value("", VOID)
        return self.assign(returns, text, pure=False)

    def intrinsic(
        self, name: str, *arguments: Value, returns: Type | None = None,
        overloads: Sequence[Type] | None = None,
    ) -> Value:  # fmt: skip
        """Calls `llvm.<name>.<suffix of each overload>`.

        The result has the type of the first argument, and is the only overload, unless said.
        """
        returns = returns or arguments[0].type
        suffixes = (returns,) if overloads is None else overloads
        full = ".".join(["llvm", name, *(t.suffix for t in suffixes)])
        return self.call(full, arguments, returns)
