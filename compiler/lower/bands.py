"""Bands of pooled rows, for which the rows they are pooled from fit on the stack."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..loops.ir import STACK_BYTES
from .windows import WindowAxis

# More than the least, so that a band is worth a task.
_WORTHWHILE = 16 * 1024
# Rows that neighbouring bands both compute cost at most this much.
_RECOMPUTED = 1.15


def rows_of(axis: WindowAxis, windows: int) -> int:
    """Places along an axis from the first to the last one of neighbouring windows."""
    return (windows - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1


def row_length(axis: WindowAxis) -> int:
    """Places along an axis that any window reads, from the first one on."""
    return min(axis.extent, rows_of(axis, axis.windows) - axis.low)


def band_bytes(axes: Sequence[WindowAxis], windows: int, column_bytes: int) -> int:
    """What a band of so many windows along the last axis but one takes on the stack."""
    rows = [rows_of(axis, 1) for axis in axes[:-2]]
    rows += [rows_of(axis, windows) for axis in axes[-2:-1]]
    return math.prod(rows) * row_length(axes[-1]) * column_bytes


def band_height(axes: Sequence[WindowAxis], column_bytes: int) -> int:
    """Windows along the last axis but one that make a good band."""
    if len(axes) < 2:
        return 1
    best = 1
    for windows in range(1, axes[-2].windows + 1):
        size = band_bytes(axes, windows, column_bytes)
        if size > STACK_BYTES:
            break
        best = windows
        again = rows_of(axes[-2], windows) / (windows * axes[-2].stride)
        if size >= _WORTHWHILE and again <= _RECOMPUTED:
            break
    return best
