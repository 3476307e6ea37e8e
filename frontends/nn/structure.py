"""Tuples, lists and dictionaries of tensors, and the names of what is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Leaf = Callable[[str, Any], Any]


def map_structure(value: Any, leaf: Leaf, name: str = "") -> Any:
    """The same tuples, lists and dictionaries with `leaf(name, element)` for each element.

    Elements are named after their place: `name.0`, `name.key`, `name.field` of a named tuple; the
    elements of a nameless dictionary or named tuple by key or field alone.
    """
    if isinstance(value, Mapping):
        return {k: map_structure(v, leaf, _join(name, str(k))) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = zip(value._fields, value, strict=True)
        return type(value)(*(map_structure(v, leaf, _join(name, k)) for k, v in parts))
    if isinstance(value, tuple | list):
        items = (map_structure(v, leaf, _join(name, str(i))) for i, v in enumerate(value))
        return tuple(items) if isinstance(value, tuple) else list(items)
    return leaf(name, value)


def hashable(value: Any) -> Any:
    """A key that is equal for equal structures."""
    if isinstance(value, Mapping):
        return (dict, *((k, hashable(v)) for k, v in value.items()))
    if isinstance(value, tuple | list):
        return (type(value), *(hashable(v) for v in value))
    # 1, 1.0 and True are equal, but not the same argument.
    return (type(value), value)


def _join(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part
