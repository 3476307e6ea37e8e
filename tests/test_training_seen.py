"""What is seen of training: numbers that are not finite, progress, logs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from trainers import Array, assert_same_bits, contents, small_net, spirals, stateful_net, trainer

import quern as qn
from quern import nn, optim
from quern.compiler.errors import TrainingError, UsageError
from quern.compiler.tensor import Tensor
from quern.runtime.data import Batches, from_arrays


class TestNotFinite:
    @staticmethod
    def root(outputs: Tensor, target: Tensor) -> Tensor:
        return (outputs - target).sqrt().mean()

    def test_a_loss_that_is_nan_stops_training_where_it_was_finite_last(self) -> None:
        x, y = spirals(32)
        x[20, 1] = np.inf
        model = small_net()
        own = trainer(model, seed=1)
        before: list[dict[str, Array]] = [contents(model)]
        with pytest.raises(TrainingError) as caught:
            own.fit(
                Batches(from_arrays(x, y), 8),
                callbacks=[lambda run: before.append(contents(model))],
                quiet=True,
            )
        assert len(before) == 3
        assert_same_bits(before[-1], contents(model))
        message = str(caught.value)
        assert "the loss is nan in step 3 (epoch 1, batch 3)" in message
        assert "the first such value is input (" in message
        assert "which is given: 1 of 16 elements are not finite (inf)" in message

    def test_the_first_node_is_named_with_its_line(self) -> None:
        model = nn.Linear(1, 1)
        model.load_state_dict({"weight": [[1.0]], "bias": [0.0]})
        own = qn.Trainer(model, loss=self.root, optimizer=optim.SGD(0.1))
        with pytest.raises(
            TrainingError, match=r"sqrt \(.*test_training_seen.py:\d+\), Sqrt of finite"
        ):
            own.step(np.array([[1.0], [-1.0]]), np.zeros((2, 1)))
        assert model.weight.data == 1.0

    def test_a_gradient_that_is_not_finite_does_not_ruin_the_model(self) -> None:
        model = nn.Linear(1, 1)
        model.load_state_dict({"weight": [[1.0]], "bias": [0.0]})
        own = qn.Trainer(model, loss=self.root, optimizer=optim.Adam(0.1))
        with pytest.raises(TrainingError, match=r"a gradient is not finite in step 1.*grad\.sqrt"):
            own.step(np.array([[4.0], [0.0]]), np.zeros((2, 1)))
        assert own.step(np.array([[4.0], [9.0]]), np.zeros((2, 1)))["loss"] == pytest.approx(2.5)

    def test_watching_the_loss_alone_gives_the_same_steps(self) -> None:
        results = []
        for watch in (True, False):
            model = stateful_net()
            own = trainer(model, optimizer=optim.SGD(0.1, momentum=0.9), watch_gradients=watch)
            own.fit(spirals(), steps=3, batch_size=32, quiet=True)
            results.append(contents(model))
        for name, array in results[0].items():
            assert_allclose(array, results[1][name], rtol=1e-4, atol=1e-6)

    def test_a_loss_watched_alone_stops_too(self) -> None:
        x, y = spirals(32)
        x[:] = np.nan
        model = small_net()
        before = contents(model)
        with pytest.raises(TrainingError, match="the loss is nan in step 1"):
            trainer(model, watch_gradients=False).step(x, y)
        assert_same_bits(before, contents(model))


class TestWhatIsSeen:
    def test_plain_lines_where_there_is_no_terminal(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        trainer().fit(spirals(), epochs=2, validation=spirals(20, 1))
        planned, *lines = capsys.readouterr().out.splitlines()
        assert planned.startswith("planned peak memory ")
        assert [line.partition(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
        assert all("accuracy" in line and "samples/s" in line for line in lines)

    def test_nothing_when_quiet(self, capsys: pytest.CaptureFixture[str]) -> None:
        trainer().fit(spirals(), quiet=True)
        assert capsys.readouterr().out == ""

    def test_a_bar_in_a_terminal(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr("quern.runtime.progress._REFRESH_SECONDS", 0.0)
        trainer().fit(spirals(), epochs=2, batch_size=16)
        shown = capsys.readouterr().out
        assert "epoch 2/2" in shown
        assert "12/12" in shown
        assert "loss" in shown

    def test_logs_have_a_line_for_every_epoch(self, tmp_path: Path) -> None:
        data, names = spirals(), ("run.csv", "run.jsonl")
        table, lines = (tmp_path / name for name in names)
        history = trainer().fit(data, epochs=3, log=table, quiet=True)
        with table.open() as file:
            rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
        assert rows == [dict(r) for r in history]
        history = trainer().fit(data, epochs=3, log=lines, quiet=True)
        assert [json.loads(line) for line in lines.read_text().splitlines()] == history

    def test_a_new_run_puts_the_log_of_an_old_one_aside(self, tmp_path: Path) -> None:
        for _ in range(3):
            trainer().fit(spirals(), epochs=1, log=tmp_path / "run.csv", quiet=True)
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["run.1.csv", "run.2.csv", "run.csv"]

    def test_a_log_of_another_kind_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"end in \.csv or \.jsonl"):
            trainer().fit(spirals(), log=tmp_path / "run.txt", quiet=True)


def test_digits_by_name_have_their_own_test_part() -> None:
    pytest.importorskip("sklearn")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    own = trainer(model)
    history = own.fit("digits", epochs=1, quiet=True)
    assert history[0]["val_accuracy"] == own.evaluate("digits")["accuracy"]
