"""Teaches a network to say in words what is in a picture: "three left of eight".

    python examples/captioning.py [--epochs 20] [--seed 0] [--beams 4]

A picture is made of two of scikit-learn's handwritten digits, side by side or one above the other.
A convolutional trunk looks at it, an LSTM that starts from what the trunk has seen writes the
sentence, word after word (Vinyals et al., Show and tell, 2015). It learns with the true words as
input; then it reads its own, and takes the likeliest word each time, or keeps several sentences and
goes on with the likeliest of these (beam search). Each picture can be told in two ways, "three left
of eight" or "eight right of three"; it learns one of them, and a sentence is right if it is one of
the two to the last word. The digits to test with never occur in training.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import quern as qn
from quern import nn, optim
from quern.compiler.tensor import Tensor
from quern.runtime.data import Dataset, load_splits

Array = np.ndarray[Any, Any]

SIZE = 20
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = ("<end>", *NUMBERS, "left", "right", "above", "below", "of")
END = 0
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
# `three left of eight <end>`, `three above eight <end>`: shorter ones end in more ends.
LENGTH = 5


def encode(sentence: str) -> list[int]:
    numbers = [WORDS.index(word) for word in sentence.split()]
    return numbers + [END] * (LENGTH - len(numbers))


def decode(numbers: list[int]) -> str:
    kept = numbers[: numbers.index(END)] if END in numbers else numbers
    return " ".join(WORDS[n] for n in kept)


def both_ways(sentence: str) -> tuple[str, str]:
    """The two sentences that say the same, this one first."""
    first, *relation, second = sentence.split()
    return sentence, f"{second} {OPPOSITE[' '.join(relation)]} {first}"


def compose(count: int, held_out: bool, seed: int) -> tuple[Array, Array]:
    """Pictures (N, 1, SIZE, SIZE) and sentences (N, LENGTH)."""
    splits = load_splits("digits")
    source = splits.test if held_out else splits.train
    rng = np.random.default_rng(seed)
    images = np.zeros((count, 1, SIZE, SIZE), np.float32)
    sentences = np.zeros((count, LENGTH), np.int64)
    ink = source.inputs.max()
    for n in range(count):
        first, second = rng.integers(0, len(source), 2)
        relation = rng.choice(list(OPPOSITE))
        along = rng.choice([(0, 9), (0, 10), (1, 11), (2, 12), (1, 10)], axis=0)
        if relation in ("right of", "below"):
            along = along[::-1]
        across = rng.integers(0, SIZE - 10) + rng.integers(0, 3, 2)
        for pick, a, b in zip((first, second), along, across, strict=True):
            row, column = (b, a) if relation.endswith("of") else (a, b)
            images[n, 0, row : row + 8, column : column + 8] = source.inputs[pick, 0] / ink
        names = (NUMBERS[source.targets[i]] for i in (first, second))
        sentences[n] = encode(f" {relation} ".join(names))
    return images, sentences


def shifted(sentences: Array) -> Array:
    """The word before each word; before the first one is an end."""
    return np.concatenate([np.full((len(sentences), 1), END), sentences[:, :-1]], 1)


class Trunk(nn.Module):
    """Images (N, 1, SIZE, SIZE) to features (N, features)."""

    def __init__(self, features: int, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for channels in (width, 2 * width, 4 * width):
            layers += [
                nn.Conv2d(inputs, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            inputs = channels
        extent = SIZE // 8
        self.layers = nn.Sequential(*layers)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(0.3)
        self.linear = nn.Linear(inputs * extent * extent, features)

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.linear(self.dropout(self.flatten(self.layers(image))))
        return features.tanh()


class Writer(nn.Module):
    """Words before (N, T) and a state (N, hidden) to logits (N, T, words), and the state after."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(WORDS), 32)
        self.lstm = nn.LSTM(32, hidden, batch_first=True)
        self.head = nn.Linear(hidden, len(WORDS))

    def forward(self, words: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(self.embedding(words), (h.unsqueeze(0), c.unsqueeze(0)))
        return self.head(y), h.squeeze(0), c.squeeze(0)


class Captioner(nn.Module):
    """Images and the words before each word to the logits of the words (N, LENGTH, words)."""

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.trunk = Trunk(hidden)
        self.writer = Writer(hidden)

    def forward(self, image: Tensor, words: Tensor) -> Tensor:
        features = self.trunk(image)
        return self.writer(words, features, features)[0]


def loss_of(logits: Tensor, sentences: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, 1), sentences.flatten())


