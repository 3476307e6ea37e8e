"""A small typed builder of LLVM IR text.

It prints instructions as they are asked for: one string a line, no object per instruction, which
is an order of magnitude quicker than `llvmlite.ir`. What it checks is what is cheap to check and
costly to find later: that operand types agree, and that every block ends in one terminator. LLVM's
own verifier does the rest when the text is parsed. Syntax is that of LLVM 22 (opaque pointers,
`splat` constants, alignment of masked accesses as an argument attribute).

    module = ModuleBuilder(has_fma=True)
    f = module.function("scale", [("x", PTR, "noalias"), ("n", I64)])
    x, n = f.arguments
    with f.loop(0, n, step=8) as loop:
        p = f.gep(F32, x, loop.index)
        f.store(f.fmul(f.load(vector(8, F32), p), 2.0), p)
    f.ret()
    text = str(module)

A vector of one lane *is* its scalar: `vector(1, F32) == F32`, `extract(x, 0)` of a scalar is x and
`splat(x, 1)` is x. So code that is written for `lanes` works for a scalar tail as it stands.

Wherever an instruction has two operands of one type, one of them may be a Python number; it takes
the type of the other. Integer constants are folded on the way (x + 0, x * 1, 2 * 3), so that the
printed addresses stay readable.

Floating-point instructions carry no fast-math flags unless asked: `flags` accepts `contract`,
`nsz`, `arcp` and `reassoc`. The flags that would hide a NaN or an infinity are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from .values import (
    BF16,
    F16,
    F32,
    F64,
    I1,
    I8,
    I16,
    I32,
    I64,
    NULL,
    PTR,
    VOID,
    Operand,
    Type,
    Value,
    constant,
    constants,
    poison,
    scalar_constant,
    vector,
)

__all__ = [
    "BF16",
    "F16",
    "F32",
    "F64",
    "I1",
    "I8",
    "I16",
    "I32",
    "I64",
    "NULL",
    "PTR",
    "VOID",
    "Block",
    "FunctionBuilder",
    "Loop",
    "ModuleBuilder",
    "Operand",
    "Phi",
    "Type",
    "Value",
    "constant",
    "constants",
    "poison",
    "vector",
]

_FLAGS = frozenset({"contract", "nsz", "arcp", "reassoc"})


@cache
def _checked_flags(flags: str) -> str:
    refused = set(flags.split()) - _FLAGS
    if refused:
        raise ValueError(f"fast-math flags {sorted(refused)} are not allowed: {sorted(_FLAGS)} are")
    return flags and flags + " "


class Block(NamedTuple):
    """A basic block's label."""

    label: str

    @property
    def operand(self) -> str:
        return f"label %{self.label}"


@dataclass
class Phi:
    """A phi instruction that is still open; `value` is its result."""

    value: Value
    incoming: list[tuple[Value, Block]] = field(default_factory=list)

    def add(self, operand: Operand, block: Block) -> None:
        value = operand if isinstance(operand, Value) else constant(self.value.type, operand)
        if value.type != self.value.type:
            raise TypeError(f"phi {self.value.typed} receives a {value.type}")
        self.incoming.append((value, block))

    def __str__(self) -> str:
        pairs = ", ".join(f"[ {value.text}, %{block.label} ]" for value, block in self.incoming)
        return f"  {self.value.text} = phi {self.value.type.text} {pairs}"


@dataclass
class Loop:
    """A counted loop under construction (see `FunctionBuilder.loop`)."""

    index: Value
    carried: tuple[Value, ...]
    next: tuple[Operand, ...] | None = None
    results: tuple[Value, ...] = ()

    def update(self, *values: Operand) -> None:
        """What the carried values are in the next round, and after the last."""
        if len(values) != len(self.carried):
            raise ValueError(f"loop carries {len(self.carried)} values, got {len(values)}")
        self.next = values


