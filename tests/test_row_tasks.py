"""Tasks of the rows of a product: every row once, and what NumPy computes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import quern as qn
from quern import nn
from quern.compiler.lower.row_tasks import RowTasks
from quern.compiler.lower.tile import level


def rows_of(tasks: list[RowTasks]) -> list[int]:
    """The rows that some task computes."""
    found = []
    for same in tasks:
        for task in range(same.count):
            for span in same.blocks:
                for number in range(span.count):
                    if same.total is None or task * span.count + number < same.total:
                        first = same.start + task * same.rows + span.start + number * span.length
                        found += range(first, first + span.length)
    return found


@given(st.integers(1, 2000), st.integers(1, 30), st.integers(1, 60))
def test_every_row_is_computed_once(rows: int, most: int, task: int) -> None:
    blocks = level(rows, most)
    assert sorted(rows_of(RowTasks.equal(blocks, task))) == list(range(rows))
    assert sorted(rows_of(RowTasks.balanced(blocks, task))) == list(range(rows))


@pytest.mark.parametrize("rows", [49, 64, 401])
@pytest.mark.parametrize("threads", [1, 2])
def test_products_of_many_rows(rows: int, threads: int) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((rows, 70), (70, 83)))
    expected = a.astype(np.float64) @ b
    plain = qn.compile(lambda a, b: a @ b, qn.spec(a), qn.spec(b), threads=threads)
    np.testing.assert_allclose(plain(a, b), expected, atol=1e-4)
    packed = nn.Linear(70, 83, bias=False)
    packed.load_state_dict({"weight": np.ascontiguousarray(b.T)})
    run = qn.compile(packed, qn.spec(a), threads=threads)
    np.testing.assert_allclose(run(a), expected, atol=1e-4)
