"""Small networks that several tests share, built from operations alone."""

from __future__ import annotations

import numpy as np

from quern.compiler.graph import Graph
from quern.compiler.ops.base import Op
from quern.compiler.ops.conv import Conv
from quern.compiler.ops.linear import Linear
from quern.compiler.ops.loss import CrossEntropy
from quern.compiler.ops.movement import Reshape
from quern.compiler.ops.pointwise import Relu
from quern.compiler.ops.pool import MaxPool
from quern.compiler.tensor import Tensor
from quern.compiler.types import DType, TensorType


def layer(op: Op, x: Tensor, *weights: tuple[int, ...], name: str) -> Tensor:
    """One layer on x, with weights of these shapes, as a module of that name would add it."""
    graph = x.graph
    zeros = (np.zeros(shape, np.float32) for shape in weights)
    named = zip(zeros, ("weight", "bias"), strict=False)
    parameters = [graph.parameter(array, f"{name}.{last}") for array, last in named]
    return graph.apply(op, x, *parameters, name=name)[0]


def conv(x: Tensor, channels: int, kernel: int, padding: int, name: str) -> Tensor:
    """A 2-D convolution with bias."""
    op = Conv((1, 1), ((padding, padding),) * 2, (1, 1))
    return layer(op, x, (channels, x.shape[1], kernel, kernel), (channels,), name=name)


def lenet(batch: int = 2) -> Graph:
    """LeNet-5 with rectifiers, from `image` and `target` to `logits` and `loss`."""
    graph = Graph("lenet")
    x = graph.input(TensorType((batch, 1, 28, 28)), "image")
    for i, (channels, padding) in enumerate([(6, 2), (16, 0)], 1):
        x = conv(x, channels, 5, padding, f"conv{i}")
        x = layer(Relu(), x, name=f"relu{i}")
        x = layer(MaxPool((2, 2), (2, 2), ((0, 0),) * 2, (1, 1)), x, name=f"pool{i}")
    x = layer(Reshape((batch, 400)), x, name="flatten")
    for i, width in enumerate([120, 84], 1):
        x = layer(Linear(), x, (width, x.shape[1]), (width,), name=f"fc{i}")
        x = layer(Relu(), x, name=f"relu{i + 2}")
    x = layer(Linear(), x, (10, 84), (10,), name="fc3")
    graph.outputs["logits"] = x.value
    target = graph.input(TensorType((batch,), DType.INT64), "target")
    graph.outputs["loss"] = graph.apply(CrossEntropy(), x, target, name="loss")[0].value
    return graph


def residual(blocks: int = 3) -> Graph:
    """Blocks of equal structure in a row: `stem`, `layer1.0`, `layer1.1`, …, `head`."""
    graph = Graph("residual")
    x = conv(graph.input(TensorType((2, 3, 8, 8)), "image"), 4, 3, 1, "stem")
    for i in range(blocks):
        inner = layer(Relu(), conv(x, 4, 3, 1, f"layer1.{i}.conv1"), name=f"layer1.{i}.relu")
        inner = conv(inner, 4, 3, 1, f"layer1.{i}.conv2")
        with graph.scope(f"layer1.{i}"):
            x = inner + x
    x = layer(Linear(), x.reshape(2, 256), (10, 256), (10,), name="head")
    graph.outputs["logits"] = x.value
    return graph
