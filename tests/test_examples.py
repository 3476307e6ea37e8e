"""The examples: what their parts promise, and that each runs, in small."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples"

Run = Callable[..., str]


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "").parent == FOLDER:
            del sys.modules[name]


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs an example with arguments; gives what it prints."""

    def run(name: str, *arguments: object) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("QUERN_NUM_THREADS", "1")
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        load(name).main()
        return capsys.readouterr().out

    return run


def test_each_has_a_line_in_the_readme() -> None:
    text = (FOLDER / "README.md").read_text("utf-8")
    runnable = [p.name for p in FOLDER.glob("*.py") if "def main(" in p.read_text("utf-8")]
    assert len(runnable) > 8
    assert [name for name in runnable if f"`{name}`" not in text] == []


# -- parts ----------------------------------------------------------------------------------------


def test_the_sums_of_the_adding_problem() -> None:
    x, y = load("adding_problem").sequences(50, 20, np.random.default_rng(0))
    assert x.shape == (50, 20, 2)
    assert ((x[:, :10, 1].sum(1) == 1) & (x[:, 10:, 1].sum(1) == 1)).all()
    for row, (total,) in zip(x, y, strict=True):
        assert total == pytest.approx(sum(value for value, mark in row if mark))


def test_tags_of_tokens() -> None:
    example = load("tag_tokens")
    text = 'if x1 == 2.5:  # "why"\n    y = """two\nlines"""\n'
    tags = "".join(example.MARKS[k] for k in example.tag(text))
    assert tags == "kk nn ++ 111+  ####### " + "    n + " + 15 * "s" + " "


def test_names_in_camel_case() -> None:
    example = load("camel_case")
    assert example.camel_case("get_http_2") == "GetHttp2"
    words = ["Ab_1", "x" * example.LONGEST]
    assert [example.decode(row) for row in example.encode(words)] == words
    assert example.shifted(example.encode(["ab"]))[0, :3].tolist() == [
        example.END,
        *example.encode(["ab"])[0, :2],
    ]


def test_sentences_of_pictures() -> None:
    example = load("captioning")
    assert example.both_ways("three left of eight")[1] == "eight right of three"
    assert example.both_ways("two below six")[1] == "six above two"
    images, sentences = example.compose(20, True, 0)
    for image, sentence in zip(images, sentences, strict=True):
        told, other = map(example.encode, example.both_ways(example.decode(list(sentence))))
        assert told == list(sentence)
        assert len(other) == example.LENGTH
        assert image.max() > 0.5


def test_beams_find_the_likeliest_sentence() -> None:
    """With as many beams as there are words, beam search is exhaustive over two words."""
    example = load("captioning")
    rng = np.random.default_rng(0)
    words = len(example.WORDS)
    scores = rng.standard_normal((words, words)) * 2  # of a word behind another one

    def step(last: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, ...]:
        logits = scores[last[0, 0]].copy()
        if c[0, 0] >= 2:  # after two words there is but the end
            logits[:] = -1e9
            logits[example.END] = 0
        return logits[None, None], h, c + 1

    def log_softmax(x: np.ndarray) -> np.ndarray:
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    p = log_softmax(scores)
    end = example.END
    likelihood = {(): p[end, end]}
    likelihood |= {(a,): p[end, a] + p[a, end] for a in range(1, words)}
    pairs = product(range(1, words), repeat=2)
    likelihood |= {(a, b): p[end, a] + p[a, b] for a, b in pairs}
    best = max(likelihood, key=likelihood.__getitem__)
    found = example.write(step, np.zeros(1), beams=words)
    assert tuple(w for w in found if w != end) == best


def test_drawing_characters() -> None:
    example = load("char_rnn")
    rng = np.random.default_rng(0)
    logits = np.array([0.0, 3.0, 1.0, 2.0])
    assert example.draw(logits, rng, 0.0, 4) == 1
    assert {example.draw(logits, rng, 1.0, 1) for _ in range(20)} == {1}
    assert {example.draw(logits, rng, 5.0, 2) for _ in range(100)} == {1, 3}
    cold = [example.draw(logits, rng, 0.3, 4) for _ in range(300)]
    warm = [example.draw(logits, rng, 3.0, 4) for _ in range(300)]
    assert cold.count(1) > warm.count(1)


def test_streams_go_on_where_they_ended() -> None:
    batches = load("char_rnn").streams(np.arange(101), 4, 5)
    (x0, y0), (x1, _) = next(batches), next(batches)
    assert x0.shape == (4, 5)
    assert (y0 == x0 + 1).all()
    assert (x1[:, 0] == y0[:, -1]).all()


def test_the_library_is_read_in_two_parts() -> None:
    example = load("standard_library")
    learned, held_out = example.read_texts()
    assert len(learned) > 10 * len(held_out) > 0
    assert not set(learned) & {t for t in held_out if len(t) > 100}
    assert example.decode(example.encode("def f():\n    é")) == "def f():\n    ?"


