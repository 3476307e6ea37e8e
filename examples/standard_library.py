"""The source text of Python's standard library, which is on every machine that runs this."""

from __future__ import annotations

import string
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

VOCABULARY = "\n" + "".join(c for c in string.printable if c.isprintable())
UNKNOWN = VOCABULARY.index("?")


def encode(text: str) -> Array:
    """The numbers of characters; those that are not ASCII become "?"."""
    numbers = {c: i for i, c in enumerate(VOCABULARY)}
    return np.array([numbers.get(c, UNKNOWN) for c in text], np.int64)


def decode(numbers: Array) -> str:
    return "".join(VOCABULARY[i] for i in numbers)


def read_texts() -> tuple[list[str], list[str]]:
    """The texts of files to learn from, and of every twentieth file, which is held out."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(folder.glob("*.py")) + sorted(folder.glob("[a-z]*/*.py"))
    files = [f for f in files if "packages" not in f.parts[-2] and "test" not in f.parts[-2]]
    texts = [f.read_text("utf-8", errors="replace").expandtabs(4) for f in files]
    return [t for i, t in enumerate(texts) if i % 20], texts[::20]
