"""The quern program: what every command does; one line and an exit code for what fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quern as qn
from quern.frontends.cli.main import COMMANDS, main
from quern.frontends.zoo import entries

NETS = """\
from quern import nn
from quern.nn import functional as F
import networkx as nx

class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(x)

class Pair(nn.Module):
    def forward(self, a, b):
        return {"sum": a + b, "product": a * b}

class Clash(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(x.reshape(2, 6))

class Argument(nn.Module):
    def __init__(self, width):
        super().__init__()

class Unmade(nn.Module):
    def __init__(self):
        super().__init__()
        self.size = undefined_name

class Fails(nn.Module):
    def forward(self, x):
        return helper(x)

def helper(x):
    return {}["missing"]

def twice(x):
    return x + x

def make_tiny():
    return Tiny()

instance = Tiny()
graph = nx.DiGraph(name="doubled")
graph.add_node("x", op="input", shape=(2,))
graph.add_node("y", op="relu")
graph.add_edge("x", "y")
number = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in a folder with a file of networks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


class Quern:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: str) -> str:
        """What a command prints that works."""
        code, out, err = self.run(*arguments)
        assert (code, err) == (0, "")
        return out

    def fails(self, code: int, *arguments: str) -> str:
        """The one line of a command that does not."""
        actual, _, err = self.run(*arguments)
        assert actual == code, err
        assert err.startswith("quern: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        return err.removeprefix("quern: ").strip()

    def run(self, *arguments: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = main(arguments)
        return code, *self.capsys.readouterr()


@pytest.fixture
def quern(capsys: pytest.CaptureFixture[str]) -> Quern:
    return Quern(capsys)


def line_of(text: str) -> int:
    return 1 + next(i for i, line in enumerate(NETS.splitlines()) if text in line)


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, **options
    )


# -- the program ----------------------------------------------------------------------------------


def test_version_and_help(quern: Quern) -> None:
    assert quern("--version") == f"quern {qn.__version__}\n"
    told = quern("--help")
    assert all(f"\n    {command} " in told for command in COMMANDS)
    for command in COMMANDS:
        assert "--verbose" in quern(command, "--help")


@pytest.mark.parametrize("arguments", ["--version", "--help", "train --help"])
def test_help_loads_none_of_the_dependencies(arguments: str) -> None:
    code = (
        "import sys; from quern.frontends.cli.main import main; "
        f"assert main({arguments.split()}) == 0; print(*sys.modules, file=sys.stderr)"
    )
    loaded = python("-c", code).stderr.split()
    assert "quern.frontends.cli.main" in loaded
    assert not {"numpy", "networkx", "llvmlite", "rich", "safetensors"} & set(loaded)


def test_exit_codes_reach_the_shell() -> None:
    assert python("-m", "quern", "models").returncode == 0
    wrong = python("-m", "quern", "compile", "no-such-network")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    failed = python("-m", "quern", "summary", "nets.py:Clash", "--input", "2x5")
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "give a command: compile, run,"),
        ("complie lenet", "there is no command 'complie'; did you mean compile?"),
        ("compile", "the following arguments are required: SOURCE; see quern compile --help"),
        ("compile lenet --fast", "unrecognized arguments: --fast"),
        ("compile lenet --threads 0", "'0' is no whole number from 1"),
        ("compile lenet --target z80", "invalid choice: 'z80'"),
        ("compile lenet -o lenet.zip", "let the name end in .qn"),
        ("compile lenet -o none/lenet.qn", "there is no folder none"),
        ("compile lenet --dump nets.py", "--dump nets.py: that is a file"),
        ("compile lenet --loss mse", "--loss goes with --backward or --training"),
        ("compile lenet --training --loss mes", "no loss 'mes'"),
        ("compile lenet --training --optimizer adam --momentum 0.9", "adam takes no --momentum"),
        ("compile lenet --input 1x1x8y8", "'1x1x8y8' is no shape; write 1x3x224x224"),
        ("compile lenet --input 1x1x8x8:float17", "dtype 'float17' is not supported"),
        ("compile lenet --input imgae=1x1x8x8", "no input 'imgae'; did you mean image?"),
        ("compile lenet --input a=1 --input a=2", "--input a is given twice"),
        ("compile nets.py:graph --input 3", "input x of doubled is float32[2], it cannot become"),
        ("compile lenat", "there is no network 'lenat'; did you mean lenet"),
        ("compile none.py:Net", "none.py does not exist"),
        ("compile none.onnx", "none.onnx does not exist"),
        ("compile nets.py", "say which network of nets.py: nets.py:NAME with Tiny, Pair,"),
        ("compile nets.py:Tinny", "nets.py has no network 'Tinny'; did you mean Tiny?"),
        ("compile nets.py:number", "nets.py:number: int is no network"),
        ("compile nets.py:Argument", "nets.py:Argument needs the arguments width; add a line"),
        ("compile nets.py:Tiny", "Tiny takes x: missing a required argument: 'x'; give the type"),
        ("run none.qn", "none.qn does not exist"),
        ("run lenet", "nothing is given for image float32[1, 1, 8, 8]; give --input image=FILE"),
        ("run lenet --input none.npy", "there is no file none.npy"),
        ("run lenet --input nets.py", "give an .npy or .npz file, or a type"),
        ("run nets.py:Pair --input 2 --input 2 --fill ones -o y.npy", "there are 2 outputs"),
        ("draw lenet -o lenet.jpg", "let the name end in .svg or .png or .pdf"),
        ("draw lenet --stage kernel", "invalid choice: 'kernel'"),
        ("draw lenet --fold 0", "'0' is no whole number from 1"),
        ("draw lenet --stage kernels --fold 1", "is not folded"),
        ("explain lenet conv3", "LeNet has no node 'conv3'; did you mean"),
        ("train lenet", "the following arguments are required: --data"),
        ("train nets.py:twice --data digits", "nets.py:twice is no module"),
        ("train lenet --data digits --resume", "--resume goes on from a file"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_told_in_one_line(quern: Quern, arguments: str, told: str) -> None:
    assert told in quern.fails(2, *arguments.split())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("summary nets.py:Clash --input 2x5", f"nets.py:{line_of('x.reshape(2, 6)')}"),
        ("summary nets.py:Clash --input 2x6", f"nets.py:{line_of('x.reshape(2, 6)')}"),
        ("summary nets.py:Unmade", f"nets.py:{line_of('undefined_name')}: NameError: name 'undef"),
        ("summary nets.py:Fails --input 2", f"nets.py:{line_of('missing')}: KeyError: 'missing'"),
        ("summary lenet --input 1x3x8x8", "channels"),
        ("train lenet --data fish", "data 'fish': expected one of digits"),
        ("train lenet --data mnist:nowhere", "nowhere"),
    ],
)
def test_work_that_fails_is_told_in_one_line(quern: Quern, arguments: str, told: str) -> None:
    assert told in quern.fails(1, *arguments.split())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def f(:", "own.py:1: invalid syntax"),
        ("import numpy\n\nimport not_there", "own.py:3: ModuleNotFoundError: No module named"),
        ("raise SystemExit(3)", "own.py:1: SystemExit: 3"),
        ("x = 1\nassert x == 2, 'two\\nlines'", "own.py:2: AssertionError: two lines"),
    ],
)
def test_a_file_that_does_not_run_is_told_with_its_line(
    quern: Quern, folder: Path, text: str, told: str
) -> None:
    (folder / "own.py").write_text(text)
    assert told in quern.fails(1, "summary", "own.py:Net")


