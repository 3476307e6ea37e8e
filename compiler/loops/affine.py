"""Integer arithmetic as linear forms: what indices are made of.

A form is `const + Σ coefficient · atom`. Atoms are loop variables, numbers read from data, and what
is not linear in them: quotients, remainders, minima, selections. Equal atoms are one atom, so like
terms combine (`i*4 - i*4 + 3` is 3), and quotients take out what divides (`(i*14 + m) // 14` is i
for m < 14).

A form stands for a machine integer *modulo* 2**bits: sums and products may wrap on the way and
cancel again. Where the number itself matters (division, comparison, an index), the form must be
known to fit the type; `Algebra.exact` sees to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from math import gcd
from typing import NamedTuple, TypeAlias

from ..types import DType

Interval: TypeAlias = tuple[int, int]


class Form(NamedTuple):
    """const + Σ coefficient · atom; terms are (atom, coefficient), sorted by atom, none zero."""

    const: int
    terms: tuple[tuple[int, int], ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether it is a number."""
        return not self.terms

    def plus(self, other: Form, factor: int = 1) -> Form:
        """The sum of this and `factor` times the other one."""
        const = self.const + factor * other.const
        if not other.terms:
            return Form(const, self.terms)
        terms = dict(self.terms)
        for atom, coefficient in other.terms:
            terms[atom] = terms.get(atom, 0) + factor * coefficient
        return Form(const, tuple(sorted((t, c) for t, c in terms.items() if c)))

    def times(self, factor: int) -> Form:
        if factor == 0:
            return ZERO
        return Form(self.const * factor, tuple((t, c * factor) for t, c in self.terms))

    def shifted(self, amount: int) -> Form:
        return Form(self.const + amount, self.terms)

    def without(self, atom: int) -> Form:
        """The form less its term of an atom."""
        return Form(self.const, tuple(term for term in self.terms if term[0] != atom))


ZERO = Form(0)
Known: TypeAlias = tuple[Form, ...]  # what is known to be >= 0


class Kind(Enum):
    """What an atom is."""

    ROOT = auto()  # a loop variable or data: nothing but its interval is known
    OPAQUE = auto()  # a function of its arguments of which only the interval is known
    WRAP = auto()  # its argument, wrapped around to its interval
    QUOTIENT = auto()  # args[0] // number
    REMAINDER = auto()  # args[0] % number
    MIN = auto()
    MAX = auto()
    SELECT = auto()  # args[0] where all of cases[0] hold, args[1] else: then cases[1] hold


@dataclass(frozen=True, slots=True)
class Atom:
    """An integer within [low, high].

    Arguments:
        roots: the atoms of kind ROOT that it is computed from.
    """

    kind: Kind
    low: int
    high: int
    args: tuple[Form, ...] = ()
    number: int = 0
    cases: tuple[Known, Known] = ((), ())
    roots: frozenset[int] = frozenset()


def limits(dtype: DType) -> Interval:
    """The smallest and the largest number of an integer type."""
    if dtype is DType.BOOL:
        return 0, 1
    bits = 8 * dtype.size
    return (0, (1 << bits) - 1) if dtype is DType.UINT8 else (-1 << bits - 1, (1 << bits - 1) - 1)


def fits(inner: Interval, outer: Interval) -> bool:
    """Whether one interval lies within another."""
    return outer[0] <= inner[0] and inner[1] <= outer[1]