@dataclass(frozen=True)
class Beam:
    """A sentence that is being written.

    Arguments:
        words: so far.
        likelihood: its logarithm.
        h, c: the state after them.
    """

    words: list[int]
    likelihood: float
    h: Array
    c: Array

    @property
    def is_done(self) -> bool:
        return self.words[-1:] == [END]


Step = Callable[[Array, Array, Array], tuple[Array, Array, Array]]


def write(step: Step, features: Array, beams: int = 1) -> list[int]:
    """The sentence for one picture's features; one beam alone is greedy.

    Arguments:
        step: the compiled writer, for one word.
        features: (hidden,).
        beams: sentences that are kept.
    """
    kept = [Beam([], 0.0, features, features)]
    for _ in range(LENGTH):
        longer: list[Beam] = []
        for beam in kept:
            if beam.is_done:
                longer.append(beam)
                continue
            last = np.array([[beam.words[-1] if beam.words else END]])
            logits, h, c = step(last, beam.h[None], beam.c[None])
            scores = logits[0, 0].astype(np.float64)
            scores -= scores.max() + np.log(np.exp(scores - scores.max()).sum())
            for word in np.argsort(-scores)[:beams]:
                likelihood = beam.likelihood + float(scores[word])
                longer.append(Beam([*beam.words, int(word)], likelihood, h[0], c[0]))
        kept = sorted(longer, key=lambda beam: -beam.likelihood)[:beams]
    return kept[0].words


def main() -> None:
    parser = argparse.ArgumentParser(description="Describe pictures of digits in words.")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--pictures", type=int, default=6000)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    begin = time.perf_counter()
    images, sentences = compose(options.pictures, False, options.seed)
    test_images, test_sentences = compose(400, True, options.seed + 1)
    batch_size = 64
    qn.manual_seed(options.seed)
    model = Captioner()
    steps = options.epochs * (len(images) // batch_size)
    optimizer = optim.Adam(3e-3, schedule=optim.OneCycleLR(steps), clip_grad_norm=1.0)
    trainer = qn.Trainer(model, loss=loss_of, optimizer=optimizer, metrics={}, seed=options.seed)
    data = Dataset({"image": images, "words": shifted(sentences)}, sentences)
    trainer.fit(data, epochs=options.epochs, batch_size=batch_size)

    model.eval()
    look = qn.compile(model.trunk, qn.spec(len(test_images), 1, SIZE, SIZE))
    state = qn.spec(1, model.writer.lstm.hidden_size)
    step = qn.compile(model.writer, qn.spec(1, 1, dtype="int64"), state, state)
    features = look(test_images)
    truth = [decode(list(numbers)) for numbers in test_sentences]
    for beams in dict.fromkeys((1, options.beams)):
        written = [decode(write(step, f, beams)) for f in features]
        right = sum(w in both_ways(t) for w, t in zip(written, truth, strict=True))
        way = "greedy" if beams == 1 else f"{beams} beams"
        print(f"{way}: {right / len(truth):.1%} of the sentences are right to the last word")
    for said, true in list(zip(written, truth, strict=True))[:6]:
        print(f"  {said}" + ("" if said in both_ways(true) else f"  (it is: {true})"))
    print(f"{time.perf_counter() - begin:.1f} s in all")


if __name__ == "__main__":
    main()
