"""Data sets in files: IDX, CIFAR and npz are read as documented."""

from __future__ import annotations

import gzip
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_files import array, cifar_file, idx_bytes, npy_bytes, npz_bytes, same, tar_gz, write_mnist
from hypothesis import given
from hypothesis import strategies as st

from quern.compiler.errors import DataError
from quern.runtime.data import (
    Dataset,
    cifar10,
    cifar100,
    idx,
    load_dataset,
    load_splits,
    mnist,
    npz,
    read_idx,
    read_npz,
)

# Files as other programs write them ------------------------------------------


def cifar_files(rows: int = 2) -> dict[str, bytes]:
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    return {name: cifar_file(rows, rows * i) for i, name in enumerate(names)}


# IDX and MNIST ---------------------------------------------------------------


IDX_VALUES = {
    "B": st.integers(0, 255),
    "b": st.integers(-128, 127),
    "h": st.integers(-(2**15), 2**15 - 1),
    "i": st.integers(-(2**31), 2**31 - 1),
    "f": st.floats(width=32),
    "d": st.floats(),
}


@given(data=st.data(), code=st.sampled_from(sorted(IDX_VALUES)), packed=st.booleans())
def test_every_idx_dtype_and_rank_reads_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, code: str, packed: bool
) -> None:
    shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=4)))
    size = int(np.prod(shape))
    values = data.draw(st.lists(IDX_VALUES[code], min_size=size, max_size=size))
    content = idx_bytes(code, shape, values)
    path = tmp_path_factory.mktemp("idx") / "no-telling-suffix"
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    found = read_idx(path)
    assert found.dtype == np.dtype(code)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, np.array(values, np.dtype(code)).reshape(shape))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_mnist_finds_its_four_files(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    write_mnist(tmp_path, 5, pack)
    for data in (mnist(tmp_path), mnist(tmp_path, "test"), load_dataset(f"mnist:{tmp_path}")):
        images = array(data.inputs)
        assert images.shape == (5, 1, 4, 3)
        expected = np.array([(7 * i) % 256 for i in range(60)], np.float32) / np.float32(255)
        np.testing.assert_array_equal(images.ravel(), expected)
        assert data.targets.tolist() == [0, 1, 2, 3, 4]
        assert data.class_count == 10
    raw = array(mnist(tmp_path, dtype=np.uint8).inputs)
    assert (raw.dtype, raw[0, 0, 0, 1]) == (np.uint8, 7)
    assert [part.name for part in load_splits(f"mnist:{tmp_path}")] == ["mnist train", "mnist test"]


def test_mnist_accepts_gz_names_and_dotted_names(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    packed = gzip.compress((tmp_path / "train-images-idx3-ubyte").read_bytes())
    (tmp_path / "train-images-idx3-ubyte").unlink()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(packed)
    (tmp_path / "train-labels-idx1-ubyte").rename(tmp_path / "train-labels.idx1-ubyte")
    assert same(mnist(tmp_path, "train"), mnist(tmp_path, "test"))


IMAGES = idx_bytes("B", (2, 3, 4), list(range(24)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"an IDX file .* found an empty file"),
        (b"\0\0\x0a\x01", r"one of 08, 09, 0b, 0c, 0d, 0e.* found 00 00 0a 01"),
        (b"GIF89a", r"expected an IDX file .* found 47 49 46 38"),
        (b"\0\0\x08\x03\0\0", r"3 sizes \(12 bytes\) after the magic number, found 2 bytes"),
        (IMAGES[:-1], r"24 bytes of data for uint8 of shape \(2, 3, 4\), found 23: .* truncated"),
        (IMAGES + b"x", r"expected 24 bytes .* found more: bytes follow the data"),
        (
            struct.pack(">4B3I", 0, 0, 8, 3, 60_000, 40_000, 40_000),
            r"expected 96,000,000,000,000 bytes of data .* found 0",
        ),
        (
            struct.pack(">4B5I", 0, 0, 14, 5, *[2**32 - 1] * 4, 0),
            r"fits an address space, found shape \(4294967295, .* in its header",
        ),
        (
            b"\0\0\x08\xff" + struct.pack(">255I", *[1] * 255),
            r"at most 32 axes in the header, found 255",
        ),
        (
            gzip.compress(IMAGES, mtime=0)[:-9],
            r"expected an IDX file, found: Compressed file ended",
        ),
        (
            gzip.compress(IMAGES, mtime=0)[:-8] + bytes(8),
            r"expected an IDX file, found: CRC check failed",
        ),
        (b"\x1f\x8b" + bytes(20), r"expected an IDX file, found: Unknown compression method"),
        (idx_bytes("B", (), [3]), r"expected rows \(N, ...\), found a single number"),
        (idx_bytes("B", (3, 1), [1, 2, 3]), r"labels: expected 3 labels, one for each row of .*2"),
    ],
)
def test_damaged_idx_files_are_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.write_bytes(content)
    labels.write_bytes(idx_bytes("B", (2,), [0, 1]))
    with pytest.raises(DataError, match=message) as caught:
        idx(images, labels)
    assert str(images) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_idx_labels_must_fit_their_images(tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.write_bytes(IMAGES)
    labels.write_bytes(idx_bytes("b", (2,), [0, -3]))
    with pytest.raises(DataError, match=r"labels: expected labels from 0 .* found -3 in row 1"):
        idx(images, labels)
    labels.write_bytes(idx_bytes("B", (2,), [10, 3]))
    with pytest.raises(DataError, match=r"from 0 to 9, found 10 in row 0 \(1 of 2"):
        idx(images, labels, class_count=10)
    labels.write_bytes(idx_bytes("f", (2,), [0, 1]))
    with pytest.raises(DataError, match=r"labels: expected integer labels \(N,\), found float32"):
        idx(images, labels)


# CIFAR -----------------------------------------------------------------------


def check_cifar_train(data: Dataset) -> None:
    images = array(data.inputs)
    assert images.shape == (10, 3, 32, 32)
    row, plane, y, x = 7, 1, 5, 9
    byte = (plane * 1024 + y * 32 + x + row) % 256
    assert images[row, plane, y, x] == np.float32(byte) / np.float32(255)
    assert data.targets.tolist() == list(range(10))
    assert data.class_names is not None
    assert data.class_names[3] == "cat"


@pytest.mark.parametrize("place", [".", "cifar-10-batches-bin"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_cifar10_reads_its_files(tmp_path: Path, place: str, suffix: str) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    for name, content in cifar_files().items():
        packed = gzip.compress(content, mtime=0) if suffix else content
        (tmp_path / place / (name + suffix)).write_bytes(packed)
    check_cifar_train(cifar10(tmp_path, records=2))
    assert cifar10(tmp_path, "test", records=2).targets.tolist() == [0, 1]


def test_cifar10_reads_its_archive_without_extracting_it(tmp_path: Path) -> None:
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(tar_gz(cifar_files()))
    check_cifar_train(cifar10(tmp_path, records=2))
    check_cifar_train(cifar10(archive, records=2))
    assert list(tmp_path.iterdir()) == [archive]


def test_cifar100_has_fine_and_coarse_labels(tmp_path: Path) -> None:
    record = bytes([19, 99]) + bytes(range(256)) * 12
    (tmp_path / "train.bin").write_bytes(record)
    fine, coarse = (cifar100(tmp_path, records=1, coarse=c) for c in (False, True))
    assert (fine.targets.tolist(), fine.class_count) == ([99], 100)
    assert (coarse.targets.tolist(), coarse.class_count) == ([19], 20)
    assert fine.class_names is not None
    assert coarse.class_names is not None
    assert (fine.class_names[99], coarse.class_names[19]) == ("worm", "vehicles_2")
    np.testing.assert_array_equal(
        array(fine.inputs).ravel() * 255, np.tile(np.arange(256, dtype=np.float32), 12)
    )


def test_damaged_cifar_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected test_batch.bin \(plain or .gz\) or cifar-10-b"):
        cifar10(tmp_path, "test")
    with pytest.raises(DataError, match="found no such folder"):
        cifar10(tmp_path / "nowhere")
    test = tmp_path / "test_batch.bin"
    test.write_bytes(cifar_file(2))
    with pytest.raises(
        DataError, match=r"test_batch.bin: expected 30,730,000 bytes .* found 6,146"
    ):
        cifar10(tmp_path, "test")
    with pytest.raises(DataError, match=r"test_batch.bin: .* found more: bytes follow"):
        cifar10(tmp_path, "test", records=1)
    test.write_bytes(b"\x0a" + cifar_file(1)[1:])
    with pytest.raises(DataError, match=r"test_batch.bin: expected labels from 0 to 9, found 10"):
        cifar10(tmp_path, "test", records=1)
    (tmp_path / "data_batch_2.bin").write_bytes(cifar_file(1))
    with pytest.raises(
        DataError, match=r"expected the file data_batch_1.bin or data_batch_1.bin.gz"
    ):
        cifar10(tmp_path, records=1)
    archive = tmp_path / "some.tar"
    archive.write_bytes(tar_gz({"data_batch_1.bin": cifar_file(1)}))
    with pytest.raises(DataError, match=r"in the archive, found no data_batch_2.bin, data_batch_3"):
        cifar10(archive, records=1)


# .npz ------------------------------------------------------------------------


@given(
    dtype=st.sampled_from(["?", "u1", "i2", "<i4", ">i4", "<i8", "<f4", ">f4", "<f8", ">f8"]),
    shape=st.lists(st.integers(0, 3), max_size=3),
    packed=st.booleans(),
    fortran=st.booleans(),
)
def test_npz_files_of_numpy_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    shape: list[int],
    packed: bool,
    fortran: bool,
) -> None:
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype, order="F" if fortran else "C")
    (np.savez_compressed if packed else np.savez)(path, first=values, second=values + 1 > 1)
    found = read_npz(path)
    assert sorted(found) == ["first", "second"]
    assert found["first"].dtype == np.dtype(dtype).newbyteorder("=")
    assert found["first"].shape == tuple(shape)
    np.testing.assert_array_equal(found["first"], values)
    np.testing.assert_array_equal(found["second"], values + 1 > 1)


def test_npz_gives_inputs_by_name_and_parts(tmp_path: Path) -> None:
    x, y = np.zeros((4, 2), np.float32), np.array([0, 1, 1, 0])
    path = tmp_path / "data.npz"
    np.savez(path, pixels=x, labels=y)
    single = load_dataset(str(path))
    assert array(single.inputs).shape == (4, 2)
    assert single.class_count == 2
    np.savez(path, a=x, b=x, targets=x)
    several = npz(path)
    assert isinstance(several.inputs, dict)
    assert sorted(several.inputs) == ["a", "b"]
    assert several.class_count is None
    np.savez(path, x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
    assert [len(part) for part in load_splits(str(path))] == [4, 1]


FOUR = npy_bytes("|u1", "(4,)", bytes(4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"expected an .npz file, found: File is not a zip file"),
        (npz_bytes({"x": FOUR, "y": FOUR})[:-30], r"expected an .npz file, found: "),
        (npz_bytes({"y": FOUR}), r"one array named targets or labels or y .* found y"),
        (npz_bytes({"y": FOUR, "labels": FOUR, "x": FOUR}), r"found y, labels, x"),
        (npz_bytes({"x_train": FOUR, "x_test": FOUR}), r"named targets_train or .* found x_train"),
        (npz_bytes({"x\n": FOUR, "y": FOUR}), r"expected readable array names, found 'x\\n"),
        (npz_bytes({"x": b"hello", "y": FOUR}), r":x: expected an .npy array, found bytes 68 65"),
        (
            npz_bytes({"x": npy_bytes("|O", "(1,)", b"cos\nsystem\n"), "y": FOUR}),
            r":x: expected the header of an array of numbers or bools, found .*'\|O'",
        ),
        (
            npz_bytes({"x": npy_bytes("<f3", "(4,)", bytes(12)), "y": FOUR}),
            r":x: expected a NumPy dtype, found '<f3'",
        ),
        (
            npz_bytes({"x": npy_bytes("<f8", "(4, 99999999999)", bytes(32)), "y": FOUR}),
            r":x: expected 3,199,999,999,968 bytes of data .* found 32: the file is truncated",
        ),
        (
            npz_bytes({"x": npy_bytes("|u1", "(4,)", bytes(5)), "y": FOUR}),
            r":x: expected 4 bytes of data .* found more",
        ),
        (
            npz_bytes({"x": FOUR, "y": FOUR}, zipfile.ZIP_BZIP2),
            r":x: expected an array stored or deflated, found compression method 12",
        ),
        (
            npz_bytes({"x": npy_bytes("|u1", "(3,)", bytes(3)), "y": FOUR}),
            r"found 3 in inputs and 4 in targets",
        ),
    ],
)
def test_damaged_npz_files_are_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        npz(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
