"""Kernels as Python functions over flat NumPy arrays: the interpreter's engine.

Each expression becomes an assignment (`python_expressions.py`). In a loop that runs all at once,
what differs between iterations is an array of one element an iteration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .access import Accesses
from .independence import doubts
from .ir import (
    Accumulate,
    Alloc,
    BinaryOp,
    Block,
    For,
    If,
    Kernel,
    Let,
    LoopKind,
    Prefetch,
    ReduceOp,
    Stmt,
    Store,
    walk,
)
from .python_expressions import Expressions, PythonValue, Slot


class VaryingConditionError(Exception):
    """Iterations of a loop cannot run at once: they do different things."""


def translate(kernel: Kernel, accesses: Accesses) -> tuple[str, dict[str, Any]]:
    """The source of a function `kernel` of one flat array for each buffer, and its constants.

    Raises:
        CompileError: an expression or store mixes dtypes, or an operation has none such.
    """
    doubtful = {id(doubt.loop) for doubt in doubts(accesses)}
    translator = _Translator(kernel, doubtful)
    names = []
    for number, buffer in enumerate(kernel.buffers):
        names.append(f"p{number}")
        translator.buffers[buffer.name] = Slot(names[-1], False)
    translator.emit(f"def kernel({', '.join(names)}):")
    translator.block(kernel.body)
    return "\n".join(translator.lines), translator.constants


_REDUCE: dict[ReduceOp, tuple[BinaryOp, str]] = {
    ReduceOp.ADD: (BinaryOp.ADD, "np.add"),
    ReduceOp.MUL: (BinaryOp.MUL, "np.multiply"),
    ReduceOp.MIN: (BinaryOp.MIN, "np.minimum"),
    ReduceOp.MAX: (BinaryOp.MAX, "np.maximum"),
}


class _Translator(Expressions):
    """
    Attributes:
        doubtful: ids of loops whose iterations may depend on each other.
        chunked: whether the iterations that run at once are those of one vector.
    """

    def __init__(self, kernel: Kernel, doubtful: set[int]) -> None:
        super().__init__(kernel)
        self.doubtful = doubtful
        self.chunked = False

    def block(self, block: Block) -> None:
        buffers, variables = dict(self.buffers), dict(self.variables)
        with self.indented():
            self.emit("pass")
            for stmt in block:
                self.computed.clear()
                _STATEMENTS[type(stmt)](self, stmt)
        self.buffers, self.variables = buffers, variables

    def loop(self, stmt: For) -> None:
        if stmt.extent <= 0:
            return
        if not self._at_once(stmt):
            self._one_by_one(stmt)
            return
        lines, depth = len(self.lines), self.depth
        buffers, variables = dict(self.buffers), dict(self.variables)
        for chunked in (False, True) if stmt.kind is LoopKind.VECTOR else (False,):
            try:
                self._all_at_once(stmt, chunked)
                return
            except VaryingConditionError:
                del self.lines[lines:]
                self.depth, self.lane, self.chunked = depth, None, False
                self.buffers, self.variables = dict(buffers), dict(variables)
        self._one_by_one(stmt)

    def _at_once(self, stmt: For) -> bool:
        """Whether a loop's iterations run at once: they are independent, and most of the nest.

        Around conditions the innermost loop is the one, so that lanes are seen to agree.
        """
        if self.lane or stmt.extent == 1 or not self._independent(stmt):
            return False
        body = list(walk(stmt.body))
        inner = [s.extent for s in body if isinstance(s, For) and self._independent(s)]
        guarded = any(isinstance(s, If) for s in body)
        return max(inner, default=1) <= (1 if guarded else stmt.extent)

    def _independent(self, stmt: For) -> bool:
        return stmt.kind not in _PLAIN and id(stmt) not in self.doubtful

    def _all_at_once(self, stmt: For, chunked: bool) -> None:
        buffers, variables = dict(self.buffers), dict(self.variables)
        self.lane, var = self.fresh("lane"), self.fresh("v")
        self.chunked = chunked
        if chunked:
            self.emit(f"for base in range(0, {stmt.extent}, {stmt.lanes}):")
            self.depth += 1
            self.emit(f"{self.lane} = np.arange(min({stmt.lanes}, {stmt.extent} - base))")
            self.emit(f"{var} = base + {self.lane}")
        else:
            self.emit(f"{self.lane} = {var} = np.arange({stmt.extent})")
        self.variables[stmt.var.name] = PythonValue(var, True, 0, stmt.extent - 1)
        self.emit("if True:")
        self.block(stmt.body)
        self.depth -= chunked
        self.lane, self.chunked = None, False
        self.buffers, self.variables = buffers, variables

    def _one_by_one(self, stmt: For) -> None:
        buffers, variables = dict(self.buffers), dict(self.variables)
        names: list[str] = []
        ranges: list[str] = []
        body: Block = (stmt,)
        while len(body) == 1 and isinstance(body[0], For) and body[0].extent > 0:
            inner = body[0]
            if names and self._at_once(inner):
                break
            names.append(self.fresh("i"))
            ranges.append(f"range({inner.extent})")
            self.variables[inner.var.name] = PythonValue(names[-1], False, 0, inner.extent - 1)
            body = inner.body
        # Python nests no more than 20 loops: perfect nests are one.
        source = f"product({', '.join(ranges)})" if len(names) > 1 else ranges[0]
        self.emit(f"for {', '.join(names)} in {source}:")
        self.block(body)
        self.buffers, self.variables = buffers, variables

    def branch(self, stmt: If) -> None:
        condition = self.expr(stmt.condition)
        if condition.varying and not self.chunked:
            raise VaryingConditionError
        self.emit(f"if uniform({condition.text}):" if condition.varying else
                  f"if {condition.text}:")  # fmt: skip
        self.block(stmt.body)
        if stmt.orelse:
            self.emit("else:")
            self.block(stmt.orelse)

    def let(self, stmt: Let) -> None:
        self.variables[stmt.var.name] = self.expr(stmt.value)

    def alloc(self, stmt: Alloc) -> None:
        buffer, name = stmt.buffer, self.fresh("b")
        rows = f"len({self.lane})" if self.lane else "None"
        self.emit(f"{name} = poisoned({buffer.size}, {self.constant(buffer.dtype)}, {rows})")
        self.buffers[buffer.name] = Slot(name, self.lane is not None)

    def prefetch(self, stmt: Prefetch) -> None:
        """A hint changes nothing."""

    def store(self, stmt: Store) -> None:
        value = self.expr(stmt.value)
        place = self.place(stmt.buffer, stmt.index)
        self._check_stored(stmt)
        if self.lane and not place.varying:
            raise VaryingConditionError
        self.emit(f"{place} = {value.text}")

    def accumulate(self, stmt: Accumulate) -> None:
        value = self.expr(stmt.value)
        place = self.place(stmt.buffer, stmt.index)
        self._check_stored(stmt)
        op, ufunc = _REDUCE[stmt.op]
        if self.lane and not place.varying:
            self.emit(f"{place} = reduce({ufunc}, {place}, {value.text}, {self.lane})")
            return
        if self.lane and not self.buffers[stmt.buffer.name].private:
            # Places that are written differently may be the same: every lane counts.
            self.emit(f"{ufunc}.at({place.array}, {place.position}, {value.text})")
            return
        old = self.loaded(place, stmt.buffer)
        self.emit(f"{place} = {self.computed_binary(op, stmt.buffer.dtype, old, value).text}")

    def _check_stored(self, stmt: Store | Accumulate) -> None:
        if stmt.value.dtype is not stmt.buffer.dtype:
            name, dtype = stmt.buffer.name, stmt.buffer.dtype
            raise self.fail(f"a {stmt.value.dtype} is stored in buffer {name} of {dtype}")


_PLAIN = {LoopKind.SERIAL, LoopKind.UNROLLED}

_STATEMENTS: dict[type[Stmt], Callable[..., None]] = {
    For: _Translator.loop,
    If: _Translator.branch,
    Let: _Translator.let,
    Alloc: _Translator.alloc,
    Store: _Translator.store,
    Accumulate: _Translator.accumulate,
    Prefetch: _Translator.prefetch,
}
