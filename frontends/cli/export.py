"""`quern export SOURCE -o FILE.onnx`"""

from __future__ import annotations

import argparse

from . import options as arguments

SUMMARY = "write a network to an .onnx file"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    arguments.add_source(parser)
    parser.add_argument("-o", "--output", metavar="FILE.onnx", help="where to write it (NAME.onnx)")
    parser.add_argument(
        "--external-data",
        action="store_true",
        default=None,
        help="put the parameters into FILE.onnx.data (done in any case beyond 1.9 GB)",
    )


def run(options: argparse.Namespace) -> None:
    """Exports a network."""
    output = options.output and arguments.output_path(options.output, (".onnx",))
    specs, named = arguments.types_of(options.input)
    from ..onnx.exporter import OPERATOR_SET, to_onnx
    from ..source import source_of

    source = source_of(options.source)
    path = output or arguments.output_path(f"{source.name.lower()}.onnx", (".onnx",))
    to_onnx(
        options.source if options.source.endswith(".qn") else source,
        path,
        *specs,
        external_data=options.external_data,
        **named,
    )
    megabytes = path.stat().st_size / 1e6
    print(f"wrote {path} ({megabytes:.1f} MB): {source.name}, operator set {OPERATOR_SET}")
