"""`quern draw SOURCE -o graph.svg`"""

from __future__ import annotations

import argparse
import warnings

from ...compiler.errors import UsageError
from . import options as arguments

SUMMARY = "draw the graph of a network, with its gradients or its kernels"

_ENDINGS = (".svg", ".png", ".pdf", ".gv", ".dot")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    arguments.add_source(parser)
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="picture: .svg, .png, .pdf, .gv or .dot (NAME.svg)"
    )
    parser.add_argument(
        "--stage",
        choices=("declared", "optimized", "kernels"),
        default="declared",
        help="the graph as declared, after all passes, or with kernels as boxes (declared)",
    )
    parser.add_argument(
        "--fold",
        metavar="DEPTH",
        help="parts of dotted names that stay apart; `auto` chooses, `none` folds nothing (auto, "
        "for long graphs)",
    )
    parser.add_argument(
        "--unroll", action="store_true", help="recurrences step by step, in place of one box each"
    )
    arguments.add_stage_of_training(parser)


def run(options: argparse.Namespace) -> None:
    """Draws a network."""
    output = options.output and arguments.output_path(options.output, _ENDINGS)
    fold = _fold(options)
    from ...compiler.draw import RenderWarning
    from ..compile import draw
    from .console import note
    from .network import graph_of

    graph = graph_of(options, contents=False)
    path = output or arguments.output_path(f"{graph.name.lower()}.svg", _ENDINGS)
    drawing = draw(graph, stage=options.stage, fold=fold, unroll=options.unroll)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RenderWarning)
        written = drawing.save(path)
    for warning in caught:
        note(f"quern: {warning.message}")
    print(f"wrote {written}")


def _fold(options: argparse.Namespace) -> bool | int | None:
    text = options.fold
    if text is None:
        return None
    if options.stage == "kernels":
        raise UsageError("a picture with kernels as boxes is not folded; leave out --fold")
    if text in ("auto", "none"):
        return bool(text == "auto")
    try:
        return arguments.positive(text)
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"--fold {text}: {error}, nor auto or none") from None
