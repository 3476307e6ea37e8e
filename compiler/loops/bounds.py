"""The proof that a kernel stays inside its buffers.

Every index is a linear form; its interval under the conditions around it must lie within the extent
of its axis. What cannot be proved is not compiled: no kernel reads or writes what is not its own.
"""

from __future__ import annotations

from ..errors import CompileError
from .access import Access, Accesses, collect
from .facts import DEPTH
from .ir import Kernel
from .printer import print_access, print_expr


class BoundsError(CompileError):
    """An access that cannot be proved to stay inside its buffer."""


def prove(kernel: Kernel, accesses: Accesses | None = None) -> None:
    """Proves that every load, store and accumulation of a kernel is inside of its buffer.

    Conditions of an enclosing If count. Those of a Select do not for loads in its branches, which
    are computed either way; they do for the value of the Select, where that is an index.

    Arguments:
        accesses: `collect(kernel)`, for callers who have it already.

    Raises:
        BoundsError: naming the access that may be outside, or what is wrong with the kernel.
    """
    try:
        found = accesses or collect(kernel)
    except CompileError as error:
        raise BoundsError(str(error)) from None
    for access in found:
        for axis, (form, extent) in enumerate(zip(access.forms, access.buffer.shape, strict=True)):
            if not access.facts.inside(form, 0, extent - 1):
                raise BoundsError(_complaint(kernel, access, axis))


def _complaint(kernel: Kernel, access: Access, axis: int) -> str:
    low, high = access.facts.interval(access.forms[axis], DEPTH)
    place = print_access(access.buffer, access.index)
    return (
        f"kernel {kernel.name}: {access.kind.value} {place} may be outside of "
        f"{access.buffer.name}: {print_expr(access.index[axis])} is in [{low}, {high}], "
        f"the extent of axis {axis} is {access.buffer.shape[axis]}; clamp the index or guard the "
        "access with an If"
    )
