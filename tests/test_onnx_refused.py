"""ONNX files that are refused, lie elsewhere in part, or are damaged."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import helper, model, node, onnx, small_network, value

import quern as qn
from quern.compiler.errors import OnnxError, QuernError
from quern.frontends.onnx.call import OPERATORS

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
