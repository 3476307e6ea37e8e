"""How long compiling takes: cold, with an empty cache, and warm, with all kernels in it.

    python benchmarks/compiling.py [--cases resnet50 resnet50:step16] [--repeat 3] [--stages]

A case is a network for inference of one image, `NAME:16` for 16 of them, or `NAME:step16` for a
training step (cross entropy, SGD with momentum). Every compilation has a process of its own; the
table has the fastest one. Processor time is that of the process and of the workers that it starts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

from common import image, network, note, print_table, write_json

import quern as qn
from quern import nn
from quern.compiler.driver import compile_graph
from quern.compiler.graph import Graph
from quern.compiler.llvm import pool
from quern.compiler.training import build_training_step

CASES = ("resnet50", "resnet50:step16", "densenet121", "vgg16", "googlenet", "mobilenet_v2")


def graph_of(case: str) -> Graph:
    """The declared graph of a case."""
    name, _, kind = case.partition(":")
    module, batch = network(name), int(kind.removeprefix("step") or 1)
    x = qn.spec(image(name, batch))
    if not kind.startswith("step"):
        return qn.trace(module, x, training=False)
    cross_entropy = nn.CrossEntropyLoss()

    def loss(x: Any, target: Any) -> dict[str, Any]:
        outputs = module(x)
        return {
            "loss": cross_entropy(outputs[0] if isinstance(outputs, tuple) else outputs, target)
        }

    graph = qn.trace(loss, x, qn.spec(batch, dtype="int64"), training=True)
    return build_training_step(graph, "loss", qn.optim.SGD(0.01, momentum=0.9))


def compile_here(case: str) -> dict[str, Any]:
    """What compiling a case takes in this process."""
    graph = graph_of(case)
    start, processor = time.perf_counter(), time.process_time()
    compiled = compile_graph(graph)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    pool._POOL.close()
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "nodes": len(graph),
        "kernels": len(compiled.image.program.kernels),
        "different": len(compiled.image.objects),
        "seconds": seconds,
        "processor": processor + workers.ru_utime + workers.ru_stime,
        "stages": [(s.name, s.seconds, s.detail) for s in compiled.report.stages],
    }


def compile_there(case: str, cache: str) -> dict[str, Any]:
    """The same in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--here", case],
        env={**os.environ, "QUERN_CACHE_DIR": cache},
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(case: str, repeat: int) -> dict[str, Any]:
    """The fastest cold and the fastest warm compilation."""
    cold, warm = [], []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(compile_there(case, cache))
            warm.append(compile_there(case, cache))
    best_cold, best_warm = (min(runs, key=lambda run: run["seconds"]) for runs in (cold, warm))
    return {"case": case, "cold": best_cold, "warm": best_warm}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=list(CASES), metavar="CASE")
    parser.add_argument("--repeat", type=int, default=3, help="compilations of each kind (3)")
    parser.add_argument("--stages", action="store_true", help="print what each stage took, too")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--here", metavar="CASE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(compile_here(options.here)))
        return
    results = []
    for case in options.cases:
        note(f"{case} …")
        results.append(measure(case, options.repeat))
        if options.stages:
            cold, warm = (results[-1][kind]["stages"] for kind in ("cold", "warm"))
            rows = [(*a[:2], b[1], a[2]) for a, b in zip(cold, warm, strict=True)]
            print_table((case, "cold s", "warm s", ""), rows)
    print_table(
        ("case", "nodes", "kernels", "different", "cold s", "processor s", "warm s"),
        [
            (r["case"], *(c[k] for k in ("nodes", "kernels", "different", "seconds", "processor")),
             r["warm"]["seconds"])
            for r in results for c in (r["cold"],)
        ],
    )  # fmt: skip
    write_json(options.json, {"results": results}, options)


if __name__ == "__main__":
    main()
