"""`quern explain SOURCE NODE`"""

from __future__ import annotations

import argparse

from ...compiler.errors import UsageError
from . import options as arguments

SUMMARY = "show the kernels that compute a node: nodes, cost, loops, machine code"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    arguments.add_source(parser)
    parser.add_argument(
        "node", metavar="NODE", help="a layer or other node, a module, or a parameter"
    )
    parser.add_argument("--llvm", action="store_true", help="also print its LLVM IR")
    parser.add_argument("--asm", action="store_true", help="also print its assembly")
    arguments.add_stage_of_training(parser)
    arguments.add_target(parser)


def run(options: argparse.Namespace) -> None:
    """Prints what has become of a node."""
    from ...compiler.cost_model import cheapest
    from ...compiler.driver import Options
    from ...compiler.explain import explain
    from ...compiler.llvm.target import Target
    from ..suggest import unknown
    from ..tuning import Tuner
    from .network import graph_of

    graph = graph_of(options, contents=False)
    origins = [o.name for n in graph.nodes() for o in n.origins]
    known = dict.fromkeys([*origins, *(n.name for n in graph.nodes())])
    if not any(k == options.node or k.startswith(f"{options.node}.") for k in known):
        raise UsageError(unknown("node", options.node, known, graph.name))
    target = Target.named(options.target) if options.target else Target.host()
    choose = Tuner().choose if options.tune else cheapest
    chosen = Options(target, algorithms=options.algorithms, choose=choose)
    print(explain(graph, options.node, chosen).text(options.llvm, options.asm))
