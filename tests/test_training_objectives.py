"""Training: what is made small and what is reported; several targets a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as reference
from trainers import Array, contents, small_net, spirals, trainer

import quern as qn
from quern import nn, optim
from quern.compiler.errors import DataError, ShapeError, UsageError
from quern.compiler.tensor import Tensor
from quern.nn import functional as F
from quern.runtime.data import Batches, Dataset, cutmix, from_arrays, mixup


class TwoHeads(nn.Module):
    """Points (N, 2) to logits (N, 3) and places (N, 2)."""

    def __init__(self, named: bool = False) -> None:
        super().__init__()
        qn.manual_seed(0)
        self.trunk, self.named = nn.Linear(2, 16), named
        self.kind, self.place = nn.Linear(16, 3), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Any:
        h = self.trunk(x).relu()
        found = {"kind": self.kind(h), "place": self.place(h)}
        return found if self.named else tuple(found.values())


class TestSeveralTargets:
    x, kind = spirals(50)
    place = x[:, ::-1].copy()

    def test_a_loss_is_given_them_as_they_were_given(self) -> None:
        def both(outputs: Any, targets: Any) -> Tensor:
            return F.cross_entropy(outputs[0], targets[0]) + F.mse_loss(outputs[1], targets[1])

        own = qn.Trainer(TwoHeads(), loss=both, optimizer=optim.Adam(1e-2))
        history = own.fit((self.x, (self.kind, self.place)), epochs=20, batch_size=16, quiet=True)
        assert history[-1]["loss"] < 0.7 * history[0]["loss"]
        logits, places = own.predict(self.x)
        found = own.evaluate((self.x, (self.kind, self.place)), batch_size=16)
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        want = -log_p[range(50), self.kind].mean() + np.mean((places - self.place) ** 2)
        assert found["loss"] == pytest.approx(want, rel=1e-5)
        assert found["0_accuracy"] == pytest.approx(np.mean(logits.argmax(1) == self.kind))

    @pytest.mark.parametrize("named", [False, True])
    def test_named_losses_are_of_an_output_and_its_target_each(self, named: bool) -> None:
        losses = ["cross_entropy", nn.MSELoss()]
        targets = (self.kind, self.place)
        names = ("kind", "place") if named else ("0", "1")
        own = qn.Trainer(
            TwoHeads(named),
            loss=dict(zip(names, losses, strict=True)) if named else losses,
            optimizer=optim.SGD(0.1),
            metrics=[f"{names[0]}_accuracy", f"{names[1]}_mae"],
        )
        y = dict(zip(names, targets, strict=True)) if named else targets
        found = own.evaluate((self.x, y), batch_size=16)
        parts = names if named else ("cross_entropy", "mse_loss")
        assert found["loss"] == pytest.approx(found[parts[0]] + found[parts[1]], rel=1e-6)
        places = own.predict(self.x)["place" if named else 1]
        assert found[f"{names[1]}_mae"] == pytest.approx(np.abs(places - self.place).mean())
        assert own.step(self.x, y).keys() == found.keys()

    def test_what_does_not_fit_is_told(self) -> None:
        rows = self.x, (self.kind, self.place)
        for loss, message in [
            ("cross_entropy", r"one output and one target, there are 2 targets"),
            (
                ["cross_entropy", "mse", "mse"],
                r"no output and no target for mse at 2: .* 2 in a row",
            ),
            ({"where": "mse"}, r"for mse at 'where'"),
        ]:
            with pytest.raises(UsageError, match=message):
                qn.Trainer(TwoHeads(), loss=loss, optimizer=optim.SGD(0.1)).step(*rows)
        with pytest.raises(DataError, match=r"found 50 in target 'b' and 49 in targets|50"):
            from_arrays(self.x, {"a": self.kind[:49], "b": self.kind})

    def test_data_sets_keep_them_together(self) -> None:
        data = from_arrays(self.x, {"kind": self.kind, "place": self.place})
        first, second = data.split(0.6, seed=1)
        assert isinstance(data, Dataset)
        assert (len(first), len(second)) == (30, 20)
        for batch in Batches(first, 8, shuffle=True).batches(0):
            assert isinstance(batch.targets, dict)
            np.testing.assert_array_equal(batch.targets["place"], np.asarray(batch.inputs)[:, ::-1])
        assert "target 'kind' int64(50,)" in repr(data)


class Fixed(nn.Module):
    """Gives what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(np.float32(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def measured(outputs: Array, targets: Array, *names: str, batch_size: int = 7) -> dict[str, float]:
    loss = "cross_entropy" if targets.dtype.kind == "i" else "mse"
    own = qn.Trainer(Fixed(), loss=loss, optimizer=optim.SGD(0.0), metrics=names)
    return own.evaluate((outputs, targets), batch_size)


class TestMetrics:
    def test_those_of_classes_are_scikit_learns_whatever_the_batches(self) -> None:
        """Of rows that do not fill the batches, and with a class that never occurs."""
        rng = np.random.default_rng(0)
        logits = rng.normal(size=(40, 5)).astype(np.float32)
        logits[:, 4] -= 100
        truth = rng.integers(0, 4, 40)
        found = measured(logits, truth, "accuracy", "precision", "recall", "f1", "mean_iou")
        guess, options = logits.argmax(1), {"average": "macro", "zero_division": 0.0}
        assert found["accuracy"] == pytest.approx(reference.accuracy_score(truth, guess))
        for name in ("precision", "recall", "f1"):
            score = getattr(reference, f"{name}_score")(truth, guess, **options)
            assert found[name] == pytest.approx(score), name
        assert found["mean_iou"] == pytest.approx(
            reference.jaccard_score(truth, guess, average="macro")
        )

    def test_the_right_class_is_among_the_largest(self) -> None:
        rng = np.random.default_rng(1)
        logits, truth = rng.normal(size=(30, 8)).astype(np.float32), rng.integers(0, 8, 30)
        found = measured(logits, truth, "top_3_accuracy", "top5")
        for k, name in ((3, "top_3_accuracy"), (5, "top5")):
            want = reference.top_k_accuracy_score(truth, logits, k=k, labels=range(8))
            assert found[name] == pytest.approx(want)

    def test_what_is_no_number_is_not_right(self) -> None:
        logits = np.eye(8, dtype=np.float32)
        logits[4:] = np.nan
        assert measured(logits, np.arange(8), "top_3_accuracy")["top_3_accuracy"] == pytest.approx(
            0.5
        )

    def test_a_loss_and_a_metric_may_have_one_name(self) -> None:
        rng = np.random.default_rng(6)
        logits, truth = rng.normal(size=(30, 4)).astype(np.float32), rng.integers(0, 4, 30)
        own = qn.Trainer(
            Fixed(), loss={"f1": F.cross_entropy}, optimizer=optim.SGD(0.0), metrics=["f1"]
        )
        want = reference.f1_score(truth, logits.argmax(1), average="macro")
        assert own.evaluate((logits, truth))["f1"] == pytest.approx(want)

    def test_of_values(self) -> None:
        rng = np.random.default_rng(2)
        outputs, targets = rng.normal(size=(2, 20, 3)).astype(np.float32)
        found = measured(outputs, targets, "mae", "rmse", "smooth_l1")
        assert found["mae"] == pytest.approx(np.abs(outputs - targets).mean())
        assert found["rmse"] == pytest.approx(np.sqrt(np.mean((outputs - targets) ** 2)))
        assert found["smooth_l1"] > 0

    def test_samples_without_a_class_count_for_nothing(self) -> None:
        logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 2, 1, 0, 0, 0, 0]]
        truth = np.array([0, 1, 2, 1, 1, -100, -100, -100, 1])
        found = measured(logits, truth, "accuracy", "recall", batch_size=4)
        assert found["accuracy"] == pytest.approx(4 / 6)
        assert found["recall"] == pytest.approx(np.mean([1, 2 / 4, 1]))

    def test_which_classes_are_taken_for_which(self) -> None:
        rng = np.random.default_rng(4)
        logits, truth = rng.normal(size=(30, 4)).astype(np.float32), rng.integers(0, 4, 30)
        own = qn.Trainer(Fixed(), loss="cross_entropy", optimizer=optim.SGD(0.0))
        want = reference.confusion_matrix(truth, logits.argmax(1), labels=range(4))
        np.testing.assert_array_equal(own.confusion_matrix((logits, truth), 8), want)
        with pytest.raises(UsageError, match=r"for outputs \(30, 4\) the classes are \(30,\)"):
            own.confusion_matrix((logits, logits))

    def test_an_epoch_reports_what_follows_from_all_its_batches(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(3)
        logits, truth = rng.normal(size=(24, 4)).astype(np.float32), rng.integers(0, 4, 24)
        rows = logits, truth
        own = qn.Trainer(
            Fixed(), loss="cross_entropy", optimizer=optim.SGD(0.0), metrics=["f1", "accuracy"]
        )
        for stop in (4, 6):  # the sums of an epoch are in the checkpoint
            history = own.fit(
                *(rows, None),
                steps=stop,
                batch_size=4,
                validation=rows,
                checkpoint=tmp_path / "run",
                resume=True,
                quiet=True,
            )
        want = reference.f1_score(truth, logits.argmax(1), average="macro")
        assert history[0]["f1"] == pytest.approx(want)
        assert history[0]["val_f1"] == pytest.approx(want)

    def test_names_that_are_unknown_or_clash(self) -> None:
        for options, message in [
            ({"metrics": ["f2"]}, r"no metric 'f2'; there is accuracy, precision"),
            ({"loss": {"a": "mse", "b": "mse"}, "metrics": {"a": "mae"}}, r"both called 'a'"),
        ]:
            with pytest.raises(UsageError, match=message):
                trainer(**options)
        with pytest.raises(ShapeError, match=r"of one number say yourself what is a yes"):
            measured(np.zeros((4, 1), np.float32), np.zeros((4, 1), np.float32), "accuracy")


class TestTargetsThatAreMixed:
    def test_images_and_their_classes_are_mixed_alike(self) -> None:
        images = np.arange(6 * 16, dtype=np.float32).reshape(6, 1, 4, 4)
        labels = np.array([0, 1, 2, 0, 1, 2])
        x, y = mixup(images, labels, np.random.default_rng(0), class_count=3)
        assert x.shape == images.shape
        np.testing.assert_allclose(y.sum(1), 1, rtol=1e-6)
        before, one_hot = np.roll(images, 1, 0), np.eye(3)[labels]
        share = ((x - before) / (images - before)).mean()
        assert 0 < share < 1
        np.testing.assert_allclose(x, share * images + (1 - share) * before, rtol=1e-5)
        np.testing.assert_allclose(
            y, share * one_hot + (1 - share) * np.roll(one_hot, 1, 0), rtol=1e-5, atol=1e-6
        )

    def test_a_box_of_another_image_counts_as_much_as_it_covers(self) -> None:
        images = np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1) * np.ones((1, 2, 8, 8))
        for seed in range(5):
            x, y = cutmix(images, np.arange(4), np.random.default_rng(seed), class_count=4)
            for n in range(4):
                shares = np.bincount(x[n].astype(int).ravel(), minlength=4) / x[n].size
                np.testing.assert_allclose(y[n], shares, atol=1e-6)

    def test_networks_learn_from_them_and_are_tested_with_classes(self) -> None:
        x, y = spirals(48)
        own = trainer(loss=nn.CrossEntropyLoss(label_smoothing=0.1), metrics=["accuracy"])
        record = own.fit(
            (x, y),
            epochs=2,
            batch_size=16,
            transform=lambda x, y, rng: mixup(x, y, rng, class_count=3),
            validation=(x, y),
            quiet=True,
        )[-1]
        assert 0 < record["accuracy"] <= 1
        assert 0 < record["val_accuracy"] <= 1

    def test_classes_have_weights(self) -> None:
        x, y = spirals(32)
        weight = np.array([1.0, 2.0, 0.5], np.float32)
        model = small_net()
        w1, b1, w2, b2 = contents(model).values()
        found = trainer(model, loss=nn.CrossEntropyLoss(weight=weight)).evaluate((x, y), 32)
        logits = np.maximum(x @ w1.T + b1, 0) @ w2.T + b2
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        want = -(weight[y] * log_p[range(32), y]).sum() / weight[y].sum()
        assert found["loss"] == pytest.approx(want, rel=1e-5)
