"""Single layers: this project's kernels against PyTorch's, and against what the machine can do.

    python benchmarks/kernels.py [--cases conv1x1 pool …] [--threads 1 2] [--rounds 3] [--json FILE]

Convolutions (batch 1): forward, gradient by the input, gradient by the weight. GFLOP/s count the
operations of the direct algorithm, whatever the kernel does, so Winograd's may pass 100 %. Kernels
that move memory: the bytes that have to be read and written, each pass over a value once (batch
norm has to read x twice), of arrays that no cache holds (softmax: 16 MB each, the others 51 to
101 MB); their share is of the bytes that can be read and written in a second, measured by changing
an array in place. What is written elsewhere is read, too, before a cache holds it: that does not
count.

Ours is the time of the kernels that do the work, from the runtime's own timestamps: rewriting a
value into blocks of channels and packing weights is listed beside it (`+ms`), because in a network
it happens at the edges or once a step. What kernels that move memory give is written to memory that
lasts, as between the kernels of a network: the system would make the pages of new arrays while they
are written. PyTorch's time is that of a call, in the faster one of its layouts. Both sides begin
with the same numbers and results are compared. Peaks are measured in the run, by kernels of our own
loop IR.
"""

from __future__ import annotations

import argparse
import fnmatch
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import common
import numpy as np
from common import Array, Failed, Task, Worker, note

import quern as qn
from quern.compiler.driver import compile_graph
from quern.compiler.llvm.target import Target
from quern.compiler.ops import blocked, norm, pool
from quern.compiler.ops.activation import Softmax
from quern.compiler.ops.base import Op
from quern.compiler.ops.conv import Conv, ConvInputGradient, ConvWeightGradient
from quern.compiler.ops.pointwise import Relu
from quern.compiler.ops.winograd import WinogradWeight
from quern.compiler.training import Descent
from quern.compiler.types import DType, TensorType
from quern.runtime.executable import Executable
from quern.runtime.peaks import measured

