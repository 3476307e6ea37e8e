"""A small typed builder of LLVM IR text.

It prints instructions as they are asked for: one string a line, no object per instruction, which
is an order of magnitude quicker than `llvmlite.ir`. What it checks is what is cheap to check and
costly to find later: that operand types agree, and that every block ends in one terminator. LLVM's
own verifier does the rest when the text is parsed. Syntax is that of LLVM 22 (opaque pointers,
`splat` constants).

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

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from .memory_instructions import MemoryInstructions
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
    PTR,
    VOID,
    Operand,
    Type,
    Value,
    constant,
    constants,
    poison,
    scalar_constant,
    symbol_text,
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
            f"@{symbol_text(name)} = private unnamed_addr constant "
            f"[{len(numbers)} x {element}] [{items}], align {align}"
        )
        if self._globals.setdefault(name, text) != text:
            raise ValueError(f"global @{name} is defined twice with different contents")
        return Value(f"@{symbol_text(name)}", PTR)

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


def _declaration(name: str, types: tuple[Type, ...], attributes: str) -> str:
    returns, *parameters = types
    listed = ", ".join(p.text for p in parameters)
    return f"declare {returns} @{symbol_text(name)}({listed}) {attributes}".rstrip()


class FunctionBuilder(MemoryInstructions):
    """One function; instructions go to the end of the current block (`enter` changes it).

    Made by `ModuleBuilder.function`. `arguments` are the parameters' values in order.
    """

    module: ModuleBuilder

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
            f"define {linkage}{returns} @{symbol_text(name)}({', '.join(described)}) {attributes}"
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

    def alloca(self, type: Type, count: int = 1, align: int = 64) -> Value:
        """Stack memory for `count` values, reserved once at the function's entry."""
        self._count += 1
        text = f"%v{self._count}"
        self._stack.append(f"  {text} = alloca [{count} x {type}], align {align}")
        return Value(text, PTR)

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

    def phi(self, type: Type, incoming: Mapping[Block, Operand] | None = None) -> Phi:
        """Opens a phi at the start of a block; `.add(value, block)` completes it."""
        self._count += 1
        phi = Phi(Value(f"%v{self._count}", type))
        for block, value in (incoming or {}).items():
            phi.add(value, block)
        self._lines.append(phi)
        return phi

    def when(
        self,
        condition: Value,
        then: Callable[[], None],
        otherwise: Callable[[], None] = lambda: None,
    ) -> None:
        """What `then` emits runs if the scalar condition holds, else what `otherwise` emits."""
        bodies = {self.new_block("then"): then, self.new_block("else"): otherwise}
        after = self.new_block("after")
        self.branch_if(condition, *bodies)
        for block, body in bodies.items():
            self.enter(block)
            body()
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
        first, last = self.index(start), self.index(stop)
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
