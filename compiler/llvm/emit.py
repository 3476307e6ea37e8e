"""Loop kernels to LLVM IR text.

Each phase of a kernel is a function `void symbol(ptr args, i64 begin, i64 end)`: `args` points to
an array of the buffers' addresses, parameters first, then scratch; `begin` to `end` are the
iterations to do. Arguments need no more alignment than their elements have.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache, reduce
from math import prod
from pathlib import Path

from ..errors import CompileError
from ..loops.ir import BinaryOp, Buffer, Kernel, Var
from . import memory
from .builder import I64, PTR, FunctionBuilder, ModuleBuilder, Value
from .emit_stmt import StatementEmitter
from .linear import Linear
from .phases import Phase, PhaseBody, phases_of, split, symbol_of
from .scope import Place, Result, Scope
from .target import Target

__all__ = ["Emitted", "Phase", "emit", "fingerprint", "phases_of", "symbol_of"]


@dataclass(frozen=True)
class Emitted:
    """A kernel as LLVM IR.

    Arguments:
        symbol: what the names of its functions start with.
        ir: text of the module.
        phases: its functions, in the order in which they run.
    """

    symbol: str
    ir: str
    phases: tuple[Phase, ...]


def emit(
    kernel: Kernel,
    target: Target,
    symbol: str | None = None,
    bodies: tuple[PhaseBody, ...] | None = None,
) -> Emitted:
    """The kernel's functions for a target.

    `symbol` is `symbol_of(kernel)` and `bodies` is `split(kernel)`, for callers who have them.

    Raises:
        CompileError: the kernel is not well formed, or needs too much stack.
    """
    symbol = symbol or symbol_of(kernel)
    module = ModuleBuilder(has_fma=target.has_fma)
    bodies = split(kernel) if bodies is None else bodies
    phases = phases_of(kernel, symbol, bodies)
    try:
        for phase, body in zip(phases, bodies, strict=True):
            parameters = [("args", PTR), ("begin", I64), ("end", I64)]
            f = module.function(phase.symbol, parameters)
            _emit_phase(f, target.vector_bits // 8, body, kernel.buffers)
    except CompileError as error:
        raise CompileError(f"kernel {kernel.name}: {error}") from None
    return Emitted(symbol, str(module), phases)


@cache
def fingerprint() -> str:
    """64 hexadecimal digits that change with the emitter's own code, for keys of compiled objects.

    Kernels of one symbol are one machine code as long as this and the target are the same.
    """
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _emit_phase(
    f: FunctionBuilder, vector_bytes: int, phase: PhaseBody, buffers: tuple[Buffer, ...]
) -> None:
    args = f.arguments[0]
    used = phase.uses.reads.keys() | phase.uses.writes.keys()
    places: dict[str, Place] = {}
    for position, buffer in enumerate(buffers):
        if buffer.name in used:
            places[buffer.name] = Place(buffer, f.load(PTR, f.gep(PTR, args, position)))
    if phase.streamed:
        _emit_streaming(f, vector_bytes, phase, places)
    else:
        _emit_body(Scope(f, vector_bytes, places=places), phase)
    f.ret()


def _emit_streaming(
    f: FunctionBuilder, vector_bytes: int, phase: PhaseBody, places: dict[str, Place]
) -> None:
    """The phase with streaming stores; with ordinary ones where memory is not aligned for those."""
    begins = [f.ptrtoint(places[name].pointer) for name in sorted(phase.streamed)]
    apart = f.and_(reduce(f.or_, begins), memory.ALIGNMENT - 1)

    def streamed() -> None:
        _emit_body(Scope(f, vector_bytes, places=dict(places), lined=True), phase)
        # The barrier behind the phase is an atomic, which does not wait for streaming stores.
        f.store_fence()

    def stored() -> None:
        _emit_body(Scope(f, vector_bytes, places=dict(places)), phase)

    f.when(f.icmp("eq", apart, 0), streamed, stored)


def _emit_body(scope: Scope, phase: PhaseBody) -> None:
    f, emitter = scope.f, StatementEmitter(scope)
    _, begin, end = f.arguments
    emitter.statements(phase.lets)
    if phase.parallel:
        with f.loop(begin, end, name="p") as loop, scope.loop(1):
            scope.learn(loop.index, 0, phase.extent - 1)
            _recover(emitter, phase.loops, loop.index)
            emitter.block(phase.body)
    else:
        emitter.block(phase.body)


def _recover(emitter: StatementEmitter, loops: tuple[tuple[Var, int], ...], number: Value) -> None:
    """The variables of nested loops from the number of the iteration; the last one is fastest."""
    rest: Result = Linear(0, {number.text: 1})
    integer = emitter.expressions.integer
    for position, (var, _) in enumerate(loops):
        inside = Linear(prod(extent for _, extent in loops[position + 1 :]))
        emitter.scope.variables[var.name] = integer(BinaryOp.FLOORDIV, rest, inside)
        rest = integer(BinaryOp.MOD, rest, inside)
