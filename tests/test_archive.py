"""Zips whose arrays are used where they lie: aligned, checked, private to the process."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import numpy as safetensors

from quern.compiler.errors import ArtifactError
from quern.compiler.types import Array
from quern.runtime.archive import ALIGN, Archive, checksum, tensor_pieces, write

ARRAYS = {
    "odd": np.arange(3, dtype=np.int64),
    "flags": np.array([True, False, True]),
    "weight": np.arange(64, dtype=np.float32).reshape(4, 16),
    "empty": np.zeros((0, 5), np.float64),
    "scalar": np.array(7, np.int32),
    "transposed": np.arange(32, dtype=np.float64).reshape(4, 8).T,
    "swapped": np.arange(16, dtype=">f4"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "a.zip"
    with file.open("w+b") as out:
        write(out, {"text.json": b'{"a": [1]}', "x.safetensors": ARRAYS, "last": b"bytes"})
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("archive")


def start(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def test_what_is_written_is_read(path: Path) -> None:
    archive = Archive(path)
    assert archive.names == ("text.json", "x.safetensors", "last")
    assert archive.read("last") == b"bytes"
    assert archive.json("text.json") == {"a": [1]}
    found = archive.tensors("x.safetensors")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype.newbyteorder("=")
        assert found[name].flags.carray


def test_other_programs_read_it_too(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        found = safetensors.load(archive.read("x.safetensors"))
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)


def test_arrays_of_whole_cache_lines_begin_at_one(path: Path) -> None:
    found = Archive(path).tensors("x.safetensors")
    whole = [name for name, array in ARRAYS.items() if array.nbytes % ALIGN == 0]
    assert {"weight", "transposed", "swapped", "empty"} == set(whole)
    assert all(start(found[name]) % ALIGN == 0 for name in whole if found[name].size)


def test_arrays_are_neither_copied_nor_shared(path: Path) -> None:
    before = path.read_bytes()
    one, other = (Archive(path).tensors("x.safetensors")["weight"] for _ in range(2))
    assert not one.flags.owndata
    one[:] = 5
    np.testing.assert_array_equal(other, ARRAYS["weight"])
    assert path.read_bytes() == before


def test_a_file_that_is_replaced_stays_as_it_was_for_who_has_it_open(path: Path) -> None:
    found = Archive(path).tensors("x.safetensors")
    path.with_name("b").write_bytes(b"other")
    path.with_name("b").replace(path)
    np.testing.assert_array_equal(found["weight"], ARRAYS["weight"])


def test_the_checksum_of_arrays_is_that_of_their_part(path: Path) -> None:
    assert checksum(ARRAYS) == Archive(path).checksum("x.safetensors")
    assert b"".join(tensor_pieces(ARRAYS)) == Archive(path).read("x.safetensors")


@given(place=st.integers(0, 10_000), value=st.integers(1, 255))
def test_a_changed_byte_of_an_array_is_seen(folder: Path, place: int, value: int) -> None:
    file = io.BytesIO()
    write(file, {"x.safetensors": ARRAYS})
    content = bytearray(file.getvalue())
    with zipfile.ZipFile(file) as archive:
        size = archive.getinfo("x.safetensors").file_size
    content[ALIGN + place % size] ^= value
    changed = folder / "changed.zip"
    changed.write_bytes(content)
    with pytest.raises(ArtifactError, match="is not what was written"):
        Archive(changed).tensors("x.safetensors")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
        {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]},
        {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 0]},
        {"dtype": "O", "shape": [2], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": "4", "data_offsets": [0]},
        {"shape": [4]},
        [],
        None,
    ],
)
def test_headers_that_lie_are_refused(tmp_path: Path, entry: Any) -> None:
    header = json.dumps({"w": entry}).encode()
    with pytest.raises(ArtifactError, match=r"damaged: x\.safetensors"):
        tensors_of(tmp_path, len(header).to_bytes(8, "little") + header + bytes(16))


@pytest.mark.parametrize("data", [b"", b"123", b"\xff" * 8, bytes(8), b"\x02" + bytes(7) + b"[]"])
def test_headers_that_are_none_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"damaged: x\.safetensors"):
        tensors_of(tmp_path, data)


def test_arrays_that_lie_anywhere_are_copied(tmp_path: Path) -> None:
    """Other programs align neither parts nor arrays."""
    found = tensors_of(tmp_path, safetensors.save({"a": np.ones(3, np.uint8), "b": np.arange(5)}))
    np.testing.assert_array_equal(found["b"], np.arange(5))
    assert all(array.flags.carray for array in found.values())


def tensors_of(folder: Path, data: bytes) -> dict[str, Array]:
    path = folder / "plain.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.safetensors", data)
    return Archive(path).tensors("x.safetensors")


def test_parts_that_are_not_there(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="y is missing"):
        Archive(path).read("y")
    with pytest.raises(ArtifactError, match="does not exist"):
        Archive(tmp_path / "none.zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("text.json", b"{")
    with pytest.raises(ArtifactError, match=r"text\.json is not JSON"):
        Archive(path).json("text.json")
