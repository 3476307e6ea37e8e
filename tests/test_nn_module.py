"""Modules: what they hold, under which names, how they are saved, printed and run."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.errors import InputError, UsageError
from quern.nn import functional as F


class Net(nn.Module):
    """A network with everything that can be registered."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU())
        self.scale = nn.Parameter(np.ones(2, np.float32))
        self.register_buffer("mean", np.zeros(2, np.float32))
        self.register_buffer("scratch", np.zeros(1, np.float32), persistent=False)
        self.absent = None
        self.head = nn.Linear(2, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.features(x).mean((2, 3)) * self.scale + self.mean)


KEYS = [
    "scale",
    "mean",
    "features.0.weight",
    "features.1.weight",
    "features.1.bias",
    "features.1.running_mean",
    "features.1.running_var",
    "features.1.num_batches_tracked",
    "head.weight",
    "head.bias",
]


# -- registration ---------------------------------------------------------------------------------


def test_what_is_assigned_is_registered_under_its_name() -> None:
    net = Net()
    assert [name for name, _ in net.named_children()] == ["features", "head"]
    assert [name for name, _ in net.named_modules()] == [
        "",
        "features",
        "features.0",
        "features.1",
        "features.2",
        "head",
    ]
    assert [name for name, _ in net.named_parameters()] == [
        "scale",
        "features.0.weight",
        "features.1.weight",
        "features.1.bias",
        "head.weight",
        "head.bias",
    ]
    assert len(list(net.parameters())) == 6
    assert [name for name, _ in net.named_parameters(recurse=False)] == ["scale"]
    assert [name for name, _ in net.named_buffers(recurse=False)] == ["mean", "scratch"]
    assert net.get_submodule("features.1") is net.features[1]
    assert net.get_parameter("head.bias") is net.head.bias
    assert net.get_buffer("features.1.running_var") is net.features[1].running_var


def test_names_move_between_kinds() -> None:
    net = nn.Module()
    net.thing = nn.Linear(1, 1)
    net.thing = nn.Parameter(np.ones(1))
    assert (len(list(net.children())), len(list(net.parameters()))) == (0, 1)
    net.thing = None
    assert net.thing is None
    assert not list(net.parameters())
    del net.thing
    assert not hasattr(net, "thing")
    net.plain = 3
    net.plain = nn.ReLU()
    assert isinstance(net.plain, nn.ReLU)


