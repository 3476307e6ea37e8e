"""Python's search for unreachable cycles, put off while graphs and kernels are built."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collections() -> Iterator[None]:
    """No cyclic garbage is looked for inside.

    Compiling makes millions of objects that stay, and hardly a cycle that goes: the collector
    would walk through all of them again and again, for a quarter of the time.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
