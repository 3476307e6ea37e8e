"""What users call is given what its annotations say, or tells which argument is not."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from operator import index
from reprlib import Repr
from typing import Any, ParamSpec, TypeVar, Union

import numpy as np

from ...compiler.errors import UsageError
from ...compiler.graph import user_location
from ...compiler.tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")

# What an argument is taken as; raises TypeError, ValueError or OverflowError if it is none.
Taking = Callable[[Any], Any]

_LARGEST = 2**63 - 1


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, which tells of arguments that are not what their annotations say.

    Truths, numbers, strings, tensors, None and sequences of those are looked at, everything else
    is left alone. Numbers of NumPy become Python's.
    """

    @wraps(function)
    def checking(*args: P.args, **kwargs: P.kwargs) -> R:
        signature, takings = _expectations(function)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)
        for name, (taking, expected) in takings.items():
            if name in bound.arguments:
                given = bound.arguments[name]
                try:
                    bound.arguments[name] = taking(given)
                except (TypeError, ValueError, OverflowError):
                    what = f"{name} is {expected}, not {_shown(given)}{_advice(expected, given)}"
                    made = function.__name__ == "__init__"
                    place = type(args[0]).__name__ if made else function.__name__
                    raise UsageError(what).at(place, user_location()) from None
        return function(*bound.args, **bound.kwargs)

    return checking


@cache
def _expectations(
    function: Callable[..., Any],
) -> tuple[inspect.Signature, dict[str, tuple[Taking, str]]]:
    """The signature, and by name of an argument what it is taken as and what that is called."""
    signature = inspect.signature(function)
    names = {**vars(typing), **function.__globals__, "Tensor": Tensor}
    found = {}
    for parameter in signature.parameters.values():
        kind = _kind(_evaluated(parameter.annotation, names))
        if parameter.kind is parameter.VAR_POSITIONAL and kind is not None:
            kind = _sequence(kind[0]), kind[1]
        if parameter.kind is not parameter.VAR_KEYWORD and kind is not None:
            found[parameter.name] = kind
    return signature, found


def _evaluated(annotation: Any, names: dict[str, Any]) -> Any:
    try:
        return eval(annotation, names) if isinstance(annotation, str) else annotation
    except (NameError, TypeError):  # known to type checkers alone; an alias that is a string
        return Any


def _kind(annotation: Any) -> tuple[Taking, str] | None:
    """How values of an annotation are taken, and their name; None for one that is not looked at."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is None:
        return _KINDS.get(annotation) if isinstance(annotation, type) else None
    union = origin in (Union, types.UnionType)
    if not union and origin not in (list, Sequence) and args[1:] != (Ellipsis,):
        return None
    kinds = [_kind(a) for a in args if a is not Ellipsis]
    known = [kind for kind in kinds if kind is not None]
    if len(known) < len(kinds):
        return None
    if union:
        names = dict.fromkeys(name for _, name in known)
        short = ("several" if _each(name) in names else name for name in names)
        return _union([taking for taking, _ in known]), " or ".join(short)
    taking, name = known[0]
    return _sequence(taking), f"several, each {name}"


def _each(name: str) -> str | None:
    """What several of something are called without being several."""
    return name.removeprefix("several, each ") if name.startswith("several, each ") else None


def _truth(value: Any) -> bool:
    """PyTorch's users write 0, 1 and None, too."""
    if not isinstance(value, bool | np.bool_ | int | np.integer | None):
        raise TypeError
    return bool(value)


def _whole(value: Any) -> int:
    number = index(value)
    if abs(number) > _LARGEST:
        raise OverflowError
    return int(number)


def _number(value: Any) -> float:
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.ndim):
        value = value.item()
    if not isinstance(value, int | float):
        raise TypeError
    float(value)
    return value


def _instance(of: type) -> Taking:
    def taking(value: Any) -> Any:
        if not isinstance(value, of):
            raise TypeError
        return value

    return taking


def _sequence(taking: Taking) -> Taking:
    def each(values: Any) -> Any:
        if isinstance(values, str | bytes | Mapping | Tensor) or not isinstance(values, Iterable):
            raise TypeError
        return tuple(taking(value) for value in values)

    return each


def _union(takings: Sequence[Taking]) -> Taking:
    # A truth is no number, nor a number a truth, where both may be given.
    takings = sorted(takings, key=lambda taking: taking is _truth)

    def first(value: Any) -> Any:
        if isinstance(value, bool) and _truth in takings:
            return value
        for taking in takings:
            try:
                return taking(value)
            except (TypeError, ValueError, OverflowError):
                continue
        raise TypeError

    return first


_KINDS: dict[type, tuple[Taking, str]] = {
    bool: (_truth, "True or False"),
    int: (_whole, "a whole number"),
    float: (_number, "a number"),
    str: (_instance(str), "a string"),
    Tensor: (_instance(Tensor), "a tensor"),
    type(None): (_instance(type(None)), "None"),
}


def _shown(value: object) -> str:
    if isinstance(value, bool | int | float | str | list | tuple | dict | None):
        short = Repr()
        short.maxlong = short.maxother = short.maxstring = 40
        return " ".join(short.repr(value).split())
    shape = getattr(value, "shape", None)
    extents = f" of shape {tuple(shape)}" if isinstance(shape, tuple) else ""
    return f"of type {type(value).__name__}{extents}"


def _advice(expected: str, value: object) -> str:
    """What to write instead, where that can be told."""
    if "whole number" in expected and isinstance(value, float):
        return f"; write {int(value)}" if value.is_integer() else "; // divides to one"
    if "number" in expected and isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return ""
        return f"; write {value} without quotes"
    return ""
