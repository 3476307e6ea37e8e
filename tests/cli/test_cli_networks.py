"""quern compile, run, summary, draw and explain."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quern_program import Quern

import quern as qn
from quern.frontends.zoo import entries

# -- compile and run ------------------------------------------------------------------------------


def test_compile_and_run(quern: Quern, rng: np.random.Generator) -> None:
    told = quern("compile", "lenet", "-o", "lenet.qn", "--input", "2x1x8x8")
    assert told.startswith("wrote lenet.qn (0.")
    x = rng.standard_normal((2, 1, 8, 8), np.float32)
    np.save("x.npy", x)
    told = quern("run", "lenet.qn", "--input", "x.npy", "--output", "y.npy", "--top", "3")
    expected = qn.load("lenet.qn")(x)
    np.testing.assert_array_equal(np.load("y.npy"), expected)
    lines = told.splitlines()
    assert lines[0].startswith("output: float32[2, 10], from ")
    for row, line in zip(expected, lines[1:3], strict=True):
        order = np.argsort(-row)[:3]
        assert line.split(": ", 1)[1] == ", ".join(f"{i} ({row[i]:.6g})" for i in order)
    assert lines[3] == "wrote y.npy"


def test_compile_writes_a_file_named_after_the_network(quern: Quern, folder: Path) -> None:
    quern("compile", "nets.py:Tiny", "--input", "x=1x4:float32")
    assert qn.load(folder / "tiny.qn").inputs == {"x": qn.spec(1, 4)}


def test_several_inputs_and_outputs(quern: Quern) -> None:
    a, b = np.arange(3, dtype=np.float32), np.full(3, 2, np.float32)
    np.savez("data.npz", b=b, a=a)
    np.save("a.npy", a)
    quern("run", "nets.py:Pair", "--input", "data.npz", "--output", "first.npz")
    np.save("b.npy", b)
    quern("run", "nets.py:Pair", "--input", "b=b.npy", "--input", "a.npy", "-o", "second.npz")
    for name in ("first.npz", "second.npz"):
        with np.load(name) as results:
            np.testing.assert_array_equal(results["sum"], a + b)
            np.testing.assert_array_equal(results["product"], a * b)


@pytest.mark.parametrize("fill", ["zeros", "ones", "random"])
def test_inputs_are_made_up(quern: Quern, fill: str) -> None:
    command = ("run", "nets.py:twice", "--input", "5", "--fill", fill, "--seed", "7", "-o", "y.npy")
    quern(*command)
    first = np.load("y.npy")
    quern(*command)
    np.testing.assert_array_equal(np.load("y.npy"), first)
    if fill == "random":
        assert len(set(first)) == 5
    else:
        assert first.tolist() == [2.0 * (fill == "ones")] * 5


def test_a_run_is_timed(quern: Quern) -> None:
    told = quern(
        "run", "nets.py:twice", "--input", "5", "--fill", "ones", "--time", "--threads", "1"
    )
    assert "median " in told
    assert " ms, of " in told
    assert "on 1 thread\n" in told


def test_double_precision_arrays_are_taken_as_single_with_a_note(quern: Quern) -> None:
    np.save("x.npy", np.ones((1, 4)))
    code, _, err = quern.run("run", "nets.py:Tiny", "--input", "x.npy")
    assert (code, err) == (0, "input x: float64 is taken as float32\n")


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((3, 4), np.float32), "is float32[1, 4], got float32[3, 4]"),
        (np.zeros((1, 4), np.complex64), "expected the header of an array of numbers or bools"),
        (np.array([[None] * 4]), "expected the header of an array of numbers or bools"),
    ],
)
def test_arrays_that_do_not_fit(quern: Quern, array: Any, told: str) -> None:
    quern("compile", "nets.py:Tiny", "--input", "1x4")
    np.save("x.npy", array, allow_pickle=True)
    assert told in quern.fails(1, "run", "tiny.qn", "--input", "x.npy")


def test_damaged_files_are_told_in_one_line(quern: Quern, folder: Path) -> None:
    (folder / "x.npy").write_bytes(b"\x93NUMPY\x01\x00garbage")
    (folder / "x.npz").write_bytes(b"PK\x03\x04")
    (folder / "net.qn").write_bytes(b"PK\x03\x04")
    quern.fails(1, "run", "lenet", "--input", "x.npy")
    quern.fails(1, "run", "lenet", "--input", "x.npz")
    for command in ("run", "summary", "draw", "compile"):
        quern.fails(1, command, "net.qn")


def test_names_in_an_npz_file_are_those_of_inputs(quern: Quern) -> None:
    np.savez("data.npz", a=np.zeros(2), c=np.zeros(2))
    assert "Pair has no input 'c'" in quern.fails(2, "run", "nets.py:Pair", "--input", "data.npz")
    quern("compile", "nets.py:Pair", "--input", "2", "--input", "2")
    assert "no input 'c'" in quern.fails(2, "run", "pair.qn", "--input", "data.npz")


def test_algorithms_are_measured_on_request(quern: Quern) -> None:
    told = quern("compile", "lenet", "--tune", "-o", "tuned.qn")
    assert told.startswith("wrote tuned.qn")


def test_a_training_step_is_compiled(quern: Quern) -> None:
    qn.manual_seed(0)
    told = quern(
        "compile", "lenet", "--training", "--input", "4x1x8x8", "--optimizer", "sgd", "--lr", "0.1",
        "--momentum", "0.9", "-o", "step.qn",
    )  # fmt: skip
    assert told.startswith("wrote step.qn")
    step = qn.load("step.qn")
    assert step.inputs == {"image": qn.spec(4, 1, 8, 8), "target": qn.spec(4, dtype="int64")}
    assert list(step.outputs) == ["loss", "accuracy", "finite"]
    x, target = np.ones((4, 1, 8, 8), np.float32), np.arange(4)
    losses = [float(step(x, target)[0]) for _ in range(10)]
    assert min(losses[1:]) < losses[0]


def test_a_loss_of_values_takes_targets_like_the_output(quern: Quern) -> None:
    quern("compile", "nets.py:Tiny", "--training", "--loss", "mse", "--input", "2x4")
    assert qn.load("tiny.qn").inputs["target"] == qn.spec(2, 3)


def test_verbose_tells_of_stages_memory_and_the_cache(
    quern: Quern, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUERN_CACHE_DIR", str(folder / "cache"))
    code, _, first = quern.run("compile", "nets.py:Tiny", "--input", "1x4", "-v")
    _, _, second = quern.run("compile", "nets.py:Tiny", "--input", "1x4", "-v")
    assert code == 0
    assert "1 kernels compiled, 0 from the cache" in first
    assert "0 kernels compiled, 1 from the cache" in second
    assert "planned peak memory " in first
    for stage in ("partition", "lower", "plan", "emit", "machine code", "in all"):
        assert any(line.startswith(f"  {stage} ") and " ms" in line for line in first.splitlines())


def test_dump_writes_every_stage(quern: Quern, folder: Path) -> None:
    told = quern("compile", "nets.py:Tiny", "--input", "1x4", "--dump", "stages/tiny")
    assert told.endswith("wrote the text of every stage to stages/tiny\n")
    names = sorted(path.name for path in (folder / "stages" / "tiny").iterdir())
    assert names[0] == "00-declared.txt"
    assert [name.split("-", 1)[1] for name in names[-4:]] == [
        "kernels.txt", "loops.txt", "llvm.ll", "assembly.s",
    ]  # fmt: skip
    assert "kernel fc" in (folder / "stages" / "tiny" / names[-4]).read_text()


def test_a_compiled_file_is_compiled_again_for_another_machine(quern: Quern) -> None:
    quern("compile", "nets.py:Tiny", "--input", "1x4", "-o", "first.qn")
    quern("compile", "first.qn", "--target", "sse", "-o", "second.qn")
    x = np.ones((1, 4), np.float32)
    np.testing.assert_allclose(qn.load("first.qn")(x), qn.load("second.qn")(x), rtol=1e-5)


# -- looking at networks --------------------------------------------------------------------------


def test_models(quern: Quern) -> None:
    lines = quern("models").splitlines()
    assert lines[0].split() == ["name", "year", "parameters", "FLOPs", "input", "paper"]
    assert [line.split()[0] for line in lines[1:]] == list(entries())
    (vgg,) = (line for line in lines if line.startswith("vgg16 "))
    assert vgg.split()[:6] == ["vgg16", "2014", "138,357,544", "31.0", "G", "1x3x224x224"]


def test_summary(quern: Quern) -> None:
    lines = quern("summary", "lenet").splitlines()
    assert lines[0].split()[:4] == ["layer", "type", "output", "parameters"]
    assert lines[2].split()[:2] == ["conv1", "Conv"]
    assert lines[-1].split()[:2] == ["total", "53,002"]


@pytest.mark.parametrize("source", ["nets.py:instance", "nets.py:make_tiny", "nets.py:Tiny"])
def test_sources_in_a_file(quern: Quern, source: str) -> None:
    assert "[5, 3]" in quern("summary", source, "--input", "5x4")


def test_sources_that_know_their_types(quern: Quern) -> None:
    assert "[2]" in quern("summary", "nets.py:graph")
    quern("compile", "nets.py:graph")
    assert "[2]" in quern("summary", "doubled.qn")


def test_draw(quern: Quern, folder: Path) -> None:
    assert quern("draw", "lenet", "-o", "a.gv") == "wrote a.gv\n"
    assert quern("draw", "lenet", "--backward", "-o", "b.gv") == "wrote b.gv\n"
    assert quern("draw", "lenet", "--training", "--stage", "kernels", "-o", "c.gv")
    assert quern("draw", "resnet18", "--fold", "1", "-o", "d.gv")
    texts = {name: (folder / f"{name}.gv").read_text() for name in "abcd"}
    assert "∂" not in texts["a"]
    assert "∂" in texts["b"]
    assert "conv1_relu1_pool1" in texts["c"]
    assert "layer1.0.conv1.weight" not in texts["d"]


def test_draw_says_where_the_source_went_without_graphviz(
    quern: Quern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quern.compiler.draw.drawing.renderer", lambda format: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code, out, err = quern.run("draw", "nets.py:graph", "-o", "g.svg")
    assert (code, out) == (0, "wrote g.gv\n")
    assert "pip install 'quern[draw]'" in err


def test_explain(quern: Quern) -> None:
    told = quern("explain", "lenet", "relu1", "--llvm", "--asm")
    assert told.startswith("relu1 of LeNet is computed in 1 kernel\n")
    for text in ("kernel conv1_relu1_pool1: forward", "MFLOP", "def conv1_relu1_pool1(", "define "):
        assert text in told.replace("kFLOP", "MFLOP")
    assert "\tret" in told


@pytest.mark.parametrize(
    ("node", "told"),
    [
        ("fc2.weight", "fc2.weight is the parameter float32[10, 128], read by 1 kernel"),
        ("image", "image is the input float32[1, 1, 8, 8], read by 1 kernel"),
        ("flatten", "flatten is in no kernel: it only gives memory another shape"),
    ],
)
def test_explain_of_what_no_kernel_computes(quern: Quern, node: str, told: str) -> None:
    assert quern("explain", "lenet", node).startswith(f"{told}\n")


def test_explain_of_a_module_and_of_its_gradients(quern: Quern) -> None:
    forward = quern("explain", "resnet20_cifar", "layer1")
    both = quern("explain", "lenet", "conv1", "--training", "--input", "2x1x8x8")
    assert "layer1.2.conv2" in forward
    assert "layer2.0.conv1" not in forward
    for phase in ("forward", "backward"):
        assert f": {phase} over" in both
