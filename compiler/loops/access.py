"""Every access of a kernel to a buffer: where it is, under which loops, at which index.

Bounds, independence of iterations, sharing of memory and footprints are all questions about these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from ..errors import CompileError
from .affine import ZERO, Algebra, Form
from .evaluate import Evaluator
from .facts import Facts
from .ir import (
    INDEX,
    Accumulate,
    Alloc,
    Block,
    Buffer,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    ReduceOp,
    Space,
    Stmt,
    Store,
    Var,
    expressions,
    walk,
    walk_shared,
)


class AccessKind(Enum):
    """What an access does to its element."""

    LOAD = "load"
    STORE = "store"
    ACCUMULATE = "accumulate"


@dataclass(frozen=True, eq=False, slots=True)
class Loop:
    """A loop around an access.

    Arguments:
        stmt: the loop.
        atom: its variable; None if it has but one iteration.
    """

    stmt: For
    atom: int | None


@dataclass(frozen=True, eq=False, slots=True)
class Access:
    """A place in a kernel where an element of a buffer is read or written.

    Arguments:
        index: as written, for people.
        forms: the index.
        loops: around it, outermost first.
        path: position in the kernel: that of the statement in its block, behind that of the block.
        facts: what the conditions around it say.
        guarded: whether there is a condition around it.
        home: how many of the loops are around the allocation of the buffer.
        op: of an accumulation.
    """

    kind: AccessKind
    buffer: Buffer
    index: tuple[Expr, ...]
    forms: tuple[Form, ...]
    loops: tuple[Loop, ...]
    path: tuple[int, ...]
    facts: Facts
    guarded: bool
    home: int
    op: ReduceOp | None = None

    @property
    def writes(self) -> bool:
        return self.kind is not AccessKind.LOAD


@dataclass(frozen=True)
class Accesses:
    """All accesses of a kernel in the order of the text.

    Arguments:
        algebra: the atoms of their forms.
    """

    kernel: Kernel
    algebra: Algebra
    accesses: tuple[Access, ...]
    _linear: dict[Access, Form] = field(default_factory=dict, repr=False, compare=False)

    def __iter__(self) -> Iterator[Access]:
        return iter(self.accesses)

    def linear(self, access: Access) -> Form:
        """The row-major number of the element."""
        found = self._linear.get(access)
        if found is None:
            found = ZERO
            for form, extent in zip(access.forms, access.buffer.shape, strict=True):
                found = found.times(extent).plus(form)
            found = self._linear[access] = self.algebra.joined(found)
        return found


def written_names(kernel: Kernel) -> frozenset[str]:
    """Names of the buffers that a kernel stores to."""
    stores = (s for s in walk(kernel.body) if isinstance(s, Store | Accumulate))
    return frozenset(s.buffer.name for s in stores)


def collect(kernel: Kernel) -> Accesses:
    """All accesses of a kernel that can be reached.

    Raises:
        CompileError: a variable without value, a buffer that does not exist, an index that does not
            fit its buffer's rank or is not int64, a negative extent.
    """
    collector = _Collector(kernel)
    for buffer in kernel.buffers:
        collector.declare(buffer, 0)
    collector.block(kernel.body, _Place((), (), collector.evaluator.facts))
    return Accesses(kernel, collector.evaluator.algebra, tuple(collector.found))


class _Place(NamedTuple):
    """Where a statement stands."""

    path: tuple[int, ...]
    loops: tuple[Loop, ...]
    facts: Facts
    guarded: bool = False

    def at(self, number: int) -> _Place:
        return self._replace(path=(*self.path, number))


class _Collector:
    """Walks a kernel with the values of its variables."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.evaluator = Evaluator(written_names(kernel))
        self.buffers: dict[str, tuple[Buffer, int]] = {}
        self.found: list[Access] = []

    def fail(self, what: str) -> CompileError:
        return CompileError(f"kernel {self.kernel.name}: {what}")

    def declare(self, buffer: Buffer, home: int) -> None:
        if any(extent < 0 for extent in buffer.shape):
            raise self.fail(f"buffer {buffer.name} has a negative extent in shape {buffer.shape}")
        self.buffers[buffer.name] = buffer, home

    def block(self, block: Block, place: _Place) -> None:
        variables, buffers = dict(self.evaluator.variables), dict(self.buffers)
        for number, stmt in enumerate(block):
            self.statement(stmt, place.at(number))
        self.evaluator.variables, self.buffers = variables, buffers

    def statement(self, stmt: Stmt, place: _Place) -> None:
        self.evaluator.next_statement()
        self.loads(expressions(stmt), place)
        if isinstance(stmt, Let):
            self.evaluator.bind(stmt.var, self.evaluator.value(stmt.value))
        elif isinstance(stmt, Alloc):
            if stmt.buffer.space not in (Space.STACK, Space.REGISTER):
                space = stmt.buffer.space.value
                raise self.fail(f"buffer {stmt.buffer.name} is allocated, but its space is {space}")
            self.declare(stmt.buffer, len(place.loops))
        elif isinstance(stmt, Store):
            self.add(AccessKind.STORE, stmt.buffer, stmt.index, place)
        elif isinstance(stmt, Accumulate):
            self.add(AccessKind.ACCUMULATE, stmt.buffer, stmt.index, place, stmt.op)
        elif isinstance(stmt, For):
            self.loop(stmt, place)
        elif isinstance(stmt, If):
            self.branch(stmt, place)

    def loop(self, stmt: For, place: _Place) -> None:
        if stmt.extent <= 0:
            return
        outer = dict(self.evaluator.variables)
        form = self.evaluator.algebra.root(0, stmt.extent - 1) if stmt.extent > 1 else ZERO
        self.evaluator.bind(stmt.var, form)
        loop = Loop(stmt, form.terms[0][0] if form.terms else None)
        self.block(stmt.body, place._replace(loops=(*place.loops, loop)))
        self.evaluator.variables = outer

    def branch(self, stmt: If, place: _Place) -> None:
        cases = self.evaluator.truth(stmt.condition)
        for number, (case, block) in enumerate(zip(cases, (stmt.body, stmt.orelse), strict=True)):
            facts = place.facts.assume(case)
            if block and not facts.impossible:
                self.block(block, place.at(number)._replace(facts=facts, guarded=True))

    def loads(self, roots: tuple[Expr, ...], place: _Place) -> None:
        """The loads of a statement's expressions; a shared expression is looked at once."""
        found: list[Load] = []
        for expr in walk_shared(roots):
            if isinstance(expr, Load):
                found.append(expr)
            elif isinstance(expr, Var) and expr.name not in self.evaluator.variables:
                raise self.fail(f"variable {expr.name} is used where it has no value")
        for load in reversed(found):
            self.add(AccessKind.LOAD, load.buffer, load.index, place)

    def add(
        self,
        kind: AccessKind,
        buffer: Buffer,
        index: tuple[Expr, ...],
        place: _Place,
        op: ReduceOp | None = None,
    ) -> None:
        known, home = self.buffers.get(buffer.name, (None, 0))
        if known is None:
            raise self.fail(f"buffer {buffer.name} is neither an argument nor allocated here")
        if known is not buffer and known != buffer:
            raise self.fail(f"buffer {buffer.name} is used as {buffer}, but it is {known}")
        if len(index) != len(buffer.shape):
            shape = buffer.shape
            raise self.fail(f"buffer {buffer.name} of shape {shape} has {len(index)} indices")
        for i in index:
            if i.dtype is not INDEX:
                raise self.fail(f"an index of buffer {buffer.name} is {i.dtype}, not {INDEX}")
        forms = tuple([self.evaluator.exact(i) for i in index])
        path, loops, facts, guarded = place
        self.found.append(Access(kind, buffer, index, forms, loops, path, facts, guarded, home, op))
