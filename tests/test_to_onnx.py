"""Operations as ONNX files: read again, and run by ONNX Runtime, they give the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from op_cases import Case
from test_every_op import CASES, graph_of_case

import quern as qn
from quern import nn
from quern.compiler.errors import OnnxError
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph
from quern.compiler.ops.base import apply
from quern.compiler.ops.leaf import Parameter
from quern.compiler.ops.norm import BatchNorm
from quern.compiler.ops.pool import MaxPool
from quern.compiler.ops.random import Dropout
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, TensorType
from quern.frontends.cli.main import main
from quern.frontends.onnx.exporter import to_model

onnx = pytest.importorskip("onnx")

RNG = np.random.default_rng(0)

# What inference has no need of: gradients, random numbers, layouts and algorithms of a machine.
REFUSED = {
    "ConvWeightGradient", "MaxPoolGather", "MaxPoolGradient", "MaxPoolIndices",
    "PackedMatMul", "Philox", "RandomNormal", "SumPoolGradient",
}  # fmt: skip
OF_THE_MACHINE = ("blocked", "strassen", "winograd", "winograd_gradient")
# Means something else in inference, or gives what inference does not have.
CHANGED = {"BatchNorm", "Dropout", "MaxPool"}
# Has bodies of float64 here; test_nn_function.py exports one.
OF_ONE_DTYPE = {"CustomGradient"}
# Expanded they take the Erf of float64, which ONNX has and ONNX Runtime has not.
NOT_IN_ONNX_RUNTIME = {"Erfc", "Erfinv"}


def run_by_onnxruntime(model: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    runtime = pytest.importorskip("onnxruntime")
    runtime.set_default_logger_severity(4)
    data = model if isinstance(model, str) else model.SerializeToString()
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    inputs = {i.name: feeds[i.name] for i in session.get_inputs()}
    return dict(
        zip((o.name for o in session.get_outputs()), session.run(None, inputs), strict=True)
    )


def assert_same(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    assert list(found) == list(expected)
    for name, y in expected.items():
        assert found[name].shape == y.shape
        assert found[name].dtype == y.dtype
        size = np.max(np.abs(y), initial=0, where=np.isfinite(y)) if y.dtype.kind == "f" else 0
        np.testing.assert_allclose(found[name], y, rtol=1e-4, atol=1e-5 * size)


def check(graph: Graph, feeds: Mapping[str, Array]) -> Any:
    """Exports a graph; read again it computes the same."""
    model = to_model(graph)
    onnx.checker.check_model(model, full_check=True)
    expected = evaluate(graph, {**graph.data, **feeds}).outputs
    assert_same(evaluate(qn.from_onnx(model), feeds).outputs, expected)
    return model, expected


# -- operation by operation -----------------------------------------------------------------------


def _is_refused(case: Case) -> bool:
    module = type(case.op).__module__.rpartition(".")[2]
    return case.op.name in REFUSED or module in OF_THE_MACHINE


def _is_exported(case: Case) -> bool:
    sideways = case.op.name == "ScatterAdd" and case.op.attributes()["axis"] != 0
    return not (_is_refused(case) or case.op.name in CHANGED | OF_ONE_DTYPE or sideways)


@pytest.mark.parametrize("case", [c for c in CASES if _is_exported(c)], ids=str)
def test_an_operation(case: Case) -> None:
    graph, feeds = graph_of_case(case, np.float32)
    with np.errstate(all="ignore"):
        model, expected = check(graph, feeds)
        if case.op.name not in NOT_IN_ONNX_RUNTIME:
            assert_same(run_by_onnxruntime(model, feeds), expected)


@pytest.mark.parametrize("case", [c for c in CASES if _is_refused(c)], ids=str)
def test_what_has_no_operator_is_refused_by_name(case: Case) -> None:
    graph, _ = graph_of_case(case, np.float32)
    node = next(n for n in graph.nodes() if n.op == case.op)
    with pytest.raises(OnnxError, match=rf"^{node.name} \(.*\): {case.op.name}: .*ONNX has"):
        to_model(graph)


# -- what training has more -----------------------------------------------------------------------


def _x(graph: Graph, *shape: int) -> Tensor:
    return graph.input(TensorType(shape), "x")


def test_dropout_is_left_out() -> None:
    graph = Graph()
    x = _x(graph, 3, 4)
    counters = (graph.buffer(np.array(1)), graph.buffer(np.array(2)))
    graph.outputs["y"] = apply(Dropout(0.5), x, *counters).relu().value
    assert [n.op_type for n in to_model(graph).graph.node] == ["Relu"]


def test_batch_norm_in_training_is_exported_with_its_running_statistics() -> None:
    layer = nn.BatchNorm2d(3)
    state = layer.state_dict()
    state["running_mean"][...], state["running_var"][...] = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]
    x = RNG.standard_normal((2, 3, 4, 4)).astype(np.float32)
    training = qn.trace(layer, qn.spec(x), training=True)
    assert any(isinstance(n.op, BatchNorm) for n in training.nodes())
    found = qn.interpret(qn.from_onnx(to_model(training)), x)
    np.testing.assert_allclose(found, qn.interpret(layer.eval(), x), rtol=1e-5)


def test_positions_of_pooling_are_there_for_unpooling_only() -> None:
    class Unpooled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y, indices = nn.functional.max_pool2d(x, 2, return_indices=True)
            return nn.functional.max_unpool2d(y, indices, 2)

    x = RNG.standard_normal((2, 3, 6, 4)).astype(np.float32)
    model, expected = check(qn.trace(Unpooled(), qn.spec(x)), {"x": x})
    assert_same(run_by_onnxruntime(model, {"x": x}), expected)
    graph = Graph()
    op = MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))
    y, position = graph.apply(op, _x(graph, 2, 3, 6, 4), name="pool")
    graph.outputs = {"y": y.value}
    (pool,) = to_model(graph).graph.node
    assert list(pool.output) == ["y"]
    graph.outputs = {"position": position.value}
    with pytest.raises(OnnxError, match="pool:1: ONNX has no positions inside of windows"):
        to_model(graph)


# -- names ----------------------------------------------------------------------------------------


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(64, 5)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = nn.functional.relu(self.bn(self.conv(image)))
        return {"features": features, "scores": self.fc(features.flatten(1)), "same": features}


IMAGE = RNG.standard_normal((2, 3, 4, 4)).astype(np.float32)


@pytest.mark.parametrize("port", [0, 1], ids=["elements", "places"])
def test_both_results_of_topk_are_there_where_one_is_read(port: int) -> None:
    model = to_model(qn.trace(lambda x: x.topk(2)[port], qn.spec(3, 5)))
    onnx.checker.check_model(model)
    (node,) = (n for n in model.graph.node if n.op_type == "TopK")
    assert len(node.output) == 2
    assert all(node.output)


def test_every_layer_is_one_node_and_parameters_have_their_names() -> None:
    network = Network().eval()
    graph = qn.trace(network, qn.spec(IMAGE))
    model, expected = check(graph, {"image": IMAGE})
    nodes = model.graph.node
    assert [n.op_type for n in nodes] == [
        "Conv", "BatchNormalization", "Relu", "Reshape", "Gemm", "Identity",
    ]  # fmt: skip
    assert [n.name for n in nodes][:2] == ["conv", "bn"]
    assert [n.name for n in nodes][4] == "fc"
    initializers = {t.name for t in model.graph.initializer}
    assert set(network.state_dict()) - {"bn.num_batches_tracked"} <= initializers
    assert_same(run_by_onnxruntime(model, {"image": IMAGE}), expected)


def test_read_again_it_has_the_same_parameters() -> None:
    graph = qn.trace(Network().eval(), qn.spec(IMAGE))
    again = qn.from_onnx(to_model(graph))
    names = [n.name for n in graph.leaves(Parameter)]
    assert [n.name for n in again.leaves(Parameter)] == names
    for name in names:
        np.testing.assert_array_equal(again.data[name], graph.data[name])


def test_outputs_that_are_inputs_or_share_names_with_nodes_are_kept_apart() -> None:
    graph = Graph()
    x = _x(graph, 3)
    y = x.relu()
    graph.outputs = {"x": x.value, "relu": (y + 1.0).value, "again": y.value}
    model = to_model(graph)
    onnx.checker.check_model(model, full_check=True)
    names = [o.name for o in model.graph.output]
    assert names == ["x_1", "relu", "again"]
    values = [-1.0, 0.0, 2.0]
    found = run_by_onnxruntime(model, {"x": np.array(values, np.float32)})
    assert [list(v) for v in found.values()] == [values, [1, 1, 3], [0, 0, 2]]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_recurrence_is_a_scan(reverse: bool) -> None:
    layer = nn.LSTM(5, 4, num_layers=2, bidirectional=reverse)
    x = RNG.standard_normal((6, 2, 5)).astype(np.float32)

    def outputs(sequence: Tensor) -> Tensor:
        return layer(sequence)[0]

    model, expected = check(qn.trace(outputs, qn.spec(x)), {"sequence": x})
    assert {n.op_type for n in model.graph.node} >= {"Scan"}
    assert_same(run_by_onnxruntime(model, {"sequence": x}), expected)


# -- files ----------------------------------------------------------------------------------------


def test_contents_in_a_file_of_their_own(tmp_path: Path) -> None:
    network = Network().eval()
    path = qn.to_onnx(network, tmp_path / "net.onnx", qn.spec(IMAGE), external_data=True)
    assert {p.name for p in tmp_path.iterdir()} == {"net.onnx", "net.onnx.data"}
    assert (tmp_path / "net.onnx.data").stat().st_size == network.fc.weight.data.nbytes
    expected = qn.interpret(network, {"image": IMAGE})
    assert_same(qn.interpret(qn.from_onnx(path), {"image": IMAGE}), expected)
    assert_same(run_by_onnxruntime(str(path), {"image": IMAGE}), expected)


def test_a_failed_export_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")
    graph = Graph()
    graph.outputs["y"] = graph.parameter(TensorType((3,)), "w").relu().value
    with pytest.raises(OnnxError, match=r"y: Relu reads w: w has no contents|relu: .*no contents"):
        qn.to_onnx(graph, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_executable_is_exported_with_what_it_has_learned(tmp_path: Path) -> None:
    executable = qn.compile(Network().eval(), qn.spec(IMAGE))
    executable.load_state({"fc.bias": np.arange(5, dtype=np.float32)}, strict=False)
    graph = qn.from_onnx(qn.to_onnx(executable, tmp_path / "net.onnx"))
    np.testing.assert_array_equal(graph.data["fc.bias"], np.arange(5))
    saved = executable.save(tmp_path / "net.qn")
    again = qn.from_onnx(qn.to_onnx(saved, tmp_path / "again.onnx"))
    np.testing.assert_array_equal(again.data["fc.bias"], np.arange(5))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lenet.onnx"
    assert main(["export", "lenet", "-o", str(path), "--input", "5x1x8x8"]) == 0
    assert "operator set 21" in capsys.readouterr().out
    assert qn.from_onnx(path).outputs.keys() == {"output"}
