"""Expressions to instructions: what is the same for all lanes stays scalar, the rest is vectors."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import CompileError
from ..loops.ir import (
    COMPARISONS,
    INDEX,
    Binary,
    BinaryOp,
    Buffer,
    Call,
    Cast,
    Const,
    Expr,
    Function,
    Load,
    Select,
    Var,
)
from ..types import DType
from . import arithmetic, memory
from .arithmetic import register_type
from .builder import I1, I32, I64, Value, constant
from .linear import Linear, Staggered, weighted_sum
from .scope import Place, Result, Scope

# What an int64 that comes from a narrower type is bounded by.
_BOUNDS = {
    DType.BOOL: (0, 1),
    DType.UINT8: (0, 255),
    DType.INT32: (-(1 << 31), (1 << 31) - 1),
}
_TRUE, _FALSE = constant(I1, 1), constant(I1, 0)


class ExpressionEmitter:
    """Evaluates the expressions of one statement at a time in a scope."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._known: dict[int, Result] = {}

    def begin(self) -> None:
        """A new statement: memory may have changed since the last one."""
        self._known.clear()

    def value(self, expr: Expr) -> Value:
        """The expression in a register."""
        return self.scope.value(self.result(expr))

    def vector(self, expr: Expr) -> Value:
        """The expression in every lane."""
        return self.scope.spread(self.value(expr))

    def condition(self, expr: Expr) -> Value:
        """A condition that is the same for all lanes.

        Raises:
            CompileError: it differs between lanes.
        """
        value = self.value(expr)
        if value.type.lanes > 1 and value.number is None:
            raise CompileError("a branch's condition differs between lanes; select there instead")
        return self.scope.f.extract(value, 0)

    def offset(self, buffer: Buffer, index: tuple[Expr, ...]) -> tuple[Place, Result]:
        """Where a buffer is, and the place of an element in it, row-major.

        Raises:
            CompileError: the index has not the buffer's rank, or the buffer is unknown.
        """
        place = self.scope.places.get(buffer.name)
        if place is None or len(index) != len(buffer.shape):
            fault = "is not in scope" if place is None else f"has shape {buffer.shape}"
            raise CompileError(f"buffer {buffer.name}, indexed by {len(index)} numbers, {fault}")
        for expr in index:
            if expr.dtype is not INDEX:
                raise CompileError(
                    f"buffer {buffer.name} is indexed by {expr.dtype}: cast to int64"
                )
        results = [self.result(expr) for expr in index]
        forms = [form for form in map(self.scope.linear, results) if form is not None]
        if len(forms) == len(results):
            return place, weighted_sum(forms, place.strides)
        total: Result = Linear()
        for result, stride in zip(results, place.strides, strict=True):
            total = self.integer(BinaryOp.ADD, total, self._product(result, Linear(stride)))
        return place, total

    def result(self, expr: Expr) -> Result:
        """The expression as a linear form if it is one, else in a register.

        An expression object that occurs several times in a statement is evaluated once.
        """
        if isinstance(expr, Var):
            return self._var(expr)
        if isinstance(expr, Const):
            return self._const(expr)
        known = self._known.get(id(expr))
        if known is None:
            known = self._known[id(expr)] = _EXPRESSIONS[type(expr)](self, expr)
        return known

    def _load(self, expr: Load) -> Result:
        place, offset = self.offset(expr.buffer, expr.index)
        return self._index(memory.load(self.scope, place, offset))

    def _binary(self, expr: Binary) -> Result:
        op, dtype = expr.op, expr.a.dtype
        if expr.b.dtype is not dtype:
            raise CompileError(f"{op.name} of {dtype} and {expr.b.dtype}")
        missing = self._either_missing(expr)
        if missing is not None:
            return missing
        a, b = self.result(expr.a), self.result(expr.b)
        if dtype is INDEX:
            return self.integer(op, a, b)
        x, y = self._together(self.scope.value(a), self.scope.value(b))
        return arithmetic.binary(self.scope.f, op, dtype, x, y)

    def _either_missing(self, expr: Binary) -> Value | None:
        """Whether one of two is NaN, which is one comparison."""
        a, b = expr.a, expr.b
        if expr.op is not BinaryOp.OR or not isinstance(a, Call) or not isinstance(b, Call):
            return None
        if not a.function is b.function is Function.ISNAN or a.argument.dtype != b.argument.dtype:
            return None
        return self.scope.f.fcmp(
            "uno", *self._together(self.value(a.argument), self.value(b.argument))
        )

    def _call(self, expr: Call) -> Result:
        x = self.value(expr.argument)
        return self._index(arithmetic.call(self.scope.f, expr.function, expr.argument.dtype, x))

    def _var(self, expr: Var) -> Result:
        try:
            return self.scope.variables[expr.name]
        except KeyError:
            raise CompileError(f"variable {expr.name} is not in scope") from None

    def _const(self, expr: Const) -> Result:
        if expr.type is INDEX:
            return Linear(int(expr.value))
        if not expr.type.is_float:
            return constant(register_type(expr.type), int(expr.value))
        return constant(register_type(expr.type), expr.value)

    # ---------------------------------------------------------------- helpers

    def _together(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Both as vectors if one is."""
        if a.type.lanes == b.type.lanes:
            return a, b
        return self.scope.spread(a), self.scope.spread(b)

    def _index(self, value: Value) -> Result:
        """Scalars of int64 take part in linear forms."""
        if value.type != I64:
            return value
        return self.scope.linear(value) or value

    def _select(self, expr: Select) -> Result:
        scope, a, b = self.scope, expr.a, expr.b
        test = self.value(expr.condition)
        if test.number is not None:
            return self.result(a if test.number else b)
        x, y = self._together(self.value(a), self.value(b))
        if test.type.lanes > 1:
            x, y = scope.spread(x), scope.spread(y)
        chosen = scope.f.select(test, x, y)
        if a.dtype is INDEX:
            (low, high), (lower, higher) = self._bounds(x), self._bounds(y)
            scope.learn(chosen, min(low, lower), max(high, higher))
        return self._index(chosen)

    def _cast(self, expr: Cast) -> Result:
        scope, source, to = self.scope, expr.value.dtype, expr.type
        result = self.result(expr.value)
        if source is to:
            return result
        if isinstance(result, Linear) and to is not DType.BOOL:
            narrow = self._narrow(result)
            if narrow is not None:
                return arithmetic.cast(scope.f, narrow, DType.INT32, to)
        converted = arithmetic.cast(scope.f, scope.value(result), source, to)
        if to is INDEX and converted.number is None and source in _BOUNDS:
            scope.learn(converted, *_BOUNDS[source])
        return self._index(converted) if to is INDEX else converted

    def _narrow(self, form: Linear) -> Value | None:
        """What differs between lanes as int32, if it fits: half the registers, more instructions
        that take them.
        """
        low, high = self.scope.facts.bounds(form, self.scope.lanes)
        if not form.step or low < -(1 << 31) or high >= 1 << 31:
            return None
        first = self.scope.f.trunc(self.scope.sum(form.uniform), I32)
        return self.scope.f.ramp(first, form.step, self.scope.lanes)

    def _bounds(self, value: Value) -> tuple[int, int]:
        form = self.scope.linear(value)
        if form is not None:
            return self.scope.facts.bounds(form, self.scope.lanes)
        fact = self.scope.facts.get(value.text)
        return (fact.low, fact.high) if fact else (-(1 << 63), (1 << 63) - 1)

    # ---------------------------------------------------------------- int64

    def integer(self, op: BinaryOp, a: Result, b: Result) -> Result:
        """`a op b` of int64."""
        scope = self.scope
        x, y = scope.linear(a), scope.linear(b)
        staggered = self._staggered(op, a, b)
        if staggered is not None:
            return staggered
        if x is not None and y is not None:
            if op is BinaryOp.ADD or op is BinaryOp.SUB:
                return x.plus(y, 1 if op is BinaryOp.ADD else -1)
            if op is BinaryOp.MUL:
                return self._product(x, y)
            if scope.facts.safe(x, scope.lanes) and scope.facts.safe(y, scope.lanes):
                found = self._decide(op, x, y)
                if found is not None:
                    return found
        return self._binary_values(op, scope.value(a), scope.value(b))

    def _staggered(self, op: BinaryOp, a: Result, b: Result) -> Result | None:
        """Sums and multiples of what has its lanes a known distance apart."""
        if not isinstance(a, Staggered) and op in (BinaryOp.ADD, BinaryOp.MUL):
            a, b = b, a
        y = b if isinstance(b, Staggered) else self.scope.linear(b)
        if not isinstance(a, Staggered) or y is None:
            return None
        if op is BinaryOp.ADD or op is BinaryOp.SUB:
            return a.plus(y, 1 if op is BinaryOp.ADD else -1)
        if op is BinaryOp.MUL and isinstance(y, Linear) and y.known is not None:
            return a.times(y.known)
        return None

    def _product(self, a: Result, b: Result) -> Result:
        staggered = self._staggered(BinaryOp.MUL, a, b)
        if staggered is not None:
            return staggered
        x, y = self.scope.linear(a), self.scope.linear(b)
        if x is not None and y is not None:
            if y.known is not None:
                return x.times(y.known)
            if x.known is not None:
                return y.times(x.known)
        return self._binary_values(BinaryOp.MUL, self.scope.value(a), self.scope.value(b))

    def _decide(self, op: BinaryOp, x: Linear, y: Linear) -> Result | None:
        """Comparisons and choices that bounds settle, and division by a positive number."""
        if op in (BinaryOp.FLOORDIV, BinaryOp.MOD):
            by = y.known
            return self._divide(op, x, by) if by is not None and by > 0 else None
        difference = x.plus(y, -1)
        low, high = self.scope.facts.bounds(difference, self.scope.lanes)
        match op:
            case BinaryOp.MIN:
                return x if high <= 0 else y if low >= 0 else None
            case BinaryOp.MAX:
                return x if low >= 0 else y if high <= 0 else None
            case BinaryOp.LT if high < 0 or low >= 0:
                return _TRUE if high < 0 else _FALSE
            case BinaryOp.LE if high <= 0 or low > 0:
                return _TRUE if high <= 0 else _FALSE
            case BinaryOp.EQ | BinaryOp.NE if low > 0 or high < 0 or low == high:
                apart = low > 0 or high < 0
                return _TRUE if apart is (op is BinaryOp.NE) else _FALSE
        if op in COMPARISONS:
            narrow = self._narrow(difference)
            if narrow is not None:
                zero = constant(narrow.type, 0)
                return arithmetic.binary(self.scope.f, op, DType.INT32, narrow, zero)
        return None

    def _divide(self, op: BinaryOp, x: Linear, by: int) -> Result:
        """Gives x // by or x % by, without instructions where the form allows."""
        scope = self.scope
        quotient, rest, step = scope.facts.divide(x, by, scope.lanes)
        low, high = scope.facts.bounds(rest, scope.lanes)
        modulo = op is BinaryOp.MOD
        if low >= 0 and high < by:
            divided: Result = rest if modulo else Linear()
        elif scope.facts.multiple(terms := Linear(0, rest.terms)) % by == 0:
            numbers = [rest.const + rest.step * lane for lane in range(scope.lanes)]
            divided = Staggered(Linear(), tuple(n % by if modulo else n // by for n in numbers))
            if rest.terms and not modulo:
                bounds = scope.facts.bounds(terms, 1)
                whole = self._quotient(op, scope.value(terms), by, *bounds)
                divided = self.integer(BinaryOp.ADD, divided, whole)
        else:
            divided = self._quotient(op, scope.value(rest), by, low, high)
        return self.integer(BinaryOp.ADD, divided, Linear(0, {}, step) if modulo else quotient)

    def _quotient(self, op: BinaryOp, x: Value, by: int, low: int, high: int) -> Result:
        """Division of values between `low` and `high`: cheaper if they are known to be positive."""
        f, modulo = self.scope.f, op is BinaryOp.MOD
        if low < 0:
            divide = arithmetic.floor_remainder if modulo else arithmetic.floor_divide
            result = divide(f, x, constant(x.type, by))
        elif x.type.lanes > 1 and high < 1 << 31:  # vectors of int64 have no product to divide by
            narrow = f.trunc(x, I32)
            result = f.zext(f.urem(narrow, by) if modulo else f.udiv(narrow, by), I64)
        else:
            result = f.urem(x, by) if modulo else f.udiv(x, by)
        if result.number is None:
            bounds = (0, by - 1) if modulo else (low // by, high // by)
            self.scope.learn(result, *bounds)
        return self._index(result)

    def _binary_values(self, op: BinaryOp, a: Value, b: Value) -> Result:
        """Int64 arithmetic in registers, and what follows for the bounds."""
        x, y = self._together(a, b)
        (low, high), (lower, higher) = self._bounds(x), self._bounds(y)
        safe = max(-low, high, -lower, higher) < 1 << 62
        by = int(y.number) if y.number is not None else 0
        if op in (BinaryOp.FLOORDIV, BinaryOp.MOD) and by > 0 and safe:
            return self._quotient(op, x, by, low, high)
        result = arithmetic.binary(self.scope.f, op, INDEX, x, y)
        if result.number is None and result.type.element == "i64":
            match op:
                case BinaryOp.MIN:
                    self.scope.learn(result, min(low, lower), min(high, higher))
                case BinaryOp.MAX:
                    self.scope.learn(result, max(low, lower), max(high, higher))
                case BinaryOp.ADD if safe:
                    self.scope.learn(result, low + lower, high + higher)
                case BinaryOp.MUL if safe:
                    ends = [p * q for p in (low, high) for q in (lower, higher)]
                    if max(map(abs, ends)) < 1 << 62:
                        self.scope.learn(result, min(ends), max(ends))
        return self._index(result)


_EXPRESSIONS: dict[type[Expr], Callable[..., Result]] = {
    Load: ExpressionEmitter._load,
    Binary: ExpressionEmitter._binary,
    Call: ExpressionEmitter._call,
    Select: ExpressionEmitter._select,
    Cast: ExpressionEmitter._cast,
}