def test_arrays_assigned_to_a_buffer_replace_it() -> None:
    net = Net()
    net.mean = np.ones(2, np.float32)
    assert net.state_dict()["mean"].tolist() == [1, 1]
    net.mean = None
    assert "mean" not in net.state_dict()
    net.scratch = np.ones(4)
    assert "scratch" not in net.state_dict()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda net: setattr(net, "head", 3), "head of Net holds an nn.Module"),
        (lambda net: setattr(net, "scale", np.ones(2)), "scale of Net holds an nn.Parameter"),
        (lambda net: net.register_parameter("a.b", None), "'a.b' cannot name"),
        (lambda net: net.register_parameter("a", np.ones(1)), "wrap it in nn.Parameter"),
        (lambda net: net.add_module("", nn.ReLU()), "'' cannot name"),
        (lambda net: net.add_module("a", 3), "a is 3, which is no nn.Module"),
        (lambda net: net.get_submodule("features.7"), "Sequential holds 0, 1, 2"),
        (lambda net: net.get_parameter("head.gain"), "no 'head.gain'; there is weight, bias"),
        (lambda net: net.to("int32"), "parameters are floats"),
    ],
)
def test_slips_are_refused(act: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        act(Net())


def test_a_missing_call_of_the_base_class_is_named() -> None:
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.ReLU()

    with pytest.raises(UsageError, match=r"Forgetful must call super\(\).__init__\(\)"):
        Forgetful()


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    net = Net()
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'tail'"):
        net.tail  # noqa: B018  # asked for, not used
    assert {"features", "scale", "mean", "train"} <= set(dir(net))


# -- modes ----------------------------------------------------------------------------------------


def test_modes_go_down_to_every_module() -> None:
    net = Net()
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    net.features.train()
    assert next(name for name, m in net.named_modules() if m.training) == "features"


def test_parameters_can_be_frozen() -> None:
    net = Net()
    net.features.requires_grad_(False)
    graph = qn.trace(net, qn.spec(2, 1, 5, 5))
    frozen = {n.name for n in graph.nodes() if getattr(n.op, "trainable", True) is False}
    assert frozen == {"features.0.weight", "features.1.weight", "features.1.bias"}


def test_apply_reaches_children_before_parents() -> None:
    seen: list[str] = []
    Net().apply(lambda module: seen.append(type(module).__name__))
    assert seen == ["Conv2d", "BatchNorm2d", "ReLU", "Sequential", "Linear", "Net"]


def test_double_converts_floats_only() -> None:
    net = Net().double()
    types = {key: array.dtype.name for key, array in net.state_dict().items()}
    assert types.pop("features.1.num_batches_tracked") == "int64"
    assert set(types.values()) == {"float64"}
    assert net.float().scale.data.dtype == np.float32


# -- state ----------------------------------------------------------------------------------------


def test_the_state_dict_has_pytorchs_keys() -> None:
    assert list(Net().state_dict()) == KEYS
    assert list(Net().head.state_dict(prefix="x.")) == ["x.weight", "x.bias"]


def test_state_goes_from_one_network_to_another() -> None:
    first, second = Net(), Net()
    x = np.ones((1, 1, 5, 5), np.float32)
    assert not np.array_equal(first.eval()(x), second.eval()(x))
    result = second.load_state_dict(first.state_dict())
    assert result == ([], [])
    np.testing.assert_array_equal(first(x), second(x))
    assert second.head.weight.data is not first.head.weight.data


def test_what_does_not_fit_is_named_and_nothing_changes() -> None:
    net = Net()
    before = copy.deepcopy(net.state_dict())
    state = net.state_dict()
    del state["head.bias"]
    state |= {"tail": np.ones(1), "scale": np.ones(3), "mean": np.full(2, 7.0)}
    with pytest.raises(InputError) as caught:
        net.load_state_dict(state)
    assert str(caught.value) == (
        "the state does not fit Net: missing keys: head.bias; unexpected keys: tail; "
        "scale is float32[2], the given one is float64[3]"
    )
    for key, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[key])
    with pytest.raises(InputError, match="scale is float32"):
        net.load_state_dict(state, strict=False)
    with pytest.raises(InputError, match="num_batches_tracked is int64"):
        net.load_state_dict({"features.1.num_batches_tracked": np.ones(())}, strict=False)


def test_loading_may_be_partial() -> None:
    net = Net()
    missing, unexpected = net.load_state_dict({"mean": [1, 2], "tail": 3}, strict=False)
    assert net.mean.data.tolist() == [1, 2]
    assert net.mean.data.dtype == np.float32
    assert unexpected == ["tail"]
    assert missing == [key for key in KEYS if key != "mean"]


def test_tied_parameters_count_once_and_are_saved_under_each_name() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert len(list(net.named_parameters(remove_duplicate=False))) == 4
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    clone = copy.deepcopy(net)
    assert clone[1].weight is clone[0].weight
    assert clone[0].weight is not net[0].weight


def test_parameters_are_arrays_outside_of_a_trace() -> None:
    parameter = nn.Parameter([1.0, 2.0])
    assert parameter.dtype.numpy == np.float32
    assert (parameter.shape, parameter.rank, len(parameter)) == ((2,), 1, 2)
    assert np.asarray(parameter).tolist() == parameter.numpy().tolist() == [1, 2]
    assert repr(parameter) == "Parameter(float32[2])"
    array = np.ones(3)
    assert nn.Parameter(array).data is array


# -- printing -------------------------------------------------------------------------------------


def test_networks_print_as_in_pytorch() -> None:
    assert repr(Net()) == (
        "Net(\n"
        "  (features): Sequential(\n"
        "    (0): Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1), bias=False)\n"
        "    (1): BatchNorm2d(2, eps=1e-05, momentum=0.1, affine=True, bias=True, "
        "track_running_stats=True)\n"
        "    (2): ReLU()\n"
        "  )\n"
        "  (head): Linear(in_features=2, out_features=3, bias=True)\n"
        ")"
    )
    assert repr(nn.Module()) == "Module()"