class ModuleBuilder:
    """Functions, global constants and the declarations they turn out to need.

    `has_fma`: whether the target multiplies and adds in one rounding. `multiply_add` and the vector
    math read it, because `llvm.fma` without the instruction is a slow library call.
    """

    def __init__(self, *, has_fma: bool = True) -> None:
        self.has_fma = has_fma
        self._functions: dict[str, FunctionBuilder] = {}
        self._globals: dict[str, str] = {}
        self._declarations: dict[str, tuple[tuple[Type, ...], str]] = {}

    def function(
        self,
        name: str,
        parameters: Sequence[tuple[str, Type] | tuple[str, Type, str]],
        returns: Type = VOID,
        *,
        internal: bool = False,
        attributes: str = "nounwind",
    ) -> FunctionBuilder:
        """Starts a definition. A parameter is (name, type) or (name, type, "noalias align 64")."""
        if name in self._functions:
            raise ValueError(f"function @{name} is defined twice")
        function = FunctionBuilder(self, name, parameters, returns, internal, attributes)
        self._functions[name] = function
        return function

    def has_function(self, name: str) -> bool:
        return name in self._functions

    def declare(
        self, name: str, returns: Type, parameters: Sequence[Type], attributes: str = ""
    ) -> None:
        """Declares an external function; again is fine, with another signature is not."""
        if name in self._functions:
            return
        signature = (returns, *parameters), attributes
        if self._declarations.setdefault(name, signature) != signature:
            raise TypeError(
                f"@{name} is declared as {_declaration(name, *self._declarations[name])} "
                f"and as {_declaration(name, *signature)}"
            )

    def global_constant(
        self, name: str, element: Type, numbers: Sequence[int | float], align: int = 64
    ) -> Value:
        """A private constant array; returns its address. The same name must mean the same data."""
        items = ", ".join(f"{element} {scalar_constant(element, n)[0]}" for n in numbers)
        text = (
            f"@{_symbol(name)} = private unnamed_addr constant "
            f"[{len(numbers)} x {element}] [{items}], align {align}"
        )
        if self._globals.setdefault(name, text) != text:
            raise ValueError(f"global @{name} is defined twice with different contents")
        return Value(f"@{_symbol(name)}", PTR)

    def address_of(self, name: str) -> Value:
        """The address of a function that is defined or declared here, as a `ptr`."""
        return Value(f"@{_symbol(name)}", PTR)

    def __str__(self) -> str:
        # A function called before it is defined was declared on the way: the definition stands.
        declarations = [
            _declaration(name, *signature)
            for name, signature in self._declarations.items()
            if name not in self._functions
        ]
        functions = [str(f) for f in self._functions.values()]
        parts = ["\n".join(self._globals.values()), *functions, "\n".join(declarations)]
        return "\n\n".join(part for part in parts if part) + "\n"


@cache
def _symbol(name: str) -> str:
    plain = all(c.isalnum() or c in "._$-" for c in name) and name.isascii()
    if plain and not name[0].isdigit():
        return name
    escaped = "".join(
        chr(c) if 32 <= c < 127 and c not in b'"\\' else f"\\{c:02X}" for c in name.encode()
    )
    return f'"{escaped}"'


def _declaration(name: str, types: tuple[Type, ...], attributes: str) -> str:
    returns, *parameters = types
    listed = ", ".join(p.text for p in parameters)
    return f"declare {returns} @{_symbol(name)}({listed}) {attributes}".rstrip()


