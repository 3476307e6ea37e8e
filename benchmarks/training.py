"""Training steps (forward, backward, SGD with momentum 0.9): this project against PyTorch.

    python benchmarks/training.py [--networks resnet50 …] [--batch 16] [--threads 2] [--rounds 5]
                                  [--compiled] [--json FILE]

Batch 16, LeNet 64. Both sides train the declared graph of the network and its loss, with the same
weights, images and classes; GoogLeNet with its auxiliary classifiers, and no network with dropout,
so that losses can be compared. PyTorch takes its best forms: layers in place where torchvision has
them, fused SGD, eager, channels-last and, with --compiled, torch.compile. Ours is the step that
`qn.Trainer` runs, one native call, with the loss watched for NaN.

Before anything is timed, losses of two steps are compared, and what the first step did to every
parameter: its gradient times the learning rate (their norms, see LARGEST_ERROR). Peak memory is the
resident memory of the whole process at its highest, in a run of some steps (`running`) and since
its start, with building and compiling (`life`); `planned` is what our memory plan says, with
parameters and momenta.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import common
import numpy as np
from common import Array, Failed, Task, Worker, note

import quern as qn
from quern import nn
from quern.compiler.tensor import Tensor

NETWORKS = ("alexnet", "vgg16", "googlenet", "resnet50", "lenet28")
OURS = "quern"
RATE, MOMENTUM = 1e-3, 0.9
MEMORY_RUNS = 3
# Of the norm of an update. Deep networks with batch norm have ill-conditioned gradients: PyTorch's
# own modes differ by some percent, and nobody has to be closer to one of them than the others are.
LARGEST_ERROR, TIMES_PEERS = 2e-2, 3.0


def lenet28() -> nn.Module:
    """LeNet for digits of 28×28 pixels, with rectifiers and maximum pooling."""
    module = nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(3136, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )
    common.fill(module)
    return module


def loss(outputs: Any, target: Tensor) -> Tensor:
    """Cross-entropy; the auxiliary classifiers of GoogLeNet count 0.3."""
    if isinstance(outputs, Tensor):
        return nn.functional.cross_entropy(outputs, target)
    total = nn.functional.cross_entropy(outputs[0], target)
    for auxiliary in outputs[1:]:
        total = total + nn.functional.cross_entropy(auxiliary, target) * 0.3
    return total


def loss_graph(module: nn.Module, x: Array, y: Array) -> qn.Graph:
    """The declared graph of a network in training and its loss."""

    def forward(image: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"loss": loss(module(image), target)}

    return qn.trace(forward, qn.spec(x), qn.spec(y), training=True)


def problem(name: str, batch: int) -> tuple[nn.Module, Array, Array]:
    """A network, images, and classes."""
    rng = np.random.default_rng(2)
    if name == "lenet28":
        images = rng.standard_normal((batch, 1, 28, 28), np.float32)
        return lenet28(), images, rng.integers(0, 10, batch)
    return common.network(name), common.image(name, batch), rng.integers(0, 1000, batch)


def changes(after: Mapping[str, Array], before: Mapping[str, Array]) -> dict[str, Array]:
    """What a step did to some parameters, by their names in order."""
    keys = sorted(k for k in after if not k.endswith(("running_mean", "running_var", "tracked")))
    return {k: after[k] - before[k] for k in (*keys[-2:], *keys[:: max(1, len(keys) // 12)])}


class Training(ABC):
    """A network in training; subclasses say how a step is made."""

    def __init__(self, name: str, batch: int, *, threads: int) -> None:
        self.module, self.x, self.y = problem(name, batch)
        self.threads = threads
        self.planned: float | None = None

    @abstractmethod
    def parameters(self) -> Mapping[str, Array]:
        """Their contents now."""

    @abstractmethod
    def step(self) -> float:
        """One step; the loss before it."""

    def outputs(self) -> Mapping[str, Array]:
        before = {k: v.copy() for k, v in self.parameters().items()}
        first = self.step()
        changed = changes(self.parameters(), before)
        return {**changed, "loss 1": np.array(first), "loss 2": np.array(self.step())}


class Quern(Training):
    """The step of a Trainer."""

    def __init__(self, name: str, batch: int, *, threads: int) -> None:
        super().__init__(name, batch, threads=threads)
        self.module.train()
        optimizer = qn.optim.SGD(lr=RATE, momentum=MOMENTUM)
        trainer = qn.Trainer(
            self.module,
            loss=loss,
            optimizer=optimizer,
            metrics={},
            threads=threads,
            watch_gradients=False,
        )
        self._trainer = trainer
        (self._program,) = trainer._programs.step(self.x, self.y)
        program = self._program.executable.program
        states = sum(t.nbytes for _, t in program.states)
        self.planned = (program.arena_bytes + states) / 1e6

    def parameters(self) -> Mapping[str, Array]:
        return self.module.state_dict()

    def step(self) -> float:
        return float(self._program.run([self.x, self.y])["loss"])


class Torch(Training):
    """PyTorch: `eager`, `channels-last` or `compiled`."""

    def __init__(self, mode: str, name: str, batch: int, *, threads: int) -> None:
        import peers_torch
        import torch

        super().__init__(name, batch, threads=threads)
        torch.set_num_threads(threads)
        graph = loss_graph(self.module, self.x, self.y)
        self._keys = {k.replace(".", "_"): k for k in self.module.state_dict()}
        module: Any = peers_torch.module_of(graph)
        x, self._y = torch.from_numpy(self.x), torch.from_numpy(self.y)
        if mode != "eager":
            module = module.to(memory_format=torch.channels_last)
            x = x.to(memory_format=torch.channels_last)
        self._own, self._x = module, x
        self._module = torch.compile(module) if mode == "compiled" else module
        self._optimizer = torch.optim.SGD(
            module.parameters(), lr=RATE, momentum=MOMENTUM, fused=True
        )
        del self.module, graph  # what channels-last has copied is not needed twice

    def parameters(self) -> Mapping[str, Array]:
        named = self._own.named_parameters()
        return {self._keys[k]: p.detach().numpy() for k, p in named}

    def step(self) -> float:
        result = self._module(self._x, self._y)["loss"]
        self._optimizer.zero_grad(set_to_none=True)
        result.backward()
        self._optimizer.step()
        return float(result.detach())


def tasks(options: argparse.Namespace, name: str, batch: int) -> dict[str, Task]:
    """The runtimes by name, ours first."""
    made = {OURS: Task(Quern, (name, batch), options.threads)}
    modes = {"torch": "eager", "channels-last": "channels-last"}
    if options.compiled:
        modes["compiled"] = "compiled"
    for title, mode in modes.items():
        made[title] = Task(Torch, (mode, name, batch), options.threads)
    return made


def compare(workers: Mapping[str, Worker]) -> dict[str, dict[str, float]]:
    """Relative errors of loss and updates against eager PyTorch, the largest of all parameters."""
    found: dict[str, Mapping[str, Array]] = {}
    for name, worker in workers.items():
        try:
            found[name] = worker.ask("outputs")
        except Failed as reason:
            note(f"  {name} failed: {reason}")
    reference = found.get("torch") or next(iter(found.values()), {})
    errors = {}
    for name, outputs in found.items():
        kinds: dict[str, Callable[[str], bool]] = {
            "loss": lambda k: k.startswith("loss"),
            "update": lambda k: not k.startswith("loss"),
        }
        errors[name] = {
            kind: common.distance(_only(outputs, within), _only(reference, within))
            for kind, within in kinds.items()
        }
    listed = (f"{n} {e['loss']:.1e} {e['update']:.1e}" for n, e in errors.items())
    note(f"  largest errors against torch (loss, update): {', '.join(listed)}")
    return errors


def _only(outputs: Mapping[str, Array], within: Callable[[str], bool]) -> dict[str, Array]:
    return {k: v for k, v in outputs.items() if within(k)}


def measure(options: argparse.Namespace, name: str, batch: int) -> dict[str, Any]:
    """All figures of one network."""
    with common.started(tasks(options, name, batch)) as workers:
        errors = compare(workers)
        timed = [w for n, w in workers.items() if n in errors]
        between_peers = max((max(e.values()) for n, e in errors.items() if n != OURS), default=0.0)
        most = max(LARGEST_ERROR, TIMES_PEERS * min(between_peers, 0.1))
        for wrong in [n for n, e in errors.items() if not max(e.values()) <= most]:
            note(f"  {wrong} IS WRONG and is not timed")
            timed = [w for w in timed if w.name != wrong]
        common.interleave(timed, options.rounds, "turn", options.seconds)
        memory = {w.name: w.ask("peak", MEMORY_RUNS) for w in timed}
        planned = workers[OURS].ask("get", "planned") if OURS in workers else None
    medians = {w.name: w.median for w in timed if w.times}
    peers = {n: t for n, t in medians.items() if n != OURS}
    best = min(peers, key=peers.__getitem__, default=None)
    both = best is not None and OURS in medians
    return {
        "network": name,
        "batch": batch,
        "milliseconds": {n: 1e3 * t for n, t in medians.items()},
        "fastest": {w.name: 1e3 * min(w.times) for w in timed if w.times},
        "runs": {w.name: len(w.times) for w in timed},
        "disturbance": {w.name: w.disturbance / max(w.timed, 1e-9) for w in timed},
        "errors": errors,
        "memory": memory,
        "planned": planned,
        "best_peer": best,
        "ratio": peers[best] / medians[OURS] if best and both else None,
        "memory_ratio": {
            kind: memory[OURS][kind] / min(m[kind] for n, m in memory.items() if n != OURS)
            for kind in ("running", "life")
        }
        if both
        else {},
    }


def report(results: list[dict[str, Any]]) -> float:
    """Prints both tables; gives the geometric mean of the ratios."""
    names = list(dict.fromkeys(n for r in results for n in r["milliseconds"]))
    print()
    common.print_table(
        ["ms a step (medians)", "batch", *names, "best peer", "best peer/ours"],
        [
            [
                r["network"],
                r["batch"],
                *(r["milliseconds"].get(n) for n in names),
                r["best_peer"],
                r["ratio"],
            ]
            for r in results
        ],
    )
    mean = common.geometric_mean(r["ratio"] for r in results if r["ratio"])
    print(f"geometric mean of best peer / ours: {mean:.3f}\n")
    common.print_table(
        ["MB, running (life)", *names, "planned", "ours/least peer"],
        [
            [
                r["network"],
                *(_memory(r["memory"].get(n)) for n in names),
                r["planned"],
                r["memory_ratio"].get("running"),
            ]
            for r in results
        ],
    )
    worst = max((max(r["disturbance"].values(), default=0.0) for r in results), default=0.0)
    print(f"processor time of waiting runtimes during a turn: at most {100 * worst:.1f} %")
    return mean


def _memory(peak: Mapping[str, float] | None) -> str:
    return f"{peak['running']:.0f} ({peak['life']:.0f})" if peak else "-"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common.add_options(parser, NETWORKS)
    parser.add_argument("--batch", type=int, help="16; 64 for LeNet")
    parser.add_argument("--compiled", action="store_true", help="torch.compile too (slow to start)")
    options = parser.parse_args()
    results = []
    for name in options.networks:
        batch = options.batch or (64 if name.startswith("lenet") else 16)
        note(f"{name}, batch {batch}, {options.threads} threads")
        results.append(measure(options, name, batch))
    mean = report(results)
    common.write_json(options.json, {"results": results, "geometric_mean": mean}, options)


if __name__ == "__main__":
    main()
