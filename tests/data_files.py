"""Files of data sets, as their formats are documented."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from quern.runtime.data import (
    Dataset,
)

IDX_CODES = {"B": 0x08, "b": 0x09, "h": 0x0B, "i": 0x0C, "f": 0x0D, "d": 0x0E}


def idx_bytes(code: str, shape: tuple[int, ...], values: list[Any]) -> bytes:
    """An IDX file of `values`, whose struct format is `code`."""
    head = struct.pack(f">BBBB{len(shape)}I", 0, 0, IDX_CODES[code], len(shape), *shape)
    return head + struct.pack(f">{len(values)}{code}", *values)


def write_mnist(folder: Path, rows: int = 5, pack: Callable[[bytes], bytes] = bytes) -> None:
    for prefix in ("train", "t10k"):
        pixels = [(7 * i) % 256 for i in range(rows * 4 * 3)]
        labels = [i % 10 for i in range(rows)]
        images_path = folder / f"{prefix}-images-idx3-ubyte"
        images_path.write_bytes(pack(idx_bytes("B", (rows, 4, 3), pixels)))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(pack(idx_bytes("B", (rows,), labels)))


def cifar_file(rows: int, first: int = 0, labels: int = 1) -> bytes:
    """Records whose label is the row number and whose pixel p is (p + row) % 256."""
    return b"".join(
        bytes([r % 10] * labels) + bytes((p + r) % 256 for p in range(3072))
        for r in range(first, first + rows)
    )


def tar_gz(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in reversed(files.items()):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def npy_bytes(descr: str, shape: str, data: bytes, order: str = "False") -> bytes:
    head = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def npz_bytes(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return out.getvalue()


def array(values: Any) -> np.ndarray[Any, Any]:
    """The one input of a data set."""
    assert isinstance(values, np.ndarray)
    return values


def same(left: Dataset, right: Dataset) -> bool:
    pairs = [(array(left.inputs), array(right.inputs)), (left.targets, right.targets)]
    return all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs
    )
