"""Networks of the literature, by name.

Each file holds one family: its modules, as the paper's figure has them, and `ENTRIES`. A file that
is added is found by itself. Keys of state dicts are torchvision's wherever it has the network.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from functools import cache
from importlib import import_module

from ..convolutionalize import convolutionalize
from ..nn.module import Module
from .entry import ZooEntry

__all__ = ["ZooEntry", "convolutionalize", "entries", "find"]

_NO_FAMILY = "entry"


@cache
def entries() -> dict[str, ZooEntry]:
    """All networks by name, in alphabetical order."""
    families = (m.name for m in pkgutil.iter_modules(__path__) if m.name != _NO_FAMILY)
    found: list[ZooEntry] = []
    for family in families:
        found += import_module(f".{family}", __name__).ENTRIES
    return {entry.name: entry for entry in sorted(found, key=lambda e: e.name)}


def find(name: str) -> ZooEntry | None:
    """The network of a name; case, and `-` or `_`, make no difference."""
    wanted = _plain(name)
    return next((e for e in entries().values() if _plain(e.name) == wanted), None)


def __getattr__(name: str) -> Callable[[], Module]:
    """`zoo.resnet18()` builds the network of that name."""
    entry = None if name.startswith("_") else find(name)
    if entry is None:
        raise AttributeError(f"the zoo has no {name}; `quern models` lists what it has")
    return entry.build


def __dir__() -> list[str]:
    return [*__all__, *entries()]


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
