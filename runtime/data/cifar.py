"""CIFAR-10 and CIFAR-100 in their binary versions.

A file is records without a header: one label byte (CIFAR-100: coarse, then fine), then 3,072 bytes
of a 3×32×32 image, red plane first (A. Krizhevsky, "Learning multiple layers of features from tiny
images", 2009). They are read from a folder, plain or gzip, or straight from the `.tar.gz`.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import DTypeLike

from ...compiler.errors import DataError
from .dataset import Array, Dataset, check_labels, from_arrays, scaled
from .files import CHUNK, Part, PathLike, check_part, find_file, open_data, read_array

_IMAGE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Layout:
    """Where one of the two data sets keeps what. Records hold `class_names`'s label at `label`."""

    name: str
    folder: str
    archives: tuple[str, ...]
    files: dict[Part, tuple[str, ...]]
    records: dict[Part, int]
    label: int
    label_bytes: int
    class_names: tuple[str, ...]


_CIFAR10 = _Layout(
    name="cifar10",
    folder="cifar-10-batches-bin",
    archives=("cifar-10-binary.tar.gz", "cifar-10-binary.tar"),
    files={
        "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        "test": ("test_batch.bin",),
    },
    records={"train": 10_000, "test": 10_000},
    label=0,
    label_bytes=1,
    class_names=(
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
)

_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""
_COARSE = """
aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
household_furniture insects large_carnivores large_man-made_outdoor_things
large_natural_outdoor_scenes large_omnivores_and_herbivores medium_mammals non-insect_invertebrates
people reptiles small_mammals trees vehicles_1 vehicles_2
"""


def _cifar100_layout(coarse: bool) -> _Layout:
    return _Layout(
        name="cifar100",
        folder="cifar-100-binary",
        archives=("cifar-100-binary.tar.gz", "cifar-100-binary.tar"),
        files={"train": ("train.bin",), "test": ("test.bin",)},
        records={"train": 50_000, "test": 10_000},
        label=0 if coarse else 1,
        label_bytes=2,
        class_names=tuple((_COARSE if coarse else _FINE).split()),
    )


def cifar10(
    folder: PathLike,
    part: Part = "train",
    dtype: DTypeLike = np.float32,
    records: int | None = None,
) -> Dataset:
    """CIFAR-10: images (N, 3, 32, 32) as `dtype` in [0, 1] (or uint8), labels int64 (N,).

    `folder` holds data_batch_1.bin to data_batch_5.bin and test_batch.bin (plain or gzip, there or
    in cifar-10-batches-bin/), or cifar-10-binary.tar.gz; or is that archive. Each file must hold
    `records` images, 10,000 when not given: the format has no header, so a file cut short could
    not be told from a whole one otherwise.
    """
    return _load(_CIFAR10, folder, part, dtype, records)


def cifar100(
    folder: PathLike,
    part: Part = "train",
    dtype: DTypeLike = np.float32,
    records: int | None = None,
    coarse: bool = False,
) -> Dataset:
    """CIFAR-100 as `cifar10`, from train.bin (50,000 images) and test.bin (10,000).

    The labels are the 100 fine classes, or with `coarse` the 20 superclasses.
    """
    return _load(_cifar100_layout(coarse), folder, part, dtype, records)


def _load(
    layout: _Layout, folder: PathLike, part: Part, dtype: DTypeLike, records: int | None
) -> Dataset:
    check_part(part)
    count = layout.records[part] if records is None else records
    shape = (count, layout.label_bytes + _PIXELS)
    names = layout.files[part]
    blocks = _read_files(layout, Path(folder), names, shape)
    # Filled file by file, so that only one file's worth of converted pixels exists twice.
    images = np.empty((count * len(blocks), *_IMAGE), dtype)
    labels = np.empty(count * len(blocks), np.int64)
    for i, (where, block) in enumerate(blocks):
        rows = slice(i * count, (i + 1) * count)
        labels[rows] = block[:, layout.label]
        check_labels(labels[rows], len(layout.class_names), where)
        images[rows] = scaled(block[:, layout.label_bytes :].reshape(count, *_IMAGE), dtype)
    return from_arrays(images, labels, layout.class_names, f"{layout.name} {part}")


def _read_files(
    layout: _Layout, root: Path, names: Sequence[str], shape: tuple[int, int]
) -> list[tuple[str, Array]]:
    """The records of each named file, with what to call the file in messages."""
    archive = root if root.is_file() else None
    for folder in (root, root / layout.folder):
        found = {name: find_file(folder, [name]) for name in names}
        if any(found.values()):
            return [_read_file(folder, name, found[name], shape) for name in names]
        archive = archive or next(
            (path for name in layout.archives if (path := folder / name).is_file()), None
        )
    if archive is None:
        state = "neither" if root.is_dir() else "no such folder"
        raise DataError(
            f"{root}: expected {', '.join(names)} (plain or .gz) or {layout.archives[0]}, "
            f"found {state}"
        )
    blocks = _read_archive(archive, names, shape)
    missing = [name for name in names if name not in blocks]
    if missing:
        raise DataError(
            f"{archive}: expected {', '.join(names)} in the archive, found no {', '.join(missing)}"
        )
    return [(f"{archive}:{name}", blocks[name]) for name in names]


def _read_file(
    folder: Path, name: str, path: Path | None, shape: tuple[int, int]
) -> tuple[str, Array]:
    if path is None:
        raise DataError(f"{folder}: expected the file {name} or {name}.gz, found no such file")
    with open_data(path, f"{shape[0]:,} image records") as stream:
        return str(path), read_array(stream, shape, np.dtype(np.uint8), str(path))


def _read_archive(archive: Path, names: Sequence[str], shape: tuple[int, int]) -> dict[str, Array]:
    """Read members by name in one pass over the stream; nothing is written to disk."""
    blocks = {}
    with open_data(archive, "a tar archive, plain or gzip") as stream:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if name not in names or not member.isreg() or member.issparse():
                    continue
                data = tar.extractfile(member)
                if data is not None:
                    where = f"{os.fspath(archive)}:{name}"
                    blocks[name] = read_array(data, shape, np.dtype(np.uint8), where)
        # The end of the tar is not the end of the gzip stream, and its checksum comes last.
        while stream.read(CHUNK):
            pass
    return blocks
