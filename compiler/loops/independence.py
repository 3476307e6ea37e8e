"""Which iterations may touch the same element.

Two executions of accesses to one buffer meet where their indices are equal: an equation for each
axis. If such an equation can be solved for a loop variable (its coefficient is larger than all that
the smaller terms can add up to, and the larger terms are multiples of more than all of that: a
mixed radix), then executions that meet agree in that variable. Iterations of a loop are independent
if whatever meets in it agrees in its variable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

from .access import Access, Accesses, AccessKind, Loop, collect
from .affine import Form, Interval, Kind
from .ir import For, Kernel, LoopKind
from .printer import print_access


@dataclass(frozen=True)
class Doubt:
    """Two accesses that different iterations of a loop may direct at the same element."""

    loop: For
    first: Access
    second: Access

    def __str__(self) -> str:
        kind, var = self.loop.kind.value, self.loop.var.name
        one = print_access(self.first.buffer, self.first.index)
        text = f"{kind} loop {var}: {self.first.kind.value} {one}"
        if self.first is self.second:
            return f"{text} may meet itself in another iteration"
        other = print_access(self.second.buffer, self.second.index)
        return f"{text} may meet {self.second.kind.value} {other} in another iteration"


def possible_races(kernel: Kernel) -> list[str]:
    """Why parallel and vector loops of a kernel may race; empty if it is proved that none does.

    Their iterations must not write what another iteration reads or writes, except that a vector
    loop may accumulate into places that are the same in all its lanes.
    """
    return [f"kernel {kernel.name}: {doubt}" for doubt in doubts(collect(kernel))]


def doubts(accesses: Accesses) -> Iterator[Doubt]:
    """Pairs of accesses that keep parallel and vector loops from being independent."""
    groups: defaultdict[str, dict[tuple[object, ...], Access]] = defaultdict(dict)
    for access in accesses:
        # Unrolled statements repeat themselves: one of the accesses that are alike speaks for all.
        known, loops = access.facts.known, tuple(map(id, access.loops))
        alike = access.kind, access.op, access.forms, known, loops, access.home
        groups[access.buffer.name].setdefault(alike, access)
    for group in (list(group.values()) for group in groups.values()):
        for number, first in enumerate(group):
            for second in group[number:]:
                if first.writes or second.writes:
                    yield from _doubts(accesses, first, second)


def _doubts(accesses: Accesses, first: Access, second: Access) -> Iterator[Doubt]:
    common = common_loops(first, second)
    for depth, loop in enumerate(common):
        if loop.atom is None or loop.stmt.kind not in (LoopKind.PARALLEL, LoopKind.VECTOR):
            continue
        if depth < min(first.home, second.home):
            continue  # every iteration has a buffer of its own
        if loop.stmt.kind is LoopKind.VECTOR and _is_reduction(accesses, first, second, loop):
            continue
        outer = frozenset(o.atom for o in common[:depth] if o.atom is not None)
        agreed = agreeing(accesses, first, second, outer)
        if agreed is not None and loop.atom not in agreed:
            yield Doubt(loop.stmt, first, second)


def _is_reduction(accesses: Accesses, first: Access, second: Access, loop: Loop) -> bool:
    """Whether both accumulate, by one operation, into places that are the same in all lanes."""
    same = {other.atom for other in (*first.loops, *second.loops) if other is not loop}
    return (
        first.kind is second.kind is AccessKind.ACCUMULATE
        and first.op is second.op
        and all(accesses.algebra.roots(f) <= same for f in (*first.forms, *second.forms))
    )


def common_loops(first: Access, second: Access) -> tuple[Loop, ...]:
    """The loops around both, outermost first."""
    common = []
    for one, other in zip(first.loops, second.loops, strict=False):
        if one is not other:
            break
        common.append(one)
    return tuple(common)


# -- equations ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Term:
    """a·x - b·y, where x and y are what an atom is in either execution."""

    atom: int
    a: int
    b: int

    @property
    def size(self) -> int:
        return max(abs(self.a), abs(self.b))


def agreeing(
    accesses: Accesses, first: Access, second: Access, known: frozenset[int] = frozenset()
) -> frozenset[int] | None:
    """The loop variables (atoms) in which two executions agree that touch the same element.

    None if they never do. The same element is the one with the same row-major number.

    Arguments:
        known: variables in which the executions are known to agree.
    """
    pairs = [(accesses.linear(first), accesses.linear(second))]
    if first.buffer.shape == second.buffer.shape and len(first.forms) > 1:
        pairs += zip(first.forms, second.forms, strict=True)
    for a, b in pairs:
        one, other = first.facts.interval(a), second.facts.interval(b)
        if one[1] < other[0] or other[1] < one[0]:
            return None
    return _Solver(accesses, pairs, set(known)).solve()


class _Solver:
    """Finds the atoms in which two executions agree that make all pairs of forms equal."""

    def __init__(self, accesses: Accesses, pairs: list[tuple[Form, Form]], known: set[int]) -> None:
        self.algebra = accesses.algebra
        self.pairs = pairs
        self.known = known

    def solve(self) -> frozenset[int] | None:
        progress = True
        while progress:
            progress = False
            for a, b in list(self.pairs):
                terms, const = self._difference(a, b)
                low, high = self._span(terms, const)
                if low > 0 or high < 0:
                    return None
                for term in terms:
                    if term.atom not in self.known and self._determines(terms, const, term):
                        self.known.add(term.atom)
                        progress = True
            progress |= self._rebuild()
        return frozenset(self.known)

    def _agrees(self, atom: int) -> bool:
        """Whether an atom is the same in both executions: its own doing or that of its roots.

        A root that is no loop variable was read at some time and place; two readings may differ.
        """
        return atom in self.known or self.algebra.atoms[atom].roots <= self.known

    def _difference(self, a: Form, b: Form) -> tuple[list[_Term], int]:
        """The difference of two forms, as terms that may be anything in their spans."""
        ones, others = dict(a.terms), dict(b.terms)
        terms = []
        for atom in sorted({*ones, *others}):
            term = _Term(atom, ones.get(atom, 0), others.get(atom, 0))
            if term.a != term.b or not self._agrees(atom):
                terms.append(term)
        return terms, a.const - b.const

    def _span(self, terms: list[_Term], const: int) -> Interval:
        low = high = const
        for term in terms:
            atom = self.algebra.atoms[term.atom]
            ends = [term.a * atom.low, term.a * atom.high]
            if self._agrees(term.atom):
                ends = [(term.a - term.b) * atom.low, (term.a - term.b) * atom.high]
                low, high = low + min(ends), high + max(ends)
            else:
                others = [-term.b * atom.low, -term.b * atom.high]
                low, high = low + min(ends) + min(others), high + max(ends) + max(others)
        return low, high

    def _determines(self, terms: list[_Term], const: int, term: _Term) -> bool:
        """Whether `sum(terms) + const = 0` only if a term is zero, both sides of it the same."""
        if term.a != term.b:
            return False
        size = abs(term.a)
        larger = [t for t in terms if t is not term and t.size >= size]
        smaller = [t for t in terms if t.size < size]
        radix = gcd(*(c for t in larger for c in (t.a, t.b)))
        # What the larger terms are multiples of can take in the constant.
        if radix:
            const = (const + radix // 2) % radix - radix // 2
        low, high = self._span(smaller, const)
        reach = max(-low, high)
        if reach >= size:
            return False
        atom = self.algebra.atoms[term.atom]
        return radix == 0 or size * (atom.high - atom.low) + reach < radix

    def _rebuild(self) -> bool:
        """Where a // n and a % n agree, a does: one more equation."""
        added = False
        for atom in [self.algebra.atoms[t] for t in self.known]:
            if atom.kind is not Kind.REMAINDER:
                continue
            quotient, _ = self.algebra.divide(atom.args[0], atom.number)
            pair = (atom.args[0], atom.args[0])
            if all(self._agrees(t) for t, _ in quotient.terms) and pair not in self.pairs:
                self.pairs.append(pair)
                added = True
        return added
