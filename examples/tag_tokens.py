"""Tells for each character of Python source what kind of token it belongs to.

    python examples/tag_tokens.py [--epochs 2] [--seed 0]

Many-to-many, aligned: an LSTM in both directions reads a window of text, and each of its outputs
is classified. What is right is what the standard library's own `tokenize` says, of the standard
library's own source. A window may begin in the middle of a string: nothing tells but what follows.
"""

from __future__ import annotations

import argparse
import io
import keyword
import time
import tokenize
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from standard_library import VOCABULARY, Array, encode, read_texts

import quern as qn
from quern import nn, optim
from quern.compiler.tensor import Tensor

KINDS = ("space", "keyword", "name", "number", "string", "comment", "operator")
MARKS = " kn1s#+"
WINDOW = 80


def kind_of(token: tokenize.TokenInfo) -> int | None:
    if token.type == tokenize.NAME:
        return KINDS.index("keyword" if keyword.iskeyword(token.string) else "name")
    kinds = {
        tokenize.NUMBER: "number",
        tokenize.STRING: "string",
        tokenize.COMMENT: "comment",
        tokenize.OP: "operator",
    }
    # From Python 3.12 on, strings with values inside come in parts.
    name = tokenize.tok_name[token.type]
    kind = "string" if name.startswith(("FSTRING", "TSTRING")) else kinds.get(token.type)
    return None if kind is None else KINDS.index(kind)


def tag(text: str) -> Array:
    """The kind of each character of a text.

    Raises:
        SyntaxError, tokenize.TokenError: it is no Python.
    """
    lines = text.splitlines(keepends=True)
    starts = [0, *accumulate(map(len, lines))]
    tags = np.zeros(len(text), np.int64)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = kind_of(token)
        if kind is not None:
            begin, end = (starts[row - 1] + column for row, column in (token.start, token.end))
            tags[begin:end] = kind
    return tags


def windows(texts: Sequence[str]) -> tuple[Array, Array]:
    """Windows of characters (N, WINDOW), and their kinds."""
    parts = []
    for text in texts:
        plain = "".join(c if c in VOCABULARY else "?" for c in text)
        try:
            parts.append((encode(plain), tag(plain)))
        except (SyntaxError, tokenize.TokenError):
            continue
    joined = (np.concatenate(found) for found in zip(*parts, strict=True))
    x, y = (a[: len(a) // WINDOW * WINDOW].reshape(-1, WINDOW) for a in joined)
    return x, y


class Tagger(nn.Module):
    """Characters (N, T) to logits (N, T, kinds)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(VOCABULARY), 32)
        self.lstm = nn.LSTM(32, hidden, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, len(KINDS))

    def forward(self, text: Tensor) -> Tensor:
        logits: Tensor = self.head(self.lstm(self.embedding(text))[0])
        return logits


def loss_of(logits: Tensor, kinds: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, 1), kinds.flatten())


def main() -> None:
    parser = argparse.ArgumentParser(description="Tag the characters of Python source.")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--files", type=int, default=60, help="to learn from")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    begin = time.perf_counter()
    learned, held_out = read_texts()
    order = np.random.default_rng(options.seed).permutation(len(learned))
    x, y = windows([learned[i] for i in order[: options.files]])
    test_x, test_y = windows(held_out)
    test_x, test_y = test_x[:2000], test_y[:2000]
    print(f"{x.size:,} characters to learn from, {test_x.size:,} to test on")

    batch_size = 64
    qn.manual_seed(options.seed)
    steps = options.epochs * (len(x) // batch_size)
    optimizer = optim.Adam(1e-2, schedule=optim.OneCycleLR(steps), clip_grad_norm=1.0)
    trainer = qn.Trainer(
        Tagger(options.hidden), loss=loss_of, optimizer=optimizer, metrics={}, seed=options.seed
    )
    trainer.fit((x, y), epochs=options.epochs, batch_size=batch_size)
    found = trainer.predict(test_x).argmax(-1)
    counts = np.zeros((len(VOCABULARY), len(KINDS)), np.int64)
    np.add.at(counts, (x, y), 1)
    usual = counts.argmax(1)[test_x]  # of the character alone
    print(f"{np.mean(found == test_y):.2%} of the characters are right, ", end="")
    print(f"{np.mean(usual == test_y):.2%} by each character's usual kind")
    for row in range(3):
        print("".join(VOCABULARY[i] if i else "¶" for i in test_x[row]))
        print("".join(MARKS[k] for k in found[row]))
    print(f"{time.perf_counter() - begin:.1f} s in all")


if __name__ == "__main__":
    main()
