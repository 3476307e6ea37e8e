"""Instructions of LLVM IR, each as a line of text: what all of them need, and calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from .values import I64, VOID, Operand, Type, Value, constant, symbol_text


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
    """Instructions of a function; where they go is for `FunctionBuilder` to say."""

    name: str
    module: Declarations

    @abstractmethod
    def emit(self, text: str) -> None:
        """Appends an instruction that has no result."""

    @abstractmethod
    def assign(self, type: Type, text: str, *, pure: bool = True) -> Value:
        """Appends an instruction and names its result."""

    def constant(self, type: Type, number: int | float) -> Value:
        return constant(type, number)

    def pair(self, a: Operand, b: Operand) -> tuple[Value, Value]:
        """Two operands of one type; a Python number takes that of the other."""
        if not isinstance(a, Value):
            if not isinstance(b, Value):
                raise TypeError(f"@{self.name}: operands {a!r} and {b!r} have no type")
            a = constant(b.type, a)
        elif not isinstance(b, Value):
            b = constant(a.type, b)
        if a.type is not b.type and a.type != b.type:
            raise TypeError(f"@{self.name}: operand types differ: {a.typed} and {b.typed}")
        return a, b

    def index(self, index: Operand) -> Value:
        """An index as an operand: I64 where it is a Python number."""
        return index if isinstance(index, Value) else constant(I64, index)

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
