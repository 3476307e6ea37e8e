"""LLVM IR text to object code for a target."""

from __future__ import annotations

import re

from ..errors import CompileError
from . import backend
from .target import Target

# Every object says in its `.comment` section which instruction sets it uses, so that the loader can
# refuse one that would fault here.
STAMP = "quern-isa:"


class CodegenError(CompileError):
    """The compiler's own fault: IR that LLVM refuses, or objects that do not link.

    Arguments:
        message: one line, with the offending line of IR in it.
        line: the offending line of IR text; empty when there is none to name.
        unit: name of the compilation unit; empty when it has none.
    """

    def __init__(self, message: str, *, line: str = "", unit: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.unit = unit


def compile_to_object(ir: str, target: Target) -> bytes:
    """Compile a module of LLVM IR to an ELF object, in this process.

    Raises:
        CodegenError: LLVM refuses the IR.
    """
    try:
        return backend.translate(stamped(ir, target), target.cpu, target.llvm_features)
    except backend.IRError as error:
        raise diagnose(ir, str(error)) from None


def assembly(ir: str, target: Target) -> str:
    """The assembly of what `compile_to_object` makes (AT&T syntax, with LLVM's comments).

    Raises:
        CodegenError: LLVM refuses the IR.
    """
    try:
        return backend.translate(ir, target.cpu, target.llvm_features, assembly=True).decode()
    except backend.IRError as error:
        raise diagnose(ir, str(error)) from None


def stamped(ir: str, target: Target) -> str:
    """The IR with the instruction sets of the target as its identification string."""
    # The number only has to be one that the emitter does not use.
    text = f"{STAMP}{','.join(target.features)};"
    return f'{ir}\n!llvm.ident = !{{!4000000000}}\n!4000000000 = !{{!"{text}"}}\n'


def diagnose(ir: str, message: str, unit: str = "") -> CodegenError:
    """The error for LLVM's complaint about `ir`, with the line it is about."""
    lines = ir.splitlines()
    if parse := re.search(r"<string>:(\d+):\d+: error: (.*)", message):
        number, what = int(parse[1]), parse[2]
    else:  # the verifier quotes instructions, the first is the offending one
        what, *quoted = message.strip().splitlines() or ["unknown"]
        places = (i for q in quoted for i, line in enumerate(lines, 1) if line.strip() == q.strip())
        number = next(places, 0)
    line = lines[number - 1].strip() if 0 < number <= len(lines) else ""
    place = f", line {number}: {line}" if line else ""
    where = f"{unit}: " if unit else ""
    return CodegenError(f"{where}LLVM refuses the IR: {what}{place}", line=line, unit=unit)
