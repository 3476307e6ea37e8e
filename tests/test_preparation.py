"""What follows from parameters alone is prepared by kernels where it is much."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler import driver
from quern.compiler.driver import Options, compile_graph
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph
from quern.runtime.executable import Executable


class Net(nn.Module):
    """A convolution whose norm is folded into its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.norm.running_var.data = np.linspace(0.5, 2, 32, dtype=np.float32)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        return self.norm(self.conv(x)).relu()


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> Graph:
    monkeypatch.setattr(driver, "_MUCH", 1000)
    qn.manual_seed(1)
    return qn.trace(Net().eval(), qn.spec(1, 16, 8, 8))


def test_little_is_left_to_numpy() -> None:
    image = compile_graph(qn.trace(Net().eval(), qn.spec(1, 16, 8, 8)), Options(workers=1)).image
    assert image.preparation is not None
    assert image.preparing is None


def test_kernels_prepare_what_numpy_does(graph: Graph) -> None:
    image = compile_graph(graph, Options(workers=1)).image
    assert image.preparing is not None
    executable = Executable(image, threads=1)
    assert image.preparation is not None
    prepared = evaluate(image.preparation.graph, executable.state).outputs
    assert prepared.keys() <= executable.constants.keys()
    for name, array in prepared.items():
        np.testing.assert_allclose(executable.constants[name], array, rtol=1e-5, atol=1e-6)


def test_new_parameters_are_prepared_anew(graph: Graph, rng: np.random.Generator) -> None:
    executable = Executable(compile_graph(graph, Options(workers=1)).image, threads=1)
    before = {name: array.copy() for name, array in executable.constants.items()}
    executable.load_state({n: 2 * a for n, a in executable.state.items()})
    assert any((executable.constants[n] != a).any() for n, a in before.items())
    x = rng.standard_normal((1, 16, 8, 8), np.float32)
    expected = evaluate(graph, {**executable.state, "x": x}).outputs
    np.testing.assert_allclose(executable(x), *expected.values(), rtol=1e-4, atol=1e-5)


def test_a_file_needs_no_preparation(graph: Graph, tmp_path: Path) -> None:
    executable = Executable(compile_graph(graph, Options(workers=1)).image, threads=1)
    loaded = qn.load(executable.save(tmp_path / "net.qn"))
    for name, array in executable.constants.items():
        np.testing.assert_array_equal(loaded.constants[name], array)
    loaded.load_state({n: 2 * a for n, a in executable.state.items()})
    executable.load_state(loaded.state)
    x = np.ones((1, 16, 8, 8), np.float32)
    np.testing.assert_allclose(loaded(x), executable(x), rtol=1e-5, atol=1e-6)
