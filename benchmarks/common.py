"""What the benchmarks share: networks with random contents, runtimes in processes of their own,
interleaved timing, and tables.

Every runtime lives in a process of its own, which does nothing but wait on a pipe until it is told
to work: no runtime sees another one's memory, allocator or threads. Their turns are interleaved
(each round times every runtime, beginning with another one), so that a slow minute of the machine
is shared by all. Thread pools spin for a while after the work is done, and would take processor
time from whoever comes next: before each turn there is a pause (`PAUSE`), and the processor time
that the waiting processes use during a turn is read from /proc and reported (`disturbance`).
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import quern as qn
from quern import nn
from quern.frontends.nn.init import skipped
from quern.frontends.zoo import find

Array = NDArray[Any]

PAUSE = 0.15  # seconds before each turn; the pools of all runtimes sleep by then
LEAST_RUNS = 3  # of a turn
WARM_UP = 2  # runs of a turn that are not counted


# -- networks -------------------------------------------------------------------------------------


def network(name: str, seed: int = 0) -> nn.Module:
    """A network of the zoo with random contents, also of the batch-norm statistics.

    Weights are drawn so that activations keep their size, and no dropout is left: outputs of all
    runtimes can be compared.
    """
    entry = find(name)
    if entry is None:
        raise SystemExit(f"there is no network {name}; see quern models")
    with skipped():
        module = entry.build()
    fill(module, seed)
    return module


def fill(module: nn.Module, seed: int = 0) -> None:
    """Random contents for every parameter and buffer of floats; no dropout."""
    rng = np.random.default_rng(seed)
    for key, array in module.state_dict().items():
        if array.dtype.kind == "f":
            array[...] = _contents(rng, key.rpartition(".")[2], array.shape)
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0


def _contents(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Array:
    if len(shape) > 1:  # He et al., 2015
        scale = np.float32(math.sqrt(2.0 / math.prod(shape[1:])))
        drawn: Array = rng.standard_normal(shape, np.float32)
        drawn *= scale
        return drawn
    if kind == "running_var":
        return rng.uniform(0.5, 2.0, shape)
    if kind == "weight":  # of a batch norm
        return rng.uniform(0.5, 1.0, shape)
    return 0.1 * rng.standard_normal(shape)


def image(name: str, batch: int, seed: int = 1) -> Array:
    """Inputs for a network."""
    entry = find(name)
    assert entry is not None
    shape = (batch, *entry.input.shape[1:])
    drawn: Array = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return drawn


def inference_graph(name: str, batch: int) -> qn.Graph:
    """The declared graph of a network; its input is `image`, its output `output`."""
    return qn.trace(network(name), qn.spec(image(name, batch)), training=False)


# -- runtimes -------------------------------------------------------------------------------------


class Runtime(Protocol):
    """A network in one runtime, ready to run."""

    def outputs(self) -> Mapping[str, Array]:
        """What is compared with other runtimes."""
        ...

    def step(self) -> object:
        """What is timed."""
        ...


@dataclass(frozen=True)
class Task:
    """What a process is to do.

    Arguments:
        make: builds the runtime, in that process.
        arguments: what it is called with.
        threads: number of threads.
    """

    make: Callable[..., Runtime]
    arguments: tuple[Any, ...]
    threads: int


class Failed(Exception):
    """A runtime that could not do what it was told; the reason in one line."""


@dataclass
class Worker:
    """A process with one runtime.

    Attributes:
        name: of the runtime.
        task: what it runs.
        times: of all runs so far, in seconds.
        disturbance: seconds of processor time that others used while this one was timed.
        timed: seconds of its turns.
    """

    name: str
    task: Task
    times: list[float] = field(default_factory=list)
    disturbance: float = 0.0
    timed: float = 0.0

    def __post_init__(self) -> None:
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[variable] = str(self.task.threads)
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.task), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, what: str, *arguments: Any) -> Any:
        """Tells the process to do something, and waits for the answer.

        Raises:
            Failed: it could not, or died.
        """
        self._pipe.send((what, arguments))
        return self.answer()

    def answer(self) -> Any:
        """The next answer; the first one tells that the runtime is ready, and after how long."""
        try:
            done, value = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise Failed(f"the process died, exit code {self._process.exitcode}") from None
        if not done:
            raise Failed(value)
        return value

    def processor_seconds(self) -> float:
        """Processor time of the process so far."""
        text = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(text[11]) + int(text[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Ends the process."""
        with suppress(OSError):
            self._pipe.send(("stop", ()))
        self._process.join(20)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    @property
    def median(self) -> float:
        """Seconds a run."""
        return statistics.median(self.times)


def _serve(pipe: Connection, task: Task) -> None:
    """The other end: builds the runtime and does what it is told until it is told to stop."""
    try:
        began = time.perf_counter()
        runtime = task.make(*task.arguments, threads=task.threads)
        pipe.send((True, time.perf_counter() - began))
        while True:
            what, arguments = pipe.recv()
            if what == "stop":
                return
            pipe.send((True, _ANSWERS[what](runtime, *arguments)))
    except EOFError:
        return
    except Exception as error:
        if os.environ.get("BENCHMARK_TRACEBACK"):
            traceback.print_exc()
        text = " ".join(str(error).split())
        pipe.send((False, f"{type(error).__name__}: {text[:300]}"))


