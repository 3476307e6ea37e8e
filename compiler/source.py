"""Which line of the user's code is at work."""

from __future__ import annotations

import sys
from pathlib import Path
from traceback import walk_tb
from types import FrameType, TracebackType

from .errors import SourceLocation

_PACKAGE = tuple(
    str(Path(__file__).resolve().parents[1] / room) for room in ("compiler", "frontends", "runtime")
)
_ZOO = str(Path(__file__).resolve().parents[1] / "frontends" / "zoo")


def user_location(traceback: TracebackType | None = None) -> SourceLocation | None:
    """The innermost line that is not this package's own: of what led to an error, or, where that
    passed none, of the call stack.
    """
    for failed, line in reversed(list(walk_tb(traceback))):
        if _is_users(failed):
            return SourceLocation(failed.f_code.co_filename, line)
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if _is_users(frame):
            return SourceLocation(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


def _is_users(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    own = file.startswith(_PACKAGE) and not file.startswith(_ZOO)
    return not own and not file.startswith("<")
