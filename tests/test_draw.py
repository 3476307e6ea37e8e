"""Pictures: what they show, how long graphs are folded, and what becomes of them on disk."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import lenet, residual

from quern.compiler.autodiff import differentiate
from quern.compiler.draw import Drawing, RenderWarning, draw, drawing
from quern.compiler.draw.fold import fold_nodes
from quern.compiler.draw.picture import Kind, Picture, make_picture
from quern.compiler.errors import QuernError, UsageError
from quern.compiler.graph import Graph, Origin, Phase, Value
from quern.compiler.ops.linear import matmul
from quern.compiler.ops.movement import Reshape
from quern.compiler.types import DType, TensorType

needs_graphviz = pytest.mark.skipif(
    shutil.which("dot") is None and find_spec("pygraphviz") is None, reason="no Graphviz here"
)


def picture_of(graph: Graph, fold: bool | int | None = False) -> Picture:
    return make_picture(graph, fold_nodes(graph, fold), {})


def titles(picture: Picture, kind: Kind) -> list[str]:
    return [box.title for box in picture.boxes.values() if box.kind is kind]


def shown_text(svg: str) -> list[str]:
    """Every piece of text that the SVG shows."""
    return [e.text or "" for e in ET.fromstring(svg).iter() if e.tag.endswith("}text")]


# -- what is shown --------------------------------------------------------------------------------


def test_layers_have_the_users_names_and_what_they_are() -> None:
    boxes = picture_of(lenet()).boxes
    assert boxes["conv1"].title == "conv1"
    assert boxes["conv1"].lines == ("Conv 5×5, padding 2",)
    assert boxes["conv2"].lines == ("Conv 5×5",)
    assert boxes["pool1"].lines == ("MaxPool 2×2",)
    assert boxes["conv1"].family != boxes["pool1"].family


def test_arrows_say_the_shape() -> None:
    arrows = {(a.tail, a.head): a.label for a in picture_of(lenet()).arrows}
    assert arrows["conv1", "relu1"] == "2×6×28×28"
    assert arrows["fc3", "loss"] == "2×10"
    assert arrows["conv1.weight", "conv1"] == ""


def test_parameters_are_small_boxes_with_their_shape() -> None:
    boxes = picture_of(lenet()).boxes
    weight = boxes["conv1.weight"]
    assert (weight.kind, weight.title, weight.lines) == (Kind.PARAMETER, "weight", ("6×1×5×5",))


def tied() -> Graph:
    graph = Graph("tied")
    x = graph.input(TensorType((2, 3)), "x")
    w = graph.parameter(np.zeros((3, 3), np.float32), "w")
    frozen = graph.parameter(TensorType((3,)), "shift", trainable=False)
    graph.outputs["y"] = (matmul(matmul(x, w), w) + frozen).value
    return graph


def test_tied_weights_are_drawn_once_with_several_arrows() -> None:
    picture = picture_of(tied())
    assert titles(picture, Kind.PARAMETER) == ["w", "shift"]
    assert len([a for a in picture.arrows if a.tail == "w"]) == 2
    assert picture.boxes["shift"].lines == ("3", "frozen")


def test_scalar_constants_stand_in_the_box_that_reads_them() -> None:
    graph = Graph()
    x = graph.input(TensorType((4,)), "x")
    table = graph.constant(np.arange(4.0), DType.FLOAT32, "table")
    graph.outputs["y"] = (x * 0.1 + table).value
    boxes = picture_of(graph).boxes
    assert boxes["multiply"].lines == ("Multiply 0.1",)
    assert [b.title for b in boxes.values() if b.kind is Kind.CONSTANT] == ["table"]


def test_reshapes_are_unobtrusive() -> None:
    graph = Graph()
    x = graph.input(TensorType((4,)), "x")
    y = x.reshape(2, 2).transpose()
    graph.outputs["y"] = graph.apply(Reshape((4,)), y, name="flatten")[0].value
    assert titles(picture_of(graph), Kind.MINOR) == ["reshape", "transpose", "flatten"]


def training_step() -> Graph:
    graph = differentiate(lenet(), of="loss")
    with graph.scope("sgd", (Origin("fc3"),), Phase.UPDATE):
        rate = graph.input(TensorType(()), "rate")
        gradient = graph.tensor(graph.outputs["grad.fc3.bias"])
        bias = graph.tensor(Value("fc3.bias"))
        graph.updates["fc3.bias"] = (bias - rate * gradient).value
    return graph


def test_forward_backward_and_update_are_clusters() -> None:
    source = draw(training_step()).source
    for name in ("forward", "backward", "update"):
        assert f"subgraph cluster_{name} {{" in source
    assert "<b>forward</b>" not in draw(lenet()).source


def test_every_layer_stands_beside_its_gradient_in_one_colour() -> None:
    graph = differentiate(lenet(), of="loss")
    picture = picture_of(graph, True)
    pairs = {picture.boxes[a].title: picture.boxes[b].title for a, b in picture.pairs}
    for layer in ("conv1", "relu1", "pool1", "conv2", "fc1", "relu3", "fc3"):
        assert pairs[layer] == f"∂ {layer}"
    for forward, backward in picture.pairs:
        boxes = picture.boxes[forward], picture.boxes[backward]
        assert [b.phase for b in boxes] == [Phase.FORWARD, Phase.BACKWARD]
    colours = {p: picture.boxes[p].family for pair in picture.pairs for p in pair}
    assert colours["forward:conv1"] == colours["backward:conv1"] == "conv"
    dotted = [x for x in draw(graph).source.splitlines() if "style=dotted" in x]
    assert len(dotted) == len(picture_of(graph, None).pairs)
    assert all("constraint=false" in x for x in dotted)


def test_the_picture_of_equal_graphs_is_the_same() -> None:
    assert draw(training_step()).source == draw(training_step()).source


def test_kernels_are_boxes_around_their_nodes() -> None:
    groups = {"conv1_relu1_pool1": ["conv1", "relu1", "pool1"]}
    source = draw(lenet(), stage="kernels", groups=groups).source
    inside = source.split("subgraph cluster_forward_0 {")[1].split("}")[0]
    assert "conv1_relu1_pool1" in inside
    assert "lenet · kernels" in source
    for name in ("<b>conv1</b>", "<b>relu1</b>", "<b>pool1</b>"):
        assert name in inside
    assert "<b>conv2</b>" not in inside
    with pytest.raises(UsageError, match="kernel k has the node conv9, which does not exist"):
        draw(lenet(), groups={"k": ["conv9"]})


# -- folding --------------------------------------------------------------------------------------


def test_blocks_are_folded_by_the_parts_of_their_names() -> None:
    picture = picture_of(residual(3), fold=1)
    folds = [b for b in picture.boxes.values() if b.kind is Kind.FOLD]
    assert [b.title for b in folds] == ["layer1"]
    assert folds[0].lines == ("6 Conv · 3 Relu · 3 Add", "888 parameters")
    assert titles(picture, Kind.OP)[0] == "stem"


def test_blocks_of_equal_structure_become_one_with_a_count() -> None:
    picture = picture_of(residual(3), fold=2)
    assert titles(picture, Kind.FOLD) == ["layer1.0 … layer1.2 ×3"]


def test_blocks_that_differ_stay_apart() -> None:
    graph = residual(2)
    with graph.scope("layer1.2"):
        y = graph.tensor(graph.inputs_of("reshape")[0]).relu()
        graph.outputs["extra"] = (y * y).value
    names = titles(picture_of(graph, fold=2), Kind.FOLD)
    assert names == ["layer1.0 … layer1.1 ×2", "layer1.2"]


def test_the_backward_graph_folds_as_the_forward_one() -> None:
    graph = differentiate(residual(2), of="logits")
    picture = picture_of(graph, fold=1)
    assert {"layer1", "∂ layer1"} <= set(titles(picture, Kind.FOLD))
    merged = [b for b in picture.boxes.values() if b.title == "grad.layer1.*"]
    assert [b.lines for b in merged] == [("8 outputs",)]
    assert "grad.layer1.0.conv1.weight" in merged[0].tooltip


def test_long_graphs_are_folded_unasked_and_short_ones_are_not() -> None:
    assert not titles(picture_of(lenet(), None), Kind.FOLD)
    many = picture_of(residual(20), None)
    assert len(many.boxes) < 30
    assert titles(many, Kind.FOLD) == ["layer1.0 … layer1.19 ×20"]
    assert not titles(picture_of(residual(20), False), Kind.FOLD)


def test_weights_shared_by_blocks_are_not_hidden_in_one() -> None:
    graph = Graph("tied")
    x = graph.input(TensorType((2, 3)), "x")
    w = graph.parameter(np.zeros((3, 3), np.float32), "w")
    for block in ("a", "b"):
        with graph.scope(block):
            x = matmul(x, w).relu()
    graph.outputs["y"] = x.value
    picture = picture_of(graph, fold=1)
    assert titles(picture, Kind.PARAMETER) == ["w"]
    assert titles(picture, Kind.FOLD) == ["a … b ×2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage": "later"}, "no stage 'later' to draw; use one of declared"),
        ({"groups": {"k": ["conv1"]}, "fold": 1}, "kernels as boxes is not folded"),
        ({"fold": -1}, "fold is -1"),
        ({"fold": 0}, "fold is 0"),
        ({"path": "picture.bmp"}, r"\.svg, \.png, \.pdf, \.gv, \.dot"),
        ({"path": "/nowhere/at/all.gv"}, "cannot be written: No such file"),
    ],
)
def test_wrong_calls(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        draw(lenet(), **arguments)


# -- rendering ------------------------------------------------------------------------------------


@needs_graphviz
def test_svg_shows_names_and_shapes() -> None:
    text = shown_text(draw(training_step())._repr_svg_() or "")
    for expected in ("lenet", "conv1", "∂ conv1", "Conv 5×5, padding 2", "forward", "update"):
        assert expected in text
    assert any("2×6×28×28" in t for t in text)


@needs_graphviz
@pytest.mark.parametrize(
    ("suffix", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")]
)
def test_formats_by_suffix(tmp_path: Path, suffix: str, magic: bytes) -> None:
    path = tmp_path / f"net.{suffix}"
    path.write_bytes(b"old")
    assert draw(tied(), path).save(path) == path
    assert path.read_bytes().startswith(magic)
    assert os.listdir(tmp_path) == [path.name]


@needs_graphviz
@pytest.mark.parametrize(
    "name", ["<b>&amp;", 'quo"te', "back\\slash\\n", "new\nline", "nul\0 🐦 é"]
)
def test_any_name_can_be_drawn(name: str) -> None:
    graph = Graph(name)
    x = graph.input(TensorType((2,)), name)
    graph.outputs[name] = graph.apply(Reshape((2, 1)), x.exp(), name=name)[0].value
    for fold in (False, 1):
        assert "<svg" in (draw(graph, fold=fold)._repr_svg_() or "")


@needs_graphviz
def test_an_empty_graph_can_be_drawn() -> None:
    assert "nothing" in shown_text(draw(Graph("nothing"))._repr_svg_() or "")


def test_graphviz_text_needs_no_graphviz(tmp_path: Path) -> None:
    path = tmp_path / "net.gv"
    made = draw(tied(), path)
    assert path.read_text(encoding="utf-8") == made.source
    usual = tmp_path / "usual.txt"
    usual.write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


def test_without_graphviz_the_text_is_written_and_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "renderer", lambda format: None)
    with pytest.warns(RenderWarning, match=r"net\.gv; pip install 'quern\[draw\]'"):
        written = Drawing("digraph {}", "t").save(tmp_path / "net.svg")
    assert written == tmp_path / "net.gv"
    assert written.read_text() == "digraph {}"
    assert Drawing("digraph {}", "t")._repr_mimebundle_() == {"text/plain": "Drawing of t"}


def test_graphviz_failing_leaves_the_old_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.svg"
    path.write_text("old")
    monkeypatch.setattr(drawing, "renderer", lambda format: ["false"])
    with pytest.raises(QuernError, match="could not draw this: no reason given"):
        Drawing("digraph {}", "t").save(path)
    assert path.read_text() == "old"


def test_graphviz_taking_for_ever_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: Any, **options: Any) -> None:
        raise subprocess.TimeoutExpired("dot", options["timeout"])

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(drawing, "renderer", lambda format: ["dot", "-Tsvg"])
    with pytest.raises(QuernError, match="draw fewer boxes with fold"):
        Drawing("digraph {}", "t").render("svg")


@needs_graphviz
def test_jupyter_shows_the_picture() -> None:
    bundle = draw(tied())._repr_mimebundle_()
    assert bundle["text/plain"] == "Drawing of tied"
    assert bundle["image/svg+xml"].lstrip().startswith("<?xml")
