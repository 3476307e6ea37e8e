"""Networks from ONNX files: what they become."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import INT64, RNG, helper, model, node, onnx, small_network, value

import quern as qn
from quern.compiler.errors import OnnxError
from quern.compiler.graph import Graph
from quern.compiler.ops.conv import Conv
from quern.compiler.ops.leaf import Buffer, Constant, Input, Parameter


def names_of(graph: Graph, kind: type) -> list[str]:
    return [n.name for n in graph.nodes() if isinstance(n.op, kind)]


# -- what a model becomes -----------------------------------------------------------------------


def test_weights_are_parameters_statistics_buffers_and_shapes_leave_no_nodes() -> None:
    graph = qn.from_onnx(small_network())
    assert names_of(graph, Input) == ["x"]
    assert names_of(graph, Parameter) == [
        "conv.weight", "bn.weight", "bn.bias", "fc.weight", "fc.bias",
    ]  # fmt: skip
    assert names_of(graph, Buffer) == ["bn.mean", "bn.var"]
    assert names_of(graph, Constant) == []
    assert names_of(graph, Conv) == ["features.conv.Conv"]
    computed = [n.name for n in graph.nodes() if n.op.arity != (0, 0)]
    assert computed == ["features.conv.Conv", "bn", "relu", "flatten", "fc"]
    assert graph.node("bn").origins[0].name == "bn"


def test_it_compiles_and_agrees_with_the_reference() -> None:
    graph = qn.from_onnx(small_network())
    x = RNG.standard_normal((2, 3, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(qn.compile(graph)(x), qn.interpret(graph, x), rtol=1e-4, atol=1e-5)


def test_it_can_be_trained() -> None:
    graph = qn.from_onnx(small_network())
    y = graph.tensor(graph.outputs["y"])
    graph.outputs["loss"] = (y * y).mean().value
    step = qn.differentiate(graph, "loss")
    assert len(step.outputs) == 2 + 5


def test_symbolic_dimensions_are_bound_by_shapes() -> None:
    with pytest.raises(OnnxError, match=r"input x is declared with the shape \(N, 3, 4, 4\)"):
        qn.from_onnx(small_network("N"))
    graph = qn.from_onnx(small_network("N"), inputs={"x": (7, 3, 4, 4)})
    assert graph.type_of(graph.outputs["y"]).shape == (7, 5)
    with pytest.raises(OnnxError, match=r"declared as \(N, 3, 4, 4\), it cannot be \(7, 1, 4, 4\)"):
        qn.from_onnx(small_network("N"), inputs={"x": (7, 1, 4, 4)})
    with pytest.raises(OnnxError, match="there is no input z"):
        qn.from_onnx(small_network("N"), inputs={"z": (1,)})


def test_an_input_that_decides_a_shape_is_bound_to_an_array() -> None:
    net = model(
        [node("Reshape", "x shape", name="reshape")],
        [value("x", 2, 6), value("shape", 2, dtype=INT64)],
    )
    with pytest.raises(OnnxError, match=r"reshape \(Reshape\): .* depends on the data of shape"):
        qn.from_onnx(net)
    graph = qn.from_onnx(net, inputs={"shape": np.array([3, -1])})
    assert graph.type_of(graph.outputs["y"]).shape == (3, 4)
    assert names_of(graph, Input) == ["x"]


def test_only_the_branch_of_a_known_condition_is_imported() -> None:
    def branch(name: str, operator: str) -> Any:
        return helper.make_graph([node(operator, "x", "z")], name, [], [value("z", 3)])

    net = model(
        [
            node("Size", "x", "size"),
            node("Equal", "size three", "same"),
            node(
                "If", "same", then_branch=branch("then", "Exp"), else_branch=branch("else", "Nope")
            ),
        ],
        [value("x", 3)],
        weights={"three": np.array(3)},
    )
    x = np.arange(3, dtype=np.float32)
    np.testing.assert_allclose(qn.interpret(qn.from_onnx(net), x), np.exp(x), rtol=1e-6)


def test_loops_are_written_out() -> None:
    body = helper.make_graph(
        [node("Mul", "a two", "next"), node("Identity", "go", "on"), node("Neg", "a", "row")],
        "body",
        [
            value("i", dtype=INT64),
            value("go", dtype=onnx.TensorProto.BOOL),
            value("a", 2),
        ],
        [value("on", dtype=onnx.TensorProto.BOOL), value("next", 2), value("row", 2)],
    )
    net = model(
        [node("Loop", "count go_on x", "y rows", body=body)],
        [value("x", 2)],
        ("y", "rows"),
        {"count": np.array(3), "go_on": np.array(True), "two": np.array([2.0], np.float32)},
    )
    y, rows = qn.interpret(qn.from_onnx(net), np.array([1.0, 3.0], np.float32))
    assert y.tolist() == [8.0, 24.0]
    assert rows.tolist() == [[-1.0, -3.0], [-2.0, -6.0], [-4.0, -12.0]]


def test_functions_of_the_model_are_imported_in_place() -> None:
    function = helper.make_function(
        "own", "Twice", ["a"], ["b"], [node("Add", "a a", "b")], [helper.make_opsetid("", 21)]
    )
    net = model([node("Twice", "x", domain="own")], [value("x", 2)], functions=[function])
    net.opset_import.append(helper.make_opsetid("own", 1))
    graph = qn.from_onnx(net)
    assert qn.interpret(graph, np.ones(2, np.float32)).tolist() == [2.0, 2.0]


def test_an_operator_without_a_rule_is_imported_by_its_definition() -> None:
    net = model([node("AffineGrid", "theta size", name="grid")], [value("theta", 2, 2, 3)],
                weights={"size": np.array([2, 1, 2, 2])})  # fmt: skip
    graph = qn.from_onnx(net)
    identity = np.array([[[1, 0, 0], [0, 1, 0]]] * 2, np.float32)
    expected = [[[[-0.5, -0.5], [0.5, -0.5]], [[-0.5, 0.5], [0.5, 0.5]]]] * 2
    np.testing.assert_allclose(qn.interpret(graph, identity), expected, atol=1e-6)


def test_a_deformed_convolution_that_is_not_deformed_is_a_convolution() -> None:
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((2, 4, 6, 7)), rng.standard_normal((6, 2, 3, 3))
    how = {"group": 2, "pads": [1, 0, 1, 2], "strides": [2, 1], "dilations": [1, 2]}
    weights = {"w": w.astype(np.float32)}
    plain = model([node("Conv", "x w", **how)], [value("x", *x.shape)], weights=weights)
    expected = qn.interpret(qn.from_onnx(plain), x.astype(np.float32))
    offset = np.zeros((2, 2 * 18, *expected.shape[2:]), np.float32)
    deformed = model(
        [node("DeformConv", "x w o", offset_group=2, **how)],
        [value("x", *x.shape), value("o", *offset.shape)],
        weights=weights,
    )
    found = qn.interpret(qn.from_onnx(deformed), x.astype(np.float32), offset)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["half_pixel", "output_half_pixel"])
def test_a_region_of_a_ramp_holds_the_centres_of_its_bins(mode: str) -> None:
    rows, columns = np.mgrid[:8, :9].astype(np.float32)
    x = np.stack([[rows, columns], [rows + 100, columns + 100]])
    rois = np.array([[1.0, 2.0, 5.0, 6.0], [2.5, 1.0, 4.5, 7.0]], np.float32)
    net = model(
        [node("RoiAlign", "x r b", output_height=2, output_width=4, sampling_ratio=3,
              coordinate_transformation_mode=mode)],
        [value("x", *x.shape), value("r", 2, 4), value("b", 2, dtype=onnx.TensorProto.INT64)],
    )  # fmt: skip
    y = qn.interpret(qn.from_onnx(net), x, rois, np.array([1, 0]))
    shift = 0.5 if mode == "half_pixel" else 0.0
    for n, (left, top, right, bottom) in enumerate(rois - shift):
        down = top + (bottom - top) * (np.arange(2) + 0.5) / 2
        across = left + (right - left) * (np.arange(4) + 0.5) / 4
        expected = np.stack(np.broadcast_arrays(down[:, None], across)) + 100 * (1 - n)
        np.testing.assert_allclose(y[n], expected, rtol=1e-5)


def test_every_door_takes_a_file(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(small_network("N").SerializeToString())
    x = RNG.standard_normal((3, 3, 4, 4)).astype(np.float32)
    expected = qn.interpret(qn.from_onnx(path, {"x": x.shape}), x)
    np.testing.assert_array_equal(qn.interpret(path, x), expected)
    executable = qn.compile(path, qn.spec(3, 3, 4, 4))
    np.testing.assert_allclose(executable(x), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(OnnxError, match=r"input x is float32, it cannot be float64\[3, 3, 4, 4\]"):
        qn.compile(path, qn.spec(3, 3, 4, 4, dtype="float64"))


@pytest.mark.slow
def test_what_pytorch_exports_gives_what_pytorch_gives() -> None:
    """With a symbolic batch, so that shapes are computed by nodes."""
    torch = pytest.importorskip("torch")
    layers = torch.nn

    # PyTorch is imported when the test runs, so that its classes have no types.
    class Net(layers.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = layers.Conv2d(3, 8, 3, padding=1), layers.BatchNorm2d(8)
            self.up = layers.Upsample(scale_factor=2, mode="bilinear")
            self.back = layers.ConvTranspose2d(8, 8, 2, 2)
            self.encoder = layers.TransformerEncoderLayer(16, 4, 32, batch_first=True)
            self.lstm = layers.LSTM(16, 5, bidirectional=True, batch_first=True)

        def forward(self, x: Any) -> Any:
            y = self.back(self.up(torch.relu(self.bn(self.conv(x)))))
            rows = y.flatten(2).transpose(1, 2).reshape(x.shape[0], -1, 16)
            z, _ = self.lstm(self.encoder(rows[:, :20]))
            small = layers.functional.interpolate(y, size=(7, 9), mode="bicubic")
            return torch.softmax(z.mean(1), -1), small, y.cumsum(1).topk(3, 1)[0]

    torch.manual_seed(0)
    net, x, file = Net().eval(), torch.randn(2, 3, 4, 4), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, x, file, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}}
        )
    graph = qn.from_onnx(onnx.load_from_string(file.getvalue()), {"x": (2, 3, 4, 4)})
    expected = [y.detach().numpy() for y in net(x)]
    for results in (qn.interpret(graph, x.numpy()), qn.compile(graph)(x.numpy())):
        for found, wanted in zip(results, expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