_LAYOUT = (blocked.Block, blocked.Unblock, blocked.PackWeight, WinogradWeight)
_BLOCK = 8  # channels of a block in the pools' second form
_SECONDS = 0.15  # of a turn


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
        compared: whether the results are the same values in the same layout.
    """

    name: str
    ours: Callable[[], qn.Graph]
    theirs: Callable[..., Callable[[], Any]]
    inputs: Mapping[str, tuple[int, ...]]
    flops: int = 0
    nbytes: int = 0
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
    compiler would not put them there for its sake.
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


def memory_bound() -> list[Case]:
    """Pools, batch norm in training, softmax, ReLU, and the updates of optimizers."""
    n, c, h, w = _IMAGE
    size = 4 * n * c * h * w
    half = (n, c, h // 2, w // 2)
    one, two = ((1, 1), (1, 1)), ((0, 0), (0, 0))
    maximum = pool.MaxPool((3, 3), (2, 2), one, (1, 1))
    average = pool.AvgPool((2, 2), (2, 2), two)
    blocks = (n, c // _BLOCK, h, w, _BLOCK)
    in_blocks = pool.MaxPool((3, 3, 1), (2, 2, 1), (*one, (0, 0)), (1, 1, 1))
    rows = (4096, 1000)
    bn = norm.BatchNorm()
    channels = ((c,),) * 4

    def named(*shapes: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        return {f"x{i}": s for i, s in enumerate(shapes)}

    def torch_max(torch: Any, x: Any) -> Callable[[], Any]:
        return lambda: torch.nn.functional.max_pool2d(x, 3, 2, 1)

    def torch_norm(torch: Any) -> Callable[..., Any]:
        f = torch.nn.functional.batch_norm
        return lambda x, weight, bias, mean, var: f(x, mean, var, weight, bias, True)

    return [
        Case(
            "pool max 3x3/2",
            lambda: _graph_of(maximum, _IMAGE),
            torch_max,
            named(_IMAGE),
            nbytes=size * 5 // 4,
        ),
        Case(
            f"pool max 3x3/2, blocks of {_BLOCK}",
            lambda: _graph_of(in_blocks, (n * c // _BLOCK, 1, h, w, _BLOCK)),
            lambda torch, x: torch_max(
                torch,
                x.reshape(blocks)
                .permute(0, 1, 4, 2, 3)
                .reshape(_IMAGE)
                .contiguous(memory_format=torch.channels_last),
            ),
            {"x0": (n * c // _BLOCK, 1, h, w, _BLOCK)},
            nbytes=size * 5 // 4,
            compared=False,
        ),
        Case(
            "pool max 3x3/2, both passes",
            lambda: _gradient(maximum, _IMAGE, half),
            lambda torch, *given: _backward(
                torch, lambda x: torch.nn.functional.max_pool2d(x, 3, 2, 1), *given
            ),
            named(_IMAGE, half),
            nbytes=size * 2 + size // 4,
        ),
        Case(
            "pool avg 2x2/2",
            lambda: _graph_of(average, _IMAGE),
            lambda torch, x: lambda: torch.nn.functional.avg_pool2d(x, 2),
            named(_IMAGE),
            nbytes=size * 5 // 4,
        ),
        Case(
            "batch norm training, forward",
            lambda: _graph_of(bn, _IMAGE, *channels),
            lambda torch, *given: lambda: torch_norm(torch)(*given),
            named(_IMAGE, *channels),
            nbytes=3 * size,
        ),
        Case(
            "batch norm training, both passes",
            lambda: _gradient(bn, _IMAGE, *channels, _IMAGE),
            lambda torch, *given: _backward(torch, torch_norm(torch), *given),
            named(_IMAGE, *channels, _IMAGE),
            nbytes=6 * size,
        ),
        Case(
            "softmax 4096x1000",
            lambda: _graph_of(Softmax(1), rows),
            lambda torch, x: lambda: torch.softmax(x, 1),
            named(rows),
            nbytes=8 * rows[0] * rows[1],
        ),
        Case(
            "relu",
            lambda: _graph_of(Relu(), _IMAGE),
            lambda torch, x: lambda: torch.relu(x),
            named(_IMAGE),
            nbytes=2 * size,
        ),
        _update("sgd momentum", qn.optim.SGD(lr=1e-3, momentum=0.9), "SGD", 5, momentum=0.9),
        _update("adam", qn.optim.Adam(lr=1e-3), "Adam", 7),
    ]


def _update(name: str, optimizer: Any, theirs: str, passes: int, **options: float) -> Case:
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

    nbytes = passes * 4 * _WEIGHTS[0] * _WEIGHTS[1]
    return Case(
        f"update {name}", graph, torch_update, {"gradient": _WEIGHTS}, 0, nbytes, compared=False
    )


def cases() -> list[Case]:
    return [*convolutions(), *memory_bound()]


# -- runtimes -------------------------------------------------------------------------------------


def _keep_results(graph: qn.Graph) -> tuple[str, ...]:
    """Makes the outputs of a graph the next contents of buffers of the same names."""
    for name, value in graph.outputs.items():
        type = graph.type_of(value)
        graph.buffer(np.zeros(type.shape, type.dtype.numpy), name)
        graph.updates[name] = value
    names = tuple(graph.outputs)
    graph.outputs = {}
    return names


class Quern:
    """Our kernels; those that only rewrite a layout are timed apart."""

    def __init__(self, *, threads: int) -> None:
        self._threads = threads
        self._cases = {case.name: case for case in cases()}
        self.note = ""
        self.beside = 0.0

    def select(self, name: str) -> None:
        case = self._cases[name]
        graph = case.ours()
        arrays = case.arrays()
        inputs = {n.name for n in graph.nodes() if n.op.name == "Input"}
        self._kept = _keep_results(graph) if case.nbytes else ()
        graph.data |= {k: v for k, v in arrays.items() if k not in inputs}
        compiled = compile_graph(graph)
        self._executable = Executable(compiled.image, self._threads)
        self._feeds = {k: v for k, v in arrays.items() if k in inputs}
        kernels = self._executable.program.kernels
        aside = [
            all(isinstance(compiled.optimized.node(n).op, _LAYOUT) for n in kernel.nodes)
            for kernel in kernels
        ]
        steps = self._executable.program.steps
        self._aside = np.array([aside[s.kernel] for s in steps], bool)
        working = {k.note for k, a in zip(kernels, aside, strict=True) if not a and k.note}
        self.note = "; ".join(sorted(working))

    def peaks(self) -> tuple[float, float]:
        """Operations and bytes a second."""
        known = measured(self._threads)
        return known.float32, known.traffic[-1][1]

    def outputs(self) -> Mapping[str, Array]:
        results = self._executable.run(self._feeds)
        return results | {name: self._executable.state[name] for name in self._kept}

    def step(self) -> Mapping[str, Array]:
        return self._executable.run(self._feeds)

    def times(self, seconds: float) -> list[float]:
        """Seconds of the kernels that do the work, in each run."""
        marks = np.zeros(len(self._aside) + 1, np.int64)
        found: list[float] = []
        beside: list[float] = []
        began = time.perf_counter()
        runs = -common.WARM_UP
        while runs < common.LEAST_RUNS or time.perf_counter() - began < seconds:
            self._executable.run(self._feeds, marks)
            runs += 1
            if runs > 0:
                each = np.diff(marks) * 1e-9
                found.append(float(each[~self._aside].sum()))
                beside.append(float(each[self._aside].sum()))
        self.beside = float(np.median(beside))
        return found


class Torch:
    """PyTorch's kernels in the faster one of two layouts."""

    def __init__(self, *, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self._torch = torch
        self._cases = {case.name: case for case in cases()}

    def select(self, name: str) -> None:
        case = self._cases[name]
        candidates = []
        for layout in (self._torch.contiguous_format, self._torch.channels_last):
            tensors = [self._torch.from_numpy(x) for x in case.arrays().values()]
            placed = [t.contiguous(memory_format=layout) if t.dim() == 4 else t for t in tensors]
            candidates.append(case.theirs(self._torch, *placed))
        fastest = [min(common.turn(run, 0.05)) for run in candidates]
        self._run = candidates[fastest.index(min(fastest))]

    def outputs(self) -> Mapping[str, Array]:
        result = self._run()
        return {} if result is None else {"result": result.detach().contiguous().numpy()}

    def step(self) -> object:
        return self._run()

    def times(self, seconds: float) -> list[float]:
        return common.turn(self._run, seconds)


# -- the table ------------------------------------------------------------------------------------


def measure(case: Case, workers: Mapping[str, Worker], options: argparse.Namespace) -> Any:
    """The figures of a row; None where nothing could be measured."""
    ready = []
    for worker in workers.values():
        worker.times = []
        try:
            worker.ask("call", "select", case.name)
            ready.append(worker)
        except Failed as reason:
            note(f"{case.name}: {worker.name} failed: {reason}")
    first = options.threads[0]
    pair = [workers[f"{side} {first}"] for side in ("quern", "torch")]
    error = None
    if case.compared and all(w in ready for w in pair):
        try:
            ours, theirs = (w.ask("outputs") for w in pair)
            error = common.difference(ours, theirs)
        except Failed as reason:
            note(f"{case.name}: {reason}")
    common.interleave(ready, options.rounds, "call", "times", _SECONDS)
    done = {w.name: w for w in ready if w.times}
    about = next((w for n, w in done.items() if n.startswith("quern")), None)
    return {
        "case": case.name,
        "flops": case.flops,
        "nbytes": case.nbytes,
        "seconds": {n: w.median for n, w in done.items()},
        "fastest": {n: min(w.times) for n, w in done.items()},
        "layout": about.ask("get", "beside") if about else None,
        "note": about.ask("get", "note") if about else "",
        "error": error,
    }


def row(result: Mapping[str, Any], peaks: Mapping[int, tuple[float, float]]) -> list[object]:
    """Rates, shares of the peak, and ratios, for each number of threads."""
    amount = result["flops"] or result["nbytes"]
    cells: list[object] = [result["case"]]
    for threads, (flops, nbytes) in peaks.items():
        limit = flops if result["flops"] else nbytes
        ours, theirs = (result["seconds"].get(f"{s} {threads}") for s in ("quern", "torch"))
        cells.append(amount / ours / 1e9 if ours else None)
        cells.append(f"{100 * amount / ours / limit:.0f} %" if ours else None)
        cells.append(amount / theirs / 1e9 if theirs else None)
        cells.append(theirs / ours if ours and theirs else None)
    layout = result["layout"]
    error = result["error"]
    cells += [
        1e3 * layout if layout else None,
        None if error is None else f"{error:.0e}",
        result["note"][:60],
    ]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", metavar="TEXT", help="rows with one of these in them")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    wanted = [f"*{text}*" for text in options.cases or ("",)]
    chosen = [c for c in cases() if any(fnmatch.fnmatch(c.name, w) for w in wanted)]
    tasks = {
        f"{name} {threads}": Task(runtime, (), threads)
        for threads in options.threads
        for name, runtime in (("quern", Quern), ("torch", Torch))
    }
    results = []
    with common.started(tasks) as workers:
        peaks = {t: workers[f"quern {t}"].ask("call", "peaks") for t in options.threads}
        for case in chosen:
            note(case.name)
            results.append(measure(case, workers, options))
    for threads, (flops, nbytes) in peaks.items():
        print(f"peak of {threads} threads: {flops / 1e9:.1f} GFLOP/s, {nbytes / 1e9:.1f} GB/s")
    headings = ["GFLOP/s or GB/s"]
    for threads in options.threads:
        headings += [f"quern {threads}t", "of peak", f"torch {threads}t", "torch/quern"]
    common.print_table([*headings, "+ms", "error", "kernel"], [row(r, peaks) for r in results])
    data = {"peaks": {str(t): p for t, p in peaks.items()}, "results": results}
    common.write_json(options.json, data, options)


if __name__ == "__main__":
    main()
