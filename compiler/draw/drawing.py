"""A finished picture: its Graphviz source, and how it becomes SVG, PNG or PDF."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import QuernError, UsageError
from ..files import replacing

FORMATS = ("svg", "png", "pdf")
SOURCES = ("gv", "dot")
_TIMEOUT = 120.0  # seconds; Graphviz can take for ever over graphs of thousands of nodes
_RESOLUTION = "144"  # of PNG, dots an inch: sharp on today's screens

# pygraphviz's wheels carry Graphviz as a library. It runs in a process of its own, as `dot` does,
# so that what it prints, or a crash of it, stays there.
_PYGRAPHVIZ = """
import sys, pygraphviz
source = sys.stdin.buffer.read().decode()
sys.stdout.buffer.write(pygraphviz.AGraph(string=source).draw(format=sys.argv[1], prog="dot"))
"""


class RenderWarning(UserWarning):
    """There is no Graphviz to render with; the source was written in place of the picture."""


@dataclass(frozen=True)
class Drawing:
    """A picture of a graph; Jupyter shows it.

    Arguments:
        source: Graphviz text.
        title: of the picture.
    """

    source: str
    title: str

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the picture in the format of the path's suffix: .svg, .png, .pdf, .gv or .dot.

        The file is replaced whole or not at all.

        Returns:
            What was written: `path`, or, where there is no Graphviz, a `.gv` beside it (which a
            RenderWarning says, and what to install).

        Raises:
            UsageError: another suffix, or a place that cannot be written to.
            QuernError: Graphviz failed.
        """
        target = Path(path)
        suffix = target.suffix.lower().removeprefix(".")
        if suffix in SOURCES:
            return _write(target, self.source.encode())
        if suffix not in FORMATS:
            known = ", ".join(f".{s}" for s in (*FORMATS, *SOURCES))
            raise UsageError(f"{target}: pictures are written as {known}, not {suffix or 'that'!r}")
        command = renderer(suffix)
        if command is not None:
            return _write(target, _run(command, self.source))
        written = _write(target.with_suffix(".gv"), self.source.encode())
        warnings.warn(
            f"no Graphviz to draw {target} with, wrote its source to {written}; "
            "pip install 'quern[draw]' brings one",
            RenderWarning,
            stacklevel=2,
        )
        return written

    def render(self, format: str) -> bytes | None:
        """The picture as svg, png or pdf; None where there is no Graphviz."""
        command = renderer(format)
        return None if command is None else _run(command, self.source)

    def _repr_svg_(self) -> str | None:
        image = self.render("svg")
        return None if image is None else image.decode()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        image = self._repr_svg_()
        plain = {"text/plain": f"Drawing of {self.title}"}
        return plain if image is None else plain | {"image/svg+xml": image}


def renderer(format: str) -> list[str] | None:
    """The command that reads Graphviz text and writes a picture, or None where there is none."""
    dot = shutil.which("dot")
    if dot is not None:
        return [dot, f"-T{format}"]
    if find_spec("pygraphviz") is not None:
        return [sys.executable, "-c", _PYGRAPHVIZ, format]
    return None


def _run(command: list[str], source: str) -> bytes:
    text = source.encode()
    if command[-1].endswith("png"):
        text = text.replace(b"{", f'{{ graph [dpi="{_RESOLUTION}"]; '.encode(), 1)
    try:
        done = subprocess.run(command, input=text, capture_output=True, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise QuernError(
            f"Graphviz took over {_TIMEOUT:.0f} s; draw fewer boxes with fold=1 or fold=2"
        ) from None
    if done.returncode or not done.stdout:
        told = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise QuernError(f"Graphviz could not draw this: {told[-1]}")
    return done.stdout


def _write(target: Path, content: bytes) -> Path:
    """Replaces a file by new content, whole or not at all."""
    try:
        with replacing(target) as file:
            file.write(content)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}") from error
    return target
