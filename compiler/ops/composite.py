"""Operations that say themselves in other operations.

A composite keeps a layer one node in the declared graph, under the user's name, until the passes
expand it. It may carry a `gradient` of its own where that is shorter or better conditioned than the
gradient of its expansion.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from ..errors import QuernError
from ..types import Array, TensorType
from .base import Op

if TYPE_CHECKING:
    from ..graph import Graph
    from ..tensor import Tensor


@dataclass(frozen=True)
class Composite(Op, abstract=True):
    """Base of the composites: types and NumPy meaning follow from `expand`."""

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError(f"{self.name} has no expand")

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        graph = expansion(self, inputs)
        return tuple(graph.type_of(v) for v in graph.outputs.values())

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        from ..evaluate import evaluate
        from ..types import DType

        types = tuple(TensorType(tuple(x.shape), DType.of(x.dtype)) for x in inputs)
        graph = expansion(self, types)
        feeds = {f"input{i}": x for i, x in enumerate(inputs)}
        return tuple(evaluate(graph, feeds).outputs.values())


@lru_cache(maxsize=4096)
def expansion(op: Op, inputs: tuple[TensorType, ...]) -> Graph:
    """The graph of a composite for inputs of these types: `input0`, … to `output0`, …

    Raises:
        NotImplementedError: the operation is a primitive for these inputs.
    """
    from ..graph import Graph

    graph = Graph(op.name)
    tensors = [graph.input(t, f"input{i}") for i, t in enumerate(inputs)]
    try:
        results = op.expand(*tensors)
    except QuernError as error:
        raise error.unlocated() from None  # the user knows the composite, not its parts
    if results is None:
        raise NotImplementedError(f"{op.name} is a primitive for these inputs")
    graph.outputs = {f"output{i}": r.value for i, r in enumerate(results)}
    return graph
