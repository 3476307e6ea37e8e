"""Checkpoints: whole files that a run goes on from to the same bits, and what is said of others."""

from __future__ import annotations

import csv
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors

import quern as qn
from quern import nn, optim
from quern.compiler.errors import ArtifactError, TrainingError, UsageError
from quern.runtime.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from quern.runtime.data import Batches, from_arrays
from quern.runtime.executable import Executable
from quern.runtime.interrupts import Interrupts
from quern.runtime.training import EarlyStopping, Run

Array = np.ndarray[Any, Any]


def data(rows: int = 112) -> tuple[Array, Array]:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(rows, 4)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] > 0).astype(np.int64)


def net(width: int = 16) -> nn.Sequential:
    """A network with running statistics and random numbers of its own."""
    qn.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, 2)
    )


def trainer(model: nn.Module, **options: Any) -> qn.Trainer:
    rate = optim.CosineAnnealingLR(50)
    options = {"optimizer": optim.Adam(0.01, schedule=rate), "seed": 7, **options}
    return qn.Trainer(model, loss="cross_entropy", **options)


def fit(model: nn.Module, **options: Any) -> list[Any]:
    def jitter(x: Any, y: Array, rng: np.random.Generator) -> tuple[Any, Array]:
        return x + 0.1 * rng.normal(size=x.shape), y

    own = trainer(model, **{k: options.pop(k) for k in ("optimizer", "seed") if k in options})
    return own.fit(
        data(), **{"steps": 50, "batch_size": 16, "transform": jitter, "quiet": True, **options}
    )


def bits(module: nn.Module) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in module.state_dict().items()}


def states(path: Path) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in load_checkpoint(path).state.items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], Any, Path]:
    """50 steps in one go: seven batches an epoch, so that the last epoch is cut off."""
    path = tmp_path_factory.mktemp("whole") / "run.ckpt"
    model = net()
    history = fit(model, checkpoint=path, validation=data(30))
    return bits(model), history, path


def without_times(history: list[Any]) -> list[dict[str, float]]:
    timed = ("seconds", "samples_per_second")
    return [{k: v for k, v in record.items() if k not in timed} for record in history]


class TestGoingOn:
    @pytest.mark.parametrize("stop", [25, 28, 1], ids=["mid-epoch", "epoch's end", "first step"])
    def test_stopping_changes_no_bit(
        self, uninterrupted: tuple[dict[str, bytes], Any, Path], tmp_path: Path, stop: int
    ) -> None:
        path = tmp_path / "run.ckpt"
        fit(net(), steps=stop, checkpoint=path, validation=data(30))
        model = net(16)
        model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})
        history = fit(model, checkpoint=path, resume=True, validation=data(30))
        expected, whole, reference = uninterrupted
        assert bits(model) == expected
        assert states(path) == states(reference)
        assert without_times(history) == without_times(whole)

    def test_by_hand(self, tmp_path: Path) -> None:
        x, y = data(16)
        first, second = net(), net()
        own, other = trainer(first), trainer(second)
        for _ in range(3):
            own.step(x, y)
        own.save_checkpoint(tmp_path / "state")
        other.load_checkpoint(tmp_path / "state")
        assert bits(first) == bits(second)
        for _ in range(3):
            assert own.step(x, y) == other.step(x, y)
        assert bits(first) == bits(second)
        own.load_checkpoint(tmp_path / "state")
        for _ in range(3):
            own.step(x, y)
        assert bits(first) == bits(second)

    def test_a_first_run_may_say_resume_already(self, tmp_path: Path) -> None:
        first, second = net(), net()
        fit(first, steps=3)
        fit(second, steps=3, checkpoint=tmp_path / "run.ckpt", resume=True)
        assert bits(first) == bits(second)

    def test_early_stopping_goes_on_too(self, tmp_path: Path) -> None:
        rule = EarlyStopping(2, min_delta=0.02)
        whole, parts = net(), net()
        options = {"early_stopping": rule, "validation": data(30)}
        fit(whole, steps=None, epochs=12, **options)
        path = tmp_path / "run.ckpt"
        for epochs in (1, 2, 12):
            fit(parts, steps=None, epochs=epochs, checkpoint=path, resume=True, **options)
        assert bits(whole) == bits(parts)

    def test_the_log_has_every_epoch_once(self, tmp_path: Path) -> None:
        path, log = tmp_path / "run.ckpt", tmp_path / "run.csv"
        fit(net(), steps=25, checkpoint=path, log=log)
        with log.open("a") as file:
            file.write("4,28,0.1,")  # as when the machine stopped while a line was written
        fit(net(), steps=50, checkpoint=path, log=log, resume=True)
        with log.open() as file:
            rows = list(csv.DictReader(file))
        assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5, 6, 7]
        assert [path.name for path in sorted(tmp_path.iterdir())] == ["run.ckpt", "run.csv"]


