"""Single layers: this project's kernels against PyTorch's, and against what the machine can do.

    python benchmarks/kernels.py [--cases conv1x1 pool …] [--threads 1 2] [--rounds 3] [--json FILE]

Convolutions (batch 1): forward, gradient by the input, gradient by the weight. GFLOP/s count the
operations of the direct algorithm, whatever the kernel does, so Winograd's may pass 100 %. Kernels
that move memory: the bytes that have to be read and written, each pass over a value once (batch
norm has to read x twice), of arrays that no cache holds (softmax: 16 MB each, the others 51 to
101 MB). What ordinary stores write elsewhere is read, too, before a cache holds it: that does not
count. Their shares are two: `of peak` is of the bytes that can be read and written in a second at
best, measured by changing an array in place, as much read as written; `of mix` is of what a loop
gets that does nothing but read and write as many bytes, and in the same proportion (`mix`, read :
written), as the kernel has to: from four places at a time, added up, past the caches. That loop is
timed in the same turns, and both are medians; the peak is the best of many short rounds.

Ours is the time of the kernels that do the work, from the runtime's own timestamps: rewriting a
value into blocks of channels and packing weights is listed beside it (`+ms`), because in a network
it happens at the edges or once a step. Results are written as between the kernels of a network: in
blocks, and to memory that lasts, while the system would make the pages of new arrays when they are
written. PyTorch's time is that of a call, in the faster one of its layouts. Both sides begin
with the same numbers and results are compared. Peaks are measured in the run, by kernels of our own
loop IR.
"""

from __future__ import annotations

import argparse
import fnmatch
import time
from collections.abc import Mapping, Sequence
from typing import Any

import common
import numpy as np
from common import Array, Failed, Task, Worker, note
from layers import READER, Case, cases

import quern as qn
from quern.compiler.driver import compile_graph
from quern.compiler.graph import Node
from quern.compiler.ops import blocked
from quern.compiler.ops.winograd import WinogradWeight
from quern.runtime.executable import Executable, aligned_copy
from quern.runtime.peaks import Runs, measured, mixing_kernel

_LAYOUT = (blocked.Block, blocked.Unblock, blocked.PackWeight, WinogradWeight)
_SECONDS = 0.15  # of a turn
_WORK, _REWRITE = "work", "rewrite"  # kinds of kernels


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


def _kind(nodes: Sequence[Node]) -> str:
    """What a kernel of these nodes is for."""
    if all(node.name.startswith(READER) for node in nodes):
        return READER
    return _REWRITE if all(isinstance(node.op, _LAYOUT) for node in nodes) else _WORK


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
        self._kept = _keep_results(graph)
        graph.data |= {k: v for k, v in arrays.items() if k not in inputs}
        compiled = compile_graph(graph)
        self._executable = Executable(compiled.image, self._threads)
        # Inputs that begin at a line are read where they are: a copy would fill the caches.
        self._feeds = {k: aligned_copy(v) for k, v in arrays.items() if k in inputs}
        kernels = self._executable.program.kernels
        kinds = [_kind([compiled.optimized.node(n) for n in kernel.nodes]) for kernel in kernels]
        steps = self._executable.program.steps
        self._kinds = np.array([kinds[step.kernel] for step in steps])
        notes = {k.note for k, kind in zip(kernels, kinds, strict=True) if kind == _WORK and k.note}
        self.note = "; ".join(sorted(notes))
        self._rates: list[float] = []
        self._mixing: tuple[Runs, int] | None = None
        if case.nbytes:
            kernel, nbytes = mixing_kernel(self._threads, case.nbytes, *case.mix)
            self._mixing = Runs(kernel, self._threads), nbytes

    def peaks(self) -> tuple[float, float]:
        """Operations and bytes a second."""
        known = measured(self._threads)
        return known.float32, known.traffic[-1][1]

    def outputs(self) -> Mapping[str, Array]:
        self.step()
        return {name: self._executable.state[name] for name in self._kept if name == "result"}

    def step(self) -> Mapping[str, Array]:
        return self._executable.run(self._feeds)

    def times(self, seconds: float) -> list[float]:
        """Seconds of the kernels that do the work, in each run."""
        marks = np.zeros(len(self._kinds) + 1, np.int64)
        found: list[float] = []
        beside: list[float] = []
        began = time.perf_counter()
        runs = -common.WARM_UP
        while runs < common.LEAST_RUNS or time.perf_counter() - began < seconds:
            self._executable.run(self._feeds, marks)
            runs += 1
            if runs > 0:
                each = np.diff(marks) * 1e-9
                found.append(float(each[self._kinds == _WORK].sum()))
                beside.append(float(each[self._kinds == _REWRITE].sum()))
        self.beside = float(np.median(beside))
        if self._mixing is not None:
            mixing, nbytes = self._mixing
            self._rates += [nbytes / t for t in common.turn(lambda: mixing.seconds(1), seconds / 3)]
        return found

    @property
    def mixing(self) -> float | None:
        """Bytes a second of a loop that does nothing but read and write in the case's mix."""
        return float(np.median(self._rates)) if self._rates else None


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
    pair = [workers.get(f"{side} {first}") for side in ("quern", "torch")]
    error = None
    if case.compared and all(w in ready for w in pair):
        try:
            ours, theirs = (w.ask("outputs") for w in pair)
            error = common.difference(ours, theirs)
        except Failed as reason:
            note(f"{case.name}: {reason}")
    common.interleave(ready, options.rounds, "call", "times", _SECONDS)
    done = {w.name: w for w in ready if w.times}
    ours = {w.task.threads: w for n, w in done.items() if n.startswith("quern")}
    about = next(iter(ours.values()), None)
    return {
        "case": case.name,
        "flops": case.flops,
        "nbytes": case.nbytes,
        "seconds": {n: w.median for n, w in done.items()},
        "fastest": {n: min(w.times) for n, w in done.items()},
        "mix": case.mix,
        "mixing": {str(threads): w.ask("get", "mixing") for threads, w in ours.items()},
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
        mixing = result["mixing"].get(str(threads))
        cells.append(f"{100 * amount / ours / mixing:.0f} %" if ours and mixing else None)
        cells.append(amount / theirs / 1e9 if theirs else None)
        cells.append(theirs / ours if ours and theirs else None)
    layout = result["layout"]
    error = result["error"]
    cells += [
        None if result["flops"] else "{}:{}".format(*result["mix"]),
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
        headings += [f"quern {threads}t", "of peak", "of mix", f"torch {threads}t", "torch/quern"]
    common.print_table(
        [*headings, "mix", "+ms", "error", "kernel"], [row(r, peaks) for r in results]
    )
    data = {"peaks": {str(t): p for t, p in peaks.items()}, "results": results}
    common.write_json(options.json, data, options)


if __name__ == "__main__":
    main()
