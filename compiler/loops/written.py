"""Which buffers a kernel reads and writes, and whether it writes all of one."""

from __future__ import annotations

from .access import Access, Accesses, AccessKind, collect
from .affine import Interval
from .ir import Buffer, Kernel


def reads(kernel: Kernel, accesses: Accesses | None = None) -> frozenset[Buffer]:
    """Parameters and scratch that are loaded from, or accumulated into.

    Arguments:
        accesses: `collect(kernel)`, for callers who have it already.
    """
    names = {a.buffer.name for a in accesses or collect(kernel) if a.kind is not AccessKind.STORE}
    return frozenset(b for b in kernel.buffers if b.name in names)


def writes(kernel: Kernel, accesses: Accesses | None = None) -> frozenset[Buffer]:
    """Parameters and scratch that are stored to, or accumulated into."""
    names = {a.buffer.name for a in accesses or collect(kernel) if a.writes}
    return frozenset(b for b in kernel.buffers if b.name in names)


def covers(kernel: Kernel, buffer: Buffer, accesses: Accesses | None = None) -> bool:
    """Whether every element of a buffer is certain to be stored to.

    Proved for stores outside of conditions whose row-major index is linear in the loop variables
    and steps through an interval without gaps, such as `64*c + v` for v < 64. When unsure, False.
    """
    found = accesses or collect(kernel)
    stores = (a for a in found if a.kind is AccessKind.STORE and a.buffer.name == buffer.name)
    intervals = [i for i in (_interval(found, a) for a in stores) if i is not None]
    end = 0
    for low, high in sorted(intervals):
        if low > end:
            return False
        end = max(end, high + 1)
    return end >= buffer.size


def _interval(accesses: Accesses, store: Access) -> Interval | None:
    """The row-major numbers a store writes, if it writes all of them."""
    if store.guarded:
        return None
    form = accesses.linear(store)
    loops = {loop.atom for loop in store.loops}
    reach = 0
    for atom, step in sorted(form.terms, key=lambda term: abs(term[1])):
        if atom not in loops or abs(step) > reach + 1:
            return None
        reach += abs(step) * accesses.algebra.atoms[atom].high
    return accesses.algebra.box(form)
