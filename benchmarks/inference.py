"""Inference of well-known networks: this project against PyTorch, ONNX Runtime and OpenVINO.

    python benchmarks/inference.py [--networks resnet50 …] [--batch 1 16] [--threads 2]
                                   [--rounds 7] [--compiled] [--json FILE]

All runtimes have the same weights (random, with random batch-norm statistics, so that folding them
is honest work) and inputs; the graph of the zoo goes to ONNX Runtime and OpenVINO as an ONNX file
and to PyTorch as a module made of torch.nn.functional. Outputs are compared with ONNX Runtime's
before anything is timed. Who waits, how turns are taken and what keeps the runtimes apart is told
in `common.py`.

Prints the median time of each runtime in ms, and best peer / ours: above 1, ours is the faster one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import Array, Failed, Task, Worker, note

import quern as qn

NETWORKS = (
    "alexnet",
    "vgg16",
    "googlenet",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "densenet121",
    "mobilenet_v2",
    "squeezenet1_1",
)
OURS = "quern"
LARGEST_ERROR = 1e-3  # relative to the largest output; more is a fault, not rounding


class Quern:
    """Compiled by this project."""

    def __init__(self, network: str, batch: int, *, threads: int) -> None:
        graph = common.inference_graph(network, batch)
        self._executable = qn.compile(graph, threads=threads)
        (name,) = self._executable.inputs
        self._feeds = {name: common.image(network, batch)}

    def outputs(self) -> Mapping[str, Array]:
        return self.step()

    def step(self) -> Mapping[str, Array]:
        return self._executable.run(self._feeds)


class Torch:
    """PyTorch: `eager`, `channels-last`, or `compiled` (with constants folded: freezing)."""

    def __init__(self, mode: str, network: str, batch: int, *, threads: int) -> None:
        import peers_torch
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        module: Any = peers_torch.module_of(common.inference_graph(network, batch)).eval()
        x = torch.from_numpy(common.image(network, batch))
        if mode != "eager":
            module = module.to(memory_format=torch.channels_last)
            x = x.to(memory_format=torch.channels_last)
        if mode == "compiled":
            import torch._inductor.config as inductor

            inductor.freezing = True
            module = torch.compile(module)
        self._module, self._x = module, x
        self.step()

    def outputs(self) -> Mapping[str, Array]:
        return {name: y.numpy() for name, y in self.step().items()}

    def step(self) -> dict[str, Any]:
        results: dict[str, Any] = self._module(self._x)
        return results


class OnnxRuntime:
    """ONNX Runtime with all optimisations."""

    def __init__(self, path: str, network: str, batch: int, *, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        (taken,) = self._session.get_inputs()
        self._names = [o.name for o in self._session.get_outputs()]
        self._feeds = {taken.name: common.image(network, batch)}

    def outputs(self) -> Mapping[str, Array]:
        return dict(zip(self._names, self.step(), strict=True))

    def step(self) -> list[Array]:
        results: list[Array] = self._session.run(None, self._feeds)
        return results


class OpenVino:
    """OpenVINO in float32 with the latency hint."""

    def __init__(self, path: str, network: str, batch: int, *, threads: int) -> None:
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
        }
        compiled = openvino.Core().compile_model(path, "CPU", settings)
        self._names = [o.get_any_name() for o in compiled.outputs]
        self._request = compiled.create_infer_request()
        self._x = common.image(network, batch)

    def outputs(self) -> Mapping[str, Array]:
        self.step()
        found = (self._request.get_output_tensor(i).data for i in range(len(self._names)))
        return {name: np.array(y) for name, y in zip(self._names, found, strict=True)}

    def step(self) -> object:
        return self._request.infer([self._x], share_inputs=True, share_outputs=True)


def tasks(options: argparse.Namespace, network: str, batch: int, file: str) -> dict[str, Task]:
    """The runtimes by name, ours first."""
    made = {
        OURS: Task(Quern, (network, batch), options.threads),
        "onnxruntime": Task(OnnxRuntime, (file, network, batch), options.threads),
        "openvino": Task(OpenVino, (file, network, batch), options.threads),
        "torch": Task(Torch, ("eager", network, batch), options.threads),
        "channels-last": Task(Torch, ("channels-last", network, batch), options.threads),
    }
    if options.compiled:
        made["compiled"] = Task(Torch, ("compiled", network, batch), options.threads)
    return {k: v for k, v in made.items() if k == OURS or not options.peers or k in options.peers}


def compare(workers: Mapping[str, Worker]) -> dict[str, float]:
    """The largest relative error of each runtime against the first peer there is."""
    found: dict[str, Mapping[str, Array]] = {}
    for name, worker in workers.items():
        try:
            found[name] = worker.ask("outputs")
        except Failed as reason:
            note(f"  {name} failed: {reason}")
    reference = next((n for n in ("onnxruntime", "torch", *found) if n in found), OURS)
    errors = {n: common.difference(y, found[reference]) for n, y in found.items() if n != reference}
    note(f"  largest error against {reference}: "
         + ", ".join(f"{n} {e:.1e}" for n, e in errors.items()))  # fmt: skip
    return {reference: 0.0, **errors}


def measure(options: argparse.Namespace, network: str, batch: int, file: str) -> dict[str, Any]:
    """All figures of one network."""
    with common.started(tasks(options, network, batch, file)) as workers:
        errors = compare(workers)
        wrong = [n for n, e in errors.items() if not e <= LARGEST_ERROR]
        for name in wrong:
            note(f"  {name} IS WRONG ({errors[name]:.1e}) and is not timed")
        timed = [w for n, w in workers.items() if n in errors and n not in wrong]
        common.interleave(timed, options.rounds, "turn", options.seconds)
        medians = {w.name: w.median for w in timed if w.times}
    peers = {n: t for n, t in medians.items() if n != OURS}
    best = min(peers, key=peers.__getitem__, default=None)
    ratio = peers[best] / medians[OURS] if best and OURS in medians else None
    return {
        "network": network,
        "batch": batch,
        "milliseconds": {n: 1e3 * t for n, t in medians.items()},
        "fastest": {w.name: 1e3 * min(w.times) for w in timed if w.times},
        "runs": {w.name: len(w.times) for w in timed},
        "spread": {w.name: _spread(w.times) for w in timed if len(w.times) > 3},
        "disturbance": {w.name: w.disturbance / max(w.timed, 1e-9) for w in timed},
        "errors": errors,
        "best_peer": best,
        "ratio": ratio,
    }


def _spread(times: list[float]) -> float:
    """Interquartile range over the median."""
    low, middle, high = statistics.quantiles(times, n=4)
    return (high - low) / middle


def report(results: list[dict[str, Any]], names: list[str]) -> dict[str, float]:
    """Prints the table; gives the geometric means of the ratios."""
    rows = [
        [
            r["network"],
            r["batch"],
            *(r["milliseconds"].get(n) for n in names),
            r["best_peer"],
            r["ratio"],
            f"{r['errors'].get(OURS, float('nan')):.0e}",
        ]
        for r in results
    ]
    print()
    common.print_table(
        ["ms (medians)", "batch", *names, "best peer", "best peer/ours", "error"], rows
    )
    means = {
        str(batch): common.geometric_mean(
            r["ratio"] for r in results if r["ratio"] and r["batch"] == batch
        )
        for batch in sorted({r["batch"] for r in results})
    }
    means["all"] = common.geometric_mean(r["ratio"] for r in results if r["ratio"])
    for batch, mean in means.items():
        print(f"geometric mean of best peer / ours, batch {batch}: {mean:.3f}")
    worst = max((max(r["disturbance"].values(), default=0.0) for r in results), default=0.0)
    print(f"processor time of waiting runtimes during a turn: at most {100 * worst:.1f} %")
    return means


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common.add_options(parser, NETWORKS)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--compiled", action="store_true", help="torch.compile too (slow to start)")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="only these")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    for network in options.networks:
        for batch in options.batch:
            note(f"{network}, batch {batch}, {options.threads} threads")
            with tempfile.TemporaryDirectory() as folder:
                file = str(Path(folder) / f"{network}.onnx")
                qn.to_onnx(common.inference_graph(network, batch), file)
                result = measure(options, network, batch, file)
            results.append(result)
            names |= dict.fromkeys(result["milliseconds"])
            common.print_table(
                ["", *result["milliseconds"], "ratio"],
                [["ms", *result["milliseconds"].values(), result["ratio"]]],
            )
    means = report(results, list(names))
    common.write_json(options.json, {"results": results, "geometric_means": means}, options)


if __name__ == "__main__":
    main()
