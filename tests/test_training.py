"""Training: a step, epochs, evaluation; the same bits however it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from trainers import Array, assert_same_bits, contents, small_net, spirals, stateful_net, trainer

import quern as qn
from quern import nn, optim
from quern.compiler.errors import DataError, ShapeError, UsageError
from quern.compiler.tensor import Tensor
from quern.runtime.data import Batches, Splits, from_arrays
from quern.runtime.training import EarlyStopping, Run


class TestStep:
    def test_a_step_of_gradient_descent_is_the_one_of_the_books(self) -> None:
        rng = np.random.default_rng(1)
        x, y = rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=(5, 2))
        layer = nn.Linear(3, 2)
        w, b = (array.astype(np.float64) for array in contents(layer).values())
        values = qn.Trainer(layer, loss="mse", optimizer=optim.SGD(0.1)).step(x, y)
        error = x @ w.T + b - y
        assert values == {"loss": pytest.approx(np.mean(error**2), rel=1e-6)}
        assert_allclose(layer.weight.data, w - 0.1 * (2 / 10) * error.T @ x, rtol=1e-5, atol=1e-7)
        assert_allclose(layer.bias.data, b - 0.1 * (2 / 10) * error.sum(0), rtol=1e-5, atol=1e-7)

    def test_accuracy_is_reported_where_targets_are_classes(self) -> None:
        x, y = spirals()
        model = small_net()
        values = trainer(model).step(x, y)
        assert set(values) == {"loss", "accuracy"}
        assert 0 <= values["accuracy"] <= 1

    def test_losses_add_up_and_are_reported_one_by_one(self) -> None:
        def size(outputs: Tensor, target: Tensor) -> Tensor:
            return (outputs * outputs).mean()

        x, y = spirals()
        values = trainer(loss={"classes": nn.CrossEntropyLoss(), "size": size}).step(x, y)
        assert values["loss"] == pytest.approx(values["classes"] + values["size"], rel=1e-6)
        listed = trainer(loss=["cross_entropy", size]).step(x, y)
        assert listed["loss"] == values["loss"]
        assert {"cross_entropy", "size"} < listed.keys()

    def test_of_several_outputs_each_counts_what_they_say(self) -> None:
        class Outputs(NamedTuple):
            whole: Tensor
            half: Tensor
            absent: Tensor | None = None

            @property
            def loss_weights(self) -> tuple[float, ...]:
                return (1.0, 0.5, 2.0)

        class Heads(nn.Module):
            def __init__(self, outputs: type) -> None:
                super().__init__()
                self.scale, self.outputs = nn.Parameter(np.float32(2.0)), outputs

            def forward(self, x: Tensor) -> Any:
                return self.outputs(x * self.scale, x - self.scale)

        x, y = np.array([[1.0], [4.0]]), np.array([[0.0], [6.0]])
        want = np.mean((2 * x - y) ** 2) + 0.5 * np.mean((x - 2 - y) ** 2)
        for loss in ("mse", nn.MSELoss()):
            own = qn.Trainer(Heads(Outputs), loss=loss, optimizer=optim.SGD(0.1))
            assert own.step(x, y)["loss"] == pytest.approx(want, rel=1e-6)
        own = qn.Trainer(Heads(lambda *o: o), loss="mse", optimizer=optim.SGD(0.1))
        with pytest.raises(
            UsageError, match=r"mse takes one tensor, the network returns tuple of 2"
        ):
            own.step(x, y)

    def test_samples_without_a_class_count_for_nothing(self) -> None:
        x, y = np.eye(4, dtype=np.float32), np.array([0, 1, -100, 0])
        model = nn.Linear(4, 4, bias=False)
        model.weight.data[:] = np.eye(4)
        values = trainer(model).step(x, y)
        probabilities = np.exp(x) / np.exp(x).sum(1, keepdims=True)
        expected = -np.mean(np.log(probabilities[[0, 1, 3], [0, 1, 0]]))
        assert values["loss"] == pytest.approx(expected, rel=1e-6)
        assert values["accuracy"] == pytest.approx(2 / 3)

    def test_metrics_of_ones_own_are_reported(self) -> None:
        def largest(outputs: Tensor, target: Tensor) -> Tensor:
            return outputs.max()

        x, y = spirals()
        assert trainer(metrics={"largest": largest}).step(x, y).keys() == {"loss", "largest"}
        assert trainer(metrics=()).step(x, y).keys() == {"loss"}

    def test_inputs_by_name_reach_the_arguments_of_forward(self) -> None:
        class Difference(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.scale = nn.Parameter(np.float32(1.0))

            def forward(self, plus: Tensor, minus: Tensor) -> Tensor:
                return (plus - minus) * self.scale

        model = Difference()
        inputs = {"minus": np.full((4, 1), 1.0), "plus": np.full((4, 1), 3.0)}
        own = qn.Trainer(model, loss="mse", optimizer=optim.SGD(0.1))
        assert own.step(inputs, np.zeros((4, 1)))["loss"] == pytest.approx(4.0)
        assert model.scale.data == pytest.approx(1.0 - 0.1 * 2 * 2 * 2)
        assert_allclose(own.predict(inputs), np.full((4, 1), 2 * model.scale.data), rtol=1e-6)
        by_place = inputs["plus"], inputs["minus"]
        assert_allclose(own.predict(by_place), own.predict(inputs))
        assert_allclose(own.evaluate((by_place, np.zeros((4, 1))))["loss"], 0.16, rtol=1e-6)
        with pytest.raises(UsageError, match="3 inputs are given for the arguments plus, minus"):
            own.predict((*by_place, by_place[0]))
        with pytest.raises(UsageError, match="does not take the inputs minus"):
            own.step({"minus": np.ones((4, 1))}, np.zeros((4, 1)))

    def test_frozen_parameters_stay_and_thawed_ones_move(self) -> None:
        x, y = spirals()
        model = small_net()
        model[0].requires_grad_(False)
        own = trainer(model)
        before = contents(model)
        own.step(x, y)
        assert_array_equal(model[0].weight.data, before["0.weight"])
        assert not np.array_equal(model[2].weight.data, before["2.weight"])
        model[0].requires_grad_(True)
        own.step(x, y)
        assert not np.array_equal(model[0].weight.data, before["0.weight"])

    def test_contents_that_are_loaded_into_the_module_are_trained_on(self) -> None:
        x, y = spirals()
        first, second = small_net(1), small_net(2)
        own = trainer(first, optimizer=optim.SGD(0.1))
        own.step(x, y)
        first.load_state_dict(second.state_dict())
        assert_same_bits(contents(first), contents(second))
        own.evaluate((x, y))
        other = trainer(second, optimizer=optim.SGD(0.1))
        other.evaluate((x, y))
        assert own.evaluate((x, y)) == other.evaluate((x, y))
        first.load_state_dict(small_net(3).state_dict())
        assert own.evaluate((x, y)) != other.evaluate((x, y))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"loss": "cross"}, "there is no loss 'cross'"),
            ({"loss": 3}, "3 is no loss"),
            ({"loss": []}, "at least one loss"),
            ({"optimizer": 0.1}, "no optimizer"),
            ({"metrics": ["speed"]}, "there is no metric 'speed'"),
        ],
    )
    def test_what_cannot_be_trained_with_is_refused(
        self, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(UsageError, match=message):
            trainer(**options)

    def test_a_network_of_doubles_is_trained_in_doubles(self) -> None:
        x, y = spirals(16)
        model = small_net()
        own = trainer(model)
        own.step(x, y)
        model.double()
        own.step(x, y)
        assert model[0].weight.data.dtype == own.predict(x).dtype == np.float64

    def test_a_loss_that_is_no_number_is_refused_by_name(self) -> None:
        with pytest.raises(ShapeError, match=r"cross_entropy.*float32\[96\].*one float"):
            trainer(loss=nn.CrossEntropyLoss(reduction="none")).step(*spirals())


class TestFit:
    def test_it_learns(self) -> None:
        own = trainer(stateful_net(), optimizer=optim.Adam(0.01))
        own.fit(spirals(512), epochs=40, batch_size=32, quiet=True)
        assert own.evaluate(spirals(200, seed=1))["accuracy"] > 0.95

    def test_every_epoch_is_recorded(self) -> None:
        rate = optim.StepLR(6, gamma=0.5)
        own = trainer(optimizer=optim.SGD(0.1, schedule=rate))
        history = own.fit(spirals(), epochs=2, batch_size=16, validation=spirals(50, 1), quiet=True)
        assert [(r["epoch"], r["step"]) for r in history] == [(1, 6), (2, 12)]
        assert history[1].keys() == {
            *("epoch", "step", "loss", "accuracy", "val_loss", "val_accuracy"),
            *("learning_rate", "samples_per_second", "seconds"),
        }
        assert [r["learning_rate"] for r in history] == [0.1, 0.05]

    def test_the_recorded_loss_is_the_mean_of_the_steps(self) -> None:
        x, y = spirals(64)
        history = trainer().fit((x, y), epochs=1, batch_size=16, quiet=True)
        other = trainer()
        batches = Batches(from_arrays(x, y), 16, shuffle=True, drop_last=True)
        steps = [other.step(b.inputs, b.targets) for b in batches.batches(0)]
        assert history[0]["loss"] == pytest.approx(np.mean([s["loss"] for s in steps]), rel=1e-12)

    def test_data_comes_in_many_forms(self) -> None:
        x, y = spirals(48)
        data = from_arrays(x.astype(np.float64), y)
        forms: list[Any] = [
            *((x, y), data),
            *(Splits(data, data), Batches(data, 16, shuffle=True, drop_last=True)),
        ]
        results = []
        for form in forms:
            model = small_net()
            trainer(model).fit(form, steps=4, batch_size=16, quiet=True)
            results.append(contents(model))
        for result in results[1:]:
            assert_same_bits(results[0], result)

    def test_transforms_apply_to_training_alone(self) -> None:
        seen = []

        def transform(x: Any, y: Array, rng: np.random.Generator) -> tuple[Any, Array]:
            seen.append(len(x))
            return x + rng.normal(size=x.shape), y

        own = trainer()
        own.fit(spirals(32), steps=2, batch_size=16, transform=transform, quiet=True)
        count = len(seen)
        own.evaluate(spirals(32))
        assert len(seen) == count >= 2

    def test_data_that_does_not_fit_is_refused(self) -> None:
        own = trainer()
        with pytest.raises(UsageError, match="cannot take rows from list"):
            own.fit([1, 2], quiet=True)  # type: ignore[arg-type]  # which is refused
        with pytest.raises(DataError, match="as many rows"):
            own.fit((np.zeros((3, 2)), np.zeros(4)), quiet=True)
        with pytest.raises(ShapeError, match="0"):
            own.fit((np.zeros((8, 5), np.float32), np.zeros(8, np.int64)), quiet=True)

    def test_callbacks_see_every_step_and_may_end_the_run(self) -> None:
        steps = []

        def watch(run: Run) -> bool:
            steps.append((run.epoch, run.batch, run.step))
            return run.step == 5

        trainer().fit(spirals(64), epochs=9, batch_size=16, callbacks=[watch], quiet=True)
        assert steps == [(0, 1, 1), (0, 2, 2), (0, 3, 3), (0, 4, 4), (1, 0, 4), (1, 1, 5)]

    def test_early_stopping_ends_the_run_and_goes_back_to_the_best_epoch(self) -> None:
        model = small_net()
        best: list[dict[str, Array]] = []

        def watch(run: Run) -> None:
            if run.batch == 0:
                best.append(contents(model))

        def worse(outputs: Tensor, target: Tensor) -> Tensor:
            return -(outputs * outputs).mean()

        history = trainer(model, metrics={"worse": worse}).fit(
            spirals(64),
            epochs=20,
            batch_size=32,
            validation=spirals(64, 1),
            early_stopping=EarlyStopping(3, monitor="val_worse", mode="max", min_delta=1e-3),
            callbacks=[watch],
            quiet=True,
        )
        values = [r["val_worse"] for r in history]
        assert len(history) < 20
        assert max(values[-3:]) <= max(values[:-3]) + 1e-3
        assert_same_bits(contents(model), best[len(history) - 4])

    def test_early_stopping_says_what_it_could_look_at(self) -> None:
        rule = EarlyStopping(monitor="val_accuracy")
        with pytest.raises(UsageError, match="'val_accuracy'; there is epoch, step, loss"):
            trainer().fit(spirals(64), early_stopping=rule, quiet=True)
        with pytest.raises(UsageError, match="patience is at least 1"):
            EarlyStopping(patience=0)


class TestEvaluation:
    def test_rows_that_fill_up_the_last_batch_do_not_count(self) -> None:
        x, y = spirals(37)
        model = small_net().eval()
        own = trainer(model)
        logits = own.predict(x, batch_size=16)
        assert logits.shape == (37, 3)
        assert_allclose(logits, model(x), rtol=1e-4, atol=1e-6)
        z = logits.astype(np.float64)
        losses = np.log(np.exp(z).sum(1)) - z[np.arange(37), y]
        for batch_size in (1, 8, 16, 37, 64):
            values = own.evaluate((x, y), batch_size)
            assert values["loss"] == pytest.approx(losses.mean(), rel=1e-5)
            assert values["accuracy"] == pytest.approx((z.argmax(1) == y).mean(), rel=1e-6)

    def test_it_changes_nothing(self) -> None:
        model = stateful_net()
        own = trainer(model)
        own.step(*spirals())
        before = contents(model)
        own.evaluate(spirals())
        own.predict(spirals()[0])
        assert_same_bits(before, contents(model))

    def test_it_sees_what_training_has_changed(self) -> None:
        x, y = spirals()
        model = stateful_net()
        own = trainer(model, optimizer=optim.SGD(0.1))
        for _ in range(3):
            own.step(x, y)
            assert_allclose(own.predict(x), model.eval()(x), rtol=1e-4, atol=1e-5)

    def test_outputs_keep_their_structure(self) -> None:
        class Both(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(2, 3)

            def forward(self, x: Tensor) -> dict[str, Tensor]:
                y = self.layer(x)
                return {"logits": y, "squares": y * y}

        def loss(outputs: dict[str, Tensor], target: Tensor) -> Tensor:
            return nn.functional.cross_entropy(outputs["logits"], target)

        x, y = spirals(10)
        own = trainer(Both(), loss=loss)
        own.fit((x, y), batch_size=4, quiet=True)
        found = own.predict(x, batch_size=4)
        assert_array_equal(found["squares"], found["logits"] ** 2)
        assert own.evaluate((x, y), 4).keys() == {"loss", "accuracy"}

    def test_an_executable_for_inference_has_the_trained_weights(self, tmp_path: Path) -> None:
        x, y = spirals(16)
        own = trainer()
        with pytest.raises(UsageError, match="shapes are not known"):
            own.executable()
        own.fit((x, y), epochs=2, batch_size=8, quiet=True)
        one = own.executable()
        assert_array_equal(one(x[:1]), own.predict(x[:1]))
        path = own.save(tmp_path / "net.qn", batch_size=16)
        assert path.stat().st_size > 0


def lenet() -> nn.Sequential:
    """With batch norm and dropout, and enough to do for two threads."""
    qn.manual_seed(4)
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Dropout2d(0.1), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(144, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10)),
    )


def images(rows: int = 96) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 1, 16, 16)).astype(np.float32), rng.integers(0, 10, rows)


class TestSameBits:
    def test_a_lenet_on_1_and_on_2_threads_and_after_a_stop(self, tmp_path: Path) -> None:
        results = []
        for threads, stops in ((1, [50]), (2, [50]), (2, [25, 50])):
            for steps in stops:
                model = lenet()
                own = trainer(model, optimizer=optim.Adam(1e-3), threads=threads)
                own.fit(
                    images(),
                    steps=steps,
                    batch_size=32,
                    checkpoint=tmp_path / f"{threads}-{len(stops)}",
                    resume=True,
                    quiet=True,
                )
            results.append(contents(model))
        assert_same_bits(results[0], results[1])
        assert_same_bits(results[0], results[2])

    @pytest.mark.parametrize("optimizer", [optim.SGD(0.05, momentum=0.9), optim.Adam(0.01)])
    def test_50_steps_on_1_and_on_2_threads(self, optimizer: optim.Optimizer) -> None:
        results = []
        for threads in (1, 2):
            model = stateful_net()
            own = trainer(model, optimizer=optimizer, threads=threads, seed=3)
            own.fit(spirals(), steps=50, batch_size=32, quiet=True)
            results.append(contents(model))
        assert_same_bits(*results)

    def test_seeds_make_a_difference(self) -> None:
        results = []
        for seed in (0, 1):
            model = small_net()
            trainer(model, seed=seed).fit(spirals(), steps=3, batch_size=32, quiet=True)
            results.append(contents(model))
        assert not np.array_equal(results[0]["0.weight"], results[1]["0.weight"])