def test_containers_print_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch")

    def build(nn: Any) -> Any:
        blocks = [nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(3)]
        return nn.ModuleDict({"a": nn.ModuleList([*blocks, nn.Tanh()]), "b": nn.Sequential()})

    assert repr(build(nn)) == repr(build(torch.nn))


# -- containers -----------------------------------------------------------------------------------


def test_sequences_of_modules_are_lists() -> None:
    layers = [nn.Linear(1, 1), nn.ReLU(), nn.Tanh()]
    for make in (lambda: nn.Sequential(*layers), lambda: nn.ModuleList(layers)):
        held: Any = make()
        assert list(held) == layers
        assert held[-1] is layers[2]
        assert list(held[1:]) == layers[1:]
        held.append(nn.Sigmoid()).insert(1, nn.Identity())
        names = ["Linear", "Identity", "ReLU", "Tanh", "Sigmoid"]
        assert [type(m).__name__ for m in held] == names
        assert [name for name, _ in held.named_children()] == list("01234")
        del held[1]
        held[0] = nn.Softsign()
        assert [type(m).__name__ for m in held] == ["Softsign", *names[2:]]
        with pytest.raises(IndexError, match="no place 9"):
            held[9]


def test_a_sequential_may_name_its_modules() -> None:
    net = nn.Sequential({"first": nn.Linear(1, 2), "second": nn.ReLU()})
    assert list(net.state_dict()) == ["first.weight", "first.bias"]
    assert net.first is net[0]
    assert [name for name, _ in net[1:].named_children()] == ["second"]


def test_dictionaries_of_modules_and_parameters() -> None:
    held = nn.ModuleDict({"relu": nn.ReLU(), "line": nn.Linear(1, 1)})
    assert list(held) == ["relu", "line"]
    assert "line" in held
    assert [m for _, m in held.items()] == list(held.values())
    del held["relu"]
    assert len(held) == 1
    weights = nn.ParameterDict({"a": np.ones(2), "b": nn.Parameter(np.zeros(1))})
    assert list(weights.state_dict()) == ["a", "b"]
    listed = nn.ParameterList([np.ones(2), nn.Parameter(np.zeros(1))])
    listed.append(np.ones(3))
    assert [p.shape for p in listed] == [(2,), (1,), (3,)]
    assert list(listed.state_dict()) == ["0", "1", "2"]


def test_parameters_in_lists_are_tensors_in_forward() -> None:
    class Polynomial(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factors = nn.ParameterList([np.float32([c]) for c in (1, 2, 3)])

        def forward(self, x: Any) -> Any:
            return sum((c * x**i for i, c in enumerate(self.factors)), 0.0 * x)

    y = Polynomial()(np.array([2.0], np.float32))
    assert y.tolist() == [1 + 2 * 2 + 3 * 4]


# -- running on arrays ----------------------------------------------------------------------------


def test_arrays_are_given_by_name_in_any_order() -> None:
    class Difference(nn.Module):
        def forward(self, a: Any, b: Any = 0.0, c: Any = 0.0) -> Any:
            return a * 100 + b * 10 + c

    one, two, three = (np.full(2, n, np.float32) for n in (1, 2, 3))
    expected = np.full(2, 123, np.float32)
    np.testing.assert_array_equal(Difference()(c=three, b=two, a=one), expected)
    np.testing.assert_array_equal(Difference()(one, c=three, b=two), expected)


def test_a_network_runs_on_arrays() -> None:
    net = nn.Linear(2, 1)
    net.weight.data[:], net.bias.data[:] = [[3, 4]], 5
    assert net(np.array([[1, 2]], np.float32)).tolist() == [[16]]


def test_structures_go_in_and_come_out() -> None:
    class Both(nn.Module):
        def forward(self, pair: Any, factor: float = 1.0) -> Any:
            return {"sum": pair[0] + pair[1], "rest": (pair[0] * factor, None)}

    a, b = np.float32([1, 2]), np.float32([3, 4])
    both = Both()
    assert both((a, b), factor=3.0)["rest"][0].tolist() == [3, 6]
    result = both((a, b))
    assert result["sum"].tolist() == [4, 6]
    assert result["rest"][0].tolist() == [1, 2]
    assert result["rest"][1] is None


def test_runs_see_every_change_of_the_network() -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Dropout(0.0))
    x = np.ones((1, 1), np.float32)
    for change, expected in [
        (lambda: net[0].weight.data.fill(2.0), 2.0),
        (lambda: setattr(net[0], "weight", nn.Parameter(np.float32([[3.0]]))), 3.0),
        (lambda: net.append(nn.Linear(1, 1, bias=False)), None),
        (lambda: net[2].weight.data.fill(-1.0), -3.0),
        (lambda: net.append(nn.ReLU()), 0.0),
        (lambda: net.double(), "float64"),
    ]:
        change()
        if expected == "float64":
            assert net(x.astype(np.float64)).dtype == np.float64
        elif expected is not None:
            assert net(x).item() == expected


