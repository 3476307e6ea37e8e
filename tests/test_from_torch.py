"""Modules of PyTorch: the same numbers, gradients, keys and names as PyTorch has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quern as qn
from quern.compiler.errors import DTypeError, UsageError
from quern.compiler.types import Array

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}

# PyTorch's own export warns of what it will change.
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore:LSTM with projections"
)


class Function(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Any) -> Any:
        y = self.bn(self.conv(x))
        y += x
        return self.relu(y)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(Residual(8), Residual(8))
        self.fc = nn.Linear(8, 10)

    def forward(self, image: Any) -> Any:
        x = self.blocks(self.stem(image))
        return self.fc(x.mean((2, 3)))


class Last(nn.Module):
    """The output of a recurrent layer, and its final states."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        output, states = self.layer(x)
        return output, states


def encoder(**options: Any) -> Any:
    return nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True, **options)


IMAGE, ROWS, STEPS = (2, 4, 8, 8), (3, 6), (2, 5, 4)

MODULES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "classifier": (Classifier, (2, 1, 12, 12)),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 8, 3, stride=2, padding="valid", dilation=1, groups=2),
            nn.ConvTranspose2d(8, 6, 3, stride=2, output_padding=1),
            nn.Conv2d(6, 4, (1, 3), padding=(0, 1)),
        ),
        IMAGE,
    ),
    "one axis": (lambda: nn.Sequential(nn.Conv1d(4, 6, 3), nn.MaxPool1d(2)), (2, 4, 9)),
    "three axes": (
        lambda: nn.Sequential(nn.Conv3d(1, 2, 3), nn.AvgPool3d(2)),
        (1, 1, 6, 6, 6),
    ),
    "pools": (
        lambda: nn.Sequential(
            nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2, 1), nn.AdaptiveAvgPool2d((2, 3))
        ),
        IMAGE,
    ),
    "norms": (
        lambda: nn.Sequential(
            nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.LayerNorm([8, 8]),
            nn.LocalResponseNorm(3),
        ),
        IMAGE,
    ),
    "activations": (
        lambda: nn.Sequential(
            nn.Linear(6, 8), nn.ELU(), nn.SELU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish(),
            nn.Hardtanh(), nn.Hardswish(), nn.Hardsigmoid(), nn.Softplus(), nn.LeakyReLU(0.1),
            nn.PReLU(), nn.LogSigmoid(), nn.Softsign(), nn.GLU(), nn.LogSoftmax(-1),
        ),
        ROWS,
    ),
    "resizing": (
        lambda: nn.Sequential(
            nn.Upsample(scale_factor=2), nn.Upsample(size=(7, 5), mode="bilinear"),
            nn.Upsample(size=(9, 9), mode="bicubic", align_corners=True), nn.ReflectionPad2d(2),
            nn.ZeroPad2d((1, 0, 2, -1)), nn.PixelUnshuffle(1),
        ),
        IMAGE,
    ),
    "lstm": (lambda: Last(nn.LSTM(4, 3, 2, bidirectional=True, batch_first=True)), STEPS),
    "lstm with projection": (lambda: Last(nn.LSTM(4, 5, proj_size=3)), STEPS),
    "gru": (lambda: Last(nn.GRU(4, 3, 2, bias=False)), STEPS),
    "rnn": (lambda: Last(nn.RNN(4, 3, nonlinearity="relu")), STEPS),
    "attention": (encoder, (2, 5, 16)),
    "attention, norm first": (lambda: encoder(norm_first=True, activation="gelu"), (2, 5, 16)),
}  # fmt: skip

PLACES = torch.tensor([[[[2, 0, 3]]]]).repeat(2, 4, 3, 1)


