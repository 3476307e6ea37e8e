"""Data by name: scikit-learn's digits, and the `--data` argument of the command line."""

from __future__ import annotations

import importlib

import numpy as np

from ...compiler.errors import DataError
from .cifar import cifar10, cifar100
from .dataset import Dataset, Splits, from_arrays
from .files import Part
from .idx import idx, mnist
from .npz import has_parts, npz

TEST_FRACTION = 0.2
SPLIT_SEED = 0

SPECS = "digits, mnist:FOLDER, cifar10:FOLDER, cifar100:FOLDER, FILE.npz or idx:IMAGES,LABELS"

_WITH_PARTS = {"mnist": mnist, "cifar10": cifar10, "cifar100": cifar100}


def digits() -> Dataset:
    """scikit-learn's bundled handwritten digits: 1,797 real 8×8 images, no download.

    Images float32 (1797, 1, 8, 8) in [0, 1], labels int64 (1797,), ten classes (E. Alpaydin and
    C. Kaynak, "Optical recognition of handwritten digits", UCI, 1998). Raises DataError where
    scikit-learn is not installed.
    """
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise DataError(
            "digits: expected scikit-learn, which holds the images, found it not installed: "
            "pip install 'quern[examples]'"
        ) from error
    bunch = datasets.load_digits()
    images = (bunch.data / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    return from_arrays(images, bunch.target, [str(i) for i in range(10)], "digits")


def hold_out(dataset: Dataset) -> Splits:
    """The fixed split for data without a test part of its own: 80 % to train, 20 % to test.

    Stratified by class where the targets are labels; the same rows on every machine.
    """
    train, test = dataset.split(1 - TEST_FRACTION, SPLIT_SEED, stratified=dataset.has_labels)
    return Splits(train, test)


def load_dataset(spec: str, part: Part = "train") -> Dataset:
    """The data that `spec` names: one of `SPECS`.

    Where the format has a test part of its own (MNIST, CIFAR, `.npz` with `x_train` ...), `part`
    chooses; the others give all their rows, whatever the part (see `load_splits`).
    """
    kind, _, rest = spec.partition(":")
    if spec == "digits":
        return digits()
    if spec.endswith(".npz"):
        return npz(spec, part)
    if kind in _WITH_PARTS and rest:
        return _WITH_PARTS[kind](rest, part)
    if kind == "idx":
        files = rest.split(",")
        if len(files) != 2 or not all(files):
            raise DataError(f"data '{spec}': expected idx:IMAGES,LABELS, found '{rest}'")
        return idx(files[0], files[1])
    raise DataError(f"data '{spec}': expected one of {SPECS}")


def load_splits(spec: str) -> Splits:
    """Training and test rows of `spec`: the format's own parts, else the fixed `hold_out` split."""
    own_parts = spec.partition(":")[0] in _WITH_PARTS
    if own_parts or (spec.endswith(".npz") and has_parts(spec)):
        return Splits(load_dataset(spec, "train"), load_dataset(spec, "test"))
    return hold_out(load_dataset(spec))
