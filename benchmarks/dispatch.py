"""What it costs to dispatch kernels: time per step of programs whose kernels do nothing.

    python benchmarks/dispatch.py [--threads 1 2] [--rounds 200]

Prints medians in µs: per step of 1000 parallel steps with a barrier each, and of 1000 serial steps;
and for one call with a single parallel step, made right after another (the workers still spin) and
after a rest (they sleep).
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from quern.compiler.llvm import jit
from quern.compiler.llvm.codegen import compile_to_object
from quern.compiler.llvm.target import Target
from quern.runtime.threads import BARRIER, PARALLEL, Runner, get_runner

STEPS = 1000
NOTHING = "define void @nothing(ptr %args, i64 %begin, i64 %end) {\n  ret void\n}\n"


def median_us(runner: Runner, steps: NDArray[np.int64], rounds: int, rest: float = 0.0) -> float:
    """Median time of a run in µs, `rest` seconds after the run before."""
    times = []
    for _ in range(rounds + 3):
        if rest:
            time.sleep(rest)
        began = time.perf_counter_ns()
        runner.run(steps)
        times.append(time.perf_counter_ns() - began)
    return float(np.median(times[3:])) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description="Dispatch overhead of kernels, in µs.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    library = jit.load([compile_to_object(NOTHING, Target.host())])
    nothing = library.address("nothing")
    print("threads  parallel+barrier/step  serial/step  1 step, awake  1 step, asleep")
    for threads in options.threads:
        runner = get_runner(threads)

        def program(count: int, flags: int) -> NDArray[np.int64]:
            return np.array([[nothing, 0, 1024, flags]] * count, np.int64)

        one = program(1, PARALLEL)
        parallel = median_us(runner, program(STEPS, PARALLEL | BARRIER), options.rounds) / STEPS
        serial = median_us(runner, program(STEPS, 0), options.rounds) / STEPS
        awake = median_us(runner, one, options.rounds)
        asleep = median_us(runner, one, options.rounds, rest=0.002)
        print(f"{threads:7}{parallel:23.3f}{serial:13.3f}{awake:15.1f}{asleep:16.1f}")


if __name__ == "__main__":
    main()