class Algebra:
    """The atoms of a kernel, and arithmetic on forms over them."""

    def __init__(self) -> None:
        self.atoms: list[Atom] = []
        self._known: dict[object, Form] = {}
        self._roots: dict[tuple[tuple[int, int], ...], frozenset[int]] = {}

    def root(self, low: int, high: int) -> Form:
        """A number of which nothing but its interval is known, different from all others."""
        self.atoms.append(Atom(Kind.ROOT, low, high, roots=frozenset((len(self.atoms),))))
        return Form(0, ((len(self.atoms) - 1, 1),))

    def opaque(self, what: object, args: tuple[Form, ...], low: int, high: int) -> Form:
        """The function `what` of its arguments, within [low, high]."""
        return self._atom(Kind.OPAQUE, args, low, high, what=what)

    def _atom(
        self,
        kind: Kind,
        args: tuple[Form, ...],
        low: int,
        high: int,
        number: int = 0,
        cases: tuple[Known, Known] = ((), ()),
        what: object = None,
    ) -> Form:
        if low == high:
            return Form(low)
        key = (kind, args, number, cases, what, low, high)
        found = self._known.get(key)
        if found is None:
            made_of = (*args, *cases[0], *cases[1])
            roots = frozenset(r for f in made_of for t, _ in f.terms for r in self.atoms[t].roots)
            self.atoms.append(Atom(kind, low, high, args, number, cases, roots))
            found = self._known[key] = Form(0, ((len(self.atoms) - 1, 1),))
        return found

    def roots(self, form: Form) -> frozenset[int]:
        """The loop variables and data that a form depends on."""
        found = self._roots.get(form.terms)
        if found is None:
            parts = [self.atoms[t].roots for t, _ in form.terms]
            found = self._roots[form.terms] = frozenset[int]().union(*parts)
        return found

    def single(self, form: Form) -> tuple[int, Atom] | None:
        """The atom that a form is, if it is one."""
        if form.const == 0 and len(form.terms) == 1 and form.terms[0][1] == 1:
            number = form.terms[0][0]
            return number, self.atoms[number]
        return None

    def box(self, form: Form) -> Interval:
        """An interval of the form, from those of its atoms."""
        low = high = form.const
        for t, c in form.terms:
            atom = self.atoms[t]
            if c > 0:
                low += c * atom.low
                high += c * atom.high
            else:
                low += c * atom.high
                high += c * atom.low
        return low, high

    # -- operations -------------------------------------------------------------------------------

    def exact(self, form: Form, dtype: DType) -> Form:
        """A form that is the machine's number itself, not just modulo 2**bits."""
        whole = limits(dtype)
        if fits(self.box(form), whole):
            return form
        return self._atom(Kind.WRAP, (form,), *whole)

    def times(self, a: Form, b: Form, dtype: DType) -> Form:
        if a.is_known or b.is_known:
            return b.times(a.const) if a.is_known else a.times(b.const)
        a, b = sorted((self.exact(a, dtype), self.exact(b, dtype)))
        corners = [x * y for x in self.box(a) for y in self.box(b)]
        product = min(corners), max(corners)
        whole = limits(dtype)
        return self.opaque("*", (a, b), *(product if fits(product, whole) else whole))

    def divide(self, form: Form, by: int) -> tuple[Form, Form]:
        """(form // by, form % by) of an exact form and a positive number.

        form = by · whole + rest; the rest is split further where lower terms cannot carry:
        (12i + 4j + k) // 8 is (3i + j) // 2 for k < 4.
        """
        whole: list[tuple[int, int]] = []
        left: list[tuple[int, int]] = []
        for t, c in form.terms:
            if c % by:
                left.append((t, c))
            else:
                whole.append((t, c // by))
        carry, const = divmod(form.const, by)
        quotient, rest = Form(carry, tuple(whole)), Form(const, tuple(left))
        low, high = self.box(rest)
        if low // by == high // by:
            return quotient.shifted(low // by), rest.shifted(-(low // by) * by)
        for block in sorted({gcd(by, c) for _, c in left} - {1}, reverse=True):
            below = Form(const % block, tuple((t, c) for t, c in left if c % block))
            low, high = self.box(below)
            if low // block != high // block:
                continue
            below = below.shifted(-(low // block) * block)
            above = rest.plus(below, -1)
            scaled = Form(above.const // block, tuple((t, c // block) for t, c in above.terms))
            q, r = self.divide(scaled, by // block)
            return quotient.plus(q), r.times(block).plus(below)
        q, r = self._divide_atom(rest, by)
        return quotient.plus(q), r

    def _divide_atom(self, form: Form, by: int) -> tuple[Form, Form]:
        """Quotient and remainder as atoms, those of quotients and remainders simplified."""
        low, high = self.box(form)
        dividend, divisor, remainder = form, by, form
        single = self.single(form)
        if single and single[1].kind is Kind.QUOTIENT:
            dividend, divisor = single[1].args[0], single[1].number * by
        elif single and single[1].kind is Kind.REMAINDER and single[1].number % by == 0:
            remainder = single[1].args[0]
        quotient = self._atom(Kind.QUOTIENT, (dividend,), low // by, high // by, divisor)
        return quotient, self._atom(Kind.REMAINDER, (remainder,), 0, by - 1, by)

    def extreme(self, kind: Kind, a: Form, b: Form) -> Form:
        """The smaller (Kind.MIN) or larger (Kind.MAX) of two exact forms."""
        low, high = self.box(a.plus(b, -1))
        if low >= 0 or high <= 0:
            return b if (low >= 0) == (kind is Kind.MIN) else a
        pick = min if kind is Kind.MIN else max
        (a_low, a_high), (b_low, b_high) = self.box(a), self.box(b)
        first, second = sorted((a, b))
        return self._atom(kind, (first, second), pick(a_low, b_low), pick(a_high, b_high))

    def select(self, cases: tuple[Known, Known], a: Form, b: Form, within: Interval) -> Form:
        """Where the first case holds a, else b; exact there, and within an interval."""
        return a if a == b else self._atom(Kind.SELECT, (a, b), *within, cases=cases)

    def joined(self, form: Form) -> Form:
        """The form with `n * (a // n) + a % n` written as a."""
        for t, c in form.terms:
            atom = self.atoms[t]
            if atom.kind is not Kind.REMAINDER:
                continue
            quotient, _ = self.divide(atom.args[0], atom.number)
            pair = self.single(quotient)
            if pair and (pair[0], c * atom.number) in form.terms:
                return self.joined(form.without(t).without(pair[0]).plus(atom.args[0], c))
        return form
