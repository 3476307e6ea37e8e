"""Zips of parts that are not packed, whose arrays are used where they lie in the file.

Every part begins at a multiple of 64 bytes, and arrays lie in it as safetensors has them. Reading
one maps the file: contents are neither read nor copied before somebody looks at them, and what is
written to them stays in this process. So the file must not be overwritten in place while it is in
use; replacing it by another one of the same name, as saving does, is fine.
"""

from __future__ import annotations

import json
import math
import mmap
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

from ..compiler.errors import ArtifactError
from ..compiler.types import Array

ALIGN = 64
_TIME = (1980, 1, 1, 0, 0, 0)
_PADDING = 0xD935  # the extra field that Android's zipalign pads with
_LOCAL_HEADER = 30
_CHUNK = 8 << 20
_MOST_HEADER = 100_000_000
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
)
_DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
}
_NAMES = {np.dtype(kind): name for name, kind in _DTYPES.items()}

Part: TypeAlias = bytes | Mapping[str, Array]
"""Contents of a part that is written: bytes, or the arrays of a `.safetensors` part."""

_Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]


# -- writing --------------------------------------------------------------------------------------


def write(file: IO[bytes], parts: Mapping[str, Part]) -> None:
    """Writes a zip.

    Arguments:
        file: empty, to be read again at any place.
        parts: contents by name.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            pieces = [content] if isinstance(content, bytes) else list(tensor_pieces(content))
            entry = zipfile.ZipInfo(name, _TIME)
            entry.file_size = sum(len(piece) for piece in pieces)
            entry.extra = _padding(file.tell() + _LOCAL_HEADER + len(name.encode()))
            with archive.open(entry, "w") as part:
                for piece in pieces:
                    part.write(piece)


def tensor_pieces(arrays: Mapping[str, Array]) -> Iterable[bytes | memoryview]:
    """The bytes of a safetensors file, piece by piece.

    Arrays that fill whole cache lines come first, so that all of these begin at one.
    """
    order = sorted(arrays, key=lambda n: (arrays[n].nbytes % ALIGN != 0, -arrays[n].itemsize, n))
    header, place = {}, 0
    for name in order:
        array = arrays[name]
        end = place + array.nbytes
        kind = _NAMES[array.dtype.newbyteorder("=")]
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": (place, end)}
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGN)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        plain = np.ascontiguousarray(arrays[name], arrays[name].dtype.newbyteorder("<"))
        yield plain.reshape(-1).view(np.uint8).data


def checksum(arrays: Mapping[str, Array]) -> int:
    """CRC-32 of the part that `write` makes of arrays."""
    found = 0
    for piece in tensor_pieces(arrays):
        found = zlib.crc32(piece, found)
    return found


def _padding(place: int) -> bytes:
    """An extra field after which what follows at `place` is aligned."""
    size = -place % ALIGN
    size += ALIGN if 0 < size < 4 else 0
    if size == 0:
        return b""
    return _PADDING.to_bytes(2, "little") + (size - 4).to_bytes(2, "little") + bytes(size - 4)


# -- reading --------------------------------------------------------------------------------------


class Archive:
    """A zip that is open for reading, and mapped into memory.

    Arguments:
        path: the file.

    Raises:
        ArtifactError: it is missing, damaged, or its parts are packed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            size = path.stat().st_size
            with zipfile.ZipFile(path) as archive:
                self._entries = {e.filename: e for e in archive.infolist()}
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            self._bytes: _Bytes = np.frombuffer(self._map, np.uint8)
        except FileNotFoundError:
            raise ArtifactError(f"{path} does not exist") from None
        except _UNREADABLE as error:
            raise self._damaged(error) from None
        entries = self._entries.values()
        stored = all(e.compress_type == zipfile.ZIP_STORED for e in entries)
        if not stored or sum(e.file_size for e in entries) > size:
            raise ArtifactError(f"{path} is not a quern file: its parts are packed otherwise")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of all parts."""
        return tuple(self._entries)

    def checksum(self, part: str) -> int:
        """CRC-32 of a part; what is read is checked against it.

        Raises:
            ArtifactError: there is no such part.
        """
        return self._entry(part).CRC

    def read(self, part: str) -> bytes:
        """A copy of a part.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        start, end = self._range(part)
        data = self._bytes[start:end].tobytes()
        if zlib.crc32(data) != self.checksum(part):
            raise self._damaged(f"{part} is not what was written")
        return data

    def json(self, part: str) -> Any:
        """The contents of a JSON part.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        try:
            return json.loads(self.read(part))
        except (ValueError, RecursionError):
            raise ArtifactError(f"{self.path} is damaged: {part} is not JSON") from None

    def tensors(self, part: str) -> dict[str, Array]:
        """The arrays of a safetensors part, in the mapped file where they are aligned there.

        All bytes are checked, but only the arrays that somebody reads stay resident.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        start, end = self._range(part)
        self._check(part, start, end)
        try:
            return _tensors(self._bytes[start:end])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ArtifactError(f"{self.path} is damaged: {part}: {error!r}") from None

    def _entry(self, part: str) -> zipfile.ZipInfo:
        try:
            return self._entries[part]
        except KeyError:
            raise ArtifactError(f"{self.path} is not a quern file: {part} is missing") from None

    def _range(self, part: str) -> tuple[int, int]:
        """Where the bytes of a part begin and end."""
        entry = self._entry(part)
        header = self._bytes[entry.header_offset : entry.header_offset + _LOCAL_HEADER].tobytes()
        if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
            raise self._damaged(f"{part} is not where it should be")
        start = entry.header_offset + _LOCAL_HEADER
        start += int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        if start + entry.file_size > len(self._bytes):
            raise self._damaged(f"{part} is cut off")
        return start, start + entry.file_size

    def _check(self, part: str, start: int, end: int) -> None:
        """Goes over the bytes of a part, without keeping them in memory."""
        found = 0
        for place in range(start, end, _CHUNK):
            until = min(place + _CHUNK, end)
            found = zlib.crc32(self._bytes[place:until].data, found)
            if hasattr(mmap, "MADV_DONTNEED"):
                first = -(-place // mmap.PAGESIZE) * mmap.PAGESIZE
                if until - first >= mmap.PAGESIZE:
                    self._map.madvise(mmap.MADV_DONTNEED, first, until - first)
        if found != self.checksum(part):
            raise self._damaged(f"{part} is not what was written")

    def _damaged(self, why: object) -> ArtifactError:
        return ArtifactError(f"{self.path} is damaged or not a quern file: {why}")


def _tensors(data: _Bytes) -> dict[str, Array]:
    """The arrays of a safetensors file in memory. Its header is not trusted."""
    length = int.from_bytes(data[:8].tobytes(), "little")
    if len(data) < 8 or length > min(_MOST_HEADER, len(data) - 8):
        raise ValueError("its header is cut off")
    body = data[8 + length :]
    arrays = {}
    for name, entry in json.loads(data[8 : 8 + length].tobytes()).items():
        if name != "__metadata__":
            arrays[name] = _tensor(body, name, entry)
    return arrays


def _tensor(body: _Bytes, name: str, entry: Any) -> Array:
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    begin, end = map(int, entry["data_offsets"])
    shape = tuple(int(extent) for extent in entry["shape"])
    fits = 0 <= begin <= end <= len(body) and end - begin == math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or not fits:
        raise ValueError(f"{name} lies outside of it")
    array = body[begin:end].view(dtype.newbyteorder("<")).reshape(shape)
    native = array.astype(dtype, copy=False)
    return native if native.flags.aligned else native.copy()
