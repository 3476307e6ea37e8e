"""Integer expressions of the loop IR as linear forms, and conditions as facts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from .affine import ZERO, Algebra, Form, Interval, Kind, Known, fits, limits
from .facts import Facts
from .ir import Binary, BinaryOp, Call, Cast, Const, Expr, Function, Load, Select, Var

Truth: TypeAlias = tuple[Known, Known]  # what follows if it holds, and if it does not

_UNKNOWN: Truth = ((), ())
_FALSE = Form(-1)  # -1 >= 0 never holds


class Evaluator:
    """What integer and bool expressions are, with the values that the variables have now.

    Arguments:
        written: names of the buffers that the kernel writes: two loads from them may differ.
    """

    def __init__(self, written: frozenset[str]) -> None:
        self.algebra = Algebra()
        self.facts = Facts(self.algebra)
        self.written = written
        self.variables: dict[str, Form | Truth | None] = {}
        self._forms: dict[int, Form] = {}
        self._bound: set[str] = set()
        self._volatile = False

    def bind(self, var: Var, value: Form | Truth | None) -> None:
        """Gives a variable its value; None if it is a float."""
        if var.name in self._bound:
            self._forms.clear()  # what was computed of another variable of this name
        self._bound.add(var.name)
        self.variables[var.name] = value

    def next_statement(self) -> None:
        """Loads from written buffers may give something else from here on."""
        if self._volatile:
            self._forms.clear()
            self._volatile = False

    def value(self, expr: Expr) -> Form | Truth | None:
        """What a Let makes its variable stand for."""
        if expr.dtype.is_float:
            return None
        return self.form(expr) if expr.dtype.is_integer else self.truth(expr)

    # -- conditions -------------------------------------------------------------------------------

    def truth(self, expr: Expr) -> Truth:
        """What follows from a bool expression."""
        if isinstance(expr, Const):
            return ((), (_FALSE,)) if expr.value else ((_FALSE,), ())
        if isinstance(expr, Var):
            found = self.variables[expr.name]
            return found if isinstance(found, tuple) and not isinstance(found, Form) else _UNKNOWN
        if isinstance(expr, Call) and expr.function is Function.NOT:
            yes, no = self.truth(expr.argument)
            return no, yes
        if not isinstance(expr, Binary):
            return _UNKNOWN
        if expr.op in (BinaryOp.AND, BinaryOp.OR):
            (yes, no), (also, neither) = self.truth(expr.a), self.truth(expr.b)
            return (yes + also, ()) if expr.op is BinaryOp.AND else ((), no + neither)
        return self._comparison(expr) if expr.a.dtype.is_integer else _UNKNOWN

    def _comparison(self, expr: Binary) -> Truth:
        dtype = expr.a.dtype
        a = self.algebra.exact(self.form(expr.a), dtype)
        b = self.algebra.exact(self.form(expr.b), dtype)
        difference = b.plus(a, -1)
        opposite = difference.times(-1)
        if expr.op is BinaryOp.LT:
            return (difference.shifted(-1),), (opposite,)
        if expr.op is BinaryOp.LE:
            return (difference,), (opposite.shifted(-1),)
        low, high = self.algebra.box(difference)
        apart: Known = ()
        if low == 0:
            apart = (difference.shifted(-1),)
        elif high == 0:
            apart = (opposite.shifted(-1),)
        same = (difference, opposite)
        if expr.op is BinaryOp.EQ:
            return same, apart
        return (apart, same) if expr.op is BinaryOp.NE else _UNKNOWN

    # -- integers ---------------------------------------------------------------------------------

    def form(self, expr: Expr) -> Form:
        """An integer expression, modulo 2**bits of its dtype."""
        if isinstance(expr, Const):
            return Form(int(expr.value))
        found = self._forms.get(id(expr))
        if found is None:
            found = self._forms[id(expr)] = self._compute(expr)
        return found

    def exact(self, expr: Expr) -> Form:
        """An integer expression, the number itself."""
        return self.algebra.exact(self.form(expr), expr.dtype)

    def _compute(self, expr: Expr) -> Form:
        if isinstance(expr, Var):
            value = self.variables[expr.name]
            return value if isinstance(value, Form) else self._any(expr)
        if isinstance(expr, Binary):
            return _BINARY.get(expr.op, Evaluator._any)(self, expr)
        if isinstance(expr, Call):
            return self._call(expr)
        if isinstance(expr, Select):
            return self._select(self.truth(expr.condition), self.form(expr.a), self.form(expr.b),
                                limits(expr.dtype))  # fmt: skip
        if isinstance(expr, Cast):
            return self._cast(expr)
        if isinstance(expr, Load) and expr.buffer.name not in self.written:
            where = tuple(self.exact(i) for i in expr.index)
            return self.algebra.opaque(expr.buffer.name, where, *limits(expr.dtype))
        return self._any(expr)

    def _any(self, expr: Expr) -> Form:
        """Some number of the dtype, no two of them the same."""
        self._volatile = True
        return self.algebra.root(*limits(expr.dtype))

    def _select(self, cases: Truth, a: Form, b: Form, whole: Interval) -> Form:
        sides: list[Form] = []
        low, high = whole[1], whole[0]
        for case, side in zip(cases, (a, b), strict=True):
            facts = self.facts.assume(case)
            if facts.impossible:
                return b if side is a else a
            interval = facts.interval(side, 2)
            if not fits(interval, whole):
                return self.algebra.root(*whole)
            sides.append(side)
            low, high = min(low, interval[0]), max(high, interval[1])
        return self.algebra.select(cases, sides[0], sides[1], (low, high))

    def _cast(self, expr: Cast) -> Form:
        source = expr.value.dtype
        whole = limits(expr.type)
        if source.is_float:
            return self._any(expr)
        if not source.is_integer:
            return self._select(self.truth(expr.value), Form(1), ZERO, whole)
        return self.algebra.exact(self.exact(expr.value), expr.type)

    def _call(self, expr: Call) -> Form:
        a = self.form(expr.argument)
        if expr.function is Function.NEG:
            return a.times(-1)
        if expr.function is Function.NOT:
            return a.times(-1).shifted(-1)
        if expr.function is Function.ABS:
            a = self.algebra.exact(a, expr.dtype)
            signs: Truth = (a,), (a.times(-1).shifted(-1),)
            return self._select(signs, a, a.times(-1), limits(expr.dtype))
        if expr.function is Function.SIGN:
            return self.algebra.opaque("sign", (self.exact(expr.argument),), -1, 1)
        return self._any(expr)

    def _add(self, expr: Binary) -> Form:
        return self.form(expr.a).plus(self.form(expr.b))

    def _subtract(self, expr: Binary) -> Form:
        return self.form(expr.a).plus(self.form(expr.b), -1)

    def _multiply(self, expr: Binary) -> Form:
        return self.algebra.times(self.form(expr.a), self.form(expr.b), expr.dtype)

    def _minimum(self, expr: Binary) -> Form:
        return self.algebra.extreme(Kind.MIN, self.exact(expr.a), self.exact(expr.b))

    def _maximum(self, expr: Binary) -> Form:
        return self.algebra.extreme(Kind.MAX, self.exact(expr.a), self.exact(expr.b))

    def _quotient(self, expr: Binary) -> Form:
        a, b = self.exact(expr.a), self.exact(expr.b)
        if b.is_known:
            if b.const == 0:
                return ZERO
            return self.algebra.divide(a if b.const > 0 else a.times(-1), abs(b.const))[0]
        low, high = self.algebra.box(a)
        reach = max(-low, high)
        bounds = (0, high) if low >= 0 and self.algebra.box(b)[0] >= 0 else (-reach, reach)
        whole = limits(expr.dtype)
        return self.algebra.opaque("//", (a, b), *(bounds if fits(bounds, whole) else whole))

    def _remainder(self, expr: Binary) -> Form:
        a, b = self.exact(expr.a), self.exact(expr.b)
        if b.is_known:
            if b.const == 0:
                return ZERO
            if b.const > 0:
                return self.algebra.divide(a, b.const)[1]
            return self.algebra.divide(a.times(-1), -b.const)[1].times(-1)
        low, high = self.algebra.box(b)
        return self.algebra.opaque("%", (a, b), min(low + 1, 0), max(high - 1, 0))

    def _and(self, expr: Binary) -> Form:
        a, b = sorted((self.exact(expr.a), self.exact(expr.b)), key=lambda f: not f.is_known)
        if a.is_known and a.const >= 0:
            if a.const & (a.const + 1) == 0:  # 2**n - 1
                return self.algebra.divide(b, a.const + 1)[1]
            return self.algebra.opaque("&", (a, b), 0, a.const)
        return self._any(expr)

    def _shift_left(self, expr: Binary) -> Form:
        amount = self.form(expr.b)
        if amount.is_known and 0 <= amount.const < 8 * expr.dtype.size:
            return self.form(expr.a).times(1 << amount.const)
        return self._any(expr)

    def _shift_right(self, expr: Binary) -> Form:
        a, amount = self.exact(expr.a), self.form(expr.b)
        bits = 8 * expr.dtype.size
        if amount.is_known and 0 < amount.const < bits:
            if self.algebra.box(a)[0] >= 0:
                return self.algebra.divide(a, 1 << amount.const)[0]
            return self.algebra.opaque(">>", (a, amount), 0, (1 << bits - amount.const) - 1)
        return self._any(expr)


_BINARY: dict[BinaryOp, Callable[..., Form]] = {
    BinaryOp.ADD: Evaluator._add,
    BinaryOp.SUB: Evaluator._subtract,
    BinaryOp.MUL: Evaluator._multiply,
    BinaryOp.MIN: Evaluator._minimum,
    BinaryOp.MAX: Evaluator._maximum,
    BinaryOp.FLOORDIV: Evaluator._quotient,
    BinaryOp.MOD: Evaluator._remainder,
    BinaryOp.AND: Evaluator._and,
    BinaryOp.SHL: Evaluator._shift_left,
    BinaryOp.SHR: Evaluator._shift_right,
}
