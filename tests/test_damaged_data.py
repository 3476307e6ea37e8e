"""Damage anywhere in a file of data is one clear line, or does no harm."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from data_files import cifar_file, idx_bytes, npy_bytes, npz_bytes, same, tar_gz, write_mnist
from hypothesis import given, settings
from hypothesis import strategies as st

from quern.compiler.errors import DataError
from quern.runtime.data import (
    Dataset,
    cifar10,
    idx,
    load_dataset,
    load_splits,
    mnist,
    npz,
)

# Any damage, anywhere --------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of file: what its bytes are, how to load it, and whether it carries a checksum."""

    name: str
    content: bytes
    load: Callable[[Path], Dataset]
    checksum: bool


def _idx_with_labels(path: Path) -> Dataset:
    labels = path.with_name("labels")
    labels.write_bytes(idx_bytes("B", (5,), [0, 1, 2, 3, 4]))
    return idx(path, labels)


def _as_cifar(path: Path) -> Dataset:
    return cifar10(path, "test", records=1)


def _in_folder(path: Path) -> Dataset:
    return cifar10(path.parent, "test", records=1)


_X = npy_bytes("<f4", "(5, 2)", struct.pack("<10f", *range(10)))
_Y = npy_bytes("<i8", "(5,)", struct.pack("<5q", *range(5)))
_IDX = idx_bytes("B", (5, 4, 3), [4 * i for i in range(60)])
KINDS = [
    Kind("images", _IDX, _idx_with_labels, False),
    Kind("images.gz", gzip.compress(_IDX, mtime=0), _idx_with_labels, True),
    Kind("test_batch.bin", cifar_file(1), _in_folder, False),
    Kind("test_batch.bin.gz", gzip.compress(cifar_file(1)), _in_folder, True),
    Kind("cifar.tar.gz", tar_gz({"test_batch.bin": cifar_file(1)}), _as_cifar, True),
    Kind("cifar.tar", gzip.decompress(tar_gz({"test_batch.bin": cifar_file(1)})), _as_cifar, False),
    Kind("stored.npz", npz_bytes({"x": _X, "y": _Y}, zipfile.ZIP_STORED), npz, True),
    Kind("deflated.npz", npz_bytes({"x": _X, "y": _Y}), npz, True),
]


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content cut short, with a few bytes changed, or with bytes put in."""
    place = st.integers(0, len(content) - 1)
    how = draw(st.sampled_from(["cut", "change", "insert"]))
    if how == "cut":
        return content[: draw(place)]
    if how == "insert":
        at = draw(place)
        return content[:at] + draw(st.binary(min_size=1, max_size=20)) + content[at:]
    changed = bytearray(content)
    for at in draw(st.lists(place, min_size=1, max_size=3)):
        changed[at] = draw(st.integers(0, 255) | st.sampled_from([0, 1, 255]))
    return bytes(changed)


def outcome(load: Callable[[], Dataset]) -> tuple[Dataset | DataError, int]:
    """What was loaded or the error, and the most bytes that were allocated on the way."""
    tracemalloc.start()
    try:
        return load(), tracemalloc.get_traced_memory()[1]
    except DataError as error:
        return error, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@settings(max_examples=40)
@given(data=st.data())
def test_damage_anywhere_is_a_data_error_or_does_no_harm(
    tmp_path_factory: pytest.TempPathFactory, kind: Kind, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / kind.name
    path.write_bytes(kind.content)
    intact = kind.load(path)
    content = data.draw(damaged(kind.content))
    path.write_bytes(content)
    found, peak = outcome(lambda: kind.load(path))
    assert peak < 8 << 20
    if isinstance(found, DataError):
        assert "\n" not in str(found)
        assert len(str(found)) < len(str(path)) + 400
        assert kind.name.removesuffix(".gz") in str(found)
        return
    assert len(found) == len(intact)
    if kind.checksum or len(content) < len(kind.content):
        assert same(found, intact)


# The --data argument ---------------------------------------------------------


def test_idx_by_name(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    files = f"{tmp_path}/train-images-idx3-ubyte,{tmp_path}/train-labels-idx1-ubyte"
    assert same(load_dataset(f"idx:{files}"), mnist(tmp_path))
    assert [len(part) for part in load_splits(f"idx:{files}")] == [4, 1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fish", r"data 'fish': expected one of digits, mnist:FOLDER, cifar10:FOLDER, .*idx:IM"),
        ("mnist:", r"expected one of digits"),
        ("idx:only-one", r"expected idx:IMAGES,LABELS, found 'only-one'"),
        ("no-such.npz", r"no-such.npz: expected an .npz file, found: No such file or directory"),
        ("mnist:no-such", r"no-such: expected the file train-images.* found no such folder"),
        ("mnist:.", r"\.: expected the file train-images-idx3-ubyte or .* found no such file"),
        ("idx:.,.", r"\.: expected an IDX file, found: Is a directory"),
    ],
)
def test_wrong_names_say_what_is_possible(
    spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        load_dataset(spec)
