"""Recurrent networks, inference and training steps: this project, PyTorch and ONNX Runtime.

    python benchmarks/recurrent.py [--cases 50,32,128,256,2 …] [--threads 1 2] [--rounds 5]
                                   [--only inference] [--json FILE]

A case is steps, batch, features, hidden units, layers of an LSTM, or of the cell before them, as in
GRU:50,1,128,256,1; one step stands for generation, with the states going in and out. All runtimes
have the same weights, sequences and states. A training step is forward, backward and SGD on the
mean square of the outputs; ONNX Runtime does not train. It is given a file of LSTM, GRU or RNN
nodes, which are its fused operators.

Before anything is timed, outputs are compared; of a training step the losses of two steps, and
what the first one did to every parameter.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import common
import numpy as np
from common import Array, Failed, Task, Worker, note

import quern as qn
from quern import nn
from quern.compiler.tensor import Tensor
from quern.compiler.training import build_training_step

OURS = "quern"
RATE = 10.0
LARGEST_ERROR = {"inference": 1e-5, "training": 1e-3}
CASES = (
    "1,1,128,256,1",
    "50,1,128,256,1",
    "50,32,128,256,2",
    "100,32,65,512,2",
    "200,8,256,1024,1",
)


@dataclass(frozen=True)
class Case:
    """Extents of a network and its input."""

    steps: int
    batch: int
    features: int
    hidden: int
    layers: int
    cell: str = "LSTM"

    @staticmethod
    def of(text: str) -> Case:
        """From five numbers with commas between them, perhaps with the cell before them."""
        cell, _, numbers = text.rpartition(":")
        return Case(*map(int, numbers.split(",")), cell=cell or "LSTM")

    @property
    def states(self) -> str:
        """A letter for each state."""
        return "hc" if self.cell == "LSTM" else "h"

    def __str__(self) -> str:
        sizes = f"T{self.steps} B{self.batch} I{self.features} H{self.hidden} L{self.layers}"
        return f"{self.cell} {sizes}"

    def weights(self) -> dict[str, Array]:
        """By PyTorch's names."""
        rng = np.random.default_rng(0)
        module = getattr(nn, self.cell)(self.features, self.hidden, self.layers)
        state = module.state_dict()
        size = self.hidden**-0.5
        return {k: rng.uniform(-size, size, a.shape).astype(np.float32) for k, a in state.items()}

    def feeds(self) -> dict[str, Array]:
        """The sequence; for generation the states, too."""
        rng = np.random.default_rng(1)
        state = (self.layers, self.batch, self.hidden)
        shapes = {"x": (self.steps, self.batch, self.features)}
        shapes |= dict.fromkeys(self.states, state) if self.generates else {}
        return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}

    @property
    def generates(self) -> bool:
        return self.steps == 1


def own_module(case: Case) -> nn.RNN | nn.LSTM | nn.GRU:
    """Our network."""
    module: nn.RNN | nn.LSTM | nn.GRU = getattr(nn, case.cell)(
        case.features, case.hidden, case.layers
    )
    module.load_state_dict(case.weights())
    return module


def torch_module(case: Case, threads: int) -> Any:
    """PyTorch's network."""
    import torch

    torch.set_num_threads(threads)
    module = getattr(torch.nn, case.cell)(case.features, case.hidden, case.layers)
    module.load_state_dict({k: torch.from_numpy(a) for k, a in case.weights().items()})
    return module


# -- inference ------------------------------------------------------------------------------------


class Quern:
    """Our inference."""

    def __init__(self, case: Case, *, threads: int) -> None:
        module, self.feeds = own_module(case).eval(), case.feeds()

        def forward(x: Tensor, *states: Tensor) -> dict[str, Tensor]:
            y, ends = module(x, given(states))
            return {"y": y} | (named(case, ends) if states else {})

        specs = [qn.spec(a) for a in self.feeds.values()]
        self._run = qn.compile(forward, *specs, threads=threads)

    def outputs(self) -> Mapping[str, Array]:
        return self._run.run(dict(zip(self._run.inputs, self.feeds.values(), strict=True)))

    def step(self) -> object:
        return self._run(*self.feeds.values())


