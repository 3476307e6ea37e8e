"""1×1 convolutions of resized maps become resized 1×1 convolutions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..flops import flops
from ..graph import Graph, Node, Value
from ..ops.base import Op, apply
from ..ops.conv import Conv, along_channels
from ..ops.movement import Concat
from ..ops.pointwise import Add
from ..ops.resize import Coordinates, Resize
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from ..types import TensorType
from .base import Pass


@dataclass(frozen=True)
class ClassifyBeforeResize(Pass):
    """conv1x1(concat(resize(a), b)) as resize(conv1x1(a)) + conv1x1(b), where that takes less.

    A 1×1 convolution is a sum over channels, resizing one over pixels: they commute, and the sum
    over concatenated channels is the sum over its parts. Hypercolumns of hundreds of channels at
    the size of the image become a few maps of scores that are resized (Hariharan et al., 2015,
    section 4). Maps that something else reads are left alone, and that is also what the gradient of
    the weight does: for training, the pass comes before differentiation, which then gives the
    backward graph of the second form.
    """

    def apply(self, graph: Graph) -> Graph:
        wanted = any(isinstance(node.op, Resize) for node in graph.nodes())
        return rewrite(graph, self._rule) if wanted else graph

    def _rule(self, rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
        if not _is_per_pixel(rewriter.old, node):
            return None
        old = rewriter.old
        x, _, *_ = old.inputs_of(node.name)
        parts = [_Part.of(old, v) for v in _joined(old, x)]
        if not any(part.resize for part in parts):
            return None
        if sum(p.flops(old, node) for p in parts) >= _flops_before(old, node, parts):
            return None
        _, w, *bias = rewriter.inputs(node)
        scores: list[Tensor] = []
        first = 0
        for part in parts:
            source = rewriter.new.tensor(rewriter.values[part.source])
            y = apply(node.op, source, w[:, first : first + source.shape[1]])
            scores.append(y if part.resize is None else apply(part.resize, y))
            first += source.shape[1]
        total = sum(scores[1:], scores[0])
        return [total + along_channels(bias[0], total.rank) if bias else total]


@dataclass(frozen=True)
class _Part:
    """Some of the channels that are convolved: `source`, resized by `resize` if there is one."""

    source: Value
    resize: Resize | None

    @staticmethod
    def of(graph: Graph, value: Value) -> _Part:
        op = graph.producer(value).op
        if isinstance(op, Resize) and _is_linear(op) and _is_private(graph, value):
            return _Part(graph.inputs_of(value.node)[0], op)
        return _Part(value, None)

    def flops(self, graph: Graph, node: Node) -> int:
        """Of its scores, and of adding them to the others."""
        source, y = graph.type_of(self.source), node.types[0]
        scores = y.with_shape((*y.shape[:2], *source.shape[2:]))
        result = flops(node.op, _operands(graph, node, source), [scores])
        return result + _resize_flops(self.resize, scores, y) + flops(Add(), [y, y], [y])


def _flops_before(graph: Graph, node: Node, parts: Sequence[_Part]) -> int:
    """Of the convolution and of all resizing in front of it."""
    y = node.types[0]
    x = graph.type_of(graph.inputs_of(node.name)[0])
    total = flops(node.op, _operands(graph, node, x), [y])
    for part in parts:
        source = graph.type_of(part.source)
        resized = source.with_shape((*source.shape[:2], *y.shape[2:]))
        total += _resize_flops(part.resize, source, resized)
    return total


def _operands(graph: Graph, node: Node, x: TensorType) -> list[TensorType]:
    """Types of what the convolution reads when it reads `x`; a bias is added elsewhere."""
    w = graph.type_of(graph.inputs_of(node.name)[1])
    return [x, w.with_shape((w.shape[0], x.shape[1], *w.shape[2:]))]


def _resize_flops(op: Op | None, x: TensorType, y: TensorType) -> int:
    return 0 if op is None else flops(op, [x], [y])


def _is_per_pixel(graph: Graph, node: Node) -> bool:
    """Whether a node is a 1×1 convolution of all channels."""
    op = node.op
    if not isinstance(op, Conv) or op.groups != 1:
        return False
    kernel = graph.type_of(graph.inputs_of(node.name)[1]).shape[2:]
    unpadded = all(pair == (0, 0) for pair in op.padding)
    return {*kernel, *op.stride} <= {1} and unpadded


def _is_linear(op: Resize) -> bool:
    """Whether it gives sums over pixels, and each channel by itself."""
    return min(op.axes, default=0) >= 2 and op.coordinates is not Coordinates.CROP


def _is_private(graph: Graph, value: Value) -> bool:
    """Whether one node reads a value, and no result is made of it."""
    results = (*graph.outputs.values(), *graph.updates.values())
    return len(graph.uses_of(value)) == 1 and value not in results


def _joined(graph: Graph, x: Value) -> Iterator[Value]:
    """What a value is joined from along the channels."""
    op = graph.producer(x).op
    if isinstance(op, Concat) and op.axis == 1 and _is_private(graph, x):
        yield from graph.inputs_of(x.node)
    else:
        yield x
