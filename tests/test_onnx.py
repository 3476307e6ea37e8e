"""Networks from ONNX files: what they become, what is refused, and what damaged files do."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quern as qn
from quern.compiler.errors import OnnxError, QuernError
from quern.compiler.graph import Graph
from quern.compiler.ops.conv import Conv
from quern.compiler.ops.leaf import Buffer, Constant, Input, Parameter
from quern.frontends.onnx.call import OPERATORS

onnx = pytest.importorskip("onnx")
helper = onnx.helper
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64

RNG = np.random.default_rng(0)


def value(name: str, *shape: int | str, dtype: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[str] = ("y",),
    weights: dict[str, Any] | None = None,
    version: int = 21,
    **options: Any,
) -> Any:
    initializers = [
        onnx.numpy_helper.from_array(np.asarray(w), name) for name, w in (weights or {}).items()
    ]
    declared = [helper.make_empty_tensor_value_info(name) for name in outputs]
    for info in declared:
        info.type.tensor_type.elem_type = FLOAT
    graph = helper.make_graph(nodes, "net", inputs, declared, initializers)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", version)], ir_version=10, **options
    )


def node(operator: str, inputs: str, outputs: str = "y", **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def names_of(graph: Graph, kind: type) -> list[str]:
    return [n.name for n in graph.nodes() if isinstance(n.op, kind)]


W = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
STATISTICS = {n: np.ones(4, np.float32) for n in ("bn.weight", "bn.bias", "bn.mean", "bn.var")}


def small_network(batch: int | str = 2) -> Any:
    """Convolution, batch normalisation, ReLU, and a flattening by shape arithmetic."""
    return model(
        [
            node("Conv", "x conv.weight", "c", name="/features/conv/Conv", pads=[1, 1, 1, 1]),
            node("BatchNormalization", "c bn.weight bn.bias bn.mean bn.var", "b", name="bn"),
            node("Relu", "b", "r", name="relu"),
            node("Shape", "r", "shape"),
            node("Gather", "shape zero", "n", axis=0),
            node("Unsqueeze", "n axes", "n1"),
            node("Concat", "n1 rest", "target", axis=0),
            node("Reshape", "r target", "flat", name="flatten"),
            node("Gemm", "flat fc.weight fc.bias", "y", name="fc", transB=1),
        ],
        [value("x", batch, 3, 4, 4)],
        weights={
            "conv.weight": W,
            **STATISTICS,
            "zero": np.array(0),
            "axes": np.array([0]),
            "rest": np.array([-1]),
            "fc.weight": RNG.standard_normal((5, 64)).astype(np.float32),
            "fc.bias": np.zeros(5, np.float32),
        },
    )


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


# -- external data ------------------------------------------------------------------------------


def with_external_weight(folder: Path, location: str, **entries: int) -> Path:
    net = model([node("Add", "x w")], [value("x", 4)], weights={"w": np.zeros(4, np.float32)})
    tensor = net.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, entry in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(entry))
    path = folder / "net.onnx"
    path.write_bytes(net.SerializeToString())
    return path


def test_weights_may_lie_in_a_file_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"skip" + np.arange(4, dtype="<f4").tobytes())
    path = with_external_weight(tmp_path, "weights.bin", offset=4, length=16)
    assert qn.interpret(qn.from_onnx(path), np.ones(4, np.float32)).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "sub/../../secret.bin", ""])
def test_weights_outside_of_the_folder_are_not_read(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    folder = tmp_path / "models"
    folder.mkdir()
    with pytest.raises(OnnxError, match="outside of the model's folder"):
        qn.from_onnx(with_external_weight(folder, location))


def test_external_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(8))
    with pytest.raises(OnnxError, match="too short for w"):
        qn.from_onnx(with_external_weight(tmp_path, "weights.bin"))
    with pytest.raises(OnnxError, match=r"w takes 16 bytes, its entry in weights\.bin has 8"):
        qn.from_onnx(with_external_weight(tmp_path, "weights.bin", length=8))
    with pytest.raises(OnnxError, match="cannot read "):
        qn.from_onnx(with_external_weight(tmp_path, "missing.bin"))


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            model([node("Nope", "x", name="odd")], [value("x", 2)]),
            r"odd \(Nope\): there is no operator of that name",
        ),
        (
            model([node("Add", "x z", name="sum")], [value("x", 2)]),
            r"sum \(Add\): reads z, which no input, initialiser or node before it gives",
        ),
        (
            model([node("Add", "x y", "z"), node("Add", "x z")], [value("x", 2)]),
            r"z \(Add\): reads y, which no",
        ),
        (
            model([node("Add", "x w", name="sum")], [value("x", 2)],
                  weights={"w": np.ones(3, np.float32)}),
            r"^sum \(Add\): shapes \(2,\) and \(3,\) do not broadcast",
        ),
        (
            model([node("Relu", "x")], [value("x", 2, dtype=onnx.TensorProto.STRING)]),
            "input x: values of string are not supported",
        ),
        (model([node("Relu", "x")], [value("x", 2)], version=99), "operator set 99"),
        (
            model([node("ConstantOfShape", "s", "c"), node("Add", "x c")], [value("x", 2)],
                  weights={"s": np.array([2**30, 2**30])}),
            r"c \(ConstantOfShape\): a result of float32\[1073741824, 1073741824\] is larger",
        ),
        (model([node("Relu", "x", "z")], [value("x", 2)]), "the output y is given by no node"),
        (
            model([node("Relu", "x", "y", name="relu")], [value("x", 2**40, 2**40)]),
            "larger than any memory",
        ),
        (
            model([node("Range", "a b c", "r"), node("Add", "x r")], [value("x", 2)],
                  weights={"a": np.int64(0), "b": np.int64(10**10), "c": np.int64(1)}),
            r"r \(Range\): it takes 10000000000 numbers that are known at import",
        ),
        (
            model([node("DFT", "x")], [value("x", 1, 10**6, 1)]),
            r"y \(DFT\): it takes 1000000x1000000 numbers",
        ),
        (
            model([node("EyeLike", "x")], [value("x", 2**17, 2**17)]),
            r"y \(EyeLike\): it takes 131072x131072 numbers",
        ),
        (
            model([node("Scan", "x", body="no graph", num_scan_inputs=1)], [value("x", 2)]),
            r"y \(Scan\): the attribute body is no graph",
        ),
        (
            model([node("NonZero", "x", name="where")], [value("x", 3)]),
            r"where \(NonZero\): .* depends on the data of x",
        ),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)  # fmt: skip
def test_refused_in_one_line(net: Any, message: str) -> None:
    with pytest.raises(OnnxError, match=message) as caught:
        qn.from_onnx(net)
    assert "\n" not in str(caught.value)


def test_names_do_not_break_the_line() -> None:
    net = model([node("Nope", "x", name="a\nb\x1b[31m")], [value("x", 2)])
    with pytest.raises(OnnxError, match=r"^a\?b\?\[31m \(Nope\): there is no operator"):
        qn.from_onnx(net)


def test_functions_that_call_themselves_end() -> None:
    function = helper.make_function(
        "own",
        "F",
        ["a"],
        ["b"],
        [node("F", "a", "b", domain="own")],
        [helper.make_opsetid("own", 1)],
    )
    net = model([node("F", "x", domain="own")], [value("x", 2)], functions=[function])
    net.opset_import.append(helper.make_opsetid("own", 1))
    with pytest.raises(OnnxError, match="nested more than"):
        qn.from_onnx(net)


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(OnnxError, match=r"cannot read .*net\.onnx: No such file"):
        qn.from_onnx(path)
    path.write_bytes(b"")
    with pytest.raises(OnnxError, match="names no operator set or has no graph"):
        qn.from_onnx(path)
    path.write_bytes(b"not protobuf at all" * 10)
    with pytest.raises(OnnxError, match=r"net\.onnx is no ONNX model"):
        qn.from_onnx(path)


WHOLE = small_network().SerializeToString()


@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=0, max_size=4), st.booleans())
@settings(max_examples=150, deadline=None)
def test_damaged_files_are_a_clear_error_or_a_network(
    tmp_path_factory: pytest.TempPathFactory, at: int, bytes_: bytes, cut: bool
) -> None:
    """Nothing but an error of ours, whatever the damage."""
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(WHOLE[:at] + bytes_ + (b"" if cut else WHOLE[at + len(bytes_) :]))
    with suppress(QuernError):
        qn.from_onnx(path).verify()


EXTREMES = (0, 1, -1, 3, 255, 1 << 31, -(1 << 31), 1 << 40, 1 << 62)


@given(st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_whatever_a_file_says_is_a_clear_error_or_a_network(chance: Random) -> None:
    """Well-formed files that make no sense: other operators, inputs, numbers, types, versions."""
    net = small_network()
    for _ in range(chance.randint(1, 3)):
        nodes = net.graph.node
        damaged = chance.choice(nodes)
        known = [name for n in nodes for name in (*n.input, *n.output)]
        kind = chance.randrange(6)
        if kind == 0:
            damaged.op_type = chance.choice(sorted(name for _, name in OPERATORS))
        elif kind == 1:
            damaged.input[chance.randrange(len(damaged.input))] = chance.choice(known)
        elif kind == 2 and damaged.attribute:
            attribute = chance.choice(damaged.attribute)
            attribute.i = chance.choice(EXTREMES)
            attribute.ints.append(chance.choice(EXTREMES))
        elif kind == 3:
            tensor = chance.choice(net.graph.initializer)
            tensor.dims.append(chance.choice(EXTREMES))
        elif kind == 4:
            chance.choice(net.graph.initializer).data_type = chance.randrange(25)
        else:
            net.opset_import[0].version = chance.randrange(30)
    with suppress(OnnxError):
        qn.from_onnx(net).verify()


def test_the_message_when_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(OnnxError, match=r"pip install 'quern\[onnx\]'"):
        qn.from_onnx("net.onnx")
