"""The functions a kernel becomes: its outermost parallel loops, and what stands between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

from ..errors import CompileError
from ..loops.canonical import canonical_key
from ..loops.ir import (
    Accumulate,
    Alloc,
    Block,
    Buffer,
    Expr,
    For,
    Kernel,
    Let,
    Load,
    LoopKind,
    Prefetch,
    Stmt,
    Store,
    Var,
    children,
    expressions,
    nested,
    walk,
)


@dataclass(frozen=True)
class Phase:
    """One function `void symbol(ptr args, i64 begin, i64 end)` of a kernel.

    Arguments:
        symbol: its name.
        extent: number of iterations; a call does those from `begin` to `end`.
        parallel: whether iterations may be shared out among threads. Else extent is 1.
    """

    symbol: str
    extent: int
    parallel: bool


@dataclass(frozen=True)
class Uses:
    """Buffers that are read and written, by name."""

    reads: Mapping[str, Buffer]
    writes: Mapping[str, Buffer]


@dataclass(frozen=True)
class PhaseBody:
    """What a phase runs.

    Arguments:
        loops: (variable, extent) of the nested parallel loops that are run as one; () if serial.
        lets: top-level names that the body uses.
        body: inside the loops.
    """

    loops: tuple[tuple[Var, int], ...]
    lets: tuple[Let, ...]
    body: Block

    @property
    def extent(self) -> int:
        return prod(extent for _, extent in self.loops)

    @property
    def parallel(self) -> bool:
        return bool(self.loops)

    @cached_property
    def streamed(self) -> frozenset[str]:
        """The buffers that it had better write past the caches."""
        stores = (s for s in walk(self.body) if isinstance(s, Store) and s.streaming)
        return frozenset(store.buffer.name for store in stores)

    @cached_property
    def uses(self) -> Uses:
        """The buffers that it reads and writes."""
        reads: dict[str, Buffer] = {}
        writes: dict[str, Buffer] = {}
        for stmt in walk((*self.lets, *self.body)):
            if isinstance(stmt, Store | Accumulate):
                writes[stmt.buffer.name] = stmt.buffer
            if isinstance(stmt, Prefetch):
                reads[stmt.buffer.name] = stmt.buffer
            for root in expressions(stmt):
                for expr in distinct(root):
                    if isinstance(expr, Load):
                        reads[expr.buffer.name] = expr.buffer
        return Uses(reads, writes)


def symbol_of(kernel: Kernel) -> str:
    """What the functions' names start with: equal for kernels that do the same."""
    return f"k{canonical_key(kernel)[:16]}"


def phases_of(
    kernel: Kernel, symbol: str | None = None, bodies: tuple[PhaseBody, ...] | None = None
) -> tuple[Phase, ...]:
    """The phases of a kernel in the order in which they run, without compiling it.

    `symbol` is `symbol_of(kernel)` and `bodies` is `split(kernel)`, for callers who have them.
    """
    symbol = symbol or symbol_of(kernel)
    return tuple(
        Phase(f"{symbol}.{number}", body.extent, body.parallel)
        for number, body in enumerate(split(kernel) if bodies is None else bodies)
    )


def split(kernel: Kernel) -> tuple[PhaseBody, ...]:
    """The bodies of the phases; those that do nothing are left out.

    Raises:
        CompileError: something at the kernel's top level is used in a phase it cannot reach.
    """
    bodies: list[PhaseBody] = []
    lets: list[Let] = []
    serial: list[Stmt] = []

    def finish() -> None:
        if any(_acts(stmt) for stmt in serial):
            inside = {id(stmt) for stmt in serial}
            before = [let for let in lets if id(let) not in inside]
            bodies.append(PhaseBody((), _needed(before, tuple(serial)), tuple(serial)))
        serial.clear()

    for stmt in kernel.body:
        if isinstance(stmt, For) and stmt.kind is LoopKind.PARALLEL:
            finish()
            loops, body = _collapse(stmt)
            if prod(extent for _, extent in loops) and any(_acts(s) for s in body):
                bodies.append(PhaseBody(loops, _needed(lets, body), body))
            continue
        serial.append(stmt)
        if isinstance(stmt, Let):
            lets.append(stmt)
    finish()
    _check(kernel, bodies)
    return tuple(bodies)


def _collapse(loop: For) -> tuple[tuple[tuple[Var, int], ...], Block]:
    """The variables of perfectly nested parallel loops, and the innermost body."""
    loops = [(loop.var, loop.extent)]
    body = loop.body
    while len(body) == 1 and isinstance(body[0], For) and body[0].kind is LoopKind.PARALLEL:
        loops.append((body[0].var, body[0].extent))
        body = body[0].body
    return tuple(loops), body


def _acts(stmt: Stmt) -> bool:
    """Whether a statement can have an effect."""
    if isinstance(stmt, For):
        return stmt.extent > 0 and any(_acts(s) for s in stmt.body)
    return not isinstance(stmt, Let | Alloc) and (not nested(stmt) or any(map(_acts, nested(stmt))))


def distinct(expr: Expr) -> Iterator[Expr]:
    """An expression and everything below it; an object that occurs several times comes once."""
    seen, waiting = {id(expr)}, [expr]
    while waiting:
        expr = waiting.pop()
        yield expr
        for child in children(expr):
            if id(child) not in seen:
                seen.add(id(child))
                waiting.append(child)


def _needed(lets: list[Let], body: Block) -> tuple[Let, ...]:
    """Those of `lets` whose names the body uses, directly or through others."""
    if not lets:
        return ()
    names = {e.name for root in _roots(body) for e in distinct(root) if isinstance(e, Var)}
    chosen = []
    for let in reversed(lets):
        if let.var.name in names:
            chosen.append(let)
            names.update(e.name for e in distinct(let.value) if isinstance(e, Var))
    return tuple(reversed(chosen))


def _roots(body: Block) -> Iterator[Expr]:
    for stmt in walk(body):
        yield from expressions(stmt)


def _check(kernel: Kernel, bodies: list[PhaseBody]) -> None:
    """Each phase is a function of its own: locals do not reach from one into the next."""
    given = {buffer.name for buffer in kernel.buffers}
    written = {name for phase in bodies for name in phase.uses.writes}
    for number, phase in enumerate(bodies):
        here = {stmt.buffer.name for stmt in walk(phase.body) if isinstance(stmt, Alloc)}
        for name in phase.uses.reads.keys() | phase.uses.writes.keys():
            if name not in given and name not in here:
                raise CompileError(
                    f"kernel {kernel.name}: phase {number} uses buffer {name}, which is neither an "
                    "argument nor allocated in it; make it scratch"
                )
        for let in phase.lets:
            for expr in distinct(let.value):
                if isinstance(expr, Load) and expr.buffer.name in written:
                    raise CompileError(
                        f"kernel {kernel.name}: phase {number} uses {let.var.name}, which reads "
                        f"{expr.buffer.name} in an earlier phase; name it again in this one"
                    )