def assigned(x: Any, assign: Callable[[Any], Any]) -> Any:
    """What becomes of a copy."""
    y = x.clone()
    assign(y)
    return y


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "arithmetic": lambda x: (2 - x) * x / (x.abs() + 1.5) + torch.add(x, x, alpha=0.5) - x**2,
    "powers": lambda x: (x.abs() + 1).rsqrt() + (x.abs() + 1) ** 1.5 + 2**x + x.square(),
    "functions": lambda x: x.exp().log1p() + x.sin() * x.cos() + x.erf() + x.tanh().atan(),
    "rounding": lambda x: (
        x.floor() + (3 * x).ceil() + x.round() + x.sign() + x // 0.5 + x.round(decimals=1)
    ),
    "choice": lambda x: torch.where(x > 0, x, -x.clamp(-0.5, 0.25)).masked_fill(x < -1, 7.0),
    "logic": lambda x: ((x > 0) & ~(x > 1) | torch.logical_not(x)).float(),
    "reductions": lambda x: (x.sum((1, 3), keepdim=True) + x.mean()).amax(2) + x.var(),
    "extrema": lambda x: (x.max(1).values + x.min(1)[0], x.argmax(2), x.topk(2, dim=3)),
    "running sums": lambda x: x.cumsum(2).logsumexp(1),
    "angles": lambda x: torch.atan2(x, x.flip(1)) + torch.hypot(x, x + 1) + x.fmod(0.7),
    "exponents": lambda x: torch.logaddexp(x, 2 * x) + x.exp2() + x.logcumsumexp(2) + x.sinc(),
    "order": lambda x: (
        x.cummax(2)[0],
        x.cummin(1)[1],
        x.kthvalue(2, 2)[0],
        x.median(3)[0],
        x.median(),
    ),
    "distances": lambda x: (torch.cdist(x[:, 0], x[:, 1] + 1), F.pdist(x[0, 0]), x.dist(2 * x)),
    "norms": lambda x: F.normalize(x, dim=1) + x.norm(dim=(2, 3), keepdim=True),
    "deviation": lambda x: (x - x.mean(1, keepdim=True)) / x.std(1, unbiased=False, keepdim=True),
    "views": lambda x: x.permute(0, 2, 3, 1).reshape(2, -1, 4).transpose(1, 2).unsqueeze(0),
    "moved axes": lambda x: x.movedim(1, -1).squeeze(0).flip(1).roll(3, 2).unflatten(1, (2, -1)),
    "joins": lambda x: torch.cat([x, *x.chunk(2, 1)], 1).repeat(1, 2, 1, 1),
    "parts": lambda x: torch.stack([*x.unbind(2)[:3], *(p.sum(2) for p in x.split([3, 5], 2))]),
    "slices": lambda x: x[:, 1:3, ::2, -1] + x[:, :2, 0, :4],
    "indices": lambda x: x[:, torch.tensor([2, 0]), torch.tensor([1, 5])] + x[..., 0, :][:, :2],
    "products": lambda x: (
        torch.addmv(x[0, 0, 0], x[0, 1], x[0, 2, 0], beta=0.5, alpha=2),
        F.bilinear(x[0, 0], x[1, 0], x[0] * x[1], x[0, :, 0, 0]),
    ),
    "bags": lambda x: tuple(
        F.embedding_bag(torch.tensor([[1, 2, 2], [0, 7, 1]]), x[0, 0], mode=mode)
        for mode in ("sum", "mean", "max")
    ),
    "einsum": lambda x: torch.einsum("nchw,ndhw->ncd", x, x),
    "made tensors": lambda x: (
        x + torch.arange(8) + torch.full((8, 1), 0.5) + torch.ones_like(x).tril() + x.new_zeros(1)
    ),
    "scattered": lambda x: (
        x.scatter(3, PLACES, x + 1) + x.scatter(2, PLACES, 0.5),
        torch.zeros_like(x).scatter_add_(1, PLACES, x),
        x.scatter_reduce(2, PLACES, x, "amax", include_self=False),
        x.index_add(2, PLACES[0, 0, 0], x[:, :, :3], alpha=2).index_fill(1, PLACES[0, 0, 0], 1.0),
    ),
    "assigned": lambda x: (
        assigned(x, lambda y: y.__setitem__((0, slice(None), 2), 1.5)),
        assigned(x, lambda y: y.__setitem__((slice(None), slice(1, None, 2)), x[:, :2])),
        assigned(x, lambda y: y.__setitem__((slice(None), PLACES[0, 0, 0]), x[:, :3])),
        assigned(x, lambda y: y.__setitem__((PLACES[0, 0, 0] % 2, -1), x[0, 0])),
        assigned(x, lambda y: y.__setitem__(y > 0.5, -1.0)),
        assigned(x, lambda y: y.__setitem__((slice(None), y[0, :, 0, 0] > 0), 2.0)),
        assigned(x, lambda y: y.index_put_((PLACES[0, 0, 0] % 2,), x[0], accumulate=True)),
        torch.empty_like(x).fill_(2.0).add_(x).diagonal(0, 2, 3),
    ),
    "searched": lambda x: (
        torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0]), right=True, out_int32=True),
        torch.searchsorted(torch.tensor([-1.0, 0.0, 1.0]), x, side="left"),
        torch.isin(x.round(), torch.tensor([0.0, 2.0]), invert=True),
        torch.histc(x, 5, -1, 1),
        x.sort(1, descending=True),
        x.argsort(2),
    ),
    "triangles": lambda x: (
        x[0, 0][tuple(torch.tril_indices(8, 8))] + x[0, 0][tuple(torch.triu_indices(8, 8))]
    ),
    "grids": lambda x: F.grid_sample(
        x,
        F.affine_grid(x[:, :2, 0, :3] / 3, [2, 4, 5, 6], align_corners=True),
        padding_mode="reflection",
        align_corners=True,
    ),
    "pools": lambda x: (
        F.max_pool2d(x, 3, ceil_mode=True),
        F.avg_pool2d(x, (2, 3)),
        F.lp_pool2d(x, 2.0, 3),
        F.max_pool2d(x, 9, padding=4, ceil_mode=True),
        F.avg_pool2d(x, 9, ceil_mode=True),
    ),
    "resized": lambda x: (
        F.interpolate(x, scale_factor=1.3),
        F.interpolate(x, scale_factor=1.7, mode="nearest-exact"),
        F.interpolate(x, (3, 5), mode="bilinear", antialias=True),
        F.fold(F.unfold(x, 3, padding=1), 8, 3, padding=1),
    ),
    "causal attention": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "structure": lambda x: {"low": x - 1, "pair": (x + 1, [x * 2])},
}


