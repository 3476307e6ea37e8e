"""LLVM types, and the values and constants that have them, as text.

A vector of one lane *is* its scalar: `vector(1, F32) == F32`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import NamedTuple

_BITS = {
    "void": 0, "i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64,
    "half": 16, "bfloat": 16, "float": 32, "double": 64, "ptr": 64,
}  # fmt: skip
_SUFFIX = {"half": "f16", "bfloat": "bf16", "float": "f32", "double": "f64", "ptr": "p0"}
_FLOATS = frozenset({"half", "bfloat", "float", "double"})


@dataclass(frozen=True)
class Type:
    """An LLVM type: `lanes` elements of a scalar; one lane is the scalar itself."""

    element: str
    lanes: int = 1

    def __post_init__(self) -> None:
        if self.element not in _BITS or self.lanes < 1:
            raise TypeError(f"no such LLVM type: {self.lanes} lanes of {self.element!r}")

    @cached_property
    def text(self) -> str:
        return self.element if self.lanes == 1 else f"<{self.lanes} x {self.element}>"

    @cached_property
    def suffix(self) -> str:
        """How intrinsic names spell the type: `v8f32`, `i64`, `p0`."""
        scalar = _SUFFIX.get(self.element, self.element)
        return scalar if self.lanes == 1 else f"v{self.lanes}{scalar}"

    @cached_property
    def scalar(self) -> Type:
        return Type(self.element)

    @cached_property
    def bits(self) -> int:
        """Bits of one element."""
        return _BITS[self.element]

    @cached_property
    def bytes(self) -> int:
        """Bytes of one element in memory."""
        return (self.bits + 7) // 8

    @cached_property
    def is_float(self) -> bool:
        return self.element in _FLOATS

    def __str__(self) -> str:
        return self.text


VOID = Type("void")
I1, I8, I16, I32, I64 = Type("i1"), Type("i8"), Type("i16"), Type("i32"), Type("i64")
F16, BF16, F32, F64 = Type("half"), Type("bfloat"), Type("float"), Type("double")
PTR = Type("ptr")


@cache
def vector(lanes: int, element: Type) -> Type:
    """`lanes` elements of the scalar type of `element`; for one lane, the scalar type."""
    return Type(element.element, lanes)


class Value(NamedTuple):
    """An SSA value or constant. `number` is set for scalar and splat constants."""

    text: str
    type: Type
    number: int | float | None = None

    @property
    def typed(self) -> str:
        return f"{self.type.text} {self.text}"


Operand = Value | int | float


def _float_text(type: Type, number: float) -> str:
    """The exact hexadecimal form; `float` constants are spelled as the double of the same value."""
    if type.element == "double":
        return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"
    if type.element == "float":
        rounded = struct.unpack("<f", struct.pack("<f", number))[0]
        return f"0x{struct.unpack('<Q', struct.pack('<d', rounded))[0]:016X}"
    if type.element == "half":
        return f"0xH{struct.unpack('<H', struct.pack('<e', number))[0]:04X}"
    bits: int = struct.unpack("<I", struct.pack("<f", number))[0]
    if math.isnan(number):
        return "0xR7FC0"
    return f"0xR{(bits + 0x7FFF + ((bits >> 16) & 1)) >> 16:04X}"


def scalar_constant(type: Type, number: int | float) -> tuple[str, int | float]:
    """The text of a scalar constant of the type's element, and the number it stands for."""
    if type.is_float:
        value = float(number)
        return _float_text(type, value), value
    if isinstance(number, float):
        raise TypeError(f"constant {number!r} is not an integer, as {type} needs")
    if type.element == "i1":
        return ("true" if number & 1 else "false"), number & 1
    half = 1 << (type.bits - 1)
    wrapped = ((int(number) + half) & (2 * half - 1)) - half
    return str(wrapped), wrapped


@lru_cache(maxsize=4096)
def _constant(type: Type, number: int | float, negative: bool) -> Value:
    del negative  # part of the cache key only: 0.0 == -0.0
    text, value = scalar_constant(type, number)
    if type.lanes > 1:
        text = f"splat ({type.element} {text})"
    return Value(text, type, value)


def constant(type: Type, number: int | float) -> Value:
    """The constant in every lane. Integers wrap to the width; floats round to the nearest."""
    if type.is_float:
        number = float(number)
        return _constant(type, number, math.copysign(1.0, number) < 0)
    return _constant(type, number, False)


def constants(element: Type, numbers: Sequence[int | float]) -> Value:
    """The constant vector of the numbers, one a lane."""
    if len(numbers) == 1:
        return constant(element.scalar, numbers[0])
    items = ", ".join(f"{element.element} {scalar_constant(element, n)[0]}" for n in numbers)
    return Value(f"<{items}>", vector(len(numbers), element))


def poison(type: Type) -> Value:
    """The undefined value that `insert` and `shuffle` start from."""
    return Value("poison", type)


@cache
def symbol_text(name: str) -> str:
    """A function's or variable's name as it is written behind the @."""
    plain = all(c.isalnum() or c in "._$-" for c in name) and name.isascii()
    if plain and not name[0].isdigit():
        return name
    escaped = "".join(
        chr(c) if 32 <= c < 127 and c not in b'"\\' else f"\\{c:02X}" for c in name.encode()
    )
    return f'"{escaped}"'
