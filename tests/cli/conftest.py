"""Every command runs in a folder with a file of networks."""

from __future__ import annotations

from pathlib import Path

import pytest
from quern_program import NETS, Quern


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


@pytest.fixture
def quern(capsys: pytest.CaptureFixture[str]) -> Quern:
    """Runs commands."""
    return Quern(capsys)
