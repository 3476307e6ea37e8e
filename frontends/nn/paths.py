"""Dotted names of what modules hold: found, listed and put together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...compiler.errors import UsageError
from .state import State

if TYPE_CHECKING:
    from .module import Module


def joined(prefix: str, name: str) -> str:
    """The dotted name of what is called `name` below `prefix`."""
    return f"{prefix}.{name}" if prefix else name


def named_states(
    module: Module, registry: str, prefix: str, recurse: bool, remove_duplicate: bool
) -> Iterator[tuple[str, Any]]:
    """The states of a registry with their dotted names; each once if duplicates are removed."""
    seen: set[State] = set()
    parts = (
        module.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
        if recurse
        else [(prefix, module)]
    )
    for path, part in parts:
        for name, state in getattr(part, registry).items():
            if state is None or state in seen:
                continue
            if remove_duplicate:
                seen.add(state)
            yield joined(path, name), state


def state_at(module: Module, registry: str, target: str) -> Any:
    """The state of a dotted name in a registry.

    Raises:
        UsageError: there is none.
    """
    path, _, name = target.rpartition(".")
    owner = module.get_submodule(path)
    found = getattr(owner, registry).get(name)
    if found is None:
        have = ", ".join(getattr(owner, registry)) or "none"
        raise UsageError(f"{type(module).__name__} has no {target!r}; there is {have}")
    return found