def test_statistics_are_kept_in_training_and_used_in_inference() -> None:
    net = nn.BatchNorm1d(1, momentum=0.5)
    x = np.array([[1.0], [3.0]], np.float32)
    np.testing.assert_allclose(net(x), [[-1], [1]], atol=1e-4)
    assert (net.running_mean.data.item(), net.running_var.data.item()) == (1.0, 1.5)
    assert net.num_batches_tracked.data == 1
    np.testing.assert_allclose(net.eval()(x), [[0], [2 / 1.5**0.5]], atol=1e-4)
    net.reset_running_stats()
    assert (net.running_mean.data.item(), net.running_var.data.item()) == (0.0, 1.0)


def test_dropout_draws_anew_in_every_run_and_again_after_a_seed() -> None:
    net, x = nn.Dropout(0.5), np.ones(64, np.float32)
    qn.manual_seed(5)
    first, second = net(x), net(x)
    assert set(np.unique(first)) == {0.0, 2.0}
    assert not np.array_equal(first, second)
    qn.manual_seed(5)
    np.testing.assert_array_equal(net(x), first)
    np.testing.assert_array_equal(net.eval()(x), x)


def test_channels_fall_together() -> None:
    y = nn.Dropout2d(0.5)(np.ones((8, 8, 3, 3), np.float32))
    assert set(np.unique(y)) == {0.0, 2.0}
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :, :1, :1], y.shape))


def test_a_padding_row_gets_no_gradient() -> None:
    from quern.compiler.autodiff import differentiate
    from quern.compiler.evaluate import evaluate

    net = nn.Embedding(4, 2, padding_idx=1)
    net.weight.data[1] = 9.0
    graph = qn.trace(lambda i: net(i), qn.spec(3, dtype="int64"))
    result = evaluate(differentiate(graph), {"i": np.array([1, 2, 2])}).outputs
    assert result["output"][0].tolist() == [9, 9]
    assert result["grad.weight"].tolist() == [[0, 0], [0, 0], [2, 2], [0, 0]]


def test_detached_values_let_no_gradient_through() -> None:
    from quern.compiler.autodiff import differentiate
    from quern.compiler.evaluate import evaluate

    graph = qn.trace(lambda x: (x * x.detach()).sum(), qn.spec(2))
    back = differentiate(graph, wrt=["x"])
    assert evaluate(back, {"x": np.float32([2, 3])}).outputs["grad.x"].tolist() == [2, 3]


def test_torch_spellings_of_tensor_methods() -> None:
    class Torchlike(nn.Module):
        def forward(self, x: Any) -> Any:
            n, c = x.size(0), x.size()[1]
            assert (x.dim(), x.numel(), x.shape) == (3, 24, (2, 3, 4))
            y = x.view(n, c, -1).contiguous().permute(0, 2, 1).transpose(1, 2)
            return (
                y.sum(dim=1, keepdim=True),
                y.mean(dim=(0, 2)),
                y.prod(dim=-1),
                y.amax(dim=1),
                F.cat([y, y], dim=-1),
            )

    x = np.random.default_rng(0).random((2, 3, 4), np.float32)
    total, mean, product, largest, twice = Torchlike()(x)
    np.testing.assert_allclose(total, x.sum(1, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(mean, x.mean((0, 2)), rtol=1e-6)
    np.testing.assert_allclose(product, x.prod(-1), rtol=1e-6)
    np.testing.assert_array_equal(largest, x.max(1))
    np.testing.assert_array_equal(twice, np.concatenate([x, x], -1))
