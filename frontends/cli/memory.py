"""How much memory a compiled network needs."""

from __future__ import annotations

from ...compiler.summary import si_text
from ...runtime.executable import Executable


def memory_text(executable: Executable) -> str:
    """`planned peak memory 12.3 MB: inputs and outputs 1.2 MB, …`"""
    program = executable.program
    ends = sum(type.nbytes for _, type in (*program.inputs, *program.outputs))
    parts = {
        "inputs and outputs": ends,
        "between kernels": program.arena_bytes,
        "parameters and buffers": sum(type.nbytes for _, type in program.states),
        "constants": sum(a.nbytes for a in executable.constants.values()),
    }
    listed = ", ".join(f"{name} {si_text(size)}B" for name, size in parts.items())
    return f"planned peak memory {si_text(sum(parts.values()))}B: {listed}"
