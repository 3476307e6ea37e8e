"""Index arithmetic as it is emitted: linear forms over SSA values, and what is known of those.

An index is `const + Σ coefficient · value + step · lane`. Kept in this form until an address or a
number is needed of it, it tells by itself how a memory access moves with the lane, unrolled and
constant parts fold, and sums come out ordered from outer to inner loops, so that LLVM hoists them.
Sums and products of a form are right modulo 2^64; quotients need to know that nothing wraps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import NamedTuple

_ANY = 1 << 63
_SAFE = 1 << 62


class Fact(NamedTuple):
    """What is known of an int64 value: its loop depth, its bounds, a number it is a multiple of."""

    depth: int
    low: int = -_ANY
    high: int = _ANY - 1
    multiple: int = 1


@dataclass(frozen=True, slots=True)
class Linear:
    """const + Σ terms[name] · name + step · lane, an int64 of which lane is 0 … lanes - 1."""

    const: int = 0
    terms: dict[str, int] = field(default_factory=dict)
    step: int = 0

    @property
    def known(self) -> int | None:
        """The number it is, if it is one."""
        return None if self.terms or self.step else self.const

    @property
    def uniform(self) -> Linear:
        """The value in lane 0."""
        return Linear(self.const, self.terms) if self.step else self

    def plus(self, other: Linear, sign: int = 1) -> Linear:
        terms = self.terms
        if other.terms:
            terms = dict(terms)
            for name, coefficient in other.terms.items():
                total = terms.get(name, 0) + sign * coefficient
                if total:
                    terms[name] = total
                else:
                    terms.pop(name, None)
        return Linear(self.const + sign * other.const, terms, self.step + sign * other.step)

    def times(self, factor: int) -> Linear:
        if factor == 1:
            return self
        if factor == 0:
            return Linear()
        terms = {name: factor * coefficient for name, coefficient in self.terms.items()}
        return Linear(factor * self.const, terms, factor * self.step)

    def shifted(self, amount: int) -> Linear:
        """The form plus a number."""
        return Linear(self.const + amount, self.terms, self.step) if amount else self


@dataclass(frozen=True, slots=True)
class Staggered:
    """form + lanes[lane]: an int64 whose lanes are a known distance from each other.

    So is a quotient or remainder of the lane: `lane // 4 * 4` is 0 0 0 0 4 4 4 4.
    """

    form: Linear
    lanes: tuple[int, ...]

    def plus(self, other: Linear | Staggered, sign: int = 1) -> Staggered:
        """The sum with a form, or another one."""
        if isinstance(other, Staggered):
            lanes = tuple(n + sign * m for n, m in zip(self.lanes, other.lanes, strict=True))
            return Staggered(self.form.plus(other.form, sign), lanes)
        lanes = tuple(n + sign * other.step * lane for lane, n in enumerate(self.lanes))
        return Staggered(self.form.plus(other.uniform, sign), lanes)

    def times(self, factor: int) -> Staggered:
        return Staggered(self.form.times(factor), tuple(factor * n for n in self.lanes))


def weighted_sum(forms: Sequence[Linear], weights: Sequence[int]) -> Linear:
    """The sum of each form times its weight: an offset from indices and strides."""
    const = step = 0
    terms: dict[str, int] = {}
    for form, weight in zip(forms, weights, strict=True):
        const += weight * form.const
        step += weight * form.step
        for name, coefficient in form.terms.items():
            total = terms.get(name, 0) + weight * coefficient
            if total:
                terms[name] = total
            else:
                terms.pop(name, None)
    return Linear(const, terms, step)


class Facts(dict[str, Fact]):
    """What is known of the values of a function, by name."""

    def bounds(self, form: Linear, lanes: int) -> tuple[int, int]:
        """Inclusive bounds of the form over all lanes, as if nothing wrapped."""
        low = high = form.const
        steps: Iterable[tuple[int, Fact]] = ((c, self[name]) for name, c in form.terms.items())
        for coefficient, fact in (*steps, (form.step, Fact(0, 0, lanes - 1))):
            ends = coefficient * fact.low, coefficient * fact.high
            low += min(ends)
            high += max(ends)
        return low, high

    def safe(self, form: Linear, lanes: int) -> bool:
        """Whether the form can be computed, in any order, without wrapping around."""
        size = abs(form.const) + abs(form.step) * (lanes - 1)
        for name, coefficient in form.terms.items():
            fact = self[name]
            size += abs(coefficient) * max(-fact.low, fact.high)
        return size < _SAFE

    def multiple(self, form: Linear) -> int:
        """A number that divides the form in lane 0; 0 if the form is 0."""
        return gcd(form.const, *(c * self[name].multiple for name, c in form.terms.items()))

    def ordered(self, form: Linear) -> list[tuple[str, int]]:
        """The terms, those of outer loops first."""
        if len(form.terms) < 2:
            return list(form.terms.items())
        return sorted(form.terms.items(), key=lambda term: self[term[0]].depth)

    def divide(self, form: Linear, by: int, lanes: int) -> tuple[Linear, Linear, int]:
        """Splits a safe form for division by a positive number: (quotient, rest, step).

        form // by = quotient + rest // by, form % by = rest % by + step · lane: what divides has
        gone into the quotient. A rest with a step of its own differs from lane to lane; otherwise
        the lanes stay within one multiple of `by`, and share its quotient.
        """
        whole: dict[str, int] = {}
        rest: dict[str, int] = {}
        for name, coefficient in form.terms.items():
            if coefficient % by == 0:
                whole[name] = coefficient // by
            else:
                rest[name] = coefficient
        quotient, remainder = divmod(form.const, by)
        step = form.step
        if step % by == 0:
            return Linear(quotient, whole, step // by), Linear(remainder, rest), 0
        left = Linear(remainder, rest)
        # The rest is a multiple of `block`, up to `offset`, and so is `by`.
        block = gcd(by, *(c * self[name].multiple for name, c in rest.items()))
        offset = remainder % block
        reach = step * (lanes - 1)
        if offset + min(reach, 0) >= 0 and offset + max(reach, 0) < block:
            return Linear(quotient, whole), left, step
        return Linear(quotient, whole), Linear(remainder, rest, step), 0
