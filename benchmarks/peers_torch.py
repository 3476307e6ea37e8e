"""A network declared with Quern as a `torch.nn.Module`, layer by layer.

Each layer of the declared graph is the function of `torch.nn.functional` that a person would have
written: in place where torchvision's networks are, with `ceil_mode` where the padding comes from
there, batch norm by PyTorch's own fused function. The module is a `torch.fx.GraphModule`: plain
generated Python, which costs eager mode nothing and which torch.compile takes whole. Parameters are
trainable tensors that share the memory of Quern's arrays until somebody moves them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from quern.compiler.errors import UsageError
from quern.compiler.graph import Graph, Value
from quern.compiler.ops import activation, adaptive, conv, linear, loss, movement, norm, pool
from quern.compiler.ops import pointwise as pw
from quern.compiler.ops import reduce as rd
from quern.compiler.ops.base import Op
from quern.compiler.ops.composite import expansion
from quern.compiler.ops.leaf import Constant, Input, Parameter, State
from quern.compiler.ops.random import Dropout
from quern.compiler.ops.window import Window
from quern.compiler.types import Array, TensorType

Tensors = tuple[Any, ...]
Make = Callable[..., Any]


@dataclass(frozen=True)
class Layer:
    """One node on its way.

    Arguments:
        graph: that is written.
        types: of the inputs.
        fresh: for each input, whether this node alone reads it and it was computed by a layer
            whose backward pass does not need its output: it may be overwritten.
    """

    graph: fx.Graph
    types: tuple[TensorType, ...]
    fresh: tuple[bool, ...]

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> fx.Node:
        return self.graph.call_function(function, args, options)


TABLE: dict[type[Op], Make] = {}

_SAME: dict[type[Op], Callable[..., Any]] = {
    pw.Subtract: operator.sub,
    pw.Multiply: operator.mul,
    pw.Divide: operator.truediv,
    pw.Maximum: torch.maximum,
    pw.Minimum: torch.minimum,
    pw.Power: torch.pow,
    pw.Negate: operator.neg,
    pw.Exp: torch.exp,
    pw.Log: torch.log,
    pw.Sqrt: torch.sqrt,
    pw.Tanh: torch.tanh,
    pw.Sigmoid: torch.sigmoid,
    pw.Where: torch.where,
    pw.Greater: torch.gt,
    linear.MatMul: torch.matmul,
    linear.Linear: F.linear,
}
# What may be overwritten afterwards: none of them needs its output for the gradient.
_OVERWRITABLE = (conv.Conv, linear.Linear, norm.BatchNorm, norm.BatchNormInference, pw.Add)


def layer(*ops: type[Op]) -> Callable[[Make], Make]:
    """Registers what makes layers of these operations."""

    def register(make: Make) -> Make:
        TABLE.update(dict.fromkeys(ops, make))
        return make

    return register


@layer(*_SAME)
def _same(to: Layer, op: Op, *inputs: fx.Node) -> fx.Node:
    return to.call(_SAME[type(op)], *inputs)


@layer(conv.Conv)
def _conv(to: Layer, op: conv.Conv, x: fx.Node, w: fx.Node, *bias: fx.Node) -> fx.Node:
    function = (F.conv1d, F.conv2d, F.conv3d)[len(op.stride) - 1]
    padding = tuple(low for low, _ in op.padding)
    if any(low != high for low, high in op.padding):
        x = to.call(F.pad, x, _pads(op.padding))
        padding = (0,) * len(padding)
    b = bias[0] if bias else None
    return to.call(function, x, w, b, op.stride, padding, op.dilation, op.groups)


def _pads(padding: tuple[tuple[int, int], ...]) -> list[int]:
    """As torch.nn.functional.pad takes them: the last axis first."""
    return [p for pair in reversed(padding) for p in pair]


@layer(pw.Relu)
def _relu(to: Layer, op: pw.Relu, x: fx.Node) -> fx.Node:
    return to.call(F.relu, x, inplace=to.fresh[0])


@layer(activation.HardTanh, activation.Clip)
def _hard_tanh(to: Layer, op: activation.Bounded, x: fx.Node) -> fx.Node:
    if op.low is None or op.high is None:
        return to.call(torch.clamp, x, op.low, op.high)
    return to.call(F.hardtanh, x, op.low, op.high, inplace=to.fresh[0])


@layer(pw.Add)
def _add(to: Layer, op: pw.Add, a: fx.Node, b: fx.Node) -> fx.Node:
    if to.fresh[0] and to.types[0] == to.types[1]:
        return to.call(operator.iadd, a, b)
    return to.call(operator.add, a, b)


@layer(norm.BatchNorm)
def _batch_norm(to: Layer, op: norm.BatchNorm, x: fx.Node, *rest: fx.Node) -> Tensors:
    *affine, mean, variance = rest
    weight, bias = affine or (None, None)
    y = to.call(F.batch_norm, x, mean, variance, weight, bias, True, op.momentum, op.eps)
    return y, mean, variance


@layer(norm.BatchNormInference)
def _batch_norm_inference(
    to: Layer,
    op: norm.BatchNormInference,
    x: fx.Node,
    mean: fx.Node,
    variance: fx.Node,
    *affine: fx.Node,
) -> fx.Node:
    weight, bias = affine or (None, None)
    return to.call(F.batch_norm, x, mean, variance, weight, bias, False, 0.0, op.eps)


@layer(norm.LocalResponseNorm)
def _local_response_norm(to: Layer, op: norm.LocalResponseNorm, x: fx.Node) -> fx.Node:
    return to.call(F.local_response_norm, x, op.size, op.alpha, op.beta, op.k)


@layer(Dropout)
def _dropout(to: Layer, op: Dropout, x: fx.Node, *counters: fx.Node) -> fx.Node:
    return to.call(F.dropout, x, op.p, training=True) if op.p else x


@layer(pool.MaxPool)
def _max_pool(to: Layer, op: pool.MaxPool, x: fx.Node) -> Tensors:
    function = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(op.kernel) - 1]
    low = tuple(pair[0] for pair in op.padding)
    even = Window(op.kernel, op.stride, tuple((n, n) for n in low), op.dilation)
    ceil = even.padding != op.padding
    if ceil and even.rounded_up(to.types[0].shape[2:]).padding != op.padding:
        x = to.call(F.pad, x, _pads(op.padding), value=float("-inf"))
        low, ceil = (0,) * len(low), False
    y = to.call(function, x, op.kernel, op.stride, low, op.dilation, ceil_mode=ceil)
    return y, None


@layer(pool.AvgPool)
def _avg_pool(to: Layer, op: pool.AvgPool, x: fx.Node) -> fx.Node:
    if any(low != high for low, high in op.padding):
        raise UsageError(f"PyTorch pads averages evenly, not by {op.padding}")
    functions: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
    padding = tuple(low for low, _ in op.padding)
    return to.call(
        functions[len(op.kernel) - 1],
        x,
        op.kernel,
        op.stride,
        padding,
        op.ceil_mode,
        op.count_include_pad,
    )


@layer(adaptive.AdaptiveAvgPool)
def _adaptive_avg_pool(to: Layer, op: adaptive.AdaptiveAvgPool, x: fx.Node) -> fx.Node:
    functions: Any = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
    return to.call(functions[len(op.output_size) - 1], x, op.output_size)


@layer(movement.Reshape)
def _reshape(to: Layer, op: movement.Reshape, x: fx.Node) -> fx.Node:
    return to.call(torch.reshape, x, op.shape)


@layer(movement.Transpose)
def _transpose(to: Layer, op: movement.Transpose, x: fx.Node) -> fx.Node:
    return to.call(torch.permute, x, op.permutation)


@layer(movement.Concat)
def _concat(to: Layer, op: movement.Concat, *parts: fx.Node) -> fx.Node:
    return to.call(torch.cat, list(parts), op.axis)


@layer(movement.Slice)
def _slice(to: Layer, op: movement.Slice, x: fx.Node) -> fx.Node:
    bounds = zip(op.start, op.size, op.step, strict=True)
    return to.call(operator.getitem, x, tuple(slice(a, a + n * s, s) for a, n, s in bounds))


@layer(rd.Sum)
def _sum(to: Layer, op: rd.Sum, x: fx.Node) -> fx.Node:
    return to.call(torch.sum, x, op.axes, keepdim=True) if op.axes else x


@layer(rd.Max)
def _max(to: Layer, op: rd.Max, x: fx.Node) -> fx.Node:
    return to.call(torch.amax, x, op.axes, keepdim=True)


@layer(activation.Softmax)
def _softmax(to: Layer, op: activation.Softmax, x: fx.Node) -> fx.Node:
    return to.call(torch.softmax, x, op.axis)


@layer(loss.CrossEntropy)
def _cross_entropy(to: Layer, op: loss.CrossEntropy, *inputs: fx.Node) -> fx.Node:
    plain = loss.CrossEntropy(op.reduction)
    if len(inputs) != 2 or op != plain:
        raise UsageError(f"{op} is not in this table")
    return to.call(F.cross_entropy, *inputs, reduction=op.reduction.value)


# -- the module -----------------------------------------------------------------------------------


def module_of(graph: Graph) -> fx.GraphModule:
    """The module: takes the inputs by name, gives a dict of the outputs.

    Raises:
        UsageError: an operation is not in the table, nor what it expands to.
    """
    root = torch.nn.Module()
    written = fx.Graph()
    builder = _Builder(root, written)
    inputs = {n.name: written.placeholder(n.name) for n in graph.leaves(Input)}
    results = builder.write(graph, inputs)
    written.output(dict(zip(graph.outputs, results, strict=True)))
    written.eliminate_dead_code()
    module = fx.GraphModule(root, written)
    module.delete_all_unused_submodules()
    return module


@dataclass(frozen=True)
class _Builder:
    root: torch.nn.Module
    written: fx.Graph

    def write(self, graph: Graph, inputs: Mapping[str, Any], prefix: str = "") -> list[Any]:
        """The outputs of a graph."""
        values: dict[Value, Any] = {}
        live = replace(graph, updates={}).live()
        for node in graph.nodes():
            if node.name not in live:
                continue
            if isinstance(node.op, Input):
                results: tuple[Any, ...] = (inputs[node.name],)
            elif isinstance(node.op, State | Constant):
                results = (self._leaf(prefix + node.name, node.op, graph.data[node.name]),)
            else:
                read = graph.inputs_of(node.name)
                fresh = tuple(
                    isinstance(graph.producer(v).op, _OVERWRITABLE)
                    and len([u for u in graph.uses_of(v) if u[0] in live]) == 1
                    for v in read
                )
                types = tuple(graph.type_of(v) for v in read)
                given = [values[v] for v in read]
                made = self._operation(prefix + node.name, node.op, given, types, fresh)
                results = made if isinstance(made, tuple) else (made,)
            values.update(zip(graph.outputs_of(node.name), results, strict=True))
        return [values[v] for v in graph.outputs.values()]

    def _operation(
        self,
        name: str,
        op: Op,
        given: list[Any],
        types: tuple[TensorType, ...],
        fresh: tuple[bool, ...],
    ) -> Any:
        make = TABLE.get(type(op))
        if make is not None:
            return make(Layer(self.written, types, fresh), op, *given)
        inner = expansion(op, types)
        inputs = {f"input{i}": x for i, x in enumerate(given)}
        return tuple(self.write(inner, inputs, f"{name}."))

    def _leaf(self, name: str, op: Op, array: Array) -> fx.Node:
        key = name.replace(".", "_")
        tensor = torch.from_numpy(array)
        if isinstance(op, Parameter):
            self.root.register_parameter(key, torch.nn.Parameter(tensor, op.trainable))
        else:
            self.root.register_buffer(key, tensor)
        return self.written.get_attr(key)