class TestInterruption:
    def test_ctrl_c_in_a_step_lets_it_end_then_saves(
        self,
        uninterrupted: tuple[dict[str, bytes], Any, Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        path, run, calls = tmp_path / "run.ckpt", Executable.run, []

        def interrupted(self: Executable, *args: Any) -> Any:
            calls.append(None)
            if len(calls) == 11:
                signal.raise_signal(signal.SIGINT)
            return run(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(Executable, "run", interrupted)
            with pytest.raises(KeyboardInterrupt):
                fit(net(), checkpoint=path, quiet=False)
        assert load_checkpoint(path).facts["run"]["step"] == 11
        said = capsys.readouterr().out
        assert "stopped in epoch 2 after batch 4 (step 11)" in said
        assert "run.ckpt: the same call with resume=True goes on" in said
        model = net()
        fit(model, checkpoint=path, resume=True)
        assert bits(model) == uninterrupted[0]

    def test_ctrl_c_between_steps_stops_at_once(self, tmp_path: Path) -> None:
        def interrupt(run: Run) -> None:
            if run.step == 4:
                signal.raise_signal(signal.SIGINT)

        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            fit(net(), checkpoint=tmp_path / "run.ckpt", callbacks=[interrupt])
        assert load_checkpoint(tmp_path / "run.ckpt").facts["run"]["step"] == 4
        assert signal.getsignal(signal.SIGINT) is before

    def test_a_second_ctrl_c_does_not_wait(self) -> None:
        with Interrupts() as interrupts:
            begun: list[int] = []
            with pytest.raises(KeyboardInterrupt), interrupts.deferred():
                begun.extend(signal.raise_signal(signal.SIGINT) or n for n in (1, 2, 3))
            assert begun == [1]
            assert interrupts.in_the_middle

    def test_the_checkpoint_of_an_earlier_step_stays_when_a_loss_is_not_finite(
        self, tmp_path: Path
    ) -> None:
        x, y = data(64)
        x[40:] = np.nan
        path = tmp_path / "run.ckpt"
        batches = Batches(from_arrays(x, y), 16)
        model = net()
        with pytest.raises(TrainingError, match="step 3"):
            trainer(model).fit(batches, checkpoint=path, checkpoint_every=1, quiet=True)
        held = load_checkpoint(path)
        assert held.facts["run"]["step"] == 2
        assert {k: held.state[k].tobytes() for k in model.state_dict()} == bits(model)


class TestFiles:
    def checkpoint(self, **facts: Any) -> Checkpoint:
        state = {
            "w": np.arange(6, dtype=np.float32).reshape(2, 3).T,
            "step": np.array(3, np.int64),
            "odd": np.array([np.nan, -0.0, np.inf]),
            "empty": np.zeros((0, 2), np.float32),
        }
        return Checkpoint(state, {"w": state["w"] + 1}, facts)

    def test_all_comes_back(self, tmp_path: Path) -> None:
        given = self.checkpoint(a=[1, 2.5], b=None)
        found = load_checkpoint(save_checkpoint(given, tmp_path / "a"))
        assert found.facts == {"a": [1, 2.5], "b": None}
        for part in ("state", "best"):
            a, b = getattr(given, part), getattr(found, part)
            assert {k: (v.dtype, v.shape, v.tobytes()) for k, v in a.items()} == {
                k: (v.dtype, v.shape, v.tobytes()) for k, v in b.items()
            }

    def test_it_is_an_ordinary_safetensors_file(self, tmp_path: Path) -> None:
        path = save_checkpoint(self.checkpoint(), tmp_path / "a")
        tensors = safetensors.load_file(path)
        assert set(tensors) == {"state/w", "state/step", "state/odd", "state/empty", "best/w"}

    def test_a_failed_write_leaves_the_old_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = save_checkpoint(self.checkpoint(a=1), tmp_path / "a")

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(ArtifactError, match=r"cannot write .*No space left on device"):
            save_checkpoint(self.checkpoint(a=2), path)
        assert load_checkpoint(path).facts == {"a": 1}
        assert [p.name for p in tmp_path.iterdir()] == ["a"]

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda data: b"", "damaged or no checkpoint"),
            (lambda data: data[:5], "damaged or no checkpoint"),
            (lambda data: data[: len(data) // 2], "damaged or no checkpoint"),
            (lambda data: b"\xff" * 64, "damaged or no checkpoint"),
            (
                lambda data: data[:-1] + bytes([data[-1] ^ 1]),
                "do not have the digest",
            ),
            (lambda data: safetensors.save({"w": np.zeros(3)}), "no checkpoint of a training run"),
            (lambda data: data.replace(b'"version":"1"', b'"version":"9"'), "version 9"),
            (lambda data: data.replace(b'"facts":"{', b'"facts":"['), "is damaged"),
        ],
        ids=["empty", "short", "cut", "foreign", "flipped", "other", "version", "facts"],
    )
    def test_damaged_and_foreign_files_are_told_in_one_line(
        self, tmp_path: Path, damage: Callable[[bytes], bytes], message: str
    ) -> None:
        path = save_checkpoint(self.checkpoint(a=1), tmp_path / "run.ckpt")
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(ArtifactError, match=message) as caught:
            load_checkpoint(path)
        assert "run.ckpt" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match=r"cannot read .*missing: No such file"):
            load_checkpoint(tmp_path / "missing")

    def test_where_the_run_stands_must_be_told(self, tmp_path: Path) -> None:
        path = tmp_path / "run.ckpt"
        fit(net(), steps=1, checkpoint=path)
        found = load_checkpoint(path)
        facts = {**found.facts, "run": {"epoch": "2"}}
        save_checkpoint(Checkpoint(found.state, {}, facts), path)
        with pytest.raises(ArtifactError, match="does not say where the run stands"):
            fit(net(), checkpoint=path, resume=True)


class TestOtherRuns:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"optimizer": optim.SGD(0.1)}, r"optimizer Adam\(.*this one has SGD\("),
            ({"seed": 8}, "seed 7, this one has 8"),
            ({"batch_size": 8}, "batch size 16, this one has 8"),
        ],
    )
    def test_what_differs_is_named(
        self,
        uninterrupted: tuple[dict[str, bytes], Any, Path],
        options: dict[str, Any],
        message: str,
    ) -> None:
        with pytest.raises(TrainingError, match=message):
            fit(net(), checkpoint=uninterrupted[2], resume=True, **options)

    def test_other_networks_are_refused_untouched(
        self, uninterrupted: tuple[dict[str, bytes], Any, Path]
    ) -> None:
        model = net(8)
        before = bits(model)
        with pytest.raises(TrainingError, match=r"0\.weight is float32\[16, 4\], here float32\[8"):
            fit(model, checkpoint=uninterrupted[2], resume=True)
        with pytest.raises(TrainingError, match="another network"):
            trainer(nn.Linear(4, 2)).load_checkpoint(uninterrupted[2])
        assert bits(model) == before

    def test_resuming_needs_a_file(self) -> None:
        with pytest.raises(UsageError, match="say which"):
            fit(net(), resume=True)
