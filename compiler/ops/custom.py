"""Computations with a gradient that is not what follows from their parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..body import Body, inline
from ..errors import ShapeError
from ..types import TensorType
from .composite import Composite
from .pointwise import Gradients, Signals, Tensors

if TYPE_CHECKING:
    from ..tensor import Tensor


@dataclass(frozen=True)
class CustomGradient(Composite):
    """What one body computes, with the chain rule of another one (torch.autograd.Function).

    Arguments:
        forward: reads the inputs, gives the outputs.
        backward: reads the inputs, the outputs and d loss / d output for each output of floats;
            gives d loss / d input for the inputs of `wrt`. What it needs beside them it computes
            again: nodes that are the same as those of `forward` become one.
        wrt: numbers of the inputs that a gradient flows to.
    """

    forward: Body
    backward: Body
    wrt: tuple[int, ...]
    arity: ClassVar[tuple[int, int | None]] = (1, None)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        outputs = self.forward.outputs
        signals = [t for t in outputs if t.dtype.is_float]
        if not all(0 <= i < len(inputs) for i in self.wrt):
            raise ShapeError(f"{self.forward} has {len(inputs)} inputs, wrt is {self.wrt}")
        wanted = tuple(inputs[i] for i in self.wrt)
        for body, given in ((self.forward, inputs), (self.backward, (*inputs, *outputs, *signals))):
            if body.inputs != tuple(given):
                raise ShapeError(
                    f"{body} reads {', '.join(str(t) for t in body.inputs)}, it is given "
                    f"{', '.join(str(t) for t in given)}"
                )
        if self.backward.outputs != wanted:
            found = ", ".join(str(t) for t in self.backward.outputs)
            raise ShapeError(
                f"{self.backward} gives {found} for {', '.join(str(t) for t in wanted)}"
            )
        return outputs

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(inline(self.forward.graph, inputs[0].graph, inputs))

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        arriving = [
            y.constant(0).broadcast_to(y.shape) if s is None else s
            for y, s in zip(outputs, signals, strict=True)
            if y.dtype.is_float
        ]
        found = inline(self.backward.graph, inputs[0].graph, [*inputs, *outputs, *arriving])
        by_input = dict(zip(self.wrt, found, strict=True))
        return tuple(by_input.get(i) for i in range(len(inputs)))
