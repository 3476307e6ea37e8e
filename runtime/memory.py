"""How much memory a compiled network takes while it runs."""

from __future__ import annotations

from dataclasses import dataclass

from .program import Program


@dataclass(frozen=True)
class Memory:
    """The planned peak, in bytes: all that a run uses but for machine code and Python itself.

    Arguments:
        ends: inputs and outputs.
        arena: for values between kernels and what kernels use for themselves; values that are not
            alive at the same time lie over each other.
        states: parameters and buffers, the optimizer's included.
        constants: those of the network, and what is prepared from its parameters.
    """

    ends: int
    arena: int
    states: int
    constants: int

    @property
    def total(self) -> int:
        return self.ends + self.arena + self.states + self.constants

    def __str__(self) -> str:
        """`planned peak memory 12.3 MB: inputs and outputs 1.20 MB, …`"""
        from ..compiler.summary import si_text

        parts = {
            "inputs and outputs": self.ends,
            "between kernels": self.arena,
            "parameters and buffers": self.states,
            "constants": self.constants,
        }
        listed = ", ".join(f"{name} {si_text(size)}B" for name, size in parts.items())
        return f"planned peak memory {si_text(self.total)}B: {listed}"


def memory_of(program: Program, constants: int) -> Memory:
    """The plan of a program with so many bytes of constants."""
    ends = sum(type.nbytes for _, type in (*program.inputs, *program.outputs))
    states = sum(type.nbytes for _, type in program.states)
    return Memory(ends, program.arena_bytes, states, constants)
