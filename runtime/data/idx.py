"""IDX files: the format of MNIST, Fashion-MNIST, KMNIST and EMNIST.

A file is two zero bytes, a byte for the dtype, a byte for the rank, the sizes as big-endian uint32,
then the big-endian data in C order (Y. LeCun, "The MNIST database of handwritten digits").
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ...compiler.errors import DataError
from .dataset import Array, Dataset, check_labels, from_arrays, scaled
from .files import Part, PathLike, check_part, find_file, open_data, read_array, read_up_to

_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_MNIST_PREFIX: dict[Part, str] = {"train": "train", "test": "t10k"}


def read_idx(path: PathLike) -> Array:
    """The array of one IDX file, plain or gzip, in native byte order."""
    where = os.fspath(path)
    with open_data(path, "an IDX file") as stream:
        magic = bytes(read_up_to(stream, 4))
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
            kinds = ", ".join(f"{code:02x}" for code in _DTYPES)
            raise DataError(
                f"{where}: expected an IDX file (bytes 00 00, one of {kinds}, rank), "
                f"found {magic.hex(' ') or 'an empty file'}"
            )
        rank = magic[3]
        sizes = read_up_to(stream, 4 * rank)
        if len(sizes) < 4 * rank:
            raise DataError(
                f"{where}: expected {rank} sizes ({4 * rank} bytes) after the magic number, "
                f"found {len(sizes)} bytes"
            )
        return read_array(stream, struct.unpack(f">{rank}I", sizes), _DTYPES[magic[2]], where)


def idx(
    images: PathLike,
    labels: PathLike,
    class_count: int | None = None,
    dtype: DTypeLike = np.float32,
    name: str | None = None,
) -> Dataset:
    """A Dataset from an IDX file of images or other rows and one of labels.

    Bytes (uint8) become `dtype` in [0, 1] (or stay, with dtype=np.uint8); other dtypes stay as
    stored. Grey images (N, H, W) become (N, 1, H, W). Labels (N,) become int64; they must be below
    `class_count`, which is the largest label plus one when it is not given.
    """
    pixels, goal = read_idx(images), read_idx(labels)
    where = os.fspath(labels)
    if pixels.ndim == 0:
        raise DataError(f"{os.fspath(images)}: expected rows (N, ...), found a single number")
    if goal.ndim != 1 or goal.dtype.kind not in "iu":
        raise DataError(f"{where}: expected integer labels (N,), found {goal.dtype}{goal.shape}")
    if len(pixels) != len(goal):
        raise DataError(
            f"{where}: expected {len(pixels)} labels, one for each row of {os.fspath(images)}, "
            f"found {len(goal)}"
        )
    if class_count is not None:
        check_labels(goal, class_count, where)
    rows = scaled(pixels[:, None] if pixels.ndim == 3 else pixels, dtype)
    names = None if class_count is None else tuple(map(str, range(class_count)))
    return from_arrays(rows, goal, names, where if name is None else name)


def mnist(folder: PathLike, part: Part = "train", dtype: DTypeLike = np.float32) -> Dataset:
    """MNIST, or a set in its form, from a folder with its standard files, plain or gzip.

    Images (N, 1, H, W), as `dtype` in [0, 1] (or uint8); labels int64 (N,), ten classes. `part` is
    "train" (`train-images-idx3-ubyte`, `train-labels-idx1-ubyte`) or "test" (`t10k-…`).
    """
    check_part(part)
    prefix = _MNIST_PREFIX[part]
    images = _mnist_file(folder, f"{prefix}-images", "idx3-ubyte")
    labels = _mnist_file(folder, f"{prefix}-labels", "idx1-ubyte")
    dataset = idx(images, labels, class_count=10, dtype=dtype, name=f"mnist {part}")
    if not isinstance(dataset.inputs, np.ndarray) or dataset.inputs.ndim != 4:
        raise DataError(f"{images}: expected uint8 images (N, height, width), found {dataset!r}")
    return dataset


def _mnist_file(folder: PathLike, stem: str, kind: str) -> Path:
    path = find_file(folder, [f"{stem}-{kind}", f"{stem}.{kind}"])
    if path is None:
        state = "no such file" if Path(folder).is_dir() else "no such folder"
        raise DataError(
            f"{os.fspath(folder)}: expected the file {stem}-{kind} or {stem}-{kind}.gz, "
            f"found {state}"
        )
    return path
