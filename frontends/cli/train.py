"""`quern train SOURCE --data digits -o model.qn`"""

from __future__ import annotations

import argparse

from ...compiler.errors import UsageError
from . import options as arguments

SUMMARY = "train a network on data, and write it compiled"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    parser.add_argument("source", metavar="SOURCE", help="FILE.py:NAME (a module) or a zoo name")
    parser.add_argument(
        "--data",
        required=True,
        metavar="DATA",
        help="digits, mnist:FOLDER, cifar10:FOLDER, cifar100:FOLDER, FILE.npz or idx:IMAGES,LABELS",
    )
    parser.add_argument("-o", "--output", metavar="FILE.qn", help="write the trained network there")
    parser.add_argument("--epochs", type=arguments.positive, default=10, metavar="N", help="(10)")
    parser.add_argument(
        "--batch-size", type=arguments.positive, default=64, metavar="N", help="rows of a step (64)"
    )
    parser.add_argument("--loss", default="cross_entropy", metavar="NAME", help="(cross_entropy)")
    arguments.add_optimizer(parser)
    parser.add_argument(
        "--seed", type=int, default=0, help="of contents, order of the rows and dropout (0)"
    )
    parser.add_argument("--checkpoint", metavar="FILE", help="written after every epoch")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint, to the same bits"
    )
    parser.add_argument(
        "--patience",
        type=arguments.positive,
        metavar="N",
        help="end when N epochs in a row were no better on the test rows",
    )
    arguments.add_recompute(parser)
    arguments.add_algorithms(parser)
    parser.add_argument("--log", metavar="FILE", help=".csv or .jsonl, a line for every epoch")
    arguments.add_threads(parser)


def run(options: argparse.Namespace) -> None:
    """Trains a network."""
    output = options.output and arguments.output_path(options.output, (".qn",))
    if options.resume and not options.checkpoint:
        raise UsageError("--resume goes on from a file: give --checkpoint FILE")
    from ...runtime.data import load_splits
    from ...runtime.progress import describe
    from ..nn.init import manual_seed
    from ..nn.module import Module
    from ..source import source_of
    from ..training.trainer import Trainer
    from .network import optimizer_of

    manual_seed(options.seed)
    source = source_of(options.source)
    if not isinstance(source.content, Module):
        raise UsageError(f"{options.source} is no module; only modules are trained")
    trainer = Trainer(
        source.content,
        loss=options.loss,
        optimizer=optimizer_of(options),
        threads=options.threads,
        seed=options.seed,
        recompute=options.recompute,
        recompute_every=options.recompute_every,
        algorithms=options.algorithms,
        tune=options.tune,
    )
    data = load_splits(options.data)
    print(f"{options.data}: {len(data.train):,} rows to train on, {len(data.test):,} to test on")
    trainer.fit(
        data,
        options.epochs,
        batch_size=options.batch_size,
        early_stopping=options.patience,
        log=options.log,
        checkpoint=options.checkpoint,
        resume=options.resume,
    )
    print(f"test: {describe(trainer.evaluate(data.test, options.batch_size))}")
    if output:
        print(f"wrote {trainer.save(output)}")
