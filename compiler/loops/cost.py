"""What a kernel computes and what it moves: the numbers that a roofline compares."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import NamedTuple

from .access import Access, Accesses, AccessKind, collect
from .affine import Form
from .ir import (
    Accumulate,
    Binary,
    Block,
    Call,
    Expr,
    For,
    Function,
    If,
    Kernel,
    Load,
    Space,
    Stmt,
    Store,
    expressions,
    walk_shared,
)

# Functions that take but one instruction or so. The others are calls: ten to a hundred.
_CHEAP = frozenset(
    {
        Function.NEG,
        Function.ABS,
        Function.SIGN,
        Function.NOT,
        Function.SQRT,
        Function.FLOOR,
        Function.CEIL,
        Function.ROUND,
        Function.ISNAN,
    }
)


@dataclass(frozen=True)
class Cost:
    """What one run of a kernel does.

    Arguments:
        flops: float operations: arithmetic, minima, comparisons, cheap functions; an accumulation
            is one, so a multiply-add is two. Index arithmetic, casts and selections are none.
        calls: exp, log, pow and other functions that take many operations; not among the flops.
        loads: elements read from parameters, scratch and stack, as often as they are read.
        stores: elements written to them, as often as they are written.
        read: bytes of each parameter that are read, every byte once: what comes from memory when
            nothing is cached. At most the size of the parameter.
        written: bytes of each parameter that are written, every byte once.
    """

    flops: int
    calls: int
    loads: int
    stores: int
    read: Mapping[str, int] = field(default_factory=dict)
    written: Mapping[str, int] = field(default_factory=dict)

    @property
    def bytes_read(self) -> int:
        """Bytes of all parameters that are read, once each; scratch does not count."""
        return sum(self.read.values())

    @property
    def bytes_written(self) -> int:
        """Bytes of all parameters that are written, once each; scratch does not count."""
        return sum(self.written.values())

    @property
    def intensity(self) -> float:
        """Flops for each byte moved."""
        moved = self.bytes_read + self.bytes_written
        return self.flops / moved if moved else math.inf


def cost(kernel: Kernel, accesses: Accesses | None = None) -> Cost:
    """Counts what a kernel does. Of the branches of an If the more costly one counts, each time.

    Arguments:
        accesses: `collect(kernel)`, for callers who have it already.
    """
    total = _block(kernel.body)
    found = accesses or collect(kernel)
    loads: defaultdict[str, list[Access]] = defaultdict(list)
    stores: defaultdict[str, list[Access]] = defaultdict(list)
    for access in found:
        if access.kind is not AccessKind.STORE:
            loads[access.buffer.name].append(access)
        if access.writes:
            stores[access.buffer.name].append(access)
    read = {b.name: _footprint(found, loads[b.name]) for b in kernel.parameters if b.name in loads}
    written = {
        b.name: _footprint(found, stores[b.name]) for b in kernel.parameters if b.name in stores
    }
    return Cost(total.flops, total.calls, total.loads, total.stores, read, written)


# -- what is executed -----------------------------------------------------------------------------


class _Count(NamedTuple):
    flops: int = 0
    calls: int = 0
    loads: int = 0
    stores: int = 0

    def plus(self, other: _Count) -> _Count:
        return _Count(
            self.flops + other.flops,
            self.calls + other.calls,
            self.loads + other.loads,
            self.stores + other.stores,
        )

    def times(self, n: int) -> _Count:
        return _Count(n * self.flops, n * self.calls, n * self.loads, n * self.stores)

    @property
    def work(self) -> int:
        return self.flops + 20 * self.calls + self.loads + self.stores


def _block(block: Block) -> _Count:
    return reduce(_Count.plus, map(_statement, block), _Count())


def _statement(stmt: Stmt) -> _Count:
    own = _expressions(expressions(stmt))
    if isinstance(stmt, For):
        return own.plus(_block(stmt.body).times(max(stmt.extent, 0)))
    if isinstance(stmt, If):
        sides = _block(stmt.body), _block(stmt.orelse)
        return own.plus(max(sides, key=lambda count: count.work))
    if isinstance(stmt, Store | Accumulate) and stmt.buffer.space is not Space.REGISTER:
        own = own.plus(_Count(stores=1, loads=isinstance(stmt, Accumulate)))
    if isinstance(stmt, Accumulate) and stmt.buffer.dtype.is_float:
        own = own.plus(_Count(flops=1))
    return own


def _expressions(roots: tuple[Expr, ...]) -> _Count:
    """What a statement's expressions take; a shared expression is computed once."""
    flops = calls = loads = 0
    for expr in walk_shared(roots):
        if isinstance(expr, Load):
            loads += expr.buffer.space is not Space.REGISTER
        elif isinstance(expr, Binary) and expr.a.dtype.is_float:
            is_call = expr.op.value == "**"
            calls += is_call
            flops += not is_call
        elif isinstance(expr, Call) and expr.argument.dtype.is_float:
            calls += expr.function not in _CHEAP
            flops += expr.function in _CHEAP
    return _Count(flops, calls, loads)


# -- what is touched ------------------------------------------------------------------------------


def _footprint(accesses: Accesses, group: list[Access]) -> int:
    """Bytes of a buffer that a group of accesses touches; exact for a single affine access."""
    buffer = group[0].buffer
    different = {access.forms: access for access in group}.values()
    one_by_one = sum(_elements(accesses, access) for access in different)
    around = math.prod(
        _width([access.facts.interval(access.forms[axis]) for access in different])
        for axis in range(len(buffer.shape))
    )
    return min(one_by_one, around, buffer.size) * buffer.dtype.size


def _width(intervals: list[tuple[int, int]]) -> int:
    return max(high for _, high in intervals) - min(low for low, _ in intervals) + 1


def _elements(accesses: Accesses, access: Access) -> int:
    """The most elements that one access can touch: by axis, and by the loops it depends on."""
    by_axis = math.prod(
        min(_width([access.facts.interval(form)]), _combinations(accesses, (form,)))
        for form in access.forms
    )
    return min(by_axis, _combinations(accesses, access.forms))


def _combinations(accesses: Accesses, forms: tuple[Form, ...]) -> int:
    """How many values the variables that forms depend on have together."""
    roots = frozenset[int]().union(*(accesses.algebra.roots(form) for form in forms))
    atoms = (accesses.algebra.atoms[root] for root in roots)
    return math.prod(atom.high - atom.low + 1 for atom in atoms)