def test_a_traceback_only_where_it_is_asked_for(quern: Quern) -> None:
    code, _, err = quern.run("summary", "nets.py:Fails", "--input", "2", "-v")
    assert code == 1
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("quern: ")


def test_a_file_may_import_what_lies_beside_it(quern: Quern, folder: Path) -> None:
    (folder / "beside.py").write_text("WIDTH = 7\n")
    (folder / "user.py").write_text(
        "from beside import WIDTH\nfrom quern import nn\nnet = nn.Linear(WIDTH, 1)\n"
    )
    assert "[2, 1]" in quern("summary", "user.py:net", "--input", "2x7")


def test_ctrl_c_ends_it_in_one_line(folder: Path) -> None:
    command = [sys.executable, "-m", "quern", "train", "nets.py:Slow", "--data", "data.npz"]
    (folder / "nets.py").write_text(
        "import os, signal\nfrom quern import nn\n"
        "class Slow(nn.Linear):\n"
        "    def __init__(self):\n"
        "        super().__init__(2, 2)\n"
        "        signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (130, "quern: interrupted\n")


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="no such pipes here")
def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "quern", "models"],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    finally:
        os.close(write)
    assert done.stderr == ""


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


# -- training -------------------------------------------------------------------------------------


@pytest.fixture
def blobs(folder: Path) -> str:
    """Three classes that a linear layer tells apart."""
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = (rng.standard_normal((300, 4)) + 4 * np.eye(3, 4)[y]).astype(np.float32)
    np.savez(folder / "blobs.npz", x=x, y=y)
    return "blobs.npz"


def test_train(quern: Quern, folder: Path, blobs: str) -> None:
    command = [
        "train", "nets.py:Tiny", "--data", blobs, "--epochs", "4", "--optimizer", "adam",
        "--lr", "0.05", "--batch-size", "24", "--seed", "3", "--threads", "1",
    ]  # fmt: skip
    told = quern(*command, "-o", "model.qn", "--log", "log.csv").splitlines()
    assert told[0] == "blobs.npz: 240 rows to train on, 60 to test on"
    assert told.pop(1).startswith("planned peak memory ")
    assert [line.split(":")[0] for line in told[1:5]] == [f"epoch {i}/4" for i in range(1, 5)]
    assert told[5].startswith("test: loss ")
    assert told[6] == "wrote model.qn"
    assert float(told[5].split("accuracy ")[1].split(" %")[0]) > 90
    assert len((folder / "log.csv").read_text().splitlines()) == 5
    quern(*command, "-o", "again.qn")
    first, again = (qn.load(name).state["fc.weight"] for name in ("model.qn", "again.qn"))
    np.testing.assert_array_equal(first, again)


def test_training_is_resumed_to_the_same_bits(quern: Quern, blobs: str) -> None:
    command = ["train", "nets.py:Tiny", "--data", blobs, "--lr", "0.1"]
    command += ["--optimizer", "sgd", "--momentum", "0.9"]
    quern(*command, "--epochs", "4", "-o", "whole.qn")
    quern(*command, "--epochs", "2", "--checkpoint", "c.ckpt")
    quern(*command, "--epochs", "4", "--checkpoint", "c.ckpt", "--resume", "-o", "parts.qn")
    whole, parts = (qn.load(name).state["fc.weight"] for name in ("whole.qn", "parts.qn"))
    np.testing.assert_array_equal(whole, parts)


def test_a_loss_that_is_not_finite_is_told_in_one_line(quern: Quern, blobs: str) -> None:
    command = ("train", "nets.py:Tiny", "--data", blobs, "--optimizer", "sgd")
    told = quern.fails(1, *command, "--lr", "1e38")
    assert "finite" in told
