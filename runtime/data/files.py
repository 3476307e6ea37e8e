"""Reading data files that may be damaged or hostile: one clear error, and bounded memory.

Nothing is allocated by what a header claims. Memory grows with the bytes that really arrive, and
reading stops one byte after those that were expected.
"""

from __future__ import annotations

import gzip
import math
import os
import tarfile
import textwrap
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias

import numpy as np

from ...compiler.errors import DataError
from .dataset import Array

PathLike: TypeAlias = str | os.PathLike[str]
Part: TypeAlias = Literal["train", "test"]


class ByteStream(Protocol):
    """An open file, or what unpacks one."""

    def read(self, size: int, /) -> bytes: ...


CHUNK = 1 << 20
MAX_RANK = 32

# What the standard library's readers raise on damaged bytes: besides their own errors, zipfile and
# tarfile let wrong numbers, text, encryption and unknown compression through as these.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    ArithmeticError,
    LookupError,
    RuntimeError,
    MemoryError,
    zlib.error,
    zipfile.BadZipFile,
    tarfile.TarError,
)


@contextmanager
def reading(where: PathLike, expected: str) -> Iterator[None]:
    """Turn whatever a damaged file raises inside the block into one DataError line."""
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, DataError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        # One line whatever the file holds: zipfile quotes its bytes.
        reason = textwrap.shorten(reason or type(error).__name__, 120, placeholder=" ...")
        raise DataError(f"{os.fspath(where)}: expected {expected}, found: {reason}") from error


@contextmanager
def open_data(path: PathLike, expected: str) -> Iterator[BinaryIO | gzip.GzipFile]:
    """Open a file to read its bytes, through gzip when its first two bytes say that it is gzip."""
    with reading(path, expected), open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if packed:
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield unpacked
        else:
            yield raw


def read_up_to(stream: ByteStream, size: int) -> bytearray:
    """At most `size` bytes; fewer when the stream ends before."""
    data = bytearray()
    while len(data) < size:
        chunk = stream.read(min(CHUNK, size - len(data)))
        if not chunk:
            break
        data += chunk
    return data


def read_array(
    stream: ByteStream,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    where: str,
    order: Literal["C", "F"] = "C",
) -> Array:
    """The rest of the stream as one array of `shape`, in native byte order.

    Raises DataError when the stream holds fewer or more bytes than the shape asks for. Reading to
    the end also makes gzip and zip verify their checksums.
    """
    if len(shape) > MAX_RANK:
        raise DataError(
            f"{where}: expected at most {MAX_RANK} axes in the header, found {len(shape)}"
        )
    # NumPy refuses such shapes even when another axis of size 0 leaves no data at all.
    if math.prod(max(n, 1) for n in shape) * dtype.itemsize >= 1 << 63:
        raise DataError(
            f"{where}: expected an array that fits an address space, "
            f"found shape {tuple(shape)} in its header"
        )
    size = math.prod(shape) * dtype.itemsize
    declared = f"{size:,} bytes of data for {dtype.name} of shape {tuple(shape)}"
    data = read_up_to(stream, size)
    if len(data) < size:
        raise DataError(f"{where}: expected {declared}, found {len(data):,}: the file is truncated")
    if stream.read(1):
        raise DataError(f"{where}: expected {declared}, found more: bytes follow the data")
    array: Array = np.ndarray(tuple(shape), dtype, buffer=data, order=order)
    return array.astype(dtype.newbyteorder("="), copy=False)


def find_file(folder: PathLike, names: Sequence[str]) -> Path | None:
    """The first of `names` that is a file in the folder, plain or with `.gz`; None without one."""
    candidates = (Path(folder) / (name + suffix) for name in names for suffix in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def check_part(part: Part) -> None:
    """Refuse a part that no format has."""
    if part not in ("train", "test"):
        raise DataError(f"part: expected 'train' or 'test', found '{part}'")
