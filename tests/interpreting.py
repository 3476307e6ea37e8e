"""What the tests of the interpreter share."""

from __future__ import annotations

import numpy as np
from loop_kernels import (
    serial,
    v,
)

from quern.compiler.loops.interpreter import interpret
from quern.compiler.loops.ir import (
    Buffer,
    Expr,
    Kernel,
    Load,
)
from quern.compiler.types import Array, DType


def run(kernel: Kernel, *inputs: Array, ordered: bool = False) -> Array:
    """The last parameter after a run; it starts full of 77."""
    last = kernel.parameters[-1]
    result = np.full(last.shape, 77, last.dtype.numpy)
    interpret(serial(kernel) if ordered else kernel, [*inputs, result])
    return result


def at(name: str, extent: int, dtype: DType) -> Expr:
    return Load(Buffer(name, (extent,), dtype), (v,))
