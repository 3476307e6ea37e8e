"""Training: batches in parts, moving averages of the weights, rates that follow how it goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from trainers import Array, assert_same_bits, contents, small_net, spirals, stateful_net, trainer

import quern as qn
from quern import nn, optim
from quern.compiler.errors import DataError, TrainingError, UsageError
from quern.optim.lr_scheduler import ReduceLROnPlateau
from quern.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn
from quern.runtime.checkpoint import load_checkpoint


class TestBatchesInParts:
    def test_the_numbers_are_those_of_the_whole_batch(self) -> None:
        results, histories = [], []
        for parts in (1, 4):
            model = small_net()
            own = trainer(model, optimizer=optim.AdamW(1e-2, clip_grad_norm=0.5), accumulate=parts)
            histories.append(own.fit(spirals(), epochs=3, batch_size=24, quiet=True))
            results.append(contents(model))
        for name in results[0]:
            assert_allclose(results[1][name], results[0][name], rtol=1e-4, atol=1e-5)
        for name in ("loss", "accuracy", "step", "learning_rate"):
            assert histories[1][-1][name] == pytest.approx(histories[0][-1][name], rel=1e-4)

    def test_a_part_takes_less_memory(self) -> None:
        bytes_of = []
        for parts in (1, 8):
            qn.manual_seed(0)
            model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Tanh(), nn.Conv2d(8, 8, 3), nn.Flatten())
            own = qn.Trainer(model, loss="mse", optimizer=optim.SGD(0.1), accumulate=parts)
            x, y = np.zeros((16, 1, 20, 20), np.float32), np.zeros((16, 8 * 16 * 16), np.float32)
            own.step(x, y)
            (*_, last) = own._programs.step(x[: 16 // parts], y[: 16 // parts])
            bytes_of.append(last.executable.memory.arena)
        assert bytes_of[1] < bytes_of[0] / 4

    def test_a_part_that_is_not_finite_takes_back_the_others(self) -> None:
        x, y = spirals(32)
        model = stateful_net()
        own = trainer(model, accumulate=2, optimizer=optim.SGD(0.1, momentum=0.9))
        own.step(x, y)
        before, states = contents(model), {k: v.copy() for k, v in own._programs.arrays.items()}
        bad = x.copy()
        bad[-1] = np.inf
        with pytest.raises(TrainingError, match=r"not finite|the loss is nan"):
            own.step(bad, y)
        assert_same_bits(contents(model), before)
        assert_same_bits(dict(own._programs.arrays), states)

    def test_batches_have_to_be_divisible(self) -> None:
        with pytest.raises(DataError, match=r"a batch of 32 rows is not cut into 5 equal parts"):
            trainer(accumulate=5).step(*spirals(32))

    def test_checkpoints_do_without_the_sums(self, tmp_path: Path) -> None:
        """So a run may go on in other parts."""
        path = tmp_path / "run"
        for parts, steps in ((2, 2), (4, 4)):
            model = small_net()
            own = trainer(model, accumulate=parts, optimizer=optim.Adam(1e-2))
            own.fit(spirals(), steps=steps, batch_size=32, checkpoint=path, resume=True, quiet=True)
        whole = small_net()
        trainer(whole, optimizer=optim.Adam(1e-2)).fit(
            spirals(), steps=4, batch_size=32, quiet=True
        )
        for name, array in contents(whole).items():
            assert_allclose(contents(model)[name], array, rtol=1e-4, atol=1e-5)

    def test_checkpoints_have_states_of_the_model_of_any_name(self, tmp_path: Path) -> None:
        model = small_net()
        model.register_buffer("gathered", np.arange(3.0))
        kept = nn.Sequential(model)
        own = trainer(kept, accumulate=2)
        own.step(*spirals(32))
        path = own.save_checkpoint(tmp_path / "run")
        assert_array_equal(load_checkpoint(path).state["0.gathered"], np.arange(3.0))


class TestMovingAverages:
    def test_they_follow_the_parameters_and_are_what_is_evaluated(self, tmp_path: Path) -> None:
        x, y = spirals(32)
        model, plain = small_net(), small_net()
        own = trainer(model, average=0.8)
        assert_array_equal(own.predict(x), trainer(plain).predict(x))  # before the first step
        want = {name: array.astype(np.float64) for name, array in contents(model).items()}
        for _ in range(5):
            own.step(x, y)
            want = {k: 0.8 * v + 0.2 * model.state_dict()[k] for k, v in want.items()}
        found = own.averaged_state_dict()
        for name, array in want.items():
            assert_allclose(found[name], array, rtol=1e-5, atol=1e-7)
        plain.load_state_dict(found)
        assert_array_equal(own.predict(x), trainer(plain).predict(x))
        assert own.evaluate((x, y)) == trainer(plain).evaluate((x, y))
        loaded = qn.load(own.save(tmp_path / "net.qn", batch_size=32))
        assert_allclose(loaded(x), own.predict(x), rtol=1e-6)
        assert not np.allclose(own.predict(x), trainer(model).predict(x), rtol=1e-3)

    def test_training_itself_is_as_without(self, tmp_path: Path) -> None:
        results, averages = [], []
        for average, stops in ((None, [6]), (0.9, [6]), (0.9, [3, 6])):
            for steps in stops:
                model = stateful_net()
                own = trainer(model, average=average, accumulate=2)
                own.fit(
                    spirals(),
                    steps=steps,
                    batch_size=32,
                    checkpoint=tmp_path / f"{average}-{len(stops)}",
                    resume=True,
                    quiet=True,
                )
            results.append(contents(model))
            averages.append(own.averaged_state_dict())
        for name, array in results[0].items():
            assert_allclose(results[1][name], array, rtol=1e-6, atol=1e-7)
        assert_same_bits(results[1], results[2])
        assert_same_bits(averages[1], averages[2])

    def test_frozen_parameters_and_statistics_are_the_models_own(self) -> None:
        model = stateful_net()
        model[0].requires_grad_(False)
        own = trainer(model, average=0.5)
        own.fit(spirals(), steps=3, batch_size=32, quiet=True)
        found, raw = own.averaged_state_dict(), contents(model)
        for name in ("0.weight", "1.running_mean", "1.num_batches_tracked"):
            assert_array_equal(found[name], raw[name])
        assert not np.array_equal(found["4.weight"], raw["4.weight"])

    def test_decays_that_make_no_sense(self) -> None:
        with pytest.raises(UsageError, match=r"keeps from 0 to below 1 of itself: 1.5"):
            trainer(average=1.5)

    @pytest.mark.parametrize("kind", ["mean", "avg_fn", "multi_avg_fn"])
    def test_averaged_models_are_pytorchs(self, kind: str) -> None:
        torch = pytest.importorskip("torch")
        theirs = torch.optim.swa_utils

        def made(module: Any, average: Any, functions: Any) -> Any:
            if kind == "mean":
                return average(module)
            function = getattr(functions, f"get_ema_{kind}")(0.7)
            return average(module, **{kind: function})

        class Own:
            get_ema_avg_fn = staticmethod(get_ema_avg_fn)
            get_ema_multi_avg_fn = staticmethod(get_ema_multi_avg_fn)

        model, reference = nn.Linear(3, 2), torch.nn.Linear(3, 2)
        averaged = made(model, AveragedModel, Own)
        wanted = made(reference, theirs.AveragedModel, theirs)
        rng = np.random.default_rng(0)
        for _ in range(4):
            state = {"weight": rng.normal(size=(2, 3)), "bias": rng.normal(size=2)}
            model.load_state_dict(state)
            reference.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
            averaged.update_parameters(model)
            wanted.update_parameters(reference)
        for name, array in wanted.state_dict().items():
            assert_allclose(averaged.state_dict()[name], array.numpy(), rtol=1e-5, err_msg=name)
        x = rng.normal(size=(5, 3)).astype(np.float32)
        assert_allclose(averaged(x), wanted(torch.tensor(x)).detach().numpy(), rtol=1e-5, atol=1e-6)


PLATEAUS = [
    {},
    {"mode": "max", "factor": 0.5, "patience": 2},
    {"patience": 1, "cooldown": 3, "threshold": 0.05},
    {"patience": 0, "threshold": 0.2, "threshold_mode": "abs", "min_lr": 0.02},
    {"mode": "max", "patience": 1, "threshold": 0.1, "threshold_mode": "abs", "cooldown": 1},
]


class TestPlateaus:
    @pytest.mark.parametrize("options", PLATEAUS)
    def test_the_rate_after_each_epoch_is_pytorchs(self, options: dict[str, Any]) -> None:
        torch = pytest.importorskip("torch")
        reference = torch.optim.SGD([torch.zeros(1)], 0.3)
        theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(reference, **options)
        own = optim.SGD(0.3, schedule=ReduceLROnPlateau(**{"patience": 10, **options}))
        rule = own.schedule.plateau
        assert rule is not None
        rng, state = np.random.default_rng(0), np.array([1.0, np.inf, 0, 0])
        values = np.concatenate([np.linspace(2, 1, 6), np.full(25, 1.0), rng.uniform(0.5, 1.5, 30)])
        for value in values:
            theirs.step(value)
            state = rule.after(state, {"loss": 3.0, "val_loss": value})
            rate = own.lr_at(5, {"optim.plateau": state})
            # PyTorch leaves out changes of less than 1e-8.
            assert rate == pytest.approx(reference.param_groups[0]["lr"], rel=1e-6, abs=1e-8)

    def test_fit_lowers_the_rate_and_goes_on_with_it(self, tmp_path: Path) -> None:
        """Behind a warm-up; stopped and resumed in between, to the same bits."""
        schedule = optim.LinearWarmup(2, ReduceLROnPlateau(factor=0.5, patience=1, threshold=0.9))
        results, histories = [], []
        for stops in ([8], [5, 8]):
            for epochs in stops:
                model = small_net()
                own = trainer(model, optimizer=optim.SGD(0.5, schedule=schedule))
                history = own.fit(
                    spirals(),
                    epochs=epochs,
                    batch_size=48,
                    validation=spirals(seed=1),
                    checkpoint=tmp_path / str(len(stops)),
                    resume=True,
                    quiet=True,
                )
            results.append(contents(model))
            histories.append([record["learning_rate"] for record in history])
        assert histories[0] == [0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625]
        assert histories[1] == histories[0]
        assert_same_bits(*results)

    def test_the_step_itself_is_of_the_lower_rate(self) -> None:
        rows = spirals(48)
        schedule = ReduceLROnPlateau(mode="max", factor=0.1, patience=0, monitor="loss")
        model = small_net()
        own = trainer(model, optimizer=optim.SGD(0.5, schedule=schedule))
        own.fit(rows, epochs=2, batch_size=48, quiet=True)
        before = contents(model)
        own.step(*rows)
        after, other = contents(model), small_net()
        other.load_state_dict(before)
        trainer(other, optimizer=optim.SGD(0.05)).step(*rows)
        assert_same_moves(before, after, contents(other))

    def test_there_is_one_for_all_parameters_and_it_names_what_is_there(self) -> None:
        with pytest.raises(UsageError, match=r"group '\*.bias' has a ReduceLROnPlateau of its own"):
            optim.SGD(0.1, groups={"*.bias": {"schedule": ReduceLROnPlateau()}})
        with pytest.raises(UsageError, match="factor is from 0 to below 1, got 2"):
            ReduceLROnPlateau(factor=2)
        own = trainer(optimizer=optim.SGD(0.1, schedule=ReduceLROnPlateau(monitor="val_f1")))
        with pytest.raises(UsageError, match=r"ReduceLROnPlateau looks at .val_f1.; there is"):
            own.fit(spirals(32), epochs=1, quiet=True)


def assert_same_moves(before: dict[str, Array], *after: dict[str, Array]) -> None:
    first, second = ({k: v - before[k] for k, v in each.items()} for each in after)
    for name in before:
        assert_allclose(first[name], second[name], rtol=1e-3, atol=1e-7, err_msg=name)
