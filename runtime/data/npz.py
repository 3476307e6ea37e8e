"""NumPy's `.npz`: a zip of `.npy` arrays, read without pickle and without trusting a header.

The `.npy` form is NEP 1: magic, version, header length, a Python dict as text, then the data.
"""

from __future__ import annotations

import os
import re
import zipfile
from typing import Any

import numpy as np

from ...compiler.errors import DataError
from .dataset import Array, Dataset, Inputs, from_arrays
from .files import ByteStream, PathLike, read_array, read_up_to, reading
from .idx import Part

_TARGETS = ("targets", "labels", "y")
_MAGIC = b"\x93NUMPY"
_DESCR = re.compile(rb"""['"]descr['"]\s*:\s*['"]([<>|=]?[biuf?]\d{0,2})['"]""")
_ORDER = re.compile(rb"""['"]fortran_order['"]\s*:\s*(True|False)\b""")
_SHAPE = re.compile(rb"""['"]shape['"]\s*:\s*\(((?:\s*\d{1,19}L?\s*,?)*)\s*\)""")


def read_npz(path: PathLike) -> dict[str, Array]:
    """The arrays of an `.npz` file by name, in native byte order; numbers and bools only."""
    where = os.fspath(path)
    arrays: dict[str, Array] = {}
    with reading(path, "an .npz file"), zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            if name in arrays:
                raise DataError(f"{where}: expected every array once, found '{name}' twice")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(
                    f"{where}: expected '{name}' stored or deflated, "
                    f"found compression method {entry.compress_type}"
                )
            with archive.open(entry) as stream:
                arrays[name] = _read_npy(stream, f"{where}:{name}")
    return arrays


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


def has_parts(arrays: dict[str, Array]) -> bool:
    """Whether the names carry their part, as in `x_train`, `y_train`, `x_test`, `y_test`."""
    return any(name.endswith("_train") for name in arrays)


def npz(path: PathLike, part: Part = "train") -> Dataset:
    """A Dataset from an `.npz` file: `targets`, `labels` or `y`, and the inputs by name.

    A single other array is the one input, whatever its name; several are a dict. Integer targets
    (N,) are class labels. Where the names end in `_train` and `_test` (`x_train`, `y_train`, ...),
    `part` says which rows to take.
    """
    where = os.fspath(path)
    arrays = read_npz(path)
    if has_parts(arrays):
        suffix = f"_{part}"
        arrays = {k.removesuffix(suffix): v for k, v in arrays.items() if k.endswith(suffix)}
    goals = [name for name in _TARGETS if name in arrays]
    if len(goals) != 1 or len(arrays) < 2:
        raise DataError(
            f"{where}: expected one array named {' or '.join(_TARGETS)} and at least one input, "
            f"found {', '.join(arrays) or 'no arrays'}"
        )
    targets = arrays.pop(goals[0])
    inputs: Inputs = arrays if len(arrays) > 1 else next(iter(arrays.values()))
    return from_arrays(inputs, targets, name=where)
