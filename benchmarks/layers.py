"""The single layers of `kernels.py`: as graphs of this project, and as calls of PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from common import Array

import quern as qn
from quern.compiler.llvm.target import Target
from quern.compiler.ops import blocked, norm, pool
from quern.compiler.ops.activation import Softmax
from quern.compiler.ops.base import Op
from quern.compiler.ops.conv import Conv, ConvInputGradient, ConvWeightGradient
from quern.compiler.ops.pointwise import Relu
from quern.compiler.ops.reduce import Sum
from quern.compiler.training import Descent
from quern.compiler.types import DType, TensorType

READER = "reader"  # a node that is there so that something reads a result, and is not timed
_BLOCK = 8  # channels of a block in the pools' second form


@dataclass(frozen=True)
class Case:
    """One layer.

    Arguments:
        name: of the row.
        ours: the graph.
        theirs: from torch and tensors of the inputs, a function to be timed.
        inputs: shapes of the inputs, in order.
        flops: of the direct algorithm; 0 where memory is what counts.
        nbytes: read and written at least.
        mix: for how many lines that are read how many are written.
        compared: whether the results are the same values in the same layout.
    """

    name: str
    ours: Callable[[], qn.Graph]
    theirs: Callable[..., Callable[[], Any]]
    inputs: Mapping[str, tuple[int, ...]]
    flops: int = 0
    nbytes: int = 0
    mix: tuple[int, int] = (1, 1)
    compared: bool = True

    def arrays(self) -> dict[str, Array]:
        rng = np.random.default_rng(0)
        return {n: rng.standard_normal(s, np.float32) for n, s in self.inputs.items()}


# -- convolutions ---------------------------------------------------------------------------------

# Name, channels in and out, extent, kernel, stride, groups: layers of VGG-16, ResNet-50, and
# MobileNets.
_CONVOLUTIONS: tuple[tuple[str, int, int, int, int, int, int], ...] = (
    ("3x3 64-64 @56", 64, 64, 56, 3, 1, 1),
    ("3x3 64-64 @224", 64, 64, 224, 3, 1, 1),
    ("3x3 128-128 @112", 128, 128, 112, 3, 1, 1),
    ("3x3 256-256 @56", 256, 256, 56, 3, 1, 1),
    ("3x3 512-512 @28", 512, 512, 28, 3, 1, 1),
    ("3x3 256-256 @14", 256, 256, 14, 3, 1, 1),
    ("3x3 512-512 @14", 512, 512, 14, 3, 1, 1),
    ("3x3 512-512 @7", 512, 512, 7, 3, 1, 1),
    ("3x3/2 256-256 @28", 256, 256, 28, 3, 2, 1),
    ("1x1 64-256 @56", 64, 256, 56, 1, 1, 1),
    ("1x1 256-64 @56", 256, 64, 56, 1, 1, 1),
    ("1x1 512-128 @28", 512, 128, 28, 1, 1, 1),
    ("1x1 1024-256 @14", 1024, 256, 14, 1, 1, 1),
    ("1x1 512-2048 @7", 512, 2048, 7, 1, 1, 1),
    ("7x7/2 3-64 @224", 3, 64, 224, 7, 2, 1),
    ("depthwise 3x3 32 @112", 32, 32, 112, 3, 1, 32),
    ("depthwise 3x3 144 @56", 144, 144, 56, 3, 1, 144),
    ("depthwise 3x3/2 192 @28", 192, 192, 28, 3, 2, 192),
    ("depthwise 3x3 384 @14", 384, 384, 14, 3, 1, 384),
    ("depthwise 5x5 240 @28", 240, 240, 28, 5, 1, 240),
    ("depthwise 7x7 96 @56", 96, 96, 56, 7, 1, 96),
)


def convolutions() -> list[Case]:
    """Three cases for each layer."""
    return [case for name, *sizes in _CONVOLUTIONS for case in _convolution(name, *sizes)]


def _convolution(
    name: str, c: int, k: int, extent: int, kernel: int, stride: int, groups: int
) -> list[Case]:
    pad = kernel // 2
    windows = (extent + 2 * pad - kernel) // stride + 1
    geometry = ((stride, stride), ((pad, pad), (pad, pad)), (1, 1), groups)
    shape = (k, c // groups, kernel, kernel)
    x, w, y = (1, c, extent, extent), shape, (1, k, windows, windows)
    flops = 2 * math.prod(shape) * windows * windows
    forms: tuple[tuple[str, Op, tuple[int, ...], tuple[int, ...], tuple[str, str]], ...] = (
        ("forward", Conv(*geometry), x, w, ("x", "w")),
        ("by input", ConvInputGradient((extent, extent), *geometry), y, w, ("y", "w")),
        ("by weight", ConvWeightGradient((kernel, kernel), *geometry), x, y, ("x", "y")),
    )
    return [
        Case(
            f"conv {name} {form}",
            partial(_conv_graph, op, a, b, names),
            lambda torch, *given, form=form: _torch_conv(
                torch, form, stride, pad, groups, x, w, *given
            ),
            {names[0]: a, names[1]: b},
            flops,
        )
        for form, op, a, b, names in forms
    ]


def _conv_graph(op: Op, a: Any, b: Any, names: tuple[str, str]) -> qn.Graph:
    """A weight is a parameter, packed when the network is loaded; all else are inputs.

    In a network, both operands of a weight's gradient are in blocks of channels already; alone, the
    compiler would not put them there for its sake. Nor would it write results in blocks that
    nobody reads: a sum over the pixels does.
    """
    graph = qn.Graph("layer")
    first = graph.input(TensorType(a), names[0])
    if names[1] == "w":
        second = graph.parameter(TensorType(b), names[1])
    else:
        second = graph.input(TensorType(b), names[1])
    if isinstance(op, ConvWeightGradient):
        lanes = Target.host().lanes(DType.FLOAT32)
        sizes = [math.gcd(t.shape[1], lanes) for t in (first, second)]
        if min(sizes) > 1:
            op = blocked.BlockedConvWeightGradient(op)
            parts = zip((first, second), sizes, strict=True)
            first, second = (graph.apply(blocked.Block(n), t)[0] for t, n in parts)
    (result,) = graph.apply(op, first, second)
    graph.outputs["result"] = result.value
    if names[1] == "w":
        (read,) = graph.apply(Sum((2, 3)), result, name=READER)
        graph.outputs["sums"] = read.value
    return graph


def _torch_conv(
    torch: Any, form: str, stride: int, pad: int, groups: int, x: Any, w: Any, a: Any, b: Any
) -> Callable[[], Any]:
    if form == "forward":
        return lambda: torch.nn.functional.conv2d(a, b, None, stride, pad, 1, groups)
    by_input = form == "by input"
    other = torch.zeros(x if by_input else w).contiguous(memory_format=_format(torch, a))
    given = (a, other, b) if by_input else (b, a, other)
    mask = [by_input, not by_input, False]
    rest = ([stride] * 2, [pad] * 2, [1, 1], False, [0, 0], groups, mask)
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(*given, None, *rest)[0 if by_input else 1]


def _format(torch: Any, like: Any) -> Any:
    last = like.dim() == 4 and not like.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


# -- kernels that move memory ---------------------------------------------------------------------

_IMAGE = (16, 64, 112, 112)
_IMAGE_BYTES = 4 * math.prod(_IMAGE)
_WEIGHTS = (4096, 6144)  # 25 million: ResNet-50


def _graph_of(op: Op, *shapes: tuple[int, ...]) -> qn.Graph:
    graph = qn.Graph("layer")
    inputs = [graph.input(TensorType(s), f"x{i}") for i, s in enumerate(shapes)]
    graph.outputs["result"] = graph.apply(op, *inputs)[0].value
    return graph


def _gradient(op: Op, *shapes: tuple[int, ...]) -> qn.Graph:
    """The gradient by the first input: the last input is the signal that comes back."""
    graph = qn.Graph("layer")
    *given, last = shapes
    inputs = [graph.input(TensorType(s), f"x{i}") for i, s in enumerate(given)]
    signal = graph.input(TensorType(last), f"x{len(given)}")
    y = graph.apply(op, *inputs)[0]
    graph.outputs["sum"] = (y * signal).sum().value
    step = qn.differentiate(graph, "sum", ["x0"])
    (result,) = (v for k, v in step.outputs.items() if k != "sum")
    step.outputs = {"result": result}
    return step


def _backward(torch: Any, function: Callable[..., Any], *given: Any) -> Callable[[], Any]:
    """Forward and backward; both sides need what the forward pass leaves behind."""
    x, *others, signal = given
    x.requires_grad_()

    def run() -> Any:
        with torch.enable_grad():
            return torch.autograd.grad(function(x, *others), x, signal)[0]

    return run


def _moving(
    name: str,
    ours: Callable[[], qn.Graph],
    theirs: Callable[..., Callable[[], Any]],
    shapes: Sequence[tuple[int, ...]],
    unit: int,
    mix: tuple[int, int] = (1, 1),
    compared: bool = True,
) -> Case:
    """A case that moves memory: as many times `unit` bytes as its mix adds up to."""
    inputs = {f"x{i}": s for i, s in enumerate(shapes)}
    return Case(name, ours, theirs, inputs, nbytes=sum(mix) * unit, mix=mix, compared=compared)


def _pools() -> list[Case]:
    n, c, h, w = _IMAGE
    half, quarter = (n, c, h // 2, w // 2), _IMAGE_BYTES // 4
    one, none = ((1, 1), (1, 1)), ((0, 0), (0, 0))
    maximum = pool.MaxPool((3, 3), (2, 2), one, (1, 1))
    average = pool.AvgPool((2, 2), (2, 2), none)
    in_blocks = pool.MaxPool((3, 3, 1), (2, 2, 1), (*one, (0, 0)), (1, 1, 1))
    blocks = (n * c // _BLOCK, 1, h, w, _BLOCK)

    def torch_max(torch: Any, x: Any) -> Any:
        return torch.nn.functional.max_pool2d(x, 3, 2, 1)

    def torch_channels_last(torch: Any, x: Any) -> Callable[[], Any]:
        x = x.reshape(n, c // _BLOCK, h, w, _BLOCK).permute(0, 1, 4, 2, 3).reshape(_IMAGE)
        return partial(torch_max, torch, x.contiguous(memory_format=torch.channels_last))

    return [
        _moving(
            "pool max 3x3/2",
            lambda: _graph_of(maximum, _IMAGE),
            lambda torch, x: partial(torch_max, torch, x),
            [_IMAGE],
            quarter,
            (4, 1),
        ),
        _moving(
            f"pool max 3x3/2, blocks of {_BLOCK}",
            lambda: _graph_of(in_blocks, blocks),
            torch_channels_last,
            [blocks],
            quarter,
            (4, 1),
            compared=False,
        ),
        _moving(
            "pool max 3x3/2, both passes",
            lambda: _gradient(maximum, _IMAGE, half),
            lambda torch, *given: _backward(torch, partial(torch_max, torch), *given),
            [_IMAGE, half],
            quarter,
            (5, 4),
        ),
        _moving(
            "pool avg 2x2/2",
            lambda: _graph_of(average, _IMAGE),
            lambda torch, x: lambda: torch.nn.functional.avg_pool2d(x, 2),
            [_IMAGE],
            quarter,
            (4, 1),
        ),
    ]


def _norms() -> list[Case]:
    shapes = [_IMAGE, *[(_IMAGE[1],)] * 4]

    def torch_norm(torch: Any) -> Callable[..., Any]:
        f = torch.nn.functional.batch_norm
        return lambda x, weight, bias, mean, var: f(x, mean, var, weight, bias, True)

    return [
        _moving(
            "batch norm training, forward",
            lambda: _graph_of(norm.BatchNorm(), *shapes),
            lambda torch, *given: lambda: torch_norm(torch)(*given),
            shapes,
            _IMAGE_BYTES,
            (2, 1),
        ),
        _moving(
            "batch norm training, both passes",
            lambda: _gradient(norm.BatchNorm(), *shapes, _IMAGE),
            lambda torch, *given: _backward(torch, torch_norm(torch), *given),
            [*shapes, _IMAGE],
            _IMAGE_BYTES,
            (5, 1),
        ),
    ]


def _activations() -> list[Case]:
    rows = (4096, 1000)
    return [
        _moving(
            "softmax 4096x1000",
            lambda: _graph_of(Softmax(1), rows),
            lambda torch, x: lambda: torch.softmax(x, 1),
            [rows],
            4 * math.prod(rows),
        ),
        _moving(
            "relu",
            lambda: _graph_of(Relu(), _IMAGE),
            lambda torch, x: lambda: torch.relu(x),
            [_IMAGE],
            _IMAGE_BYTES,
        ),
    ]


def _updates() -> list[Case]:
    return [
        _update("sgd momentum", qn.optim.SGD(lr=1e-3, momentum=0.9), "SGD", (3, 2), momentum=0.9),
        _update("adam", qn.optim.Adam(lr=1e-3), "Adam", (4, 3)),
    ]


def _update(name: str, optimizer: Any, theirs: str, mix: tuple[int, int], **options: float) -> Case:
    def graph() -> qn.Graph:
        step = qn.Graph("update")
        gradient = step.input(TensorType(_WEIGHTS), "gradient")
        p = step.parameter(np.zeros(_WEIGHTS, np.float32), "p")
        following = optimizer.update(step, {"p": Descent(p, gradient)})
        step.updates |= {k: v.value for k, v in following.items()}
        return step

    def torch_update(torch: Any, gradient: Any) -> Callable[[], Any]:
        p = torch.zeros(_WEIGHTS, requires_grad=True)
        p.grad = gradient
        step = getattr(torch.optim, theirs)([p], lr=1e-3, fused=True, **options)
        return lambda: step.step()

    return Case(
        f"update {name}",
        graph,
        torch_update,
        {"gradient": _WEIGHTS},
        nbytes=sum(mix) * 4 * math.prod(_WEIGHTS),
        mix=mix,
        compared=False,
    )


def memory_bound() -> list[Case]:
    """Pools, batch norm in training, softmax, ReLU, and the updates of optimizers."""
    return [*_pools(), *_norms(), *_activations(), *_updates()]


def cases() -> list[Case]:
    return [*convolutions(), *memory_bound()]
