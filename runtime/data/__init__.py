"""Data for training: data sets in memory, ways to read them, batches, and image preparation."""

from __future__ import annotations

from .batches import Batch, Batches, Transform
from .cifar import cifar10, cifar100
from .dataset import (
    Dataset,
    Inputs,
    Splits,
    Targets,
    from_arrays,
    map_targets,
    named_targets,
    row_count,
)
from .idx import idx, mnist, read_idx
from .npz import npz, read_npy, read_npz
from .prefetch import Prefetcher
from .sources import SPECS, digits, hold_out, load_dataset, load_splits
from .transforms import (
    channel_statistics,
    cutmix,
    mixup,
    normalize,
    one_hot,
    random_crop,
    random_horizontal_flip,
    resize,
)

__all__ = [
    "SPECS",
    "Batch",
    "Batches",
    "Dataset",
    "Inputs",
    "Prefetcher",
    "Splits",
    "Targets",
    "Transform",
    "channel_statistics",
    "cifar10",
    "cifar100",
    "cutmix",
    "digits",
    "from_arrays",
    "hold_out",
    "idx",
    "load_dataset",
    "load_splits",
    "map_targets",
    "mixup",
    "mnist",
    "named_targets",
    "normalize",
    "npz",
    "one_hot",
    "random_crop",
    "random_horizontal_flip",
    "read_idx",
    "read_npy",
    "read_npz",
    "resize",
    "row_count",
]
