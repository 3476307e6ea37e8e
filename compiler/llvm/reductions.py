"""Reductions of a vector loop: partial results in registers, one a lane, combined behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..loops.ir import (
    Accumulate,
    Alloc,
    Binary,
    BinaryOp,
    Block,
    Buffer,
    Call,
    Expr,
    For,
    Function,
    Let,
    Load,
    ReduceOp,
    Space,
    Store,
    Var,
    expressions,
    nested,
    walk,
)
from .phases import distinct

# Accumulators of a whole buffer are kept up to this many bytes.
_WHOLE_BYTES = 8192
# Chunks side by side hide the latency of additions (4 cycles, two a cycle) where a chunk is no
# more work than this many operations.
_INTERLEAVED = 4
_SIMPLE_SIZE = 24
# Bytes of a cache line.
_LINE = 64
_CHEAP = frozenset({Function.NEG, Function.ABS, Function.NOT, Function.ISNAN, Function.SQRT})


@dataclass(frozen=True)
class Reduction:
    """What a vector loop accumulates into a place that all lanes share.

    Arguments:
        buffer: holds the result.
        index: the place, the same throughout the loop; None: places in all of the buffer.
        op: how values are combined.
    """

    buffer: Buffer
    index: tuple[Expr, ...] | None
    op: ReduceOp

    @property
    def accumulators(self) -> int:
        """Number of places that are accumulated into."""
        return 1 if self.index is not None else self.buffer.size


@dataclass(frozen=True)
class _Names:
    """Names inside a vector loop: those that differ between lanes, all that are bound, and the
    buffers of which each lane has a copy.
    """

    varying: frozenset[str]
    bound: frozenset[str]
    private: frozenset[str]

    def vary(self, expr: Expr) -> bool:
        return any(
            e.name in self.varying if isinstance(e, Var)
            else isinstance(e, Load) and e.buffer.name in self.private
            for e in distinct(expr)
        )  # fmt: skip

    def fixed(self, expr: Expr) -> bool:
        """Whether the value is known before the loop."""
        return not any(
            isinstance(e, Load) or (isinstance(e, Var) and e.name in self.bound)
            for e in distinct(expr)
        )


@dataclass(frozen=True)
class VectorPlan:
    """What is to know of a vector loop before it is emitted.

    Arguments:
        reductions: what has accumulators of its own, one a lane.
        interleaved: how many chunks are best in flight at once, each with its accumulators.
        written_out: whether the loop moves through register buffers from outside, so that its
            chunks' places in them must be known.
        element_bytes: of the largest elements that are written.
    """

    reductions: tuple[Reduction, ...]
    interleaved: int
    written_out: bool
    element_bytes: int

    @staticmethod
    def of(loop: For) -> VectorPlan:
        reductions = _find_reductions(loop)
        written = [s.buffer for s in walk(loop.body) if isinstance(s, Store | Accumulate)]
        return VectorPlan(
            reductions,
            _interleaving(loop, reductions),
            _moves_in_registers(loop),
            max((buffer.dtype.size for buffer in written), default=1),
        )


def _names(loop: For) -> _Names:
    return _Names(frozenset({loop.var.name}), frozenset({loop.var.name}), frozenset())


def _accesses(block: Block, names: _Names) -> Iterator[tuple[Store | Accumulate, _Names]]:
    """The statements that write, with the names where they stand."""
    for stmt in block:
        match stmt:
            case Store() | Accumulate():
                yield stmt, names
            case Let(var, value):
                varying = names.varying | {var.name} if names.vary(value) else names.varying
                names = _Names(varying, names.bound | {var.name}, names.private)
            case Alloc(buffer):
                names = _Names(names.varying, names.bound, names.private | {buffer.name})
            case For(var, _, body):
                yield from _accesses(
                    body, _Names(names.varying, names.bound | {var.name}, names.private)
                )
            case _:
                yield from _accesses(nested(stmt), names)


def _find_reductions(loop: For) -> tuple[Reduction, ...]:
    """The reductions of a vector loop that are worth accumulators of their own."""
    found: dict[Reduction, None] = {}
    for stmt, names in _accesses(loop.body, _names(loop)):
        if not isinstance(stmt, Accumulate) or stmt.buffer.name in names.private:
            continue
        if any(map(names.vary, stmt.index)):
            continue
        if all(map(names.fixed, stmt.index)):
            found[Reduction(stmt.buffer, stmt.index, stmt.op)] = None
        elif stmt.buffer.gaps is None and stmt.buffer.nbytes * loop.lanes <= _WHOLE_BYTES:
            found[Reduction(stmt.buffer, None, stmt.op)] = None
    return tuple(found)


def _interleaving(loop: For, reductions: tuple[Reduction, ...]) -> int:
    """How many chunks of a vector loop are best in flight at once.

    What is streamed goes to memory in whole lines, so a line is written at once.
    """
    if not reductions:
        streamed = [s.buffer for s in loop.body if isinstance(s, Store) and s.streaming]
        return max((_LINE // (loop.lanes * b.dtype.size) for b in streamed), default=1) or 1
    size = 0
    for stmt in loop.body:
        if not isinstance(stmt, Let | Store | Accumulate):
            return 1
        for root in expressions(stmt):
            for expr in distinct(root):
                size += 1
                if isinstance(expr, Call) and expr.function not in _CHEAP:
                    return 1
                if isinstance(expr, Binary) and expr.op is BinaryOp.POW:
                    return 1
    return _INTERLEAVED if size <= _SIMPLE_SIZE else 1


def _moves_in_registers(loop: For) -> bool:
    """Whether register buffers from outside are indexed by the loop's variable."""
    outside = _names(loop)
    for stmt in walk(loop.body):
        if isinstance(stmt, Store | Accumulate) and stmt.buffer.space is Space.REGISTER:
            if any(map(outside.vary, stmt.index)):
                return True
        for root in expressions(stmt):
            for expr in distinct(root):
                if isinstance(expr, Load) and expr.buffer.space is Space.REGISTER:
                    if any(map(outside.vary, expr.index)):
                        return True
    return False