class Torch:
    """PyTorch's inference."""

    def __init__(self, case: Case, *, threads: int) -> None:
        import torch

        self._torch, self._module = torch, torch_module(case, threads).eval()
        self._case = case
        self._x, *self._states = (torch.from_numpy(a) for a in case.feeds().values())

    def outputs(self) -> Mapping[str, Array]:
        y, ends = self.step()
        found = {"y": y} | (named(self._case, ends) if self._states else {})
        return {name: t.numpy() for name, t in found.items()}

    def step(self) -> Any:
        with self._torch.inference_mode():
            return self._module(self._x, given(self._states))


def given(states: Sequence[Any]) -> Any:
    """Initial states as modules take them."""
    return (states[0] if len(states) == 1 else tuple(states)) if states else None


def named(case: Case, ends: Any) -> dict[str, Any]:
    """Final states by their letters."""
    return dict(zip(case.states, ends if len(case.states) > 1 else (ends,), strict=True))


class OnnxRuntime:
    """ONNX Runtime's inference."""

    def __init__(self, case: Case, *, threads: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        model = onnx_file(case)
        providers = ["CPUExecutionProvider"]
        self._session = ort.InferenceSession(model, options, providers=providers)
        self._feeds = case.feeds()
        self._names = [o.name for o in self._session.get_outputs()]

    def outputs(self) -> Mapping[str, Array]:
        return dict(zip(self._names, self.step(), strict=True))

    def step(self) -> Any:
        return self._session.run(None, self._feeds)


def onnx_file(case: Case) -> bytes:
    """An ONNX file with one node for each layer."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], [numpy_helper.from_array(np.array([1]), "axis")]
    weights, value, ends = case.weights(), "x", [[] for _ in case.states]
    fixed = {"linear_before_reset": 1} if case.cell == "GRU" else {}
    for i in range(case.layers):
        parts = {
            "W": _gates(case, weights[f"weight_ih_l{i}"])[None],
            "R": _gates(case, weights[f"weight_hh_l{i}"])[None],
            "B": np.concatenate([_gates(case, weights[f"bias_{k}_l{i}"]) for k in ("ih", "hh")])[
                None
            ],
        }
        constants += [numpy_helper.from_array(a, f"{k}{i}") for k, a in parts.items()]
        reads = [value, *(f"{k}{i}" for k in parts)]
        if case.generates:
            reads += ["", *(f"{state}{i}" for state in case.states)]
        writes = [f"Y{i}", *(f"{state.upper()}{i}" for state in case.states)]
        nodes.append(helper.make_node(case.cell, reads, writes, hidden_size=case.hidden, **fixed))
        value = "y" if i == case.layers - 1 else f"y{i}"
        nodes.append(helper.make_node("Squeeze", [f"Y{i}", "axis"], [value]))
        for end, name in zip(ends, writes[1:], strict=True):
            end.append(name)
    outputs = {"y": (case.steps, case.batch, case.hidden)}
    if case.generates:
        state = (case.layers, case.batch, case.hidden)
        for name, end in zip(case.states, ends, strict=True):
            parts_of = [f"{name}{i}" for i in range(case.layers)]
            nodes.insert(
                0, helper.make_node("Split", [name], parts_of, axis=0, num_outputs=len(parts_of))
            )
            nodes.append(helper.make_node("Concat", end, [f"{name}.end"], axis=0))
            outputs[f"{name}.end"] = state
    inputs = {name: a.shape for name, a in case.feeds().items()}
    values = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in named.items()]
        for named in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, case.cell, *values, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


def _gates(case: Case, weight: Array) -> Array:
    """Gates in ONNX's order: (i, o, f, c) for PyTorch's (i, f, g, o), (z, r, h) for (r, z, n)."""
    order = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}[case.cell]
    parts = np.split(weight, len(order))
    return np.concatenate([parts[i] for i in order])


# -- training -------------------------------------------------------------------------------------


class QuernTraining:
    """Our training step."""

    def __init__(self, case: Case, *, threads: int) -> None:
        module, self._x = own_module(case), case.feeds()["x"]
        graph = qn.trace(
            lambda x: {"loss": (module(x)[0] ** 2).mean()}, qn.spec(self._x), training=True
        )
        step = build_training_step(graph, "loss", qn.optim.SGD(lr=RATE))
        self._run = qn.compile(step, threads=threads)

    def outputs(self) -> Mapping[str, Array]:
        return two_steps(
            self, {n: a for n, a in self._run.state.items() if "weight" in n or "bias" in n}
        )

    def step(self) -> Any:
        return self._run(self._x)


class TorchTraining:
    """PyTorch's training step."""

    def __init__(self, case: Case, *, threads: int) -> None:
        import torch

        self._module = torch_module(case, threads)
        self._x = torch.from_numpy(case.feeds()["x"])
        self._optimizer = torch.optim.SGD(self._module.parameters(), lr=RATE, fused=True)

    def outputs(self) -> Mapping[str, Array]:
        return two_steps(self, {n: p.detach().numpy() for n, p in self._module.named_parameters()})

    def step(self) -> Any:
        loss = (self._module(self._x)[0] ** 2).mean()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        return loss.detach()


def two_steps(
    training: QuernTraining | TorchTraining, state: Mapping[str, Array]
) -> dict[str, Array]:
    """Losses of two steps, and what the first did to parameters."""
    before = {name: a.copy() for name, a in state.items()}
    first = np.asarray(training.step()).copy()
    changed = {name: a - before[name] for name, a in state.items()}
    return {**changed, "loss 1": first, "loss 2": np.asarray(training.step())}


# -- measuring ------------------------------------------------------------------------------------

RUNTIMES: Mapping[str, Mapping[str, Any]] = {
    "inference": {OURS: Quern, "torch": Torch, "onnxruntime": OnnxRuntime},
    "training": {OURS: QuernTraining, "torch": TorchTraining},
}


def measure(options: argparse.Namespace, case: Case, kind: str, threads: int) -> dict[str, Any]:
    """All figures of one network."""
    tasks = {name: Task(make, (case,), threads) for name, make in RUNTIMES[kind].items()}
    with common.started(tasks) as workers:
        errors = compare(workers)
        timed = [w for n, w in workers.items() if errors.get(n, 1.0) <= LARGEST_ERROR[kind]]
        for wrong in workers.keys() - {w.name for w in timed}:
            note(f"  {wrong} IS WRONG and is not timed")
        common.interleave(timed, options.rounds, "turn", options.seconds)
    medians = {w.name: w.median for w in timed if w.times}
    peers = {n: t for n, t in medians.items() if n != OURS}
    ratio = min(peers.values()) / medians[OURS] if peers and OURS in medians else None
    return {
        "case": str(case),
        "kind": kind,
        "threads": threads,
        "milliseconds": {n: 1e3 * t for n, t in medians.items()},
        "fastest": {w.name: 1e3 * min(w.times) for w in timed if w.times},
        "errors": errors,
        "ratio": ratio,
    }


def compare(workers: Mapping[str, Worker]) -> dict[str, float]:
    """Largest relative error of each runtime against PyTorch."""
    found = {}
    for name, worker in workers.items():
        try:
            outputs = worker.ask("outputs")
            found[name] = {key.removesuffix(".end"): value for key, value in outputs.items()}
        except Failed as reason:
            note(f"  {name} failed: {reason}")
    reference = found.get("torch") or next(iter(found.values()), {})
    errors = {name: common.difference(outputs, reference) for name, outputs in found.items()}
    note(f"  errors against torch: {', '.join(f'{n} {e:.1e}' for n, e in errors.items())}")
    return errors


def report(results: list[dict[str, Any]]) -> dict[str, float]:
    """Prints the tables; gives the geometric means of the ratios."""
    means = {}
    for kind in dict.fromkeys(r["kind"] for r in results):
        chosen = [r for r in results if r["kind"] == kind]
        names = list(RUNTIMES[kind])
        print()
        common.print_table(
            [f"{kind}, ms", "threads", *names, "best peer/ours"],
            [
                [r["case"], r["threads"], *(r["milliseconds"].get(n) for n in names), r["ratio"]]
                for r in chosen
            ],
        )
        means[kind] = common.geometric_mean(r["ratio"] for r in chosen if r["ratio"])
        print(f"geometric mean of best peer / ours: {means[kind]:.3f}")
    return means


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="T,B,I,H,L")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="(1 2)")
    parser.add_argument("--only", choices=RUNTIMES, help="not both of inference and training")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each runtime (5)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn (0.5)")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    results = []
    for kind in [options.only] if options.only else RUNTIMES:
        for text in options.cases:
            case = Case.of(text)
            if kind == "training" and case.generates:
                continue
            for threads in options.threads:
                note(f"{case}, {kind}, {threads} threads")
                results.append(measure(options, case, kind, threads))
    means = report(results)
    common.write_json(options.json, {"results": results, "geometric_means": means}, options)


if __name__ == "__main__":
    main()
