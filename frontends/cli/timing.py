"""How long a run takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np

from ...compiler.types import Array
from ...runtime.executable import Executable

_LEAST, _MOST = 5, 1_000_000


@dataclass(frozen=True)
class Timing:
    """Times of many runs of a network.

    Arguments:
        name: of the network.
        threads: that ran it.
        rows: of a batch: the first extent that all inputs share; 1 where there is none.
        seconds: of every run.
    """

    name: str
    threads: int
    rows: int
    seconds: tuple[float, ...]

    def percentile(self, share: float) -> float:
        """Seconds that `share` percent of the runs do not exceed."""
        return float(np.percentile(self.seconds, share))

    @property
    def runs_per_second(self) -> float:
        return len(self.seconds) / sum(self.seconds)

    def line(self) -> str:
        """`median 1.234 ms, fastest 1.198 ms, of 810 runs on 2 threads`"""
        return (
            f"median {1e3 * self.percentile(50):.3f} ms, fastest {1e3 * min(self.seconds):.3f} ms, "
            f"of {len(self.seconds)} runs on {_threads(self.threads)}"
        )

    def text(self) -> str:
        """Everything, for people."""
        shares = " ".join(f"p{share} {1e3 * self.percentile(share):.3f} ms " for share in _SHARES)
        rate = f"{self.runs_per_second:,.1f} runs/s"
        if self.rows > 1:
            rate += f", {self.rows * self.runs_per_second:,.1f} rows/s of batches of {self.rows}"
        return (
            f"{self.name}: {len(self.seconds)} runs on {_threads(self.threads)}\n"
            f"latency     {shares} fastest {1e3 * min(self.seconds):.3f} ms  "
            f"mean {1e3 * mean(self.seconds):.3f} ms\n"
            f"throughput  {rate}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; times in seconds."""
        return {
            "name": self.name,
            "threads": self.threads,
            "runs": len(self.seconds),
            **{f"p{share}": self.percentile(share) for share in _SHARES},
            "fastest": min(self.seconds),
            "slowest": max(self.seconds),
            "mean": mean(self.seconds),
            "runs_per_second": self.runs_per_second,
            "rows_per_second": self.rows * self.runs_per_second,
        }


_SHARES = (50, 90, 99)


def measure(
    executable: Executable,
    arrays: Mapping[str, Array],
    warmup: int = 1,
    duration: float = 1.0,
    count: int | None = None,
) -> Timing:
    """Runs a network again and again, and times every run.

    Arguments:
        executable: the network.
        arrays: its inputs.
        warmup: runs that do not count.
        duration: seconds to go on for, in at least 5 runs.
        count: of runs, instead.
    """
    for _ in range(warmup):
        executable.run(arrays)
    least, most = (count, count) if count else (_LEAST, _MOST)
    times: list[float] = []
    end = time.perf_counter() + duration
    while len(times) < least or (len(times) < most and time.perf_counter() < end):
        start = time.perf_counter()
        executable.run(arrays)
        times.append(time.perf_counter() - start)
    return Timing(executable.program.name, executable.threads, _rows(executable), tuple(times))


def _rows(executable: Executable) -> int:
    firsts = {type.shape[:1] for type in executable.inputs.values()}
    return next(iter(firsts))[0] if len(firsts) == 1 and () not in firsts else 1


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"
