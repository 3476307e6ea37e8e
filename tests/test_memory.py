"""The planned peak of memory is what a process then uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.training import build_training_step
from quern.optim import SGD
from quern.runtime.memory import Memory

_RUN = """
import sys
import numpy as np
from quern.runtime.artifact import load
from quern.runtime.executable import Executable

def peak():
    text = open("/proc/self/status").read()
    return 1024 * int(text.split("VmHWM:")[1].split()[0])

def feeds(step):
    return {n: np.ones(t.shape, t.dtype.numpy) for n, t in step.inputs.items()}

small = load(sys.argv[1], 1)
small.run(feeds(small))
before = peak()
step = load(sys.argv[2], 1)
inputs = feeds(step)
for _ in range(2):
    step.run(inputs)
print(peak() - before, step.memory.total)
"""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(4)
        self.fc = nn.Linear(8 * 4 * 4, 10)

    def forward(self, image: nn.Tensor, target: nn.Tensor) -> dict[str, nn.Tensor]:
        x = self.norm(self.conv1(image)).relu()
        x = self.pool(self.conv2(x).relu())
        x = nn.functional.adaptive_avg_pool2d(x, 4)
        return {"loss": nn.functional.cross_entropy(self.fc(x.reshape(x.shape[0], -1)), target)}


def training_step(batch: int, size: int) -> qn.Executable:
    specs = qn.spec(batch, 3, size, size), qn.spec(batch, dtype="int64")
    traced = qn.trace(Net(), *specs, training=True)
    step = build_training_step(traced, "loss", SGD(0.1, momentum=0.9))
    return qn.compile(step, threads=1, workers=1)


def test_the_parts_of_a_plan(rng: np.random.Generator) -> None:
    step = training_step(2, 16)
    ends = 4 * 2 * 3 * 16 * 16 + 8 * 2 + 4
    states = sum(array.nbytes for array in step.state.values())
    memory = step.memory
    assert (memory.ends, memory.states) == (ends, states)
    assert memory.arena == step.program.arena_bytes > 0
    assert memory.total == ends + states + memory.arena + memory.constants
    assert str(memory).startswith("planned peak memory ")


def test_a_plan_as_text() -> None:
    assert str(Memory(1200, 3_000_000, 40, 0)) == (
        "planned peak memory 3.00 MB: inputs and outputs 1.20 kB, between kernels 3.00 MB, "
        "parameters and buffers 40 B, constants 0 B"
    )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_a_process_uses_what_is_planned(tmp_path: Path) -> None:
    small = training_step(1, 16).save(tmp_path / "small.qn")
    large = training_step(12, 256).save(tmp_path / "large.qn")
    out = subprocess.run(
        [sys.executable, "-c", _RUN, str(small), str(large)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    used, planned = map(int, out.split())
    assert planned > 50e6
    assert 0.9 * planned < used < 1.1 * planned + 4e6
