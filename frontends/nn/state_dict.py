"""State dicts: contents of parameters and buffers under their dotted names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ...compiler.errors import InputError
from .state import State


class IncompatibleKeys(NamedTuple):
    """What did not match when a state dict was loaded."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def load_states(
    states: Mapping[str, State], state_dict: Mapping[str, Any], strict: bool, owner: str
) -> IncompatibleKeys:
    """Copies contents into states, converted between float types, or into none of them.

    Arguments:
        states: by key.
        state_dict: key -> array, or whatever NumPy takes as an array.
        strict: keys that are missing or unexpected are an error.
        owner: whose states they are, for errors.

    Raises:
        InputError: with the keys that do not match and the shapes that clash.
    """
    missing = [key for key in states if key not in state_dict]
    unexpected = [key for key in state_dict if key not in states]
    loaded, clashes = {}, []
    for key, state in states.items():
        if key in state_dict:
            array = np.asarray(state_dict[key])
            kept = state.data
            if array.shape != kept.shape or not np.can_cast(array.dtype, kept.dtype, "same_kind"):
                given = f"{array.dtype}{list(array.shape)}"
                clashes.append(f"{key} is {state.type}, the given one is {given}")
            loaded[key] = array
    problems = clashes
    if strict:
        problems = (
            [f"missing keys: {', '.join(missing)}"] * bool(missing)
            + [f"unexpected keys: {', '.join(unexpected)}"] * bool(unexpected)
            + clashes
        )
    if problems:
        raise InputError(f"the state does not fit {owner}: {'; '.join(problems)}")
    for key, array in loaded.items():
        states[key].data = np.array(array, dtype=states[key].data.dtype, order="C")
    return IncompatibleKeys(missing, unexpected)
