"""The errors a person can meet, each one line: what, where, the numbers that clash, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class SourceLocation:
    """A line of the user's code.

    Arguments:
        file: path as Python reported it.
        line: line number, from 1.
    """

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class QuernError(Exception):
    """Base of every error that is the caller's to mend."""

    located: bool = False
    bare: QuernError | None = None

    def at(self, node: str, source: SourceLocation | None) -> Self:
        """The same error, naming the node and the user's line it belongs to (once only)."""
        if self.located:
            return self
        place = f"{node} ({source})" if source else node
        error = type(self)(f"{place}: {self}")
        error.located = True
        error.bare = self
        return error

    def unlocated(self) -> QuernError:
        """The error without its place, for one found in nodes the user never wrote."""
        return self.bare or self


class UnknownAttributeError(QuernError, AttributeError):
    """An object has no attribute of that name."""


class ShapeError(QuernError):
    """Shapes or attributes of an operation do not fit each other."""


class DTypeError(QuernError):
    """An operation does not take values of this type."""


class GraphError(QuernError):
    """A graph is not well formed: unknown names, cycles, wrong ports."""


class GradientError(QuernError):
    """A gradient was asked for that does not exist."""


class CompileError(QuernError):
    """A graph or kernel cannot be compiled."""


class InputError(QuernError):
    """An executable was called with arrays that do not match its inputs."""


class ArtifactError(QuernError):
    """A file is damaged, foreign, or of another version."""


class DataError(QuernError):
    """A data set cannot be read."""


class TrainingError(QuernError):
    """Training cannot go on, for instance because the loss is not finite."""


class OnnxError(QuernError):
    """An ONNX model is damaged, or holds what cannot be compiled."""

    def __init__(self, message: str) -> None:
        # Names come from the file; whatever they hold, the message stays one line.
        super().__init__("".join(c if c.isprintable() else "?" for c in message))


class UsageError(QuernError):
    """A command or function was called in a way it does not understand."""
