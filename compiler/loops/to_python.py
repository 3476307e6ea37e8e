"""Kernels as Python functions over flat NumPy arrays: the interpreter's engine.

Each expression becomes an assignment, so that what the IR shares is computed once and both sides of
a selection are computed. int64 numbers outside of lanes are Python integers, wrapped where they can
leave 64 bits; all others are NumPy scalars. In a loop that runs all at once, what differs between
iterations is an array of one element an iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ..errors import CompileError
from ..types import DType
from .access import Accesses
from .independence import doubts
from .ir import (
    COMPARISONS,
    Accumulate,
    Alloc,
    Binary,
    BinaryOp,
    Block,
    Buffer,
    Call,
    Cast,
    Const,
    Expr,
    For,
    Function,
    If,
    Kernel,
    Let,
    Load,
    LoopKind,
    Prefetch,
    ReduceOp,
    Select,
    Stmt,
    Store,
    Var,
    walk,
)
from .printer import print_expr

_INT64 = (-(1 << 63), (1 << 63) - 1)


class _Value(NamedTuple):
    """An expression as Python text.

    Arguments:
        varying: whether it is an array of one element an iteration.
        low, high: bounds of an int64.
    """

    text: str
    varying: bool = False
    low: int = _INT64[0]
    high: int = _INT64[1]


class _Slot(NamedTuple):
    """A buffer: its flat array; if private, one row for each iteration that runs at once."""

    text: str
    private: bool


class _Place(NamedTuple):
    """An element of a buffer; if varying, one an iteration."""

    array: str
    position: str
    varying: bool

    def __str__(self) -> str:
        return f"{self.array}[{self.position}]"


class _VaryingConditionError(Exception):
    """Iterations of a loop cannot run at once: they do different things."""


def translate(kernel: Kernel, accesses: Accesses) -> tuple[str, dict[str, Any]]:
    """The source of a function `kernel` of one flat array for each buffer, and its constants.

    Raises:
        CompileError: an expression or store mixes dtypes, or an operation has none such.
    """
    doubtful = {id(doubt.loop) for doubt in doubts(accesses)}
    translator = _Translator(kernel, doubtful)
    names = []
    for number, buffer in enumerate(kernel.buffers):
        names.append(f"p{number}")
        translator.buffers[buffer.name] = _Slot(names[-1], False)
    translator.emit(f"def kernel({', '.join(names)}):")
    translator.block(kernel.body)
    return "\n".join(translator.lines), translator.constants


_REDUCE: dict[ReduceOp, tuple[BinaryOp, str]] = {
    ReduceOp.ADD: (BinaryOp.ADD, "np.add"),
    ReduceOp.MUL: (BinaryOp.MUL, "np.multiply"),
    ReduceOp.MIN: (BinaryOp.MIN, "np.minimum"),
    ReduceOp.MAX: (BinaryOp.MAX, "np.maximum"),
}
_FLOAT_FUNCTIONS = {
    Function.FLOOR: "np.floor({})",
    Function.CEIL: "np.ceil({})",
    Function.ROUND: "np.rint({})",
    Function.SQRT: "np.sqrt({})",
}
_LOGICAL = {BinaryOp.ADD: "|", BinaryOp.MUL: "&"}
_BITWISE = (BinaryOp.AND, BinaryOp.OR, BinaryOp.XOR)


class _Translator:
    def __init__(self, kernel: Kernel, doubtful: set[int]) -> None:
        self.kernel = kernel
        self.doubtful = doubtful
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self.buffers: dict[str, _Slot] = {}
        self.variables: dict[str, _Value] = {}
        self.depth = 0
        self.count = 0
        self.lane: str | None = None  # the numbers of the iterations that run at once
        self.chunked = False
        self.computed: dict[int, _Value] = {}

    # -- text -------------------------------------------------------------------------------------

    def emit(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    def fresh(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def named(self, text: str, varying: bool = False, low: int = _INT64[0], high: int = _INT64[1]
              ) -> _Value:  # fmt: skip
        name = self.fresh("t")
        self.emit(f"{name} = {text}")
        return _Value(name, varying, low, high)

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

    # -- statements -------------------------------------------------------------------------------

    def block(self, block: Block) -> None:
        buffers, variables = dict(self.buffers), dict(self.variables)
        with self.indented():
            self.emit("pass")
            for stmt in block:
                self.computed.clear()
                _STATEMENTS[type(stmt)](self, stmt)
        self.buffers, self.variables = buffers, variables

    def loop(self, stmt: For) -> None:
        if stmt.extent <= 0:
            return
        if not self._at_once(stmt):
            self._one_by_one(stmt)
            return
        lines, depth = len(self.lines), self.depth
        buffers, variables = dict(self.buffers), dict(self.variables)
        for chunked in (False, True) if stmt.kind is LoopKind.VECTOR else (False,):
            try:
                self._all_at_once(stmt, chunked)
                return
            except _VaryingConditionError:
                del self.lines[lines:]
                self.depth, self.lane, self.chunked = depth, None, False
                self.buffers, self.variables = dict(buffers), dict(variables)
        self._one_by_one(stmt)

    def _at_once(self, stmt: For) -> bool:
        """Whether a loop's iterations run at once: they are independent, and most of the nest.

        Around conditions the innermost loop is the one, so that lanes are seen to agree.
        """
        if self.lane or stmt.extent == 1 or not self._independent(stmt):
            return False
        body = list(walk(stmt.body))
        inner = [s.extent for s in body if isinstance(s, For) and self._independent(s)]
        guarded = any(isinstance(s, If) for s in body)
        return max(inner, default=1) <= (1 if guarded else stmt.extent)

    def _independent(self, stmt: For) -> bool:
        return stmt.kind not in _PLAIN and id(stmt) not in self.doubtful

    def _all_at_once(self, stmt: For, chunked: bool) -> None:
        buffers, variables = dict(self.buffers), dict(self.variables)
        self.lane, var = self.fresh("lane"), self.fresh("v")
        self.chunked = chunked
        if chunked:
            self.emit(f"for base in range(0, {stmt.extent}, {stmt.lanes}):")
            self.depth += 1
            self.emit(f"{self.lane} = np.arange(min({stmt.lanes}, {stmt.extent} - base))")
            self.emit(f"{var} = base + {self.lane}")
        else:
            self.emit(f"{self.lane} = {var} = np.arange({stmt.extent})")
        self.variables[stmt.var.name] = _Value(var, True, 0, stmt.extent - 1)
        self.emit("if True:")
        self.block(stmt.body)
        self.depth -= chunked
        self.lane, self.chunked = None, False
        self.buffers, self.variables = buffers, variables

    def _one_by_one(self, stmt: For) -> None:
        buffers, variables = dict(self.buffers), dict(self.variables)
        names: list[str] = []
        ranges: list[str] = []
        body: Block = (stmt,)
        while len(body) == 1 and isinstance(body[0], For) and body[0].extent > 0:
            inner = body[0]
            if names and self._at_once(inner):
                break
            names.append(self.fresh("i"))
            ranges.append(f"range({inner.extent})")
            self.variables[inner.var.name] = _Value(names[-1], False, 0, inner.extent - 1)
            body = inner.body
        # Python nests no more than 20 loops: perfect nests are one.
        source = f"product({', '.join(ranges)})" if len(names) > 1 else ranges[0]
        self.emit(f"for {', '.join(names)} in {source}:")
        self.block(body)
        self.buffers, self.variables = buffers, variables

    def branch(self, stmt: If) -> None:
        condition = self.expr(stmt.condition)
        if condition.varying and not self.chunked:
            raise _VaryingConditionError
        self.emit(f"if uniform({condition.text}):" if condition.varying else
                  f"if {condition.text}:")  # fmt: skip
        self.block(stmt.body)
        if stmt.orelse:
            self.emit("else:")
            self.block(stmt.orelse)

    def let(self, stmt: Let) -> None:
        self.variables[stmt.var.name] = self.expr(stmt.value)

    def alloc(self, stmt: Alloc) -> None:
        buffer, name = stmt.buffer, self.fresh("b")
        rows = f"len({self.lane})" if self.lane else "None"
        self.emit(f"{name} = poisoned({buffer.size}, {self.constant(buffer.dtype)}, {rows})")
        self.buffers[buffer.name] = _Slot(name, self.lane is not None)

    def prefetch(self, stmt: Prefetch) -> None:
        """A hint changes nothing."""

    def store(self, stmt: Store) -> None:
        value = self.expr(stmt.value)
        place = self._place(stmt.buffer, stmt.index)
        self._check_stored(stmt)
        if self.lane and not place.varying:
            raise _VaryingConditionError
        self.emit(f"{place} = {value.text}")

    def accumulate(self, stmt: Accumulate) -> None:
        value = self.expr(stmt.value)
        place = self._place(stmt.buffer, stmt.index)
        self._check_stored(stmt)
        op, ufunc = _REDUCE[stmt.op]
        if self.lane and not place.varying:
            self.emit(f"{place} = reduce({ufunc}, {place}, {value.text}, {self.lane})")
            return
        if self.lane and not self.buffers[stmt.buffer.name].private:
            # Places that are written differently may be the same: every lane counts.
            self.emit(f"{ufunc}.at({place.array}, {place.position}, {value.text})")
            return
        old = self._loaded(place, stmt.buffer)
        self.emit(f"{place} = {self._binary(op, stmt.buffer.dtype, old, value).text}")

    def _check_stored(self, stmt: Store | Accumulate) -> None:
        if stmt.value.dtype is not stmt.buffer.dtype:
            name, dtype = stmt.buffer.name, stmt.buffer.dtype
            raise self.fail(f"a {stmt.value.dtype} is stored in buffer {name} of {dtype}")

    # -- expressions ------------------------------------------------------------------------------

    def expr(self, expr: Expr) -> _Value:
        if isinstance(expr, Var):
            return self.variables[expr.name]
        found = self.computed.get(id(expr))
        if found is None:
            found = self.computed[id(expr)] = _EXPRESSIONS[type(expr)](self, expr)
        return found

    def const(self, expr: Const) -> _Value:
        if expr.type is DType.BOOL:
            return _Value(str(bool(expr.value)))
        if expr.type.is_float:
            with np.errstate(over="ignore"):
                return _Value(self.constant(expr.type.numpy.type(expr.value)))
        bits = 8 * expr.type.size
        unsigned = np.array(int(expr.value) % (1 << bits), f"uint{bits}")
        number = unsigned.view(expr.type.numpy)[()]
        if expr.type is not DType.INT64:
            return _Value(self.constant(number))
        value = int(number)
        return _Value(f"({value})" if value < 0 else str(value), False, value, value)

    def load(self, expr: Load) -> _Value:
        return self._loaded(self._place(expr.buffer, expr.index), expr.buffer)

    def _loaded(self, place: _Place, buffer: Buffer) -> _Value:
        scalar = buffer.dtype is DType.INT64 and not place.varying
        return self.named(f"int({place})" if scalar else f"{place}", place.varying)

    def _place(self, buffer: Buffer, index: tuple[Expr, ...]) -> _Place:
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
            return _Place(slot.text, f"{self.lane}, {position}", True)
        return _Place(slot.text, position, varying)

    def binary(self, expr: Binary) -> _Value:
        if expr.a.dtype is not expr.b.dtype:
            text = print_expr(expr)
            raise self.fail(f"{text} mixes {expr.a.dtype} and {expr.b.dtype}")
        return self._binary(expr.op, expr.a.dtype, self.expr(expr.a), self.expr(expr.b))

    def _binary(self, op: BinaryOp, dtype: DType, a: _Value, b: _Value) -> _Value:
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

    def _index(self, op: BinaryOp, a: _Value, b: _Value) -> _Value:
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

    def call(self, expr: Call) -> _Value:
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

    def select(self, expr: Select) -> _Value:
        if expr.a.dtype is not expr.b.dtype:
            raise self.fail(f"{print_expr(expr)} mixes {expr.a.dtype} and {expr.b.dtype}")
        c, a, b = self.expr(expr.condition), self.expr(expr.a), self.expr(expr.b)
        bounds = min(a.low, b.low), max(a.high, b.high)
        if c.varying or a.varying or b.varying:
            return self.named(f"np.where({c.text}, {a.text}, {b.text})", True, *bounds)
        return self.named(f"{a.text} if {c.text} else {b.text}", False, *bounds)

    def cast(self, expr: Cast) -> _Value:
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


_PLAIN = {LoopKind.SERIAL, LoopKind.UNROLLED}

_STATEMENTS: dict[type[Stmt], Callable[..., None]] = {
    For: _Translator.loop,
    If: _Translator.branch,
    Let: _Translator.let,
    Alloc: _Translator.alloc,
    Store: _Translator.store,
    Accumulate: _Translator.accumulate,
    Prefetch: _Translator.prefetch,
}
_EXPRESSIONS: dict[type[Expr], Callable[..., _Value]] = {
    Const: _Translator.const,
    Load: _Translator.load,
    Binary: _Translator.binary,
    Call: _Translator.call,
    Select: _Translator.select,
    Cast: _Translator.cast,
}
