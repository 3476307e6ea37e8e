"""Every network of the zoo, all the way: run, saved, exported, trained and drawn."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from zoo_cases import QUICK, SWITCHED, network_of, small_input

import quern as qn
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph
from quern.compiler.ops.leaf import Input
from quern.compiler.tensor import Tensor
from quern.compiler.training import Descent, build_training_step
from quern.compiler.types import Array
from quern.frontends.nn.init import skipped
from quern.frontends.zoo import entries

NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in entries()]
every_network = pytest.mark.parametrize("name", NAMES)


def feeds_of(graph: Graph, rng: np.random.Generator) -> dict[str, Array]:
    return {
        node.name: rng.standard_normal(node.types[0].shape).astype(node.types[0].dtype.numpy)
        for node in graph.leaves(Input)
    }


def assert_close(
    found: Mapping[str, Array], expected: Mapping[str, Array], share: float, most: float = 1.0
) -> None:
    """Differences are at most so large a share of the largest element of an array.

    Some gradients are 0, those of biases in front of norms: they have errors of others' size.

    Arguments:
        found, expected: arrays by name.
        share: of the largest element.
        most: the share of the elements that have to be close.
    """
    assert list(found) == list(expected)
    least = 1e-4 * max((np.abs(y).max() for y in expected.values()), default=0.0)
    for key, y in expected.items():
        assert np.isfinite(found[key]).all(), key
        error = float(np.quantile(np.abs(found[key] - y), most))
        largest = float(max(np.abs(y).max(), least))
        assert error <= share * largest, f"{key}: {error} of {largest}"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Does not outlive the test: the files of all networks are tens of gigabytes."""
    with TemporaryDirectory() as name:
        yield Path(name)


@every_network
def test_it_runs_and_makes_round_trips(name: str, folder: Path, rng: np.random.Generator) -> None:
    graph = qn.trace(network_of(name, rng).eval(), qn.spec(*small_input(name)))
    feeds = feeds_of(graph, rng)
    most = 0.9 if name in SWITCHED else 1.0
    expected = evaluate(graph, feeds).outputs
    executable = qn.compile(graph)
    found = executable.run(feeds)
    assert_close(found, expected, 1e-4, most)
    mirrored = executable.run({key: x[..., ::-1] for key, x in feeds.items()})
    for key, y in expected.items():
        assert np.abs(mirrored[key] - y).max() > 1e-3 * y.std() > 0, key

    again = qn.load(executable.save(folder / "net.qn")).run(feeds)
    for key, y in found.items():
        np.testing.assert_array_equal(again[key], y, err_msg=key)

    path = qn.to_onnx(executable, folder / "net.onnx")
    assert_close(qn.compile(path).run(feeds), expected, 1e-4, most)
    assert_close(run_by_onnxruntime(path, feeds), expected, 1e-4, most)


def run_by_onnxruntime(path: Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    runtime = pytest.importorskip("onnxruntime")
    runtime.set_default_logger_severity(4)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(feeds)), strict=True))


@dataclass(frozen=True)
class Descending:
    """Gradient descent that shows the gradients, too."""

    rate: float = 0.125

    def update(self, graph: Graph, descents: Mapping[str, Descent]) -> dict[str, Tensor]:
        graph.outputs |= {f"grad.{n}": d.gradient.value for n, d in descents.items()}
        return {n: d.parameter - d.gradient * self.rate for n, d in descents.items()}


@every_network
def test_it_trains_a_step_as_numpy_does(name: str, rng: np.random.Generator) -> None:
    # Where the input of a ReLU is almost 0, or two of a pooling are almost equal, rounding chooses
    # the way of the gradient. Large networks have millions of them, so they are tested in doubles.
    # Deep ones without an identity beside their branches let rounding grow by ten digits.
    dtype, share = ("float32", 1e-3) if name in QUICK else ("float64", 1e-5)
    network = network_of(name, rng).train()
    network.to(dtype)
    graph = qn.trace(network, qn.spec(*small_input(name), dtype=dtype))
    # Every element counts differently: scores of softmax, for one, have a constant sum.
    results = [graph.tensor(value) for value in graph.outputs.values()]
    terms = [(y * graph.constant(rng.standard_normal(y.shape), y.dtype)).mean() for y in results]
    graph.outputs = {"loss": sum(terms[1:], terms[0]).value}
    step = build_training_step(graph, "loss", Descending())
    feeds = feeds_of(step, rng)
    before = {n: p.data.copy() for n, p in network.named_parameters()}
    reference = evaluate(step, feeds)
    statistics = {n: y for n, y in reference.updates.items() if n not in before}
    expected = reference.outputs
    del reference  # every value of the step

    executable = qn.compile(step)
    found = executable.run(feeds)
    assert {f"grad.{n}" for n in before} == found.keys() - {"loss"}
    assert_close(found, expected, share)
    for key, array in before.items():
        wanted = array - found[f"grad.{key}"] * array.dtype.type(0.125)
        np.testing.assert_allclose(executable.state[key], wanted, rtol=1e-6, atol=1e-6)
    assert_close({n: executable.state[n] for n in statistics}, statistics, share)


@every_network
def test_it_is_drawn_forwards_backwards_and_as_kernels(name: str) -> None:
    with skipped():
        network = entries()[name].build()
    graph = qn.trace(network, qn.spec(*small_input(name)), training=False)
    (image,) = (node.name for node in graph.leaves(Input))
    forward, backward, kernels = pictures = (
        qn.draw(graph),
        qn.draw(graph, backward=True),
        qn.draw(graph, stage="kernels"),
    )
    for picture in pictures:
        assert image in picture.source
    assert "cluster_backward" in backward.source
    assert "cluster_backward" not in forward.source
    assert kernels.source.count("subgraph cluster") > 1
    svg = forward.render("svg")
    if svg is not None:
        assert ET.fromstring(svg).tag.endswith("svg")
