"""Arrays of a command: read from files, made up, written, and shown."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import write_array

from ...compiler.errors import UsageError
from ...compiler.files import replacing
from ...compiler.types import Array, TensorType
from ...runtime.data import read_npy, read_npz
from ..suggest import unknown
from .console import note
from .options import is_type, types_of

_ROWS_SHOWN = 16


@dataclass(frozen=True)
class Given:
    """What --input gave.

    Arguments:
        placed: arrays in order.
        named: arrays by name.
        specs: types of made-up inputs, in order.
        types: of made-up inputs, by name.
    """

    placed: list[Array] = field(default_factory=list)
    named: dict[str, Array] = field(default_factory=dict)
    specs: tuple[TensorType, ...] = ()
    types: Mapping[str, TensorType] = field(default_factory=dict)


def read_inputs(texts: Sequence[str]) -> Given:
    """The arrays and types of `x.npy`, `image=x.npy`, `data.npz` and `16x3x224x224`.

    Raises:
        UsageError: no such file, or an input is given twice.
        DataError: a file is damaged.
    """
    placed: list[Array] = []
    named: dict[str, Array] = {}
    for text in texts:
        if is_type(text):
            continue
        name, _, file = text.rpartition("=")
        path = Path(file)
        if path.suffix.lower() not in (".npy", ".npz"):
            raise UsageError(f"--input {text}: give an .npy or .npz file, or a type: 1x3x224x224")
        if not path.is_file():
            raise UsageError(f"--input {text}: there is no file {file}")
        if path.suffix.lower() == ".npy":
            found = {name: read_npy(path)}
        else:
            found = read_npz(path)
            if name and len(found) != 1:
                raise UsageError(f"--input {text}: {file} has {len(found)} arrays; leave out NAME=")
            if name:
                found = {name: next(iter(found.values()))}
        for key, array in found.items():
            if key in named:
                raise UsageError(f"--input {key} is given twice")
            if key and not key.startswith("arr_"):  # as savez calls arrays without a name
                named[key] = array
            else:
                placed.append(array)
    specs, types = types_of(text for text in texts if is_type(text))
    return Given(placed, named, specs, types)


def fill(
    inputs: Mapping[str, TensorType], given: Given, how: str | None, seed: int
) -> dict[str, Array]:
    """Contents of every input.

    Arguments:
        inputs: name and type of each.
        given: what there is.
        how: random, zeros or ones; None where nothing is to be made up.
        seed: of random numbers: standard normal; integers and bools are 0 or 1.

    Raises:
        UsageError: an input that does not exist, or one without contents.
    """
    for name in given.named:
        if name not in inputs:
            raise UsageError(unknown("input", name, inputs))
    free = [name for name in inputs if name not in given.named]
    if len(given.placed) > len(free):
        raise UsageError(
            f"{len(given.placed)} arrays without a name are given, the inputs that are left are "
            f"{', '.join(free) or 'none'}"
        )
    arrays = {**dict(zip(free, given.placed, strict=False)), **given.named}
    missing = [name for name in inputs if name not in arrays]
    if missing and how is None:
        listed = ", ".join(f"{name} {inputs[name]}" for name in missing)
        raise UsageError(
            f"nothing is given for {listed}; give --input {missing[0]}=FILE.npy, or --fill random"
        )
    rng = np.random.default_rng(seed)
    return {
        name: _fitting(name, arrays[name], type) if name in arrays else _made_up(type, how, rng)
        for name, type in inputs.items()
    }


def _fitting(name: str, array: Array, type: TensorType) -> Array:
    """The array as the network's type where no more than digits get lost."""
    wanted = type.dtype.numpy
    if array.dtype == wanted:
        return array
    if array.dtype.kind == wanted.kind == "f":
        note(f"input {name}: {array.dtype} is taken as {wanted}")
        return array.astype(wanted)
    return array.astype(wanted) if np.can_cast(array.dtype, wanted, "safe") else array


def _made_up(type: TensorType, how: str | None, rng: np.random.Generator) -> Array:
    dtype = type.dtype.numpy
    if how == "random":
        if type.dtype.is_float:
            return rng.standard_normal(type.shape, dtype)
        return rng.integers(0, 2, type.shape).astype(dtype)
    return np.full(type.shape, how == "ones", dtype)


def write_outputs(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes one array to an .npy file, or all of them to an .npz file; whole or not at all."""
    with replacing(path) as file:
        if path.suffix.lower() == ".npy":
            (only,) = arrays.values()
            np.save(file, only)
            return
        with zipfile.ZipFile(file, "w") as archive:  # savez has no room for an output called `file`
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    write_array(entry, array, allow_pickle=False)


def write_json(path: Path, data: Any) -> None:
    """Writes JSON, whole or not at all."""
    with replacing(path) as file:
        file.write((json.dumps(data, indent=1) + "\n").encode())


def top_lines(array: Array, count: int) -> Iterator[str]:
    """The largest values of each row (N, …), with their places in the row."""
    rows = array.reshape(len(array), -1) if array.ndim > 1 else array.reshape(1, -1)
    for number, row in enumerate(rows[:_ROWS_SHOWN]):
        # Those that are no numbers come last.
        order = np.argsort(-np.nan_to_num(row, nan=-np.inf), kind="stable")[:count]
        listed = ", ".join(f"{place} ({row[place]:.6g})" for place in order)
        yield f"row {number}: {listed}" if array.ndim > 1 else listed
    if len(rows) > _ROWS_SHOWN:
        yield f"and {len(rows) - _ROWS_SHOWN} more rows"
