"""The quern program, run in this process in a folder with a file of networks."""

from __future__ import annotations

import pytest

from quern.frontends.cli.main import main

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


def line_of(text: str) -> int:
    return 1 + next(i for i, line in enumerate(NETS.splitlines()) if text in line)
