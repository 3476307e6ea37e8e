"""Expressions of kernels as assignments of Python, whose numbers are known where they can be.

What the IR shares is computed once, and both sides of a selection are computed. int64 numbers
outside of lanes are Python integers, wrapped where they can leave 64 bits; all others are NumPy
scalars, and arrays of one element an iteration where these differ and run at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ..errors import CompileError
from ..types import DType
from .ir import (
    COMPARISONS,
    Binary,
    BinaryOp,
    Buffer,
    Call,
    Cast,
    Const,
    Expr,
    Function,
    Kernel,
    Load,
    Select,
    Var,
)
from .printer import print_expr

_INT64 = (-(1 << 63), (1 << 63) - 1)


class PythonValue(NamedTuple):
    """An expression as Python text.

    Arguments:
        varying: whether it is an array of one element an iteration.
        low, high: bounds of an int64.
    """

    text: str
    varying: bool = False
    low: int = _INT64[0]
    high: int = _INT64[1]


class Slot(NamedTuple):
    """A buffer: its flat array; if private, one row for each iteration that runs at once."""

    text: str
    private: bool


class Place(NamedTuple):
    """An element of a buffer; if varying, one an iteration."""

    array: str
    position: str
    varying: bool

    def __str__(self) -> str:
        return f"{self.array}[{self.position}]"


_FLOAT_FUNCTIONS = {
    Function.FLOOR: "np.floor({})",
    Function.CEIL: "np.ceil({})",
    Function.ROUND: "np.rint({})",
    Function.SQRT: "np.sqrt({})",
}
_LOGICAL = {BinaryOp.ADD: "|", BinaryOp.MUL: "&"}
_BITWISE = (BinaryOp.AND, BinaryOp.OR, BinaryOp.XOR)


class Expressions:
    """The lines of a function as they are written, and what is known where they stand.

    Attributes:
        kernel: what is translated.
        lines: the function so far.
        constants: its constants by name.
        buffers: arrays by the names of their buffers.
        variables: values by the names of the variables.
        lane: name of the numbers of the iterations that run at once.
        computed: expressions of this statement, by their id.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self.buffers: dict[str, Slot] = {}
        self.variables: dict[str, PythonValue] = {}
        self.lane: str | None = None
        self.computed: dict[int, PythonValue] = {}
        self.depth = 0
        self.count = 0

    def emit(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    def fresh(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def named(self, text: str, varying: bool = False, low: int = _INT64[0], high: int = _INT64[1]
              ) -> PythonValue:  # fmt: skip
        name = self.fresh("t")
        self.emit(f"{name} = {text}")
        return PythonValue(name, varying, low, high)

    def constant(self, value: Any) -> str:
        name = self.fresh("k")
        self.constants[name] = value
        return name

    def fail(self, what: str) -> CompileError:
        return CompileError(f"kernel {self.kernel.name}: {what}")

    @contextmanager
    def indented(self) -> Iterator[None]:
        self.depth += 1
        yield
        self.depth -= 1

    def expr(self, expr: Expr) -> PythonValue:
        if isinstance(expr, Var):
            return self.variables[expr.name]
        found = self.computed.get(id(expr))
        if found is None:
            found = self.computed[id(expr)] = _EXPRESSIONS[type(expr)](self, expr)
        return found

    def const(self, expr: Const) -> PythonValue:
        if expr.type is DType.BOOL:
            return PythonValue(str(bool(expr.value)))
        if expr.type.is_float:
            with np.errstate(over="ignore"):
                return PythonValue(self.constant(expr.type.numpy.type(expr.value)))
        bits = 8 * expr.type.size
        unsigned = np.array(int(expr.value) % (1 << bits), f"uint{bits}")
        number = unsigned.view(expr.type.numpy)[()]
        if expr.type is not DType.INT64:
            return PythonValue(self.constant(number))
        value = int(number)
        return PythonValue(f"({value})" if value < 0 else str(value), False, value, value)

    def load(self, expr: Load) -> PythonValue:
        return self.loaded(self.place(expr.buffer, expr.index), expr.buffer)

    def loaded(self, place: Place, buffer: Buffer) -> PythonValue:
        scalar = buffer.dtype is DType.INT64 and not place.varying
        return self.named(f"int({place})" if scalar else f"{place}", place.varying)

    def place(self, buffer: Buffer, index: tuple[Expr, ...]) -> Place:
        """The checked element of a buffer."""
        slot = self.buffers[buffer.name]
        position, varying = "0", False
        for axis, (i, extent) in enumerate(zip(index, buffer.shape, strict=True)):
            value = self.expr(i)
            if value.low < 0 or value.high >= extent:
                inside = f"0 <= {value.text} < {extent}"
                if value.varying:
                    inside = f"{value.text}.view(np.uint64).max() < {extent}"
                details = f"{buffer.name!r}, {axis}, {value.text}, {extent}"
                self.emit(f"if not {inside}: outside({details})")
            position = f"({position} * {extent} + {value.text})" if axis else value.text
            varying |= value.varying
        if slot.private:
            return Place(slot.text, f"{self.lane}, {position}", True)
        return Place(slot.text, position, varying)

    def binary(self, expr: Binary) -> PythonValue:
        if expr.a.dtype is not expr.b.dtype:
            text = print_expr(expr)
            raise self.fail(f"{text} mixes {expr.a.dtype} and {expr.b.dtype}")
        return self.computed_binary(expr.op, expr.a.dtype, self.expr(expr.a), self.expr(expr.b))

    def computed_binary(
        self, op: BinaryOp, dtype: DType, a: PythonValue, b: PythonValue
    ) -> PythonValue:
        varying = a.varying or b.varying
        text = f"{a.text} {op.value} {b.text}"
        if op in COMPARISONS:
            return self.named(text, varying)
        if op in (BinaryOp.MIN, BinaryOp.MAX):
            prefix = "np." if varying else "one_"
            return self.named(f"{prefix}{op.value}imum({a.text}, {b.text})", varying)
        if op in _BITWISE and not dtype.is_float:
            return self.named(text, varying)
        if dtype is DType.BOOL and op in _LOGICAL:
            return self.named(f"{a.text} {_LOGICAL[op]} {b.text}", varying)
        if dtype is DType.BOOL or (op is BinaryOp.DIV and not dtype.is_float):
            raise self.fail(f"{op.value} is not defined for {dtype}")
        if op in (BinaryOp.SHL, BinaryOp.SHR) and not dtype.is_float:
            side = "left" if op is BinaryOp.SHL else "right"
            kind = self.constant(dtype)
            text = f"shift_{side}({a.text}, {b.text}, {kind})"
            return self.named(text if varying or dtype is not DType.INT64 else f"int({text})",
                              varying)  # fmt: skip
        if op is BinaryOp.POW and dtype.is_float:
            return self.named(f"in_float64(np.power, {a.text}, {b.text})", varying)
        if op in (BinaryOp.POW, BinaryOp.SHL, BinaryOp.SHR):
            raise self.fail(f"{op.value} is not defined for {dtype}")
        if dtype is DType.INT64:
            return self._index(op, a, b)
        return self.named(text, varying)

    def _index(self, op: BinaryOp, a: PythonValue, b: PythonValue) -> PythonValue:
        """int64 arithmetic: of Python integers outside of lanes, wrapped where it may be needed."""
        varying = a.varying or b.varying
        text = f"{a.text} {op.value} {b.text}"
        bounds = _INT64
        if op is BinaryOp.ADD:
            bounds = a.low + b.low, a.high + b.high
        elif op is BinaryOp.SUB:
            bounds = a.low - b.high, a.high - b.low
        elif op is BinaryOp.MUL:
            corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
            bounds = min(corners), max(corners)
        elif b.low > 0:
            bounds = (a.low // b.low, a.high) if a.low >= 0 else (a.low, max(a.high, 0))
            bounds = (0, b.high - 1) if op is BinaryOp.MOD else bounds
            if a.low >= 0 and op is BinaryOp.FLOORDIV:
                bounds = a.low // b.high, a.high // b.low
        elif not varying:
            text = f"{'floor' if op is BinaryOp.FLOORDIV else 'mod'}_divided({a.text}, {b.text})"
        if bounds[0] < _INT64[0] or bounds[1] > _INT64[1]:
            text, bounds = (text if varying else f"wrapped({text})"), _INT64
        return self.named(text, varying, *bounds)

    def call(self, expr: Call) -> PythonValue:
        a = self.expr(expr.argument)
        dtype, function = expr.argument.dtype, expr.function
        index = dtype is DType.INT64 and not a.varying
        if dtype is DType.BOOL and function is not Function.NOT:
            raise self.fail(f"{function.value} is not defined for {dtype}")
        if function is Function.NOT and not dtype.is_float:
            negated = dtype is DType.BOOL and not a.varying
            return self.named(f"not {a.text}" if negated else f"~{a.text}", a.varying)
        if function in (Function.NEG, Function.ABS):
            text = f"-{a.text}" if function is Function.NEG else f"abs({a.text})"
            return self.named(f"wrapped({text})" if index else text, a.varying)
        if function is Function.SIGN:
            text = f"({a.text} > 0) - ({a.text} < 0)" if index else f"np.sign({a.text})"
            return self.named(text, a.varying)
        if function is Function.ISNAN:
            return self.named(f"np.isnan({a.text})", a.varying)
        if not dtype.is_float or function is Function.NOT:
            raise self.fail(f"{function.value} is not defined for {dtype}")
        if function in _FLOAT_FUNCTIONS:
            return self.named(_FLOAT_FUNCTIONS[function].format(a.text), a.varying)
        return self.named(f"in_float64({function.value}, {a.text})", a.varying)

    def select(self, expr: Select) -> PythonValue:
        if expr.a.dtype is not expr.b.dtype:
            raise self.fail(f"{print_expr(expr)} mixes {expr.a.dtype} and {expr.b.dtype}")
        c, a, b = self.expr(expr.condition), self.expr(expr.a), self.expr(expr.b)
        bounds = min(a.low, b.low), max(a.high, b.high)
        if c.varying or a.varying or b.varying:
            return self.named(f"np.where({c.text}, {a.text}, {b.text})", True, *bounds)
        return self.named(f"{a.text} if {c.text} else {b.text}", False, *bounds)

    def cast(self, expr: Cast) -> PythonValue:
        a = self.expr(expr.value)
        source, to = expr.value.dtype, expr.type
        if source is to:
            return a
        if to is DType.BOOL:
            return self.named(f"{a.text} != 0", a.varying)
        text = a.text
        if not a.varying and source in (DType.INT64, DType.BOOL):
            text = f"np.{source.numpy.type.__name__}({text})"
        text = f"{text}.astype({to.value!r})"
        return self.named(text if a.varying or to is not DType.INT64 else f"int({text})", a.varying)


_EXPRESSIONS: dict[type[Expr], Callable[..., PythonValue]] = {
    Const: Expressions.const,
    Load: Expressions.load,
    Binary: Expressions.binary,
    Call: Expressions.call,
    Select: Expressions.select,
    Cast: Expressions.cast,
}