def turn(run: Callable[[], object], seconds: float) -> list[float]:
    """Times of runs that take about so many seconds together."""
    for _ in range(WARM_UP):
        run()
    times: list[float] = []
    while len(times) < LEAST_RUNS or sum(times) < seconds:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return times


def _status(field: str) -> float:
    """MB from /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1000
    raise KeyError(field)


def _peak(runtime: Runtime, runs: int) -> dict[str, float]:
    """Peak resident memory in MB: in the whole life of the process, and during some runs."""
    life = _status("VmHWM")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is resident now
    for _ in range(runs):
        runtime.step()
    return {"life": max(life, _status("VmHWM")), "running": _status("VmHWM")}


_ANSWERS: Mapping[str, Callable[..., Any]] = {
    "outputs": lambda runtime: dict(runtime.outputs()),
    "turn": lambda runtime, seconds: turn(runtime.step, seconds),
    "peak": _peak,
    "get": lambda runtime, name: getattr(runtime, name, None),
    "call": lambda runtime, name, *arguments: getattr(runtime, name)(*arguments),
}


@contextmanager
def started(tasks: Mapping[str, Task]) -> Iterator[dict[str, Worker]]:
    """The runtimes that could be started, one process each; who could not is told of."""
    workers = {}
    try:
        for name, task in tasks.items():  # one after the other: building takes all processors
            worker = Worker(name, task)
            try:
                seconds = worker.answer()
            except Failed as reason:
                note(f"  {name} is left out: {reason}")
                worker.close()
                continue
            note(f"  {name} is ready after {seconds:.1f} s")
            workers[name] = worker
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


def interleave(workers: Sequence[Worker], rounds: int, *question: Any) -> None:
    """Times runtimes in turns; those that fail are dropped from the rest of the rounds.

    Arguments:
        workers: the runtimes.
        rounds: turns of each.
        question: what is asked in a turn; the answer is a list of times.
    """
    alive = list(workers)
    for i in range(rounds):
        for worker in alive[i % len(alive) :] + alive[: i % len(alive)]:
            time.sleep(PAUSE)
            others = [w for w in alive if w is not worker]
            before, began = sum(w.processor_seconds() for w in others), time.perf_counter()
            try:
                worker.times += worker.ask(*question)
            except Failed as reason:
                note(f"  {worker.name} failed: {reason}")
                alive.remove(worker)
                continue
            worker.timed += time.perf_counter() - began
            worker.disturbance += sum(w.processor_seconds() for w in others) - before


def difference(found: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Largest error, relative to the largest element of each output; infinity instead of NaN.

    Raises:
        Failed: other names or shapes.
    """
    worst = 0.0
    for name, y in expected.items():
        if name not in found or found[name].shape != y.shape:
            raise Failed(f"{name} is missing or has another shape")
        scale = float(np.max(np.abs(y), initial=0.0)) or 1.0
        error = float(np.max(np.abs(found[name] - y), initial=0.0)) / scale
        worst = max(worst, error if math.isfinite(error) else math.inf)
    return worst


def distance(found: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Largest distance of an output, relative to its norm: a few elements may differ by much.

    Raises:
        Failed: other names or shapes.
    """
    difference(found, expected)  # the same names and shapes
    parts = (
        float(np.linalg.norm(found[n] - y)) / (float(np.linalg.norm(y)) or 1.0)
        for n, y in expected.items()
    )
    return max((p if math.isfinite(p) else math.inf for p in parts), default=0.0)


# -- results --------------------------------------------------------------------------------------


def geometric_mean(values: Iterable[float]) -> float:
    """NaN of nothing."""
    listed = [math.log(v) for v in values]
    return math.exp(sum(listed) / len(listed)) if listed else math.nan


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as they need to be; numbers to the right."""
    cells = [list(headings), *([_cell(v) for v in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    for row in cells:
        padded = (c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(
            zip(row, widths, strict=True)))  # fmt: skip
        print("  ".join(padded).rstrip(), flush=True)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
    return str(value)


def machine() -> dict[str, Any]:
    """What the figures were measured on and with."""
    from importlib import metadata

    model = platform.processor()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(s.partition(":")[2].strip() for s in lines if s.startswith("model name"))
    versions = {}
    for package in ("quern", "numpy", "llvmlite", "torch", "onnxruntime", "openvino"):
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "processor": model,
        "usable_processors": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions,
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def write_json(path: str | None, result: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Writes results with what they were measured on, when a file is asked for."""
    if path:
        data = {"machine": machine(), "options": vars(options), **result}
        Path(path).write_text(json.dumps(data, indent=1, default=str) + "\n")
        note(f"wrote {path}")


def note(text: str) -> None:
    """Something about how it goes, beside the results."""
    print(text, file=sys.stderr, flush=True)


def add_options(parser: argparse.ArgumentParser, networks: Sequence[str]) -> None:
    """Arguments that the benchmarks of networks share."""
    parser.add_argument("--networks", nargs="+", default=list(networks), metavar="NAME")
    parser.add_argument("--threads", type=int, default=2, help="of each runtime (2)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each runtime (7)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn (0.5)")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
