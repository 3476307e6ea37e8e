"""Renames what the standard library calls snake_case to CamelCase, character by character.

    python examples/camel_case.py [--epochs 30] [--seed 0]

Encoder-decoder (Sutskever, Vinyals and Le, Sequence to sequence learning with neural networks,
2014): one LSTM reads a name, backwards; another one starts from the state that this leaves and
writes the other name. All it knows of the name is that state, so it has to learn how to spell.
A tenth of the names is held out.
"""

from __future__ import annotations

import argparse
import re
import string
import time

import numpy as np
from standard_library import Array, read_texts

import quern as qn
from quern import nn, optim
from quern.compiler.tensor import Tensor
from quern.runtime.data import Dataset

END, LETTERS = 0, "_" + string.ascii_letters + string.digits
LONGEST = 14


def names() -> list[str]:
    """The names of the standard library that are of two words or more."""
    pattern = re.compile(r"\b[a-z][a-z0-9]*(?:_[a-z][a-z0-9]*)+\b")
    found = {name for texts in read_texts() for t in texts for name in pattern.findall(t)}
    return sorted(name for name in found if len(name) <= LONGEST)


def camel_case(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def encode(words: list[str]) -> Array:
    """Numbers of letters (N, LONGEST + 1), with ends behind them."""
    result = np.full((len(words), LONGEST + 1), END, np.int64)
    for row, word in zip(result, words, strict=True):
        row[: len(word)] = [LETTERS.index(c) + 1 for c in word]
    return result


def decode(numbers: Array) -> str:
    ends = np.flatnonzero(numbers == END)
    return "".join(LETTERS[n - 1] for n in numbers[: ends[0] if len(ends) else None])


class Encoder(nn.Module):
    """Names (N, T) to states h, c (N, hidden)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS) + 1, 32)
        self.lstm = nn.LSTM(32, hidden, batch_first=True)

    def forward(self, name: Tensor) -> tuple[Tensor, Tensor]:
        # Backwards, so that the first letter is read last: the ends come first and change little.
        _, (h, c) = self.lstm(self.embedding(name[:, ::-1]))
        return h[0], c[0]


class Decoder(nn.Module):
    """Letters before (N, T) and states to logits of letters (N, T, letters), and states after."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS) + 1, 32)
        self.lstm = nn.LSTM(32, hidden, batch_first=True)
        self.head = nn.Linear(hidden, len(LETTERS) + 1)

    def forward(self, before: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(self.embedding(before), (h.unsqueeze(0), c.unsqueeze(0)))
        return self.head(y), h[0], c[0]


class Renamer(nn.Module):
    """Names and the letters before those wanted to logits (N, T, letters)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.encoder = Encoder(hidden)
        self.decoder = Decoder(hidden)

    def forward(self, name: Tensor, before: Tensor) -> Tensor:
        return self.decoder(before, *self.encoder(name))[0]


def loss_of(logits: Tensor, letters: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, 1), letters.flatten())


def shifted(letters: Array) -> Array:
    """The letter before each letter; before the first one is an end."""
    return np.concatenate([np.full((len(letters), 1), END), letters[:, :-1]], 1)


def rename(model: Renamer, x: Array) -> list[str]:
    """New names for all, letter by letter: the likeliest each time."""
    rows, hidden = len(x), model.decoder.lstm.hidden_size
    state = qn.spec(rows, hidden)
    read = qn.compile(model.encoder, qn.spec(*x.shape, dtype="int64"))
    write = qn.compile(model.decoder, qn.spec(rows, 1, dtype="int64"), state, state)
    h, c = read(x)
    letters = [np.full((rows, 1), END)]
    for _ in range(x.shape[1]):
        logits, h, c = write(letters[-1], h, c)
        letters.append(logits.argmax(-1))
    return [decode(row) for row in np.concatenate(letters[1:], 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description="From snake_case to CamelCase.")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    begin = time.perf_counter()
    snakes = names()
    order = np.random.default_rng(options.seed).permutation(len(snakes))
    snakes = [snakes[i] for i in order]
    camels = [camel_case(name) for name in snakes]
    held_out = len(snakes) // 10
    x, y = encode(snakes[held_out:]), encode(camels[held_out:])
    print(f"{len(x):,} names to learn from, {held_out:,} to test on")

    batch_size = 64
    qn.manual_seed(options.seed)
    model = Renamer(options.hidden)
    steps = options.epochs * (len(x) // batch_size)
    optimizer = optim.Adam(6e-3, schedule=optim.OneCycleLR(steps), clip_grad_norm=1.0)
    trainer = qn.Trainer(model, loss=loss_of, optimizer=optimizer, metrics={}, seed=options.seed)
    data = Dataset({"name": x, "before": shifted(y)}, y)
    trainer.fit(data, epochs=options.epochs, batch_size=batch_size)

    model.eval()
    written = rename(model, encode(snakes[:held_out]))
    pairs = list(zip(written, camels[:held_out], strict=True))
    right = sum(a == b for a, b in pairs)
    letters = sum(a == b for w, t in pairs for a, b in zip(w.ljust(len(t)), t, strict=False))
    print(f"{right / held_out:.1%} of the names are right to the last letter, ", end="")
    print(f"{letters / sum(len(t) for _, t in pairs):.1%} of the letters")
    for snake, (said, true) in list(zip(snakes, pairs, strict=False))[:6]:
        print(f"  {snake} -> {said}" + ("" if said == true else f"  (it is: {true})"))
    print(f"{time.perf_counter() - begin:.1f} s in all")


if __name__ == "__main__":
    main()
