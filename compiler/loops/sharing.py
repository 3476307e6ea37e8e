"""Which output of a kernel may take the place of which input in memory."""

from __future__ import annotations

from collections import defaultdict

from .access import Access, Accesses, collect
from .independence import agreeing, common_loops
from .ir import Buffer, For, Kernel, LoopKind, Stmt


def shareable(kernel: Kernel, accesses: Accesses | None = None) -> frozenset[tuple[Buffer, Buffer]]:
    """Pairs of an input and an output parameter that may be the same memory.

    They are contiguous, of one dtype and size; the input is only loaded from, and each of its
    elements is loaded before the output's element at the same row-major position is written: in the
    same iteration of all loops around both, but earlier. So `y[i] = f(x[i])` may be done in place,
    and a softmax whose rows are stored after all loads of the row. When unsure, a pair is left out.

    Of several pairs with an input or an output in common, one may be used; pairs that have neither
    in common may all be used. If the kernel is given the same memory for two inputs, both must be
    shareable with the output that takes its place.

    Arguments:
        accesses: `collect(kernel)`, for callers who have it already.
    """
    found = accesses or collect(kernel)
    uses: defaultdict[str, list[Access]] = defaultdict(list)
    for access in found:
        uses[access.buffer.name].append(access)
    inputs = [b for b in kernel.parameters if not any(a.writes for a in uses[b.name])]
    outputs = [b for b in kernel.parameters if any(a.writes for a in uses[b.name])]
    phases = any(_is_phase(stmt) for stmt in kernel.body)
    return frozenset(
        (x, y)
        for x in inputs
        for y in outputs
        if x.dtype is y.dtype
        and x.size == y.size
        and x.gaps is y.gaps is None
        and all(
            _is_before(found, load, store, phases)
            for load in uses[x.name]
            for store in uses[y.name]
            if store.writes
        )
    )


def _is_phase(stmt: Stmt) -> bool:
    return isinstance(stmt, For) and stmt.kind is LoopKind.PARALLEL


def _is_before(accesses: Accesses, load: Access, store: Access, phases: bool) -> bool:
    """Whether a load never comes after a store to the same place, were they in one memory.

    `phases` tells whether the kernel has parallel loops.
    """
    agreed = agreeing(accesses, load, store)
    if agreed is None:
        return True
    if phases and not load.loops:
        # What is named outside of all loops is loaded again in every phase that uses it.
        return False
    # Paths agree as far as the innermost common loop; then they tell which comes first in its body.
    # Of a statement itself the loads come first.
    wanted = {loop.atom for loop in common_loops(load, store) if loop.atom is not None}
    return load.path <= store.path and wanted <= agreed
