"""Results that may go to memory past the caches: those that are written line after line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from .access import Access, Accesses, AccessKind
from .ir import Block, For, If, Kernel, LoopKind, Prefetch, Stmt, Store

# Bytes of a cache line. Of a run, at most a third is a line of which another run has the rest: the
# processor may send its halves to memory one by one.
_LINE = 64
_WHOLE_RUN, _RUN = 2 * _LINE, 3 * _LINE
# Processors collect few lines at a time: what is written beside is at most this part.
_BESIDE = 1 / 16


def swept(accesses: Accesses) -> int | None:
    """The number of the parameter that a kernel does nothing with but write all of it in runs.

    Vectors of a run follow on each other in memory as they do in time, and every run begins at half
    of a line if the buffer begins at one. None if there is none, or if the kernel writes as much
    elsewhere.
    """
    kernel = accesses.kernel
    written = [b for b in kernel.parameters if _is_written(accesses, b.name)]
    largest = max(written, key=lambda b: b.nbytes, default=None)
    if largest is None or largest.gaps is not None:
        return None
    if sum(b.nbytes for b in written) > (1 + _BESIDE) * largest.nbytes:
        return None
    uses = [a for a in accesses if a.buffer.name == largest.name]
    groups = [list(group) for _, group in groupby(uses, key=lambda a: a.path[:-1])]
    in_runs = all(_in_runs(accesses, group) for group in groups)
    return kernel.parameters.index(largest) if in_runs else None


def _is_written(accesses: Accesses, name: str) -> bool:
    return any(a.writes for a in accesses if a.buffer.name == name)


def _in_runs(accesses: Accesses, group: Sequence[Access]) -> bool:
    """Whether statements of one block write runs together."""
    if any(a.kind is not AccessKind.STORE or a.guarded for a in group):
        return False
    access, forms = group[0], [accesses.linear(a) for a in group]
    form, size = forms[0], access.buffer.dtype.size
    steps = dict(form.terms)
    loops = [loop for loop in access.loops if loop.atom is not None]
    vectors = [loop for loop in loops if loop.stmt.kind is LoopKind.VECTOR]
    if len(vectors) != 1 or not steps.keys() <= {loop.atom for loop in loops}:
        return False
    (vector,) = vectors
    place, lanes = loops.index(vector), min(vector.stmt.lanes, vector.stmt.extent)
    inside, around = loops[place + 1 :], loops[:place]
    if (inside or len(group) > 1) and vector.stmt.extent > lanes:
        return False  # chunk after chunk, each with the loops or statements inside
    if any(each != form.shifted(number * lanes) for number, each in enumerate(forms)):
        return False
    run = 1
    for loop in (vector, *reversed(inside), *reversed(around)):
        if steps.get(loop.atom or 0) != run or run % (lanes if run > 1 else 1):
            break
        run *= loop.stmt.extent
        if loop is vector:
            run *= len(group)
        del steps[loop.atom or 0]
    places = [n * size for n in (form.const, run, *steps.values())]
    if any(n % (_LINE // 2) for n in places):
        return False
    return run * size >= (_RUN if any(n % _LINE for n in places) else _WHOLE_RUN)


def streaming(kernel: Kernel, number: int) -> Kernel:
    """The kernel, with a parameter written past the caches."""
    name = kernel.parameters[number].name

    def block(stmts: Block) -> Block:
        return tuple(statement(stmt) for stmt in stmts if not asks(stmt))

    def asks(stmt: Stmt) -> bool:
        """Whether a statement would bring to a cache what is written past it."""
        return isinstance(stmt, Prefetch) and stmt.buffer.name == name

    def statement(stmt: Stmt) -> Stmt:
        match stmt:
            case Store(buffer) if buffer.name == name:
                return replace(stmt, streaming=True)
            case For():
                return replace(stmt, body=block(stmt.body))
            case If():
                return replace(stmt, body=block(stmt.body), orelse=block(stmt.orelse))
        return stmt

    return replace(kernel, body=block(kernel.body), note=f"{kernel.note}, streamed")
