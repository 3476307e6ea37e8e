"""Runs a kernel on NumPy arrays: what the loop IR means, independent of the machine code.

A kernel becomes a Python function, statement by statement. Loops whose iterations are proved
independent run all at once, as NumPy arrays of one element an iteration; everything else runs as
written. float32 is computed in float32, but functions such as exp in float64 and then rounded.
Memory that a kernel allocates starts as NaN or garbage, and every index is checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NoReturn

import numpy as np

from ..errors import QuernError
from ..types import Array, DType
from .access import Accesses, collect
from .ir import Buffer, Kernel
from .to_python import translate

_GARBAGE = {
    DType.FLOAT32: math.nan,
    DType.FLOAT64: math.nan,
    DType.INT32: -0x5A5A5A5B,
    DType.INT64: -0x5A5A5A5A5A5A5A5B,
    DType.UINT8: 0xA5,
    DType.BOOL: True,
}


class InterpreterError(QuernError):
    """A kernel did what it must not: it left a buffer, or was given the wrong arrays."""


def interpret(kernel: Kernel, arrays: Sequence[Array], accesses: Accesses | None = None) -> None:
    """Runs a kernel on its parameters, in place.

    Arguments:
        arrays: one for each parameter, of its shape and dtype, contiguous; scratch is provided.
        accesses: `collect(kernel)`, for callers who have it already.

    Raises:
        InterpreterError: an index is outside of its buffer, a condition differs between lanes, a
            number is shifted by more than its bits, or the arrays do not fit the parameters.
        CompileError: the kernel is malformed.
    """
    if len(arrays) != len(kernel.parameters):
        wanted = len(kernel.parameters)
        raise InterpreterError(f"kernel {kernel.name} takes {wanted} arrays, got {len(arrays)}")
    flat = [_flat(kernel, b, a) for b, a in zip(kernel.parameters, arrays, strict=True)]
    flat += [_poisoned(b.size, b.dtype) for b in kernel.scratch]
    source, constants = translate(kernel, accesses or collect(kernel))

    def outside(name: str, axis: int, place: Any, extent: int) -> NoReturn:
        places = np.unique(place)
        first = next(int(p) for p in places if not 0 <= p < extent)
        raise InterpreterError(
            f"kernel {kernel.name}: index {first} on axis {axis} of buffer {name} is outside of "
            f"its extent {extent}"
        )

    def uniform(condition: Array) -> bool:
        if condition.any() != condition.all():
            raise InterpreterError(
                f"kernel {kernel.name}: the condition of an If differs between lanes"
            )
        return bool(condition[0])

    space = {**_RUNTIME, **constants, "outside": outside, "uniform": uniform}
    exec(compile(source, f"<kernel {kernel.name}>", "exec"), space)
    with np.errstate(all="ignore"):
        space["kernel"](*flat)


def _flat(kernel: Kernel, buffer: Buffer, array: Array) -> Array:
    """A parameter's memory, without copying."""
    given = f"{array.dtype}{list(array.shape)}"
    if array.dtype != buffer.dtype.numpy or array.shape != buffer.shape:
        wanted = f"{buffer.dtype}{list(buffer.shape)}"
        raise InterpreterError(f"kernel {kernel.name}: {buffer.name} is {wanted}, got {given}")
    if not array.flags.c_contiguous:
        raise InterpreterError(f"kernel {kernel.name}: the array for {buffer.name} has gaps")
    return array.reshape(-1)


# -- what the translated kernels call -------------------------------------------------------------


def _poisoned(size: int, dtype: DType, rows: int | None = None) -> Array:
    """Undefined contents that are seen when they are used."""
    return np.full(size if rows is None else (rows, size), _GARBAGE[dtype], dtype.numpy)


def _reduce(ufunc: np.ufunc, start: Any, values: Any, lane: Array) -> Any:
    """`start op values[0] op values[1] …`, from left to right."""
    row = np.empty(len(lane) + 1, start.dtype)
    row[0], row[1:] = start, values
    return ufunc.accumulate(row, dtype=row.dtype)[-1]


def _wrapped(number: int) -> int:
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _floor_divided(a: int, b: int) -> int:
    return _wrapped(a // b) if b else 0


def _mod_divided(a: int, b: int) -> int:
    return a % b if b else 0


def _one_minimum(a: Any, b: Any) -> Any:
    return a if a <= b or a != a else b


def _one_maximum(a: Any, b: Any) -> Any:
    return a if a >= b or a != a else b


def _shifted(shift: Callable[..., Any], a: Any, by: Any, dtype: DType) -> Any:
    bits = 8 * dtype.size
    if np.any((np.asarray(by) < 0) | (np.asarray(by) >= bits)):
        raise InterpreterError(f"{dtype} is shifted by {by}, which is not in [0, {bits})")
    unsigned = np.dtype(f"uint{bits}")
    moved = shift(np.asarray(a, dtype.numpy).view(unsigned), np.asarray(by).astype(unsigned))
    return moved.astype(unsigned).view(dtype.numpy)[()]


def _shift_left(a: Any, by: Any, dtype: DType) -> Any:
    return _shifted(np.left_shift, a, by, dtype)


def _shift_right(a: Any, by: Any, dtype: DType) -> Any:
    return _shifted(np.right_shift, a, by, dtype)


def _in_float64(function: Callable[..., Any], *arguments: Any) -> Any:
    """A function computed in float64 and rounded to the arguments' dtype."""
    exact = function(*(np.asarray(a, np.float64) for a in arguments))
    return np.asarray(exact, np.float64).astype(np.asarray(arguments[0]).dtype)[()]


def _sigmoid(x: Array) -> Array:
    tail = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, tail) / (1.0 + tail))


_RUNTIME: dict[str, Any] = {
    "np": np,
    "product": product,
    "poisoned": _poisoned,
    "reduce": _reduce,
    "wrapped": _wrapped,
    "floor_divided": _floor_divided,
    "mod_divided": _mod_divided,
    "one_minimum": _one_minimum,
    "one_maximum": _one_maximum,
    "shift_left": _shift_left,
    "shift_right": _shift_right,
    "in_float64": _in_float64,
    "exp": np.exp,
    "decay": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
}
