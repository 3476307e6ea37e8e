"""`Trainer`: a module, a loss and an optimizer, compiled to a training step and run over data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.cost_model import cheapest
from ...compiler.diagnosis import first_non_finite
from ...compiler.driver import Options
from ...compiler.errors import TrainingError, UsageError
from ...compiler.guard import FINITE
from ...compiler.passes.checkpoint import Checkpoint as Recomputed
from ...compiler.passes.checkpoint import Wanted
from ...compiler.passes.checkpoint_steps import CheckpointSteps
from ...compiler.types import Array
from ...runtime.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ...runtime.data import (
    Batch,
    Batches,
    Inputs,
    Targets,
    Transform,
    map_targets,
    named_targets,
    row_count,
)
from ...runtime.executable import Executable
from ...runtime.log import Record
from ...runtime.progress import display
from ...runtime.training import Callback, EarlyStopping, Loop, Values
from ..nn.module import Module
from ..nn.state import Parameter
from ..nn.structure import map_structure
from ..optim.optimizer import STEP, Optimizer
from ..optim.schedules import PLATEAU
from ..tuning import Tuner
from .data import Data, as_rows, as_splits, evaluation_batches, rows_of, training_batches
from .graphs import Signature
from .metrics import first
from .objective import Loss, Metrics, Objective
from .programs import Program, Programs


class Trainer:
    """Trains a module.

    A training step (forward, backward, update of all states) is one compiled graph and one native
    call. The module's arrays and those of the executables are the same memory: its state dict
    always shows how far training is, and a state dict that is loaded into it is what training goes
    on from. The same seed, data and calls give the same bits, for any number of threads.

    When the loss or a gradient is not finite, training stops, every state is as it was before that
    step, and the error names the first value that is not finite.

    Arguments:
        model: the module.
        loss: what is made small: a module or function of (outputs, targets), the name of a loss
            function ("cross_entropy"), or several of these, listed or by name, whose sum counts.
            Where each row has several targets, modules and named functions are of one output and
            its target each: of those at the same place of the list, or of the same name.
        optimizer: from `quern.optim`.
        metrics: what else is reported: names ("accuracy", "top_5_accuracy", "precision", "recall",
            "f1", "mean_iou", "mae", "rmse", any loss), or functions of (outputs, targets) by name.
            By default the accuracy, where the targets are classes. Those of classes follow from all
            rows; means over classes are over those that occur. A function gives one float, whose
            mean over rows is reported.
        threads: that run the steps; QUERN_NUM_THREADS or the usable processors by default.
        seed: of the order of the rows, of transforms and of dropout.
        accumulate: parts that each batch is cut into. They go through the network one after the
            other and take the memory of one; their gradients are added up, and the parameters are
            moved once. That gives the numbers of the whole batch, but for what its rows have in
            common in training, such as batch norm's statistics.
        average: how much stays in a step of a moving average of the parameters, 0.999 for the last
            thousand steps or so. What is evaluated, predicted with and saved is then the network
            with the averages, while training goes on from the parameters themselves.
        parameters: those that are learned, `generator.parameters()`; the others stay as they are,
            though gradients flow through them. All that are not frozen by default. Trainers may
            share modules: each goes on from what the others have made of them.
        watch_gradients: False looks at the loss alone, which is a little faster; a gradient that is
            not finite then ruins the model before the next loss tells of it.
        recompute: what a step computes again in its backward pass, to take less memory: a number of
            segments, "1.5 GB", names of modules, or True; see `checkpoint` of `quern.compile`.
        recompute_every: steps of recurrences that are computed again at a time; see
            `checkpoint_every` of `quern.compile`.
        algorithms: "fastest", or "direct" for convolutions by neither Winograd's algorithm nor
            Strassen's; see `quern.compile`.
        tune: choose algorithms by measuring them on this machine; see `quern.compile`.
    """

    def __init__(
        self,
        model: Module,
        *,
        loss: Loss,
        optimizer: Optimizer,
        metrics: Metrics = None,
        threads: int | None = None,
        seed: int = 0,
        accumulate: int = 1,
        average: float | None = None,
        parameters: Iterable[Parameter] | None = None,
        watch_gradients: bool = True,
        recompute: Wanted | None = None,
        recompute_every: int | None = None,
        algorithms: str = "fastest",
        tune: bool = False,
    ) -> None:
        if not isinstance(model, Module):
            raise UsageError(f"a Trainer trains an nn.Module, this is {type(model).__name__}")
        if not isinstance(optimizer, Optimizer):
            raise UsageError(f"{optimizer!r} is no optimizer; take one of quern.optim")
        self.model = model
        self.optimizer = optimizer
        self.seed = seed
        objective = Objective.of(loss, metrics)
        options = Options(
            algorithms=algorithms,
            checkpoint=Recomputed.of(recompute),
            checkpoint_steps=CheckpointSteps.of(recompute_every),
            choose=Tuner(threads).choose if tune else cheapest,
        )
        learned = None if parameters is None else frozenset(parameters)
        self._programs = Programs(
            model,
            objective,
            optimizer,
            threads,
            seed,
            learned,
            watch_gradients,
            options,
            accumulate,
            average,
        )
        self._signature: Signature | None = None
        self._names = list(signature(model.forward).parameters)

    # -- training ---------------------------------------------------------------------------------

    def fit(
        self,
        data: Data,
        epochs: int | None = None,
        *,
        validation: Data | None = None,
        batch_size: int = 64,
        transform: Transform | None = None,
        steps: int | None = None,
        early_stopping: EarlyStopping | int | None = None,
        log: str | Path | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_every: int | None = None,
        resume: bool = False,
        callbacks: Sequence[Callback] = (),
        quiet: bool = False,
    ) -> list[Record]:
        """Trains for a number of epochs or steps.

        Every epoch goes through the rows in a new order that the seed gives, in full batches: rows
        that do not fill one are left out of that epoch.

        Arguments:
            data: arrays (x, y), where x may be a tuple or dict of inputs and y one of targets, a
                Dataset, Splits, Batches, or the name of data ("digits"). Batches keep their own
                size, order and transform.
            epochs: to be done in all; 1 where `steps` is not given either.
            validation: data to evaluate after every epoch; the test part where `data` has one.
            batch_size: rows of a step; all rows where there are fewer.
            transform: of the batches to learn from, see `Batches`.
            steps: to be done in all.
            early_stopping: when to end before that; a number is its patience.
            log: `.csv` or `.jsonl` file with a line for every epoch.
            checkpoint: file that a run can go on from, written after every epoch and at the end,
                also after Ctrl-C.
            checkpoint_every: number of steps after which it is written too.
            resume: go on from `checkpoint`, to the same bits as without interruption; from the
                start where there is no such file yet.
            callbacks: called with the `Run` after every step and epoch; one that returns True ends
                training.
            quiet: show nothing.

        Returns:
            A record of every epoch: epoch, step, loss, metrics, `val_` loss and metrics,
            learning_rate, samples_per_second, seconds.

        Raises:
            TrainingError: loss or gradients are not finite; a checkpoint is of another run.
            QuernError: data, network and loss do not fit each other.
        """
        self._programs.refresh()
        rows, held_out = as_splits(data, self._names)
        batches = training_batches(rows, batch_size, self.seed, transform, self._programs.dtype)
        judged_by = held_out if validation is None else as_rows(validation, self._names)
        programs = self._step_programs(next(batches.batches(0)))

        def validate() -> Values:
            assert judged_by is not None
            return self.evaluate(judged_by, batches.batch_size)

        if isinstance(early_stopping, int):
            early_stopping = EarlyStopping(early_stopping)
        shown = display(quiet)
        shown.say(str(programs[-1].executable.memory))
        return Loop(
            batches,
            step=lambda batch: self._step(programs, batch),
            figures=self._figures,
            state=self._programs.lasting,
            identity=self._identity(batches),
            epochs=1 if epochs is None and steps is None else epochs,
            steps=steps,
            validate=validate if judged_by is not None else None,
            about=lambda: {"learning_rate": self._learning_rate()},
            learn=self._adapt,
            early_stopping=early_stopping,
            log=log,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            resume=resume,
            callbacks=callbacks,
            display=shown,
        ).run()

    def step(self, x: Any, y: Any) -> Values:
        """One step on one batch.

        Arguments:
            x: inputs, (rows, …), or a tuple or dict of them.
            y: targets, (rows, …), or a tuple or dict of them.

        Returns:
            Loss and metrics of the batch, before the step.

        Raises:
            TrainingError: loss or gradients are not finite; nothing has changed then.
        """
        self._programs.refresh()
        (batch,) = evaluation_batches(
            as_rows((x, y), self._names), None, self._programs.dtype
        ).batches(0)
        return self._figures(self._step(self._step_programs(batch), batch))

    def evaluate(self, data: Data, batch_size: int = 64) -> Values:
        """Loss and metrics over all rows, in inference mode; of data with a test part, over that.

        Each batch counts with the number of its rows.
        """
        self._programs.refresh()
        rows, held_out = as_splits(data, self._names)
        batches = evaluation_batches(held_out or rows, batch_size, self._programs.dtype)
        net = self._network(batches)
        totals: dict[str, Any] = {}
        for batch in batches.batches(0):
            outputs = {k: _real(v, batch) for k, v in self._run(net, batch.inputs).items()}
            targets = map_targets(partial(_real, batch=batch), self._targets(batch))
            for name, value in self._programs.measure(net, outputs, targets).items():
                totals[name] = totals.get(name, 0.0) + value.astype(np.float64) * batch.count
        return self._figures({name: t / len(batches.dataset) for name, t in totals.items()})

    def predict(self, x: Any, batch_size: int = 64) -> Any:
        """The network's outputs in inference mode, for any number of rows.

        Arguments:
            x: inputs, (rows, …), or a tuple or dict of them.

        Returns:
            What the network returns, with arrays (rows, …) in place of tensors.
        """
        self._programs.refresh()
        batches = evaluation_batches(rows_of(x, self._names), batch_size, self._programs.dtype)
        net = self._network(batches)
        parts = [
            {k: _real(v, batch) for k, v in self._run(net, batch.inputs).items()}
            for batch in batches.batches(0)
        ]
        joined = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
        return map_structure(net.traced.result, lambda _, name: name and joined[name])

    def confusion_matrix(self, data: Data, batch_size: int = 64) -> Array:
        """How many rows (or pixels) of each class are taken for each: int64 (C, C), the true class
        first; of data with a test part, over that. What has no class (below 0) is left out.

        Raises:
            UsageError: the targets are no classes of the network's first output (N, C, …).
        """
        rows, held_out = as_splits(data, self._names)
        batches = evaluation_batches(held_out or rows, batch_size, self._programs.dtype)
        truth = batches.dataset.targets
        logits = first(self.predict(batches.dataset.inputs, batches.batch_size), np.ndarray)
        guess = logits.argmax(1)
        if not (isinstance(truth, np.ndarray) and truth.shape == guess.shape):
            raise UsageError(f"for outputs {logits.shape} the classes are {guess.shape}")
        known = truth >= 0
        result = np.zeros((logits.shape[1],) * 2, np.int64)
        np.add.at(result, (truth[known], guess[known]), 1)
        return result

    # -- what comes out ---------------------------------------------------------------------------

    def executable(self, batch_size: int = 1) -> Executable:
        """The network for inference, compiled for a number of rows.

        It works on the module's own arrays: after more training, call this again.

        Raises:
            UsageError: no data has been seen, so the shapes are not known.
        """
        if self._signature is None:
            raise UsageError("shapes are not known before there is data: call fit, step or predict")
        return self._programs.network(self._signature, batch_size).executable

    def save(self, path: str | Path, batch_size: int = 1) -> Path:
        """Writes the network, compiled for inference of `batch_size` rows, to a `.qn` file."""
        return self.executable(batch_size).save(path)

    def save_checkpoint(self, path: str | Path) -> Path:
        """Writes all states of training, the optimizer's included; `fit` can do this by itself."""
        self._programs.refresh()
        return save_checkpoint(Checkpoint(self._programs.lasting), path)

    def load_checkpoint(self, path: str | Path) -> None:
        """Takes all states of training from a checkpoint.

        Raises:
            ArtifactError: the file is damaged or no checkpoint.
            TrainingError: it is of another network or optimizer.
        """
        self._programs.load(load_checkpoint(path).state, path)

    def averaged_state_dict(self) -> dict[str, Array]:
        """The model's state dict, with the moving averages in place of parameters."""
        self._programs.refresh()
        averages = self._programs.averages()
        return {k: averages.get(k, array).copy() for k, array in self.model.state_dict().items()}

    # -- inside -----------------------------------------------------------------------------------

    def _step_programs(self, batch: Batch) -> list[Program]:
        part = next(batch.parts(self._programs.parts))
        programs = self._programs.step(self._inputs(part.inputs), self._targets(part))
        self._signature = programs[-1].signature
        return programs

    def _step(self, programs: Sequence[Program], batch: Batch) -> dict[str, Array]:
        """What the figures of a batch follow from."""
        self._programs.sync()
        if len(programs) == 1:
            return self._part(programs[0], batch)
        parts = batch.parts(len(programs))
        with self._programs.undone_on_error(programs[0]):
            values = [self._part(*pair) for pair in zip(programs, parts, strict=True)]
        return {name: np.mean([each[name] for each in values], 0) for name in values[0]}

    def _part(self, program: Program, batch: Batch) -> dict[str, Array]:
        inputs = program.signature.arrays(self._inputs(batch.inputs))
        arrays = [*inputs, *named_targets(self._targets(batch)).values()]
        results = program.run(arrays)
        if not results[FINITE]:
            raise self._failure(program, arrays, results, batch)
        return {name: results[name].astype(np.float64) for name in program.traced.result}

    def _adapt(self, record: Record) -> None:
        """The learning rate depends on how training goes."""
        rule = self.optimizer.schedule.plateau
        if rule is not None:
            state = self._programs.arrays[PLATEAU]
            state[...] = rule.after(state, record)

    def _learning_rate(self) -> float:
        return self.optimizer.lr_at(self._steps_done() - 1, self._programs.arrays)

    def _figures(self, means: Mapping[str, Array]) -> Values:
        return {k: self._programs.objective.value(k, mean) for k, mean in means.items()}

    def _failure(
        self, program: Program, arrays: Sequence[Array], results: dict[str, Array], batch: Batch
    ) -> TrainingError:
        graph = program.traced.graph
        feeds = {**self._programs.arrays, **program.feeds(arrays)}
        first = first_non_finite(graph, feeds, graph.outputs[FINITE])
        loss = float(results["loss"])
        what = "a gradient is not finite" if np.isfinite(loss) else f"the loss is {loss}"
        return TrainingError(
            f"{what} in step {self._steps_done() + 1} (epoch {batch.epoch + 1}, "
            f"batch {batch.index + 1}); the first such value is {first or 'not found by NumPy'}. "
            "The model is as it was before this step; lower the learning rate or clip gradients"
        )

    def _network(self, batches: Batches) -> Program:
        self._signature = self._programs.signature(self._inputs(next(batches.batches(0)).inputs))
        return self._programs.network(self._signature, batches.batch_size)

    def _run(self, net: Program, inputs: Inputs) -> dict[str, Array]:
        return net.run(net.signature.arrays(self._inputs(inputs)))

    def _inputs(self, inputs: Inputs) -> Inputs:
        if isinstance(inputs, dict):
            return {name: self._converted(array) for name, array in inputs.items()}
        assert isinstance(inputs, np.ndarray)
        return self._converted(inputs)

    def _targets(self, batch: Batch) -> Targets:
        return map_targets(self._converted, batch.targets)

    def _converted(self, array: Array) -> Array:
        """Floats of the network's own type."""
        return array.astype(self._programs.dtype, copy=False) if array.dtype.kind == "f" else array

    def _steps_done(self) -> int:
        return int(self._programs.arrays[STEP])

    def _identity(self, batches: Batches) -> dict[str, Any]:
        """What a run that goes on must share with the one that wrote its checkpoint."""
        return {
            "model": type(self.model).__name__,
            "optimizer": repr(self.optimizer),
            "losses": list(self._programs.objective.losses),
            "seed": self.seed,
            "rows": len(batches.dataset),
            "batch size": batches.batch_size,
        }


def _real(array: Array, batch: Batch) -> Array:
    """Without the rows that fill up a last batch."""
    rows = row_count(batch.targets)
    return array[: batch.count] if batch.count < rows and array.shape[:1] == (rows,) else array
