"""Sums of values that are zero but for a slice are those slices side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..graph import Graph, Node, Value
from ..ops.base import apply
from ..ops.movement import Concat, Unslice
from ..ops.pointwise import Add
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from .base import Pass


@dataclass(frozen=True)
class JoinSlices(Pass):
    """Replaces a sum of Unslice nodes that do not overlap, and leave no gap, by a Concat.

    Such sums are the gradients of what is cut into slices, like the gates of an LSTM.
    """

    @property
    def name(self) -> str:
        return "join-slices"

    def apply(self, graph: Graph) -> Graph:
        if not any(isinstance(n.op, Unslice) for n in graph.nodes()):
            return graph
        results = {*graph.outputs.values(), *graph.updates.values()}

        def rule(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
            if not isinstance(node.op, Add):
                return None
            parts = [graph.producer(v) for v in _terms(graph, node, results)]
            axis = _axis(parts, graph)
            if axis is None:
                return None
            ordered = sorted(parts, key=lambda n: _start(n, axis))
            slices = [rewriter.inputs(n)[0] for n in ordered]
            return [apply(Concat(axis), *slices)]

        return rewrite(rewrite(graph, rule))  # once more, without the sums that nobody reads now


def _terms(graph: Graph, node: Node, results: set[Value]) -> Iterator[Value]:
    """What a sum of sums adds up, as far as nothing else reads the sums in between."""
    for value in graph.inputs_of(node.name):
        inner = graph.producer(value)
        private = len(graph.uses_of(value)) == 1 and value not in results
        if isinstance(inner.op, Add) and private and inner.types == node.types:
            yield from _terms(graph, inner, results)
        else:
            yield value


def _start(node: Node, axis: int) -> int:
    assert isinstance(node.op, Unslice)
    return node.op.start[axis]


def _axis(parts: Sequence[Node], graph: Graph) -> int | None:
    """The axis along which the slices lie side by side, if they do."""
    shape = parts[0].types[0].shape
    spans: dict[int, list[tuple[int, int]]] = {}
    for node in parts:
        if not isinstance(node.op, Unslice) or node.types[0].shape != shape:
            return None
        size = graph.type_of(graph.inputs_of(node.name)[0]).shape
        cut = [i for i, (n, extent) in enumerate(zip(size, shape, strict=True)) if n != extent]
        if len(cut) != 1 or node.op.step[cut[0]] != 1:
            return None
        (axis,) = cut
        spans.setdefault(axis, []).append((node.op.start[axis], size[axis]))
    if len(spans) != 1:
        return None
    ((axis, found),) = spans.items()
    end = 0
    for start, length in sorted(found):
        if start != end or not length:
            return None
        end += length
    return axis if end == shape[axis] else None
