"""State dicts and compiled networks in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.errors import ArtifactError, UsageError


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def test_a_state_dict_comes_back(tmp_path: Path) -> None:
    first, second = network(), network()
    path = qn.save(first.state_dict(), tmp_path / "model.safetensors")
    second.load_state_dict(qn.load(path))
    x = np.random.default_rng(0).normal(size=(3, 1, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(second.eval()(x), first.eval()(x))
    found = qn.load(path)
    assert {k: (a.dtype, a.shape) for k, a in found.items()} == {
        k: (a.dtype, a.shape) for k, a in first.state_dict().items()
    }


def test_it_is_pytorchs_too(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    files = pytest.importorskip("safetensors.torch")
    theirs = torch.nn.Linear(3, 2)
    path = tmp_path / "theirs.safetensors"
    files.save_file(theirs.state_dict(), path)
    own = nn.Linear(3, 2)
    own.load_state_dict(qn.load(path))
    np.testing.assert_array_equal(own.weight.data, theirs.weight.detach().numpy())
    qn.save({"weight": own.weight.data.T, "epoch": 3}, path)
    back = files.load_file(path)
    np.testing.assert_array_equal(back["weight"].numpy(), own.weight.data.T)
    assert back["epoch"].item() == 3


def test_executables_are_told_by_their_contents(tmp_path: Path) -> None:
    exe = qn.compile(nn.Linear(3, 2), qn.spec(1, 3))
    path = qn.save(exe, tmp_path / "any.name")
    x = np.ones((1, 3), np.float32)
    np.testing.assert_array_equal(qn.load(path)(x), exe(x))


def test_what_is_no_state_dict_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for what, message in [
        (network(), r"Sequential is not kept in a file as it is: save model.state_dict\(\)"),
        ({"model": {"weight": np.zeros(2)}}, r"'model' is dict; what is saved is a state dict"),
        ({"name": "LeNet"}, r"'name' is str"),
        ({1: np.zeros(2), "1": np.zeros(2)}, r"the same as text"),
    ]:
        with pytest.raises(UsageError, match=message):
            qn.save(what, path)
    with pytest.raises(UsageError, match=r"model.safetensors in place of .*model.pt"):
        qn.save(network().state_dict(), tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none.safetensors"):
        qn.load(tmp_path / "none.safetensors")
    path = tmp_path / "model.safetensors"
    qn.save({"a": np.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match=r"model.safetensors cannot be read"):
        qn.load(path)
