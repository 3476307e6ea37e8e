"""Arguments that several commands take, and what they say."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ...compiler.errors import QuernError, UsageError

if TYPE_CHECKING:
    from ...compiler.types import TensorType

OPTIMIZERS = (
    "sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "radam", "rprop",
)  # fmt: skip
TARGETS = ("avx512", "avx2", "sse")
ALGORITHMS = ("fastest", "direct")

_SHAPE = re.compile(r"(?:\d+(?:x\d+)*|scalar)")


def add_source(parser: argparse.ArgumentParser) -> None:
    """SOURCE, and the types of its inputs."""
    parser.add_argument("source", metavar="SOURCE", help="FILE.py:NAME, a zoo name or FILE.qn")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="[NAME=]SHAPE[:DTYPE]",
        help="type of an input: 1x3x224x224, image=1x3x224x224, ids=8x20:int64; once for each",
    )


def add_runnable(parser: argparse.ArgumentParser) -> None:
    """SOURCE to be run on arrays from files or made-up ones, and all that says how."""
    parser.add_argument("source", metavar="SOURCE", help="FILE.qn, FILE.py:NAME or a zoo name")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="[NAME=]SHAPE[:DTYPE]|FILE",
        help="type of an input, 16x3x224x224, or its contents, image=x.npy; what is not given is "
        "made up",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is made up (0)")
    add_stage_of_training(parser)
    add_recompute(parser)
    add_threads(parser)
    add_target(parser)


def add_duration(parser: argparse.ArgumentParser) -> None:
    """How long to go on for."""
    parser.add_argument(
        "--duration", type=seconds, default=1.0, metavar="SECONDS", help="to go on for (1)"
    )


def add_stage_of_training(parser: argparse.ArgumentParser) -> None:
    """Whether the network is looked at with its gradients, or as a whole training step."""
    parser.add_argument(
        "--backward", action="store_true", help="with its gradients by all trainable parameters"
    )
    parser.add_argument(
        "--training",
        action="store_true",
        help="the whole training step: forward, backward, update",
    )
    parser.add_argument(
        "--loss",
        metavar="NAME",
        help="what is differentiated: cross_entropy, mse, …; its targets are the input `target` "
        "(cross_entropy is the default of --training)",
    )
    add_optimizer(parser)


def add_optimizer(parser: argparse.ArgumentParser) -> None:
    """The optimizer and its numbers."""
    parser.add_argument(
        "--optimizer", choices=OPTIMIZERS, default="adam", help="how parameters are moved (adam)"
    )
    parser.add_argument("--lr", type=float, metavar="RATE", help="learning rate")
    parser.add_argument("--momentum", type=float, metavar="SHARE", help="of sgd or rmsprop")
    parser.add_argument("--weight-decay", type=float, metavar="SHARE", help="of the optimizer")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Number of threads."""
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="that run it (QUERN_NUM_THREADS, else the usable processors)",
    )


def add_recompute(parser: argparse.ArgumentParser) -> None:
    """What the backward pass computes again."""
    parser.add_argument(
        "--recompute",
        type=recomputed,
        metavar="WHAT",
        help="compute the forward pass again in the backward pass, for less memory: in N segments, "
        "to stay below 1.5GB, in the modules layer1,layer2, or as far as it helps: least",
    )
    parser.add_argument(
        "--recompute-every",
        type=positive,
        metavar="K",
        help="of recurrences keep the states after every K steps, and compute the steps again",
    )


def add_target(parser: argparse.ArgumentParser) -> None:
    """The machine to compile for, and the algorithms."""
    parser.add_argument("--target", choices=TARGETS, help="instruction set (this machine's)")
    add_algorithms(parser)


def add_algorithms(parser: argparse.ArgumentParser) -> None:
    """How convolutions are computed."""
    parser.add_argument(
        "--algorithms",
        choices=ALGORITHMS,
        default=ALGORITHMS[0],
        help="direct: convolutions by neither Winograd's algorithm nor Strassen's",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="choose algorithms by measuring them here, and remember which were fastest",
    )


def positive(text: str) -> int:
    """A whole number from 1.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not re.fullmatch(r"0*[1-9]\d{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def recomputed(text: str) -> bool | int | str | list[str]:
    """What `checkpoint` of `quern.compile` takes, from text."""
    if text == "least":
        return True
    if text.isdecimal():
        return int(text)
    return text if re.fullmatch(r"[\d.]+ ?[kMGi]*B", text) else text.split(",")


def seconds(text: str) -> float:
    """A positive number of seconds.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not re.fullmatch(r"\d{1,6}(?:\.\d*)?|\.\d+", text) or float(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return float(text)


def is_type(text: str) -> bool:
    """Whether an `--input` looks like a type rather than a file."""
    return _SHAPE.fullmatch(text.rpartition("=")[2].partition(":")[0]) is not None


def types_of(texts: Iterable[str]) -> tuple[tuple[TensorType, ...], dict[str, TensorType]]:
    """Types by place and by name, from texts such as `image=1x3x224x224:float64`.

    Raises:
        UsageError: a text is no type, or a name is given twice.
    """
    from ...compiler.types import DType, TensorType

    placed: list[TensorType] = []
    named: dict[str, TensorType] = {}
    for text in texts:
        name, _, rest = text.rpartition("=")
        shape, _, dtype = rest.partition(":")
        if not _SHAPE.fullmatch(shape):
            raise UsageError(
                f"--input {text}: {shape!r} is no shape; write 1x3x224x224, or NAME=1x3x224x224"
            )
        extents = () if shape == "scalar" else tuple(int(n) for n in shape.split("x"))
        try:
            type = TensorType(extents, DType.of(dtype or "float32"))
        except QuernError as error:
            raise UsageError(f"--input {text}: {error}") from None
        if name in named:
            raise UsageError(f"--input {name} is given twice")
        if name:
            named[name] = type
        else:
            placed.append(type)
    return tuple(placed), named


def output_path(text: str, endings: tuple[str, ...]) -> Path:
    """A file to write, looked at before the work begins.

    Raises:
        UsageError: another ending, or no folder to write it in.
    """
    path = Path(text)
    if path.suffix.lower() not in endings:
        raise UsageError(f"{text}: let the name end in {' or '.join(endings)}")
    if not path.parent.is_dir():
        raise UsageError(f"{text}: there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"{text} is a folder; name a file")
    return path
