"""Where emission stands: the function, the names in reach, the lanes that run side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from ..loops.ir import Buffer
from .arithmetic import memory_type
from .builder import I64, FunctionBuilder, Type, Value, constant, constants
from .linear import Fact, Facts, Linear, Staggered

# What an expression gives: an index as long as it is linear or its lanes are a known distance from
# each other, else a value in a register, scalar if it is the same for all lanes.
Result: TypeAlias = Value | Linear | Staggered


@dataclass(frozen=True)
class Place:
    """Where a buffer is.

    Arguments:
        buffer: what it holds.
        pointer: its first element.
        private: 0, or the distance between the elements of one lane: each lane has its own copy.
        local: whether it is the function's own memory, aligned to 64 bytes.
    """

    buffer: Buffer
    pointer: Value
    private: int = 0
    local: bool = False

    @cached_property
    def element(self) -> Type:
        return memory_type(self.buffer.dtype)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        return self.buffer.strides


@dataclass
class Scope:
    """The state of emission.

    Arguments:
        f: receives the instructions.
        vector_bytes: of a vector register.
        variables: what names stand for.
        places: where buffers are, by name.
        lanes: how many iterations of a vector loop run side by side; 1 outside of them.
        depth: number of loops around.
        lined: whether the buffers that are streamed to begin at a cache line.
        facts: what is known of int64 values.
    """

    f: FunctionBuilder
    vector_bytes: int
    variables: dict[str, Result] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    lanes: int = 1
    depth: int = 0
    lined: bool = False
    facts: Facts = field(default_factory=Facts)

    @contextmanager
    def names(self) -> Iterator[None]:
        """What is named inside is forgotten behind it."""
        outer = self.variables, self.places
        self.variables, self.places = dict(self.variables), dict(self.places)
        yield
        self.variables, self.places = outer

    @contextmanager
    def loop(self, lanes: int | None = None) -> Iterator[None]:
        """Inside a loop, perhaps with another number of lanes."""
        outer = self.lanes
        self.lanes = outer if lanes is None else lanes
        self.depth += 1
        yield
        self.depth -= 1
        self.lanes = outer

    def learn(self, value: Value, low: int, high: int, multiple: int = 1) -> Value:
        """Notes the bounds of an int64 value that has just been computed, here or further out."""
        known = self.facts.get(value.text)
        depth = self.depth if known is None else min(self.depth, known.depth)
        self.facts[value.text] = Fact(depth, low, high, multiple)
        return value

    def linear(self, result: Result) -> Linear | None:
        """An int64 as a linear form; None if it is a vector without one."""
        if isinstance(result, Linear):
            return result
        if isinstance(result, Staggered):
            return None
        if result.number is not None:
            return Linear(int(result.number))
        if result.type.lanes > 1:
            return None
        if result.text not in self.facts:
            self.facts[result.text] = Fact(self.depth)
        return Linear(0, {result.text: 1})

    def value(self, result: Result) -> Value:
        """The result in a register: a vector if it differs between lanes."""
        if isinstance(result, Value):
            return result
        if isinstance(result, Staggered):
            return self._staggered(result)
        low, high = self.facts.bounds(result, self.lanes)
        total = self.sum(result)
        if result.step and self.lanes > 1:
            total = self.f.ramp(total, result.step, self.lanes)
        if total.number is None:
            self.facts.setdefault(total.text, Fact(self.depth, low, high))
        return total

    def _staggered(self, result: Staggered) -> Value:
        low, high = self.facts.bounds(result.form, 1)
        first = self.spread(self.sum(result.form))
        total = self.f.add(first, constants(I64, result.lanes))
        if total.number is None:
            least, most = min(result.lanes), max(result.lanes)
            self.facts.setdefault(total.text, Fact(self.depth, low + least, high + most))
        return total

    def sum(self, form: Linear, *, with_constant: bool = True) -> Value:
        """The form's value in lane 0, computed from the outermost loop's part inwards."""
        f = self.f
        flags = "nsw" if self.facts.safe(form, 1) else ""
        total = constant(I64, 0)
        for name, coefficient in self.facts.ordered(form):
            total = f.add(total, f.mul(Value(name, I64), coefficient, flags), flags)
        return f.add(total, form.const, flags) if with_constant else total

    def spread(self, value: Value) -> Value:
        """The value in every lane."""
        return self.f.splat(value, self.lanes)
