"""The front door: whatever describes a network, compiled and called, or refused with one line."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

import quern as qn
from quern import nn, optim
from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph
from quern.compiler.llvm.target import Target
from quern.compiler.tensor import Tensor
from quern.compiler.training import build_training_step
from quern.compiler.types import Array

TINY = """
from quern import nn

class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x)

def double(x):
    return x + x
"""


class Mixed(nn.Module):
    """Two inputs, two named outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        return {"sum": self.fc(left + right), "product": left * right}


class Dropped(nn.Module):
    """Differs between training and inference."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.drop(self.norm(x))
        return result


@pytest.fixture(scope="module")
def mixed() -> qn.Executable:
    qn.manual_seed(0)
    return qn.compile(Mixed(), qn.spec(4, 3), qn.spec(4, 3))


def pair(rng: np.random.Generator) -> tuple[Array, Array]:
    return rng.standard_normal((4, 3), np.float32), rng.standard_normal((4, 3), np.float32)


# -- what describes a network ---------------------------------------------------------------------


def test_a_module() -> None:
    network = nn.Linear(3, 2)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_allclose(qn.compile(network, qn.spec(2, 3))(x), network(x), rtol=1e-5)


def test_a_module_is_compiled_in_the_mode_it_is_in() -> None:
    network = Dropped()
    training = qn.compile(network, qn.spec(8, 3))
    inference = qn.compile(network.eval(), qn.spec(8, 3))
    x = np.ones((8, 3), np.float32)
    assert "norm.running_mean" in training.graph.updates
    assert not inference.graph.updates
    np.testing.assert_allclose(inference(x), x / np.sqrt(1 + 1e-5), rtol=1e-6)


def test_a_function() -> None:
    assert qn.compile(lambda a, b: a - b, qn.spec(2), qn.spec(2))(
        [3.0, 5.0], [1.0, 1.0]
    ).tolist() == [2.0, 4.0]


def test_a_graph() -> None:
    graph = Graph("plus")
    x = graph.input(qn.spec(2), "x")
    graph.outputs["y"] = (x + 1.0).value
    assert qn.compile(graph)(np.array([1, 2], np.float32)).tolist() == [2.0, 3.0]
    with pytest.raises(qn.UsageError, match=r"input x of plus is float32\[2\], it cannot become"):
        qn.compile(graph, qn.spec(3))


def test_a_networkx_graph() -> None:
    net = nx.DiGraph(name="twice")
    net.add_node("x", op="input", shape=(2,))
    net.add_node("y", op="add")
    net.add_edge("x", "y", output_port=(0, 0), input_port=(0, 1))
    assert qn.compile(net)(np.array([1, 2], np.float32)).tolist() == [2.0, 4.0]


def test_the_name_of_a_network_of_the_zoo() -> None:
    executable = qn.compile("lenet")
    assert executable.inputs == {"image": qn.spec(1, 1, 8, 8)}
    assert qn.compile("lenet", qn.spec(5, 1, 8, 8)).outputs == {"output": qn.spec(5, 10)}


def test_a_python_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.py"
    path.write_text(TINY)
    assert qn.compile(f"{path}:Tiny", qn.spec(1, 3)).outputs == {"output": qn.spec(1, 2)}
    assert qn.compile(f"{path}:double", qn.spec(2))(np.ones(2, np.float32)).tolist() == [2.0, 2.0]


def test_a_compiled_file(tmp_path: Path, mixed: qn.Executable) -> None:
    path = mixed.save(tmp_path / "mixed.qn")
    again = qn.compile(str(path))
    ones = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(again(ones, ones)[0], mixed(ones, ones)[0])


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("resnet81", "there is no network 'resnet81'; did you mean resnet18"),
        ("nothing.py:Net", "nothing.py does not exist"),
        ("nothing.qn", "nothing.qn does not exist"),
        (3, "int is no network"),
        (nn.Linear, "the class Linear is no network"),
    ],
)
def test_what_is_no_network(source: Any, told: str) -> None:
    with pytest.raises(qn.UsageError, match=told):
        qn.compile(source)


def test_types_that_are_missing_or_too_many_are_told() -> None:
    with pytest.raises(qn.UsageError, match=r"Linear takes input: missing .* qn.spec\("):
        qn.compile(nn.Linear(3, 2))
    with pytest.raises(qn.UsageError, match="too many positional arguments"):
        qn.compile(nn.Linear(3, 2), qn.spec(1, 3), qn.spec(1, 3))


# -- calling it -----------------------------------------------------------------------------------


def test_outputs_come_as_the_inputs_were_given(
    mixed: qn.Executable, rng: np.random.Generator
) -> None:
    left, right = pair(rng)
    by_place = mixed(left, right)
    by_name = mixed(right=right, left=left)
    as_dict = mixed({"left": left, "right": right})
    assert list(as_dict) == ["sum", "product"]
    for results in (by_name, tuple(as_dict.values())):
        for a, b in zip(by_place, results, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(as_dict["product"], left * right)


def test_interpret_gives_the_same_in_the_same_forms(
    mixed: qn.Executable, rng: np.random.Generator
) -> None:
    left, right = pair(rng)
    expected = mixed({"left": left, "right": right})
    as_dict = qn.interpret(mixed.graph, {"left": left, "right": right})
    by_name = qn.interpret(mixed.graph, left, right=right)
    assert list(as_dict) == list(expected)
    for name, array in zip(expected, by_name, strict=True):
        np.testing.assert_allclose(as_dict[name], expected[name], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(array, as_dict[name])
    with pytest.raises(qn.InputError, match="takes 2 inputs, got 3"):
        qn.interpret(mixed.graph, left, right, left)
    with pytest.raises(qn.InputError, match="no input 'rihgt'; did you mean right"):
        qn.interpret(mixed.graph, left, rihgt=right)


def test_each_run_gives_arrays_of_its_own(mixed: qn.Executable, rng: np.random.Generator) -> None:
    left, right = pair(rng)
    first = mixed(left, right)[1]
    kept = first.copy()
    mixed(right + 1, left)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({}, "left is missing, right is missing"),
        ({"left": np.zeros((4, 3), np.float32)}, "right is missing"),
        ({"lfet": 0, "right": 0}, "lfet is not known"),
        ({"left": np.zeros((3, 4), np.float32)}, r"is float32\[4, 3\], got float32\[3, 4\]"),
        ({"left": np.zeros((4, 3))}, r"is float32\[4, 3\], got float64\[4, 3\]"),
        ({"left": np.zeros((4, 3), np.int32)}, "got int32"),
        ({"left": np.zeros((4, 3), "U1")}, "got <U1"),
    ],
)
def test_what_does_not_fit_is_refused(
    mixed: qn.Executable, arrays: dict[str, Any], told: str
) -> None:
    if "left" in arrays and "missing" not in told:
        arrays = {"right": np.zeros((4, 3), np.float32), **arrays}
    with pytest.raises(qn.InputError, match=told):
        mixed(arrays)


def test_inputs_that_are_too_many_or_twice_are_refused(mixed: qn.Executable) -> None:
    x = np.zeros((4, 3), np.float32)
    with pytest.raises(qn.InputError, match="takes 2 inputs"):
        mixed(x, x, x)
    with pytest.raises(qn.InputError, match="by place and by name"):
        mixed(x, left=x)


def test_run_takes_inputs_by_name(mixed: qn.Executable) -> None:
    both: Any = [np.zeros((4, 3), np.float32)] * 2
    with pytest.raises(qn.InputError, match="takes inputs by name, got list; call the executable"):
        mixed.run(both)


def test_several_threads_may_call_one_executable(
    mixed: qn.Executable, rng: np.random.Generator
) -> None:
    inputs = [pair(rng) for _ in range(8)]
    expected = [mixed(*p) for p in inputs]
    wrong: list[int] = []

    def call(number: int) -> None:
        for _ in range(50):
            results = mixed(*inputs[number])
            if not all(map(np.array_equal, results, expected[number])):
                wrong.append(number)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(len(inputs))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


# -- a training step ------------------------------------------------------------------------------


def training_step(seed: int = 0) -> Graph:
    """Forward, backward and update of a small convolutional network with every kind of state."""
    qn.manual_seed(seed)
    network = nn.Sequential(
        # Without a bias, whose gradient is nothing but rounding in front of a batch norm.
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 3),
    )

    def loss(x: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"loss": nn.functional.cross_entropy(network(x), target)}

    graph = qn.trace(loss, qn.spec(6, 1, 8, 8), qn.spec(6, dtype="int64"), training=True)
    return build_training_step(graph, "loss", optim.SGD(0.05, momentum=0.9, weight_decay=1e-3))


def batches(rng: np.random.Generator, count: int) -> list[dict[str, Array]]:
    return [
        {"x": rng.standard_normal((6, 1, 8, 8), np.float32), "target": rng.integers(0, 3, 6)}
        for _ in range(count)
    ]


def test_updates_in_place_are_those_of_the_reference(rng: np.random.Generator) -> None:
    graph = training_step()
    executable = qn.compile(graph)
    state = {name: np.array(array) for name, array in executable.state.items()}
    for feeds in batches(rng, 4):
        actual = executable(feeds)
        expected = evaluate(graph, {**state, **feeds})
        state |= expected.updates
        np.testing.assert_allclose(actual["loss"], expected.outputs["loss"], rtol=1e-4)
        for name, array in expected.updates.items():
            np.testing.assert_allclose(
                executable.state[name], array, rtol=1e-3, atol=2e-5, err_msg=name
            )


def test_any_number_of_threads_gives_the_same_bits(rng: np.random.Generator) -> None:
    feeds = batches(rng, 3)
    runs = []
    for threads in (1, 2, 4):
        executable = qn.compile(training_step(), threads=threads)
        assert executable.threads == threads
        losses = [executable(f)["loss"].tobytes() for f in feeds]
        runs.append((losses, {name: a.tobytes() for name, a in executable.state.items()}))
    assert runs[0] == runs[1] == runs[2]


def test_two_executables_of_a_graph_have_states_of_their_own(rng: np.random.Generator) -> None:
    graph = training_step()
    (feeds,) = batches(rng, 1)
    first, second = qn.compile(graph), qn.compile(graph)
    before = {name: np.array(array) for name, array in second.state.items()}
    first(feeds)
    for name, array in before.items():
        np.testing.assert_array_equal(second.state[name], array)
        np.testing.assert_array_equal(graph.data[name], array)


# -- what else it tells ---------------------------------------------------------------------------


def test_it_says_what_it_is(mixed: qn.Executable) -> None:
    assert "Mixed: left float32[4, 3], right float32[4, 3] -> sum float32[4, 2]" in repr(mixed)


def test_a_report_tells_of_every_stage(mixed: qn.Executable) -> None:
    assert mixed.report is not None
    names = [stage.name for stage in mixed.report.stages]
    assert (
        names.index("partition")
        < names.index("lower")
        < names.index("plan")
        < names.index("machine code")
    )
    assert mixed.report.seconds == pytest.approx(sum(s.seconds for s in mixed.report.stages))


def test_the_text_of_every_stage_is_dumped(tmp_path: Path) -> None:
    qn.compile(nn.Linear(3, 2), qn.spec(2, 3), dump=tmp_path / "texts")
    files = sorted(path.name for path in (tmp_path / "texts").iterdir())
    kinds = [name.split("-", 1)[1] for name in files]
    assert [int(name[:2]) for name in files] == list(range(len(files)))
    assert kinds[0] == "declared.txt"
    assert kinds[-4:] == ["kernels.txt", "loops.txt", "llvm.ll", "assembly.s"]
    assert all((tmp_path / "texts" / name).read_text().strip() for name in files)


@pytest.mark.skipif(not Target.named("avx512").missing, reason="this machine runs AVX-512")
def test_what_is_compiled_for_a_larger_machine_is_saved_but_not_run(tmp_path: Path) -> None:
    executable = qn.compile(nn.ReLU(), qn.spec(4), target="avx512")
    with pytest.raises(qn.CompileError, match="this machine has no avx512"):
        executable(np.zeros(4, np.float32))
    loaded = qn.load(executable.save(tmp_path / "relu.qn"))
    assert loaded(np.array([-1, 2, -3, 4], np.float32)).tolist() == [0, 2, 0, 4]


@pytest.mark.parametrize("target", ["sse", "avx2"])
def test_lower_targets_agree(target: str, rng: np.random.Generator) -> None:
    if Target.named(target).missing:
        pytest.skip(f"this machine has no {target}")
    x = rng.standard_normal((1, 1, 8, 8), np.float32)
    qn.manual_seed(0)
    expected = qn.interpret("lenet", x)
    qn.manual_seed(0)
    np.testing.assert_allclose(
        qn.compile("lenet", target=target)(x), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("stage", ["declared", "optimized", "kernels"])
@pytest.mark.parametrize("backward", [False, True])
def test_every_stage_is_drawn(stage: str, backward: bool) -> None:
    source = qn.draw("lenet", stage=stage, backward=backward).source
    assert "conv1" in source
    assert ("∂" in source) == backward


def test_a_picture_of_kernels_has_boxes_with_their_names(tmp_path: Path) -> None:
    path = tmp_path / "lenet.gv"
    qn.draw("lenet", path, stage="kernels")
    kernels = [kernel.name for kernel in qn.compile("lenet").program.kernels]
    assert all(name in path.read_text() for name in kernels)


def test_a_stage_that_does_not_exist() -> None:
    with pytest.raises(qn.UsageError, match="no stage 'kernel'; did you mean kernels"):
        qn.draw("lenet", stage="kernel")


def test_public_names_are_the_same_objects_as_at_home() -> None:
    from quern.compiler.autodiff import differentiate

    assert qn.grad is qn.differentiate is differentiate
    assert qn.zoo.find("lenet") is not None
    assert issubclass(qn.ShapeError, qn.QuernError)
