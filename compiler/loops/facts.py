"""Intervals of linear forms under conditions.

What an enclosing `If` has tested is a list of forms that are >= 0. A lower bound of g under f >= 0
is one of g - λf for any λ >= 0; choosing λ so that a term cancels finds `4*(i + k - 1) + c >= 0`
from `i + k - 1 >= 0`. Minima, maxima and selections are bounded case by case, which sees that
`i - min(i, 5)` is not negative.
"""

from __future__ import annotations

from collections.abc import Iterable

from .affine import Algebra, Form, Interval, Kind, Known, fits

# How many facts and atoms are combined for a bound: a glance, and as many as are of any use.
GLANCE, DEPTH = 1, 5
_BUDGET = 400


class Facts:
    """What is known at a place in a kernel.

    Arguments:
        algebra: the atoms.
        known: forms that are not negative.
    """

    def __init__(self, algebra: Algebra, known: Known = ()) -> None:
        self.algebra = algebra
        self.known = known
        self._intervals: dict[tuple[Form, int], Interval] = {}
        self._atoms: dict[int, Interval] = {}
        self._cases: dict[Known, Facts] = {}
        self._budget = 0

    def assume(self, more: Iterable[Form]) -> Facts:
        """These facts and more."""
        added = tuple(form for form in more if form not in self.known)
        if not added:
            return self
        found = self._cases.get(added)
        if found is None:
            found = self._cases[added] = Facts(self.algebra, self.known + added)
        return found

    @property
    def impossible(self) -> bool:
        """Whether the facts plainly contradict each other: the place is never reached."""
        return any(self.interval(form)[1] < 0 for form in self.known)

    def inside(self, form: Form, low: int, high: int) -> bool:
        """Whether the form is known to be in [low, high]."""
        outer = low, high
        return fits(self.algebra.box(form), outer) or any(
            fits(self.interval(form, depth), outer) for depth in (GLANCE, 2, 3, DEPTH)
        )

    def interval(self, form: Form, depth: int = GLANCE) -> Interval:
        """The smallest interval found for a form; empty (low > high) if facts contradict."""
        found = self._intervals.get((form, depth))
        if found is None:
            if form.is_known:
                return form.const, form.const
            self._budget = _BUDGET
            low = self._lower(form, self.known, depth)
            self._budget = _BUDGET
            high = -self._lower(form.times(-1), self.known, depth)
            found = self._intervals[form, depth] = (low, high)
        return found

    def _lower(self, form: Form, facts: Known, depth: int) -> int:
        """The largest lower bound found."""
        best = form.const
        for t, c in form.terms:
            low, high = self._atom(t)
            best += c * (low if c > 0 else high)
        self._budget -= 1
        if depth == 0 or self._budget < 0 or not form.terms:
            return best
        for t, c in form.terms:
            best = max(best, self._lower_by_atom(form, t, c, facts, depth - 1, best))
        for fact in facts:
            best = max(best, self._lower_by_fact(form, fact, facts, depth - 1, best))
        return best

    def _lower_by_fact(self, form: Form, fact: Form, facts: Known, depth: int, best: int) -> int:
        """Takes so much of a fact away that a term they share cancels."""
        shared = dict(fact.terms)
        for t, c in form.terms:
            f = shared.get(t, 0)
            if f * c > 0:
                rest = form.times(abs(f)).plus(fact, -abs(c))
                others = tuple(g for g in facts if g is not fact)
                best = max(best, -(-self._lower(rest, others, depth) // abs(f)))
        return best

    def _lower_by_atom(
        self, form: Form, t: int, c: int, facts: Known, depth: int, best: int
    ) -> int:
        """Writes an atom as what it is made of."""
        atom = self.algebra.atoms[t]
        if atom.kind in (Kind.MIN, Kind.MAX):
            rest = form.without(t)
            sides = [self._lower(rest.plus(side, c), facts, depth) for side in atom.args]
            return min(sides) if (atom.kind is Kind.MIN) == (c > 0) else max(sides)
        if atom.kind is Kind.SELECT:
            rest = form.without(t)
            lows = []
            for case, side in zip(atom.cases, atom.args, strict=True):
                under = self.assume(case)
                under._budget = self._budget // 2
                if not self._contradicted(case):
                    lows.append(under._lower(rest.plus(side, c), under.known, depth))
            return min(lows, default=best)
        if atom.kind is Kind.QUOTIENT and len(form.terms) > 1:
            # number * atom is in [argument - number + 1, argument]
            rest = form.without(t).times(atom.number).plus(atom.args[0], c)
            if c > 0:
                rest = rest.shifted(c * (1 - atom.number))
            return -(-self._lower(rest, facts, depth) // atom.number)
        if atom.kind is Kind.REMAINDER and len(form.terms) > 1:
            # a % n = a - n * (a // n), and no more than a unless a is negative
            quotient, _ = self.algebra.divide(atom.args[0], atom.number)
            dividend = form.without(t).plus(atom.args[0], c)
            low = self._lower(dividend.plus(quotient, -c * atom.number), facts, depth)
            if c < 0 and self.algebra.box(atom.args[0])[0] >= 0:
                low = max(low, self._lower(dividend, facts, depth))
            return low
        return best

    def _contradicted(self, case: Known) -> bool:
        return any(self.algebra.box(form)[1] < 0 for form in case)

    def _atom(self, t: int) -> Interval:
        """An atom's interval under the facts."""
        found = self._atoms.get(t)
        if found is None:
            atom = self.algebra.atoms[t]
            # What asks for itself on the way gets what is known without facts.
            self._atoms[t] = atom.low, atom.high
            low, high = self._narrowed(t)
            budget, self._budget = self._budget, _BUDGET
            one = Form(0, ((t, 1),))
            for fact in self.known:
                low = max(low, self._lower_by_fact(one, fact, self.known, 1, low))
                high = min(high, -self._lower_by_fact(one.times(-1), fact, self.known, 1, -high))
            self._budget = budget
            found = self._atoms[t] = (low, high)
        return found

    def _narrowed(self, t: int) -> Interval:
        """An atom's interval from those of what it is made of."""
        atom = self.algebra.atoms[t]
        low, high = atom.low, atom.high
        if atom.kind is Kind.QUOTIENT:
            a, b = self._plain(atom.args[0])
            return max(low, a // atom.number), min(high, b // atom.number)
        if atom.kind is Kind.REMAINDER:
            a, b = self._plain(atom.args[0])
            if a // atom.number == b // atom.number:
                return a % atom.number, b % atom.number
        elif atom.kind is Kind.WRAP:
            inner = self._plain(atom.args[0])
            if fits(inner, (low, high)):
                return inner
        return low, high

    def _plain(self, form: Form) -> Interval:
        budget, self._budget = self._budget, _BUDGET
        low = self._lower(form, self.known, 1)
        high = -self._lower(form.times(-1), self.known, 1)
        self._budget = budget
        return low, high