class FunctionBuilder:
    """One function; instructions go to the end of the current block (`enter` changes it).

    Made by `ModuleBuilder.function`. `arguments` are the parameters' values in order.
    """

    def __init__(
        self,
        module: ModuleBuilder,
        name: str,
        parameters: Sequence[tuple[str, Type] | tuple[str, Type, str]],
        returns: Type,
        internal: bool,
        attributes: str,
    ) -> None:
        self.module = module
        self.name = name
        self.returns = returns
        self.arguments = tuple(Value(f"%{p[0]}", p[1]) for p in parameters)
        described = [f"{p[1]} {p[2] + ' ' if len(p) == 3 else ''}%{p[0]}" for p in parameters]
        linkage = "internal " if internal else ""
        self._head = (
            f"define {linkage}{returns} @{_symbol(name)}({', '.join(described)}) {attributes}"
        ).rstrip()
        self._stack: list[str] = []
        self._lines: list[str | Phi] = []
        self._count = 0
        self.block = Block("entry")
        self._open = True
        # What pure instructions have given, and in which block: where that dominates the current
        # one, the same instruction is not written again.
        self._given: dict[str, tuple[Value, str]] = {}
        self._dominators = frozenset(("entry",))
        self._before: dict[str, frozenset[str]] = {}
        self._entered = {"entry"}

    def __str__(self) -> str:
        if self._open:
            raise ValueError(f"@{self.name}: block %{self.block.label} has no terminator")
        body = "\n".join(map(str, [*self._stack, *self._lines]))
        return f"{self._head} {{\nentry:\n{body}\n}}"

    # ---------------------------------------------------------------- the two ways out to text

    def emit(self, text: str) -> None:
        """Appends an instruction that has no result."""
        if not self._open:
            raise ValueError(f"@{self.name}: instruction after the end of %{self.block.label}")
        self._lines.append("  " + text)

    def assign(self, type: Type, text: str, *, pure: bool = True) -> Value:
        """Appends an instruction and names its result; a pure one that is known gives that again.

        Pure instructions give the same for the same operands, and do nothing else: no loads, no
        calls. LLVM would find equal ones too, for fifty times as much as it takes here.
        """
        if pure:
            given = self._given.get(text)
            if given is not None and given[1] in self._dominators:
                return given[0]
        self._count += 1
        value = Value(f"%v{self._count}", type)
        self.emit(f"{value.text} = {text}")
        if pure:
            self._given[text] = value, self.block.label
        return value

    def comment(self, text: str) -> None:
        self._lines.append("  ; " + " ".join(text.split()))

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

    # ---------------------------------------------------------------- memory

    def alloca(self, type: Type, count: int = 1, align: int = 64) -> Value:
        """Stack memory for `count` values, reserved once at the function's entry."""
        self._count += 1
        text = f"%v{self._count}"
        self._stack.append(f"  {text} = alloca [{count} x {type}], align {align}")
        return Value(text, PTR)

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

    def store(self, value: Value, pointer: Value, align: int | None = None) -> None:
        align = align or value.type.bytes
        self.emit(f"store {value.typed}, ptr {pointer.text}, align {align}")

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
        text = f"call {returns} @{_symbol(name)}({typed})"
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

    # ---------------------------------------------------------------- control flow

    def new_block(self, hint: str = "block") -> Block:
        """A label that is nowhere yet; `enter` places it."""
        self._count += 1
        return Block(f"{hint}.{self._count}")

    def enter(self, block: Block) -> None:
        """Starts the block; the one before must have ended.

        So must all that branch to this one, but for those that it dominates itself.
        """
        if self._open:
            raise ValueError(f"@{self.name}: block %{self.block.label} has no terminator")
        self._lines.append(f"{block.label}:")
        self.block = block
        self._open = True
        self._entered.add(block.label)
        self._dominators = self._before.pop(block.label, frozenset()) | {block.label}

    def _terminate(self, text: str, *targets: Block) -> None:
        self.emit(text)
        self._open = False
        for label in (target.label for target in targets):
            if label not in self._entered:
                known = self._before.get(label, self._dominators)
                self._before[label] = known & self._dominators
            elif label not in self._dominators:
                raise ValueError(f"@{self.name}: %{label} is entered before a branch to it")

    def branch(self, to: Block) -> None:
        self._terminate(f"br {to.operand}", to)

    def branch_if(self, condition: Value, then: Block, otherwise: Block) -> None:
        text = f"br {condition.typed}, {then.operand}, {otherwise.operand}"
        self._terminate(text, then, otherwise)

    def ret(self, value: Value | None = None) -> None:
        self._terminate("ret void" if value is None else f"ret {value.typed}")

    def unreachable(self) -> None:
        self._terminate("unreachable")

    def phi(self, type: Type, incoming: Mapping[Block, Operand] | None = None) -> Phi:
        """Opens a phi at the start of a block; `.add(value, block)` completes it."""
        self._count += 1
        phi = Phi(Value(f"%v{self._count}", type))
        for block, value in (incoming or {}).items():
            phi.add(value, block)
        self._lines.append(phi)
        return phi

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """The body runs if the scalar condition holds."""
        then, after = self.new_block("then"), self.new_block("after")
        self.branch_if(condition, then, after)
        self.enter(then)
        yield
        self.branch(after)
        self.enter(after)

    @contextmanager
    def loop(
        self, start: Operand, stop: Operand, step: int = 1, carried: Sequence[Value] = (),
        name: str = "i",
    ) -> Iterator[Loop]:  # fmt: skip
        """The body runs for index = start, start + step, … while index < stop (i64, step > 0).

        `carried` are the initial values of what changes from round to round. In the body they are
        `loop.carried`, and `loop.update(...)` must be called; after it, `loop.results`. The test is
        at the bottom; a guard in front is left out if the bounds are constants that need none.
        """
        first, last = self._index(start), self._index(stop)
        body, after = self.new_block(name), self.new_block(f"{name}.end")
        known = first.number is not None and last.number is not None
        guarded = not (known and int(first.number or 0) < int(last.number or 0))
        before = self.block
        if guarded:
            self.branch_if(self.icmp("slt", first, last), body, after)
        else:
            self.branch(body)
        self.enter(body)
        index = self.phi(I64, {before: first})
        phis = [self.phi(value.type, {before: value}) for value in carried]
        loop = Loop(index.value, tuple(phi.value for phi in phis))
        yield loop
        if carried and loop.next is None:
            raise ValueError(f"@{self.name}: loop {name} carries values but never updates them")
        following = self.add(index.value, step, "nsw")
        again = self.icmp("slt", following, last)
        latch = self.block
        index.add(following, latch)
        for phi, value in zip(phis, loop.next or (), strict=True):
            phi.add(value, latch)
        self.branch_if(again, body, after)
        self.enter(after)
        finals = [phi.incoming[-1][0] for phi in phis]
        if guarded:
            exits = [self.phi(value.type, {before: value}) for value in carried]
            for exit, final in zip(exits, finals, strict=True):
                exit.add(final, latch)
            loop.results = tuple(exit.value for exit in exits)
        else:
            loop.results = tuple(finals)
