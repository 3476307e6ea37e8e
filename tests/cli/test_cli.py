"""The quern program: help, exit codes, one line for what fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from quern_program import Quern, line_of

import quern as qn
from quern.frontends.cli.main import COMMANDS


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, **options
    )


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
