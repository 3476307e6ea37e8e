"""What a compiled network takes as arrays, and that its results are arrays of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import quern as qn
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array


@pytest.fixture(scope="module")
def both() -> qn.Executable:
    def forward(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return (left + right).tanh(), left * right

    return qn.compile(forward, qn.spec(4, 3), qn.spec(4, 3))


def strided(x: Array) -> Array:
    wide = np.zeros((x.shape[0], 2 * x.shape[1]), x.dtype)
    wide[:, ::2] = x
    return wide[:, ::2]


def unaligned(x: Array) -> Array:
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    raw[...] = x
    return raw


def read_only(x: Array) -> Array:
    copy = x.copy()
    copy.flags.writeable = False
    return copy


class Named(np.ndarray):  # type: ignore[type-arg]  # of any shape and dtype
    """Arrays of users' own."""


@pytest.mark.parametrize(
    "form",
    [
        strided,
        unaligned,
        read_only,
        lambda x: x.view(Named),
        lambda x: x.view(np.dtype(x.dtype, copy=True)),
        np.asfortranarray,
        lambda x: x[::-1][::-1],
        lambda x: x.astype(">f4"),
        lambda x: np.broadcast_to(x[:1], x.shape),
        lambda x: x.tolist(),
    ],
    ids=[
        "strided",
        "unaligned",
        "read-only",
        "subclass",
        "dtype of its own",
        "fortran",
        "reversed",
        "big-endian",
        "broadcast",
        "list",
    ],
)
def test_arrays_of_any_layout_are_taken(
    both: qn.Executable, rng: np.random.Generator, form: Any
) -> None:
    left, right = rng.standard_normal((2, 4, 3), np.float32)
    given = form(left)
    plain = np.array(given, np.float32)
    for a, b in zip(both(given, right), both(plain, right), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(), (0, 3), (1, 1, 1), (700, 90)], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_outputs_that_nothing_computes_are_copies(
    shape: tuple[int, ...], threads: int, rng: np.random.Generator
) -> None:
    def twice(x: Tensor, n: Tensor) -> dict[str, Tensor]:
        y = x * 2.0
        return {"x": x, "y": y, "n": n, "row": y.reshape(1, -1)}

    x, n = np.asarray(rng.random(shape), np.float32), np.arange(3)
    run = qn.compile(twice, qn.spec(x), qn.spec(n), threads=threads)
    found = run.run({"x": x, "n": n})
    expected = {"x": x, "y": 2 * x, "n": n, "row": 2 * x.reshape(1, -1)}
    for name, array in expected.items():
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)
        assert not any(np.shares_memory(found[name], a) for a in (x, n))
    assert not np.shares_memory(found["y"], found["row"])
    stamps = np.zeros(len(run.program.steps) + 1, np.int64)
    np.testing.assert_array_equal(run.run({"x": x, "n": n}, stamps)["row"], expected["row"])
    assert (np.diff(stamps) >= 0).all()