def trained(module: Any, training: bool) -> Any:
    """The module with contents that tell apart what must not be mixed up."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.2, 0.4)
    for name, buffer in module.named_buffers():
        if name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.5, 2.0)
    return module.train(training)


def example(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def flat(structure: Any) -> list[Array]:
    """All arrays, in order."""
    if isinstance(structure, dict):
        return [a for v in structure.values() for a in flat(v)]
    if isinstance(structure, tuple | list):
        return [a for v in structure for a in flat(v)]
    return [structure.detach().numpy() if isinstance(structure, torch.Tensor) else structure]


def assert_equal(ours: Any, theirs: Any) -> None:
    for mine, expected in zip(flat(ours), flat(theirs), strict=True):
        assert mine.shape == expected.shape
        assert mine.dtype == expected.dtype
        np.testing.assert_allclose(mine, expected, **TOLERANCE)


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("name", MODULES)
def test_modules_give_the_same_numbers(name: str, training: bool) -> None:
    make, shape = MODULES[name]
    theirs, x = trained(make(), training), example(shape)
    ours = qn.from_torch(theirs)
    assert_equal(ours(x), theirs(torch.from_numpy(x)))
    state = {key: value.numpy() for key, value in theirs.state_dict().items()}
    assert list(ours.state_dict()) == list(state)
    for key, array in ours.state_dict().items():  # with what batch norms have seen
        np.testing.assert_allclose(array, state[key], **TOLERANCE)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_give_the_same_numbers(name: str) -> None:
    theirs, x = Function(FUNCTIONS[name]), example(IMAGE)
    assert_equal(qn.from_torch(theirs)(x), theirs(torch.from_numpy(x)))


@pytest.mark.parametrize("name", ["classifier", "convolutions", "activations", "lstm", "attention"])
def test_gradients_are_the_same(name: str) -> None:
    make, shape = MODULES[name]
    theirs, x = trained(make(), training=True), example(shape)
    ours = qn.from_torch(theirs)
    names = [key for key, _ in ours.named_parameters()]

    def loss(x: Any) -> Any:
        result = ours(x)
        first = result[0] if isinstance(result, tuple) else result
        return (first * first).sum()

    gradients = qn.grad(qn.trace(loss, qn.spec(x)), of="output", wrt=names)
    found = dict(zip(gradients.outputs, qn.interpret(gradients, x), strict=True))
    result = theirs(torch.from_numpy(x))
    first = result[0] if isinstance(result, tuple) else result
    (first * first).sum().backward()
    expected = [p.grad.numpy() for p in theirs.parameters()]
    for key, other in zip(names, expected, strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(
            found[f"grad.{key}"], other, rtol=1e-3, atol=1e-4 * scale, err_msg=key
        )


def test_results_that_are_not_known_are_not_returned_as_none() -> None:
    module = Function(lambda x: F.adaptive_max_pool2d(x, 2, return_indices=True))
    with pytest.raises(UsageError, match=r"a result of PyTorch's operator aten\.adaptive_max_pool"):
        qn.trace(qn.from_torch(module), qn.spec(*IMAGE))


def test_it_is_compiled_as_any_module(tmp_path: Path) -> None:
    theirs, x = trained(Classifier(), training=False), example((2, 1, 12, 12))
    executable = qn.compile(theirs, qn.spec(x))
    assert_equal(executable(x), theirs(torch.from_numpy(x)))
    assert executable.graph.name == "Classifier"
    assert list(executable.inputs) == ["image"]
    executable.save(tmp_path / "classifier.qn")
    assert_equal(qn.load(tmp_path / "classifier.qn")(x), executable(x))


def test_it_is_trained_as_pytorch_trains_it() -> None:
    theirs, x = trained(Classifier(), training=True), example((8, 1, 12, 12))
    y = np.arange(8)
    ours = qn.from_torch(theirs)
    trainer = qn.Trainer(ours, loss="cross_entropy", optimizer=qn.optim.SGD(0.1, momentum=0.9))
    trainer.fit((x, y), epochs=3, batch_size=8)
    descent = torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        descent.zero_grad()
        F.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        descent.step()
    for key, expected in theirs.state_dict().items():
        np.testing.assert_allclose(
            ours.state_dict()[key], expected.numpy(), rtol=1e-3, atol=1e-4, err_msg=key
        )


def test_what_was_trained_goes_back() -> None:
    theirs = Classifier()
    ours = qn.from_torch(theirs)
    ours.state_dict()["fc.bias"][:] = 5.0
    assert not (theirs.fc.bias == 5.0).any(), "contents are copies"
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()})
    assert (theirs.fc.bias == 5.0).all()


def test_nodes_have_the_names_of_modules_and_know_their_lines() -> None:
    graph = qn.trace(qn.from_torch(Classifier().eval()), qn.spec(1, 1, 12, 12))
    assert {"stem", "blocks.0.conv", "blocks.1.bn", "fc"} <= {n.name for n in graph.nodes()}
    source = graph.node("blocks.0.conv").source
    assert source is not None
    assert Path(source.file).name == Path(__file__).name
    assert "self.bn(self.conv(x))" in Path(__file__).read_text().splitlines()[source.line - 1]


def test_it_prints_as_in_pytorch() -> None:
    theirs = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), Residual(2))
    assert repr(qn.from_torch(theirs)) == repr(theirs)


def test_inputs_that_do_not_fit_are_told() -> None:
    with pytest.raises(UsageError, match=r"Classifier.*cannot export.*to have 1 channels, but got"):
        qn.trace(qn.from_torch(Classifier()), qn.spec(1, 3, 12, 12))


def test_tied_parameters_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4, bias=False)
            self.second = nn.Linear(4, 4, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x: Any) -> Any:
            return self.second(self.first(x))

    ours = qn.from_torch(Tied())
    assert [key for key, _ in ours.named_parameters()] == ["first.weight"]
    assert list(ours.state_dict()) == ["first.weight", "second.weight"]


def test_frozen_parameters_and_modes_are_kept() -> None:
    theirs = Classifier().train()
    theirs.stem.requires_grad_(False)
    theirs.blocks[0].bn.eval()
    ours = qn.from_torch(theirs)
    frozen = [key for key, p in ours.named_parameters() if not p.requires_grad]
    assert frozen == ["stem.weight", "stem.bias"]
    modes = {path: part.training for path, part in ours.named_modules()}
    assert modes["blocks.1.bn"]
    assert not modes["blocks.0.bn"]
    x = example((2, 1, 12, 12))
    assert_equal(ours(x), theirs(torch.from_numpy(x)))


def test_dropout_differs_from_run_to_run_in_training_alone() -> None:
    ours = qn.from_torch(nn.Sequential(nn.Dropout(0.5), nn.ReLU()))
    x = np.ones((4, 50), np.float32)
    first, second = ours(x), ours(x)
    assert set(np.unique(first)) == {0.0, 2.0}
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(ours.eval()(x), x)


def test_errors_name_the_line_of_the_users_own_module() -> None:
    with pytest.raises(UsageError, match=r"test_from_torch.py:\d+.*aten\.\w*bessel.*not supported"):
        qn.trace(qn.from_torch(Function(lambda x: torch.special.bessel_j0(x))), qn.spec(2))


def test_what_depends_on_numbers_cannot_be_exported() -> None:
    branching = Function(lambda x: x if x.sum() > 0 else -x)
    with pytest.raises(UsageError, match="PyTorch cannot export Function"):
        qn.trace(qn.from_torch(branching), qn.spec(2))


def test_what_has_other_types_is_refused() -> None:
    with pytest.raises(DTypeError, match="float16"):
        qn.from_torch(nn.Linear(2, 2).half())


def test_only_modules_of_pytorch_are_taken() -> None:
    with pytest.raises(UsageError, match=r"takes a torch\.nn\.Module, this is int"):
        qn.from_torch(3)
