"""A classifier that slides over larger images: linear layers become convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..compiler.errors import QuernError, ShapeError, UsageError
from ..compiler.graph import Graph, Node, Value
from ..compiler.ops.activation import Activation, AlongAxis
from ..compiler.ops.adaptive import AdaptiveAvgPool, AdaptivePool
from ..compiler.ops.base import apply, apply_all
from ..compiler.ops.conv import Conv
from ..compiler.ops.leaf import Input, Leaf
from ..compiler.ops.linear import Linear
from ..compiler.ops.movement import Concat, Reshape
from ..compiler.ops.norm import BatchNormInference, LocalResponseNorm
from ..compiler.ops.pointwise import Cast, Pointwise
from ..compiler.ops.pool import AvgPool, MaxPool
from ..compiler.rewrite import Rewriter, rewrite
from ..compiler.tensor import Tensor
from ..compiler.types import Shape, TensorType

# What does to a large map what it does to a small one, place by place or window by window.
_SLIDING = (
    Activation,
    AlongAxis,
    AvgPool,
    BatchNormInference,
    Cast,
    Concat,
    Conv,
    LocalResponseNorm,
    MaxPool,
    Pointwise,
)


def convolutionalize(graph: Graph, image: TensorType) -> Graph:
    """The network that gives a map of scores (N, K, rows, columns) for larger images.

    Linear layers become convolutions with the same weights: the first one's windows are as large as
    the map that it has read, those of the others 1×1 (Sermanet et al., 2014; Long et al., 2015). A
    place of the map is what the network gives for the crop there, places are as far apart as the
    strides of all layers together. That is exact where convolutions and pools do not pad; at padded
    layers, a crop sees its neighbourhood where it had seen zeros.

    Arguments:
        graph: of a classifier in inference, with one input (N, C, *spatial) of the size of a crop.
        image: type of the larger input.

    Raises:
        UsageError: for what cannot slide, with the node.
        ShapeError: when the image is smaller than a crop, or has other channels.
    """
    inputs = graph.leaves(Input)
    if len(inputs) != 1:
        raise UsageError(f"{graph.name} has {len(inputs)} inputs; what slides has one, the image")
    crop = inputs[0].types[0]
    fits = image.rank == crop.rank > 2 and image.shape[1] == crop.shape[1]
    if not fits or any(n < m for n, m in zip(image.shape[2:], crop.shape[2:], strict=True)):
        raise ShapeError(f"{graph.name} looks at {crop}; it cannot slide over {image}")
    return _Sliding(graph, image).run()


@dataclass
class _Sliding:
    """A copy in progress.

    Attributes:
        graph: the classifier.
        image: type of its new input.
        flattened: values that were rows of features -> the extents of the map that they were.
    """

    graph: Graph
    image: TensorType
    flattened: dict[Value, Shape] = field(default_factory=dict)

    def run(self) -> Graph:
        return rewrite(self.graph, self._rule)

    def _rule(self, rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
        if isinstance(node.op, Input):
            leaf = replace(node, op=Input(self.image), types=(self.image,))
            return [rewriter.new.tensor(rewriter.new.add_node(leaf, ())[0])]
        if isinstance(node.op, Leaf) or not self._slides(node):
            return None
        inputs = rewriter.inputs(node)
        old = [self.graph.type_of(v) for v in self.graph.inputs_of(node.name)]
        try:
            return self._slid(rewriter, node, inputs, old)
        except QuernError as error:
            raise error.at(node.name, node.source) from None

    def _slides(self, node: Node) -> bool:
        """Whether a node depends on the image."""
        stack, seen = [node.name], set[str]()
        while stack:
            name = stack.pop()
            if isinstance(self.graph.node(name).op, Input):
                return True
            if name not in seen:
                seen.add(name)
                stack += [v.node for v in self.graph.inputs_of(name)]
        return False

    def _slid(
        self, rewriter: Rewriter, node: Node, inputs: Sequence[Tensor], old: Sequence[TensorType]
    ) -> Sequence[Tensor]:
        op, x = node.op, inputs[0]
        if isinstance(op, Reshape):
            return [self._flatten(node, x, old[0])]
        if isinstance(op, Linear):
            return [self._linear(node, inputs, old[0])]
        if isinstance(op, AdaptivePool):
            return [_pooled(op, x, old[0].shape[2:], node.types[0].shape[2:])]
        if not isinstance(op, _SLIDING):
            raise UsageError(f"{op.name} gives no map when its input gets larger")
        if isinstance(op, Pointwise):
            inputs = [self._along_features(t) for t in inputs]
        return rewriter.new.apply(op, *inputs, name=node.name.rpartition(".")[2])

    def _flatten(self, node: Node, x: Tensor, old: TensorType) -> Tensor:
        """Rows of features stay the map that they are made of."""
        rows = (old.shape[0], math.prod(old.shape[1:]))
        if node.types[0].shape != rows or old.rank < 3:
            raise UsageError(f"only maps made flat can slide, not {old} as {node.types[0]}")
        self.flattened[Value(node.name)] = old.shape[1:]
        return x

    def _linear(self, node: Node, inputs: Sequence[Tensor], old: TensorType) -> Tensor:
        """A convolution with windows as large as what the layer has read."""
        x, w, *bias = inputs
        if old.rank != 2:
            raise UsageError(f"a linear layer of {old} does not slide; it takes rows of features")
        (source, *_) = self.graph.inputs_of(node.name)
        spatial = x.rank - 2
        extents = self._extents(source, (old.shape[1], *(1,) * spatial))
        ones = (1,) * spatial
        op = Conv(ones, ((0, 0),) * spatial, ones)
        return apply(op, x, w.reshape((w.shape[0], *extents)), *bias)

    def _extents(self, value: Value, otherwise: Shape) -> Shape:
        """Extents of the map that a value was, seen through what works place by place."""
        while value not in self.flattened:
            node = self.graph.producer(value)
            if not isinstance(node.op, Activation | Pointwise | Cast):
                return otherwise
            value = self.graph.inputs_of(node.name)[0]
        return self.flattened[value]

    def _along_features(self, x: Tensor) -> Tensor:
        """Numbers for the features of a row, as numbers for the channels of a map."""
        if x.rank != 1 or x.type.size == 1:
            return x
        return x.reshape((1, -1, *(1,) * (self.image.rank - 2)))


def _pooled(op: AdaptivePool, x: Tensor, extents: Shape, wanted: Shape) -> Tensor:
    """Windows as they were in the small map; a single one moves by one place."""
    if extents == wanted:
        return x
    if any(n % m for n, m in zip(extents, wanted, strict=True)):
        raise UsageError(f"its windows from {extents} to {wanted} are of several sizes")
    kernel = tuple(n // m for n, m in zip(extents, wanted, strict=True))
    stride = tuple(1 if m == 1 else k for k, m in zip(kernel, wanted, strict=True))
    padding = ((0, 0),) * len(kernel)
    if isinstance(op, AdaptiveAvgPool):
        return apply(AvgPool(kernel, stride, padding), x)
    return apply_all(MaxPool(kernel, stride, padding, (1,) * len(kernel)), x)[0]
