"""NumPy's `.npz`: a zip of `.npy` arrays, read without pickle and without trusting a header.

The `.npy` form is NEP 1: magic, version, header length, a Python dict as text, then the data.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...compiler.errors import DataError
from .dataset import Array, Dataset, Inputs, from_arrays
from .files import ByteStream, Part, PathLike, check_part, read_array, read_up_to, reading

MAX_NAME = 200
_TARGETS = ("targets", "labels", "y")
_MAGIC = b"\x93NUMPY"
_DESCR = re.compile(rb"""['"]descr['"]\s*:\s*['"]([<>|=]?[biuf?]\d{0,2})['"]""")
_ORDER = re.compile(rb"""['"]fortran_order['"]\s*:\s*(True|False)\b""")
_SHAPE = re.compile(rb"""['"]shape['"]\s*:\s*\(((?:\s*\d{1,19}L?\s*,?)*)\s*\)""")


@contextmanager
def _entries(path: PathLike) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """The open zip, and its entries by the name of the array they hold."""
    where = os.fspath(path)
    with reading(path, "an .npz file"), zipfile.ZipFile(path) as archive:
        entries: dict[str, zipfile.ZipInfo] = {}
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            if not name.isprintable() or len(name) > MAX_NAME:
                raise DataError(
                    f"{where}: expected readable array names, found {name[:MAX_NAME]!r}"
                )
            if name in entries:
                raise DataError(f"{where}: expected every array once, found '{name}' twice")
            entries[name] = entry
        yield archive, entries


def read_npz(path: PathLike, suffix: str = "") -> dict[str, Array]:
    """The arrays of an `.npz` file by name, in native byte order; numbers and bools only.

    With a `suffix`, only the arrays whose names end in it are read.
    """
    arrays: dict[str, Array] = {}
    with _entries(path) as (archive, entries):
        for name, entry in entries.items():
            where = f"{os.fspath(path)}:{name}"
            if not name.endswith(suffix):
                continue
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(
                    f"{where}: expected an array stored or deflated, "
                    f"found compression method {entry.compress_type}"
                )
            with archive.open(entry) as stream:
                arrays[name] = _read_npy(stream, where)
    return arrays


def read_npy(path: PathLike) -> Array:
    """The array of an `.npy` file, in native byte order; numbers and bools only."""
    with reading(path, "an .npy file"), open(path, "rb") as stream:
        return _read_npy(stream, os.fspath(path))


def _read_npy(stream: ByteStream, where: str) -> Array:
    start = bytes(read_up_to(stream, 8))
    if len(start) < 8 or start[:6] != _MAGIC or start[6] not in (1, 2, 3):
        raise DataError(f"{where}: expected an .npy array, found bytes {start.hex(' ') or 'none'}")
    length = int.from_bytes(read_up_to(stream, 2 if start[6] == 1 else 4), "little")
    header = bytes(read_up_to(stream, min(length, 1 << 16)))
    descr, order, shape = (p.search(header) for p in (_DESCR, _ORDER, _SHAPE))
    if len(header) < length or descr is None or order is None or shape is None:
        text = header[:100].decode("latin-1").strip()
        raise DataError(
            f"{where}: expected the header of an array of numbers or bools, found {text!r}"
        )
    sizes = [int(size) for size in re.findall(rb"\d+", shape[1])]
    dtype = _dtype(descr[1].decode(), where)
    return read_array(stream, sizes, dtype, where, "F" if order[1] == b"True" else "C")


def _dtype(descr: str, where: str) -> np.dtype[Any]:
    try:
        return np.dtype(descr)
    except TypeError as error:
        raise DataError(f"{where}: expected a NumPy dtype, found {descr!r}") from error


def has_parts(path: PathLike) -> bool:
    """Whether an `.npz` file's names carry their part, as `x_train`, `y_train`, `x_test` do."""
    with _entries(path) as (_, entries):
        return any(name.endswith("_train") for name in entries)


def npz(path: PathLike, part: Part = "train") -> Dataset:
    """A Dataset from an `.npz` file: `targets`, `labels` or `y`, and the inputs by name.

    A single other array is the one input, whatever its name; several are a dict. Integer targets
    (N,) are class labels. Where the names end in `_train` and `_test` (`x_train`, `y_train`, ...),
    `part` says which rows to take.
    """
    check_part(part)
    suffix = f"_{part}" if has_parts(path) else ""
    arrays = {name.removesuffix(suffix): a for name, a in read_npz(path, suffix).items()}
    goals = [name for name in _TARGETS if name in arrays]
    where = os.fspath(path)
    if len(goals) != 1 or len(arrays) < 2:
        raise DataError(
            f"{where}: expected one array named "
            f"{' or '.join(name + suffix for name in _TARGETS)} and at least one for the inputs, "
            f"found {', '.join(name + suffix for name in arrays) or 'none'}"
        )
    targets = arrays.pop(goals[0])
    inputs: Inputs = arrays if len(arrays) > 1 else next(iter(arrays.values()))
    return from_arrays(inputs, targets, name=f"{where} {part}" if suffix else where)
