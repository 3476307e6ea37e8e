"""Shows how far back in time gradients reach: in an RNN, an LSTM and a GRU.

    python examples/gradients_through_time.py [--length 100] [--plot flow.svg]

The networks are as they begin, before any training. The loss is the last output; the numbers are
the norms of its gradient by the states that steps read. An LSTM whose gates f begin near 1 keeps
what it is told, one with the usual contents does not. The second table is of an RNN with recurrent
weights four times as large: its gradients explode, so that one step of training would throw the
weights far away unless the gradient is clipped.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import quern as qn
from quern import nn
from quern.compiler.tensor import Tensor
from quern.frontends.gradient_flow import GradientFlow

Array = np.ndarray[Any, Any]

INPUT, HIDDEN, ROWS = 8, 32, 4


def network(name: str) -> nn.RNN | nn.LSTM | nn.GRU:
    """A layer with its usual initial contents; those of "LSTM open" have gates f near 1."""
    kinds = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}
    layer = kinds[name.split()[0]](INPUT, HIDDEN)
    if name.endswith("open"):
        layer.bias_ih_l0.data[HIDDEN : 2 * HIDDEN] = 4.0
    return layer


def flow_of(layer: Any, x: Array) -> GradientFlow:
    def last(x: Tensor) -> Tensor:
        output: Tensor = layer(x)[0]
        return output[-1].sum()

    return qn.gradient_flow(last, x)


def main() -> None:
    parser = argparse.ArgumentParser(description="Norms of gradients through time.")
    parser.add_argument("--length", type=int, default=100)
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--plot", metavar="FILE", help=".png, .svg or .pdf")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    x = np.random.default_rng(options.seed).standard_normal((options.length, ROWS, INPUT))
    x = 0.1 * x.astype(np.float32)
    flows = {}
    for name in ("RNN", "LSTM", "LSTM open", "GRU"):
        qn.manual_seed(options.seed)
        flows[name] = flow_of(network(name), x)
    print(GradientFlow.beside(flows))

    qn.manual_seed(options.seed)
    large = nn.RNN(INPUT, HIDDEN)
    large.weight_hh_l0.data = 4 * large.weight_hh_l0.data
    exploding = flow_of(large, x)
    clipped = exploding.clipped(options.clip)
    print(f"\nan RNN with larger weights, as it is and clipped to {options.clip:g}:")
    print(GradientFlow.beside({"": exploding, "clipped": clipped}))
    print(f"norm of its gradient by all parameters: {exploding.total:.3g}, {clipped.total:.3g}")
    if options.plot:
        every = GradientFlow.beside(
            {**flows, "large RNN": exploding, "large RNN, clipped": clipped}
        )
        print(f"wrote {every.plot(options.plot)}")


if __name__ == "__main__":
    main()
