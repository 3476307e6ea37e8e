"""quern train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from quern_program import Quern

import quern as qn


@pytest.fixture
def blobs(folder: Path) -> str:
    """Three classes that a linear layer tells apart."""
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = (rng.standard_normal((300, 4)) + 4 * np.eye(3, 4)[y]).astype(np.float32)
    np.savez(folder / "blobs.npz", x=x, y=y)
    return "blobs.npz"


def test_train(quern: Quern, folder: Path, blobs: str) -> None:
    command = [
        "train", "nets.py:Tiny", "--data", blobs, "--epochs", "4", "--optimizer", "adam",
        "--lr", "0.05", "--batch-size", "24", "--seed", "3", "--threads", "1",
    ]  # fmt: skip
    told = quern(*command, "-o", "model.qn", "--log", "log.csv").splitlines()
    assert told[0] == "blobs.npz: 240 rows to train on, 60 to test on"
    assert told.pop(1).startswith("planned peak memory ")
    assert [line.split(":")[0] for line in told[1:5]] == [f"epoch {i}/4" for i in range(1, 5)]
    assert told[5].startswith("test: loss ")
    assert told[6] == "wrote model.qn"
    assert float(told[5].split("accuracy ")[1].split(" %")[0]) > 90
    assert len((folder / "log.csv").read_text().splitlines()) == 5
    quern(*command, "-o", "again.qn")
    first, again = (qn.load(name).state["fc.weight"] for name in ("model.qn", "again.qn"))
    np.testing.assert_array_equal(first, again)


def test_training_is_resumed_to_the_same_bits(quern: Quern, blobs: str) -> None:
    command = ["train", "nets.py:Tiny", "--data", blobs, "--lr", "0.1"]
    command += ["--optimizer", "sgd", "--momentum", "0.9"]
    quern(*command, "--epochs", "4", "-o", "whole.qn")
    quern(*command, "--epochs", "2", "--checkpoint", "c.ckpt")
    quern(*command, "--epochs", "4", "--checkpoint", "c.ckpt", "--resume", "-o", "parts.qn")
    whole, parts = (qn.load(name).state["fc.weight"] for name in ("whole.qn", "parts.qn"))
    np.testing.assert_array_equal(whole, parts)


def test_a_loss_that_is_not_finite_is_told_in_one_line(quern: Quern, blobs: str) -> None:
    command = ("train", "nets.py:Tiny", "--data", blobs, "--optimizer", "sgd")
    told = quern.fails(1, *command, "--lr", "1e38")
    assert "finite" in told
