"""How long it takes until a network can be called: importing, loading a compiled file, a first run.

    python benchmarks/startup.py [FILE.qn] [--repeat 9]

Each figure is the median over processes of their own. Without a file, a LeNet is compiled first;
its kernels are then in the cache, as they are for whoever loads a file a second time.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_IMPORT = """
import time
start = time.perf_counter()
import quern
print(time.perf_counter() - start)
"""

_LOAD = """
import sys, time
start = time.perf_counter()
import quern, numpy
imported = time.perf_counter()
from quern.runtime.artifact import load
rooms = time.perf_counter()
executable = load(sys.argv[1])
loaded = time.perf_counter()
feeds = {n: numpy.zeros(t.shape, t.dtype.numpy) for n, t in executable.inputs.items()}
executable.run(feeds)
done = time.perf_counter()
print(rooms - start, loaded - rooms, done - loaded, done - start)
"""


def medians(program: str, arguments: list[str], repeat: int) -> list[float]:
    """Medians of the numbers that a Python program prints."""
    runs = [
        subprocess.run(
            [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True
        ).stdout.split()
        for _ in range(repeat)
    ]
    return [statistics.median(float(run[i]) for run in runs) for i in range(len(runs[0]))]


def compiled_lenet(folder: str) -> Path:
    """A LeNet for 28×28 images as a file."""
    import quern as qn
    from quern import nn

    network = nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )
    return qn.compile(network, qn.spec(1, 1, 28, 28)).save(Path(folder) / "lenet.qn")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--repeat", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = options.file or compiled_lenet(folder)
        (bare,) = medians(_IMPORT, [], options.repeat)
        rooms, load, run, total = medians(_LOAD, [str(file)], options.repeat)
    print(f"import quern                  {bare * 1e3:8.1f} ms")
    print(f"import all that loading needs {rooms * 1e3:8.1f} ms")
    print(f"load {file.name:24} {load * 1e3:8.1f} ms")
    print(f"first run                     {run * 1e3:8.1f} ms")
    print(f"all                           {total * 1e3:8.1f} ms")


if __name__ == "__main__":
    main()