def test_carts_move_as_lagrange_says() -> None:
    """Two equations for the cart's acceleration and the pole's, solved as such."""
    example = load("cart_pole")
    rng = np.random.default_rng(0)
    states, rights = rng.uniform(-1, 1, (20, 4)), rng.integers(0, 2, 20)
    after, fallen = example.push(states, rights)
    for (_, v, angle, spin), right, change in zip(
        states, rights, (after - states) / 0.02, strict=True
    ):
        cart, pole, half = 1.0, 0.1, 0.5
        sine, cosine = np.sin(angle), np.cos(angle)
        left_side = [[cart + pole, pole * half * cosine], [cosine, 4 / 3 * half]]
        right_side = [20 * right - 10 + pole * half * spin**2 * sine, 9.8 * sine]
        faster, twist = np.linalg.solve(left_side, right_side)
        np.testing.assert_allclose(change, [v, faster, spin, twist], rtol=1e-9)
    np.testing.assert_array_equal(fallen, np.abs(after[:, 2]) > np.pi / 15)


def test_windows_of_text_and_what_follows() -> None:
    x, y = next(load("transformer_python").windows(np.arange(500), 6, 20, seed=0))
    assert x.shape == y.shape == (6, 20)
    assert (np.diff(x, axis=1) == 1).all()
    assert (y == x + 1).all()


def test_a_transformer_does_not_look_ahead() -> None:
    example = load("transformer_python")
    model = example.Transformer(8, width=16, layers=2, heads=2).eval()
    x = np.arange(16).reshape(2, 8)
    other = x.copy()
    other[:, 5:] = 60
    first, second = model(x), model(other)
    np.testing.assert_allclose(first[:, :5], second[:, :5], rtol=1e-5, atol=1e-6)
    assert not np.allclose(first[:, 5:], second[:, 5:])


# -- whole ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_row_digits(run: Run) -> None:
    out = run("row_digits", "--epochs", 3, "--hidden", 24)
    share = float(out.split("test accuracy ")[1].split("%")[0])
    assert share > 60


def test_adding_problem(run: Run) -> None:
    out = run("adding_problem", "--length", 10, "--steps", 300, "--networks", "lstm")
    assert float(out.splitlines()[-1].removeprefix("LSTM: ")) < 0.05


def test_gradients_through_time(run: Run) -> None:
    out = run("gradients_through_time", "--length", 20)
    assert "RNN rnn.h" in out
    assert "norm of its gradient by all parameters" in out


def test_char_rnn(run: Run) -> None:
    out = run("char_rnn", "--seconds", 3, "--hidden", 32, "--rows", 8, "--steps", 12)
    assert "nats a character" in out
    assert "\ndef " in out


@pytest.mark.slow
def test_tag_tokens(run: Run) -> None:
    out = run("tag_tokens", "--epochs", 1, "--files", 4, "--hidden", 16)
    assert "of the characters are right" in out


@pytest.mark.slow
def test_camel_case(run: Run) -> None:
    assert " -> " in run("camel_case", "--epochs", 1, "--hidden", 16)


@pytest.mark.slow
def test_captioning(run: Run) -> None:
    out = run("captioning", "--epochs", 1, "--pictures", 256, "--beams", 2)
    assert "2 beams: " in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("segment_digits", ("--epochs", 1, "--canvases", 300)),
        ("detect_digits", ("--epochs", 1, "--canvases", 300)),
        ("resnet_digits", ("--epochs", 1)),
        ("lenet_digits", ("--epochs", 1)),
    ],
)
def test_pictures_of_digits(run: Run, name: str, arguments: tuple[object, ...]) -> None:
    assert "%" in run(name, *arguments)


@pytest.mark.slow
def test_vae_digits(run: Run) -> None:
    assert " nats an image" in run("vae_digits", "--epochs", 1)


@pytest.mark.slow
def test_fool_digits(run: Run) -> None:
    assert "hardened: knows" in run("fool_digits", "--epochs", 1)


@pytest.mark.slow
def test_gan_digits(run: Run) -> None:
    assert "drawn digits are taken for" in run("gan_digits", "--steps", 12)


@pytest.mark.slow
def test_diffusion_digits(run: Run) -> None:
    assert "the judge is sure of" in run("diffusion_digits", "--epochs", 1)


@pytest.mark.slow
def test_transformer_python(run: Run) -> None:
    out = run("transformer_python", "--steps", 24, "--rows", 4, "--window", 16)
    assert "nats a character on held-out text" in out
    assert "\ndef " in out


@pytest.mark.slow
def test_cart_pole(run: Run) -> None:
    assert "round 2: stands" in run("cart_pole", "--rounds", 2)
