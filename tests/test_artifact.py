"""`.qn` files: what goes in comes out; nothing that is damaged, foreign or hostile does harm."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import numpy as safetensors

import quern as qn
from quern import nn, optim
from quern.compiler.llvm.cache import secret_key
from quern.compiler.serialize import graph_to_json
from quern.compiler.tensor import Tensor
from quern.compiler.training import build_training_step
from quern.compiler.types import Array
from quern.runtime import artifact
from quern.runtime.archive import Archive

Parts = dict[str, bytes]
MANIFEST = json.dumps({"format": "quern", "version": artifact.VERSION}).encode()


class Net(nn.Module):
    """Every kind of content: parameters, buffers, constants, and weights with a folded norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.fc = nn.Linear(12, 2)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.conv(image)).relu()
        scores: Tensor = self.fc(x.reshape(2, 12))
        return scores * x.graph.constant(np.array([1.0, 2.0], np.float32))


@pytest.fixture(scope="module")
def executable() -> qn.Executable:
    qn.manual_seed(0)
    network = Net()
    network.norm.running_var.data = np.array([0.5, 1.0, 2.0], np.float32)
    return qn.compile(network.eval(), qn.spec(2, 1, 4, 4))


@pytest.fixture(scope="module")
def image() -> Array:
    return np.random.default_rng(1).standard_normal((2, 1, 4, 4), np.float32)


@pytest.fixture
def saved(executable: qn.Executable, tmp_path: Path) -> Path:
    return executable.save(tmp_path / "net.qn")


@pytest.fixture
def recompiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose kernels were not taken from them, but compiled."""
    names: list[str] = []
    compile_anew = artifact._recompiled

    def spy(archive: Archive, state: dict[str, Array]) -> object:
        names.append(archive.path.name)
        return compile_anew(archive, state)

    monkeypatch.setattr(artifact, "_recompiled", spy)
    return names


def read(path: Path) -> Parts:
    with zipfile.ZipFile(path) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def write(path: Path, parts: Parts, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def changed(path: Path, part: str, change: Callable[[bytes], bytes]) -> Path:
    parts = read(path)
    parts[part] = change(parts[part])
    return write(path, parts)


# -- round trip -----------------------------------------------------------------------------------


def test_what_is_loaded_gives_the_same_bits(
    executable: qn.Executable, saved: Path, image: Array, recompiled: list[str]
) -> None:
    loaded = qn.load(saved)
    assert recompiled == []
    assert loaded.inputs == executable.inputs
    assert loaded.outputs == executable.outputs
    np.testing.assert_array_equal(loaded(image), executable(image))
    assert str(loaded.graph) == str(executable.graph)


def test_state_is_part_of_it(executable: qn.Executable, saved: Path) -> None:
    loaded = qn.load(saved)
    assert loaded.state.keys() == executable.state.keys()
    for name, array in executable.state.items():
        np.testing.assert_array_equal(loaded.state[name], array)
    graph = artifact.load_graph(saved)
    assert str(graph) == str(executable.graph)
    np.testing.assert_array_equal(graph.data["fc.weight"], executable.state["fc.weight"])


def test_a_file_is_data_alone(saved: Path) -> None:
    names = list(read(saved))
    assert names[:2] == ["manifest.json", "graph.json"]
    assert {"program.json", "preparation.json", "state.safetensors", "constants.safetensors"} < set(
        names
    )
    assert all(n.endswith((".json", ".safetensors", ".o")) for n in names)
    assert not any(b"pickle" in part for part in read(saved).values())


def test_the_same_network_is_written_to_the_same_bytes(
    executable: qn.Executable, tmp_path: Path
) -> None:
    first, second = (executable.save(tmp_path / name).read_bytes() for name in ("a.qn", "b.qn"))
    assert first == second


def test_what_is_loaded_can_be_saved_again(saved: Path, tmp_path: Path) -> None:
    again = qn.load(saved).save(tmp_path / "again.qn")
    assert again.read_bytes() == saved.read_bytes()


def test_a_training_step_goes_on_where_it_was_saved(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    model = nn.Linear(3, 2)

    def loss(x: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"loss": nn.functional.cross_entropy(model(x), target)}

    traced = qn.trace(loss, qn.spec(4, 3), qn.spec(4, dtype="int64"), training=True)
    step = qn.compile(build_training_step(traced, "loss", optim.Adam(0.1)))
    x, target = rng.standard_normal((4, 3), np.float32), np.array([0, 1, 1, 0])
    step(x, target)
    loaded = qn.load(step.save(tmp_path / "step.qn"))
    for _ in range(3):
        assert loaded(x, target) == step(x, target)


def test_an_old_file_is_replaced_whole_or_not_at_all(
    executable: qn.Executable, tmp_path: Path
) -> None:
    path = tmp_path / "net.qn"
    path.write_bytes(b"old")
    executable.save(path)
    assert qn.load(path)
    assert [p.name for p in tmp_path.iterdir()] == ["net.qn"]
    with pytest.raises(qn.ArtifactError, match="cannot be written"):
        executable.save(tmp_path / "missing" / "net.qn")


# -- trust ----------------------------------------------------------------------------------------


def test_code_of_another_cache_is_compiled_anew(
    executable: qn.Executable,
    saved: Path,
    image: Array,
    recompiled: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUERN_CACHE_DIR", str(tmp_path / "other"))
    loaded = qn.load(saved)
    assert recompiled == ["net.qn"]
    np.testing.assert_array_equal(loaded(image), executable(image))
    monkeypatch.setenv("QUERN_CACHE_DIR", str(tmp_path / "other"))
    qn.load(loaded.save(tmp_path / "own.qn"))
    assert recompiled == ["net.qn"]


@pytest.mark.parametrize(
    "part", ["object", "program.json", "preparation.json", "constants.safetensors"]
)
def test_what_decides_about_code_is_vouched_for(
    executable: qn.Executable, saved: Path, image: Array, recompiled: list[str], part: str
) -> None:
    if part == "object":
        part = next(name for name in read(saved) if name.startswith("objects/"))
    changed(saved, part, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    loaded = qn.load(saved)
    assert recompiled == ["net.qn"]
    np.testing.assert_array_equal(loaded(image), executable(image))


@pytest.mark.parametrize("digest", ["0" * 64, "", None, 3, "é"])
def test_a_digest_that_is_wrong_is_not_trusted(
    saved: Path, image: Array, recompiled: list[str], digest: object
) -> None:
    manifest = {**json.loads(read(saved)["manifest.json"]), "digest": digest}
    changed(saved, "manifest.json", lambda _: json.dumps(manifest).encode())
    assert qn.load(saved)(image).shape == (2, 2)
    assert recompiled == ["net.qn"]


@pytest.mark.parametrize(
    "target", [None, {}, {"cpu": "x", "features": ["+magic"], "vector_bits": 256}]
)
def test_a_target_that_is_not_known_is_not_trusted(
    saved: Path, recompiled: list[str], target: object
) -> None:
    manifest = {**json.loads(read(saved)["manifest.json"]), "target": target}
    changed(saved, "manifest.json", lambda _: json.dumps(manifest).encode())
    assert qn.load(saved)
    assert recompiled == ["net.qn"]


def test_code_is_not_run_without_the_key_that_signed_it(
    saved: Path, recompiled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "rotated"
    folder.mkdir()
    monkeypatch.setenv("QUERN_CACHE_DIR", str(folder))
    secret_key(folder)
    qn.load(saved).save(saved)
    assert recompiled == ["net.qn"]
    (folder / "key").write_bytes(b"\0" * 32)
    qn.load(saved)
    assert recompiled == ["net.qn", "net.qn"]


# -- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "damaged or not a quern file"),
        (b"PK\x03\x04", "damaged or not a quern file"),
        (b"hello world" * 100, "damaged or not a quern file"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "strange.qn"
    path.write_bytes(content)
    with pytest.raises(qn.ArtifactError, match=told):
        qn.load(path)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(qn.ArtifactError, match="does not exist"):
        qn.load(tmp_path / "none.qn")
    with pytest.raises(qn.ArtifactError):
        qn.load(tmp_path)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({}, "manifest.json is missing"),
        ({"word/document.xml": b"<x/>"}, "not a quern file"),
        ({"manifest.json": b"[1]"}, "not a quern file"),
        ({"manifest.json": b"{"}, "is not JSON"),
        ({"manifest.json": b"\xff"}, "is not JSON"),
        ({"manifest.json": b"[" * 100_000}, "is not JSON"),
        ({"manifest.json": b'{"format": "other"}'}, "not a quern file"),
        ({"manifest.json": b'{"format": "quern", "version": 99}'}, "has version 99"),
        ({"manifest.json": MANIFEST}, "state.safetensors is missing"),
    ],
)
def test_zips_of_another_kind(tmp_path: Path, parts: Parts, told: str) -> None:
    with pytest.raises(qn.ArtifactError, match=told):
        qn.load(write(tmp_path / "foreign.qn", parts))


def test_packed_parts_are_refused_before_they_are_unpacked(saved: Path) -> None:
    parts = {**read(saved), "state.safetensors": bytes(200_000_000)}
    write(saved, parts, zipfile.ZIP_DEFLATED)
    assert saved.stat().st_size < 1_000_000
    with pytest.raises(qn.ArtifactError, match="packed otherwise"):
        qn.load(saved)


@pytest.mark.parametrize(
    "part", ["graph.json", "program.json", "state.safetensors", "constants.safetensors"]
)
def test_a_missing_part_is_told_or_made_again(saved: Path, part: str) -> None:
    parts = read(saved)
    del parts[part]
    write(saved, parts)
    if part in ("program.json", "constants.safetensors"):  # follow from the graph
        assert qn.load(saved)
    else:
        with pytest.raises(qn.ArtifactError, match=f"{part} is missing"):
            qn.load(saved)


def test_state_of_another_shape_is_refused(saved: Path, executable: qn.Executable) -> None:
    state = {**executable.state, "fc.bias": np.zeros(7, np.float32)}
    changed(saved, "state.safetensors", lambda _: safetensors.save(state))
    with pytest.raises(qn.ArtifactError, match=r"fc.bias is float32\[2\]"):
        qn.load(saved)


def test_a_graph_that_wants_more_memory_than_there_is_is_refused(saved: Path) -> None:
    graph = qn.Graph("greedy")
    wide = graph.input(qn.spec(1, 1), "x").broadcast_to((1 << 22, 1 << 22)).exp()
    graph.outputs["y"] = (wide @ wide).sum().value
    changed(saved, "graph.json", lambda _: json.dumps(graph_to_json(graph)).encode())
    changed(saved, "state.safetensors", lambda _: safetensors.save({}))
    with pytest.raises(qn.ArtifactError, match=r"net\.qn needs more memory than there is"):
        qn.load(saved)


def positions(path: Path) -> Iterator[int]:
    size = path.stat().st_size
    yield from np.random.default_rng(0).integers(0, size, 60)


def test_a_file_cut_off_anywhere_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in sorted({0, 1, 30, *map(int, positions(saved)), len(whole) - 1}):
        saved.write_bytes(whole[:length])
        with pytest.raises(qn.ArtifactError):
            qn.load(saved)


@pytest.fixture(scope="module")
def whole(executable: qn.Executable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return executable.save(tmp_path_factory.mktemp("whole") / "net.qn")


@settings(max_examples=60)
@given(data=st.data())
def test_changed_bytes_anywhere_do_no_harm(whole: Path, image: Array, data: st.DataObject) -> None:
    """Either the file is refused, or what is loaded runs."""
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    check_harmless(whole, bytes(content), image)


@settings(max_examples=40)
@given(data=st.data())
def test_changed_parts_do_no_harm(whole: Path, image: Array, data: st.DataObject) -> None:
    """As above, where the zip itself is sound."""
    parts = read(whole)
    name = data.draw(st.sampled_from(sorted(parts)))
    content = bytearray(parts[name])
    start = data.draw(st.integers(0, len(content) - 1))
    stop = data.draw(st.integers(start, min(len(content), start + 8)))
    content[start:stop] = data.draw(st.binary(max_size=8))
    mutated = whole.with_name("parts.qn")
    write(mutated, {**parts, name: bytes(content)})
    check_harmless(whole, mutated.read_bytes(), image)


def check_harmless(whole: Path, content: bytes, image: Array) -> None:
    path = whole.with_name("mutated.qn")
    path.write_bytes(content)
    try:
        loaded = qn.load(path)
    except qn.ArtifactError:
        return
    feeds = {n: np.zeros(t.shape, t.dtype.numpy) for n, t in loaded.inputs.items()}
    outputs = loaded(feeds)
    assert {n: a.shape for n, a in outputs.items()} == {
        n: t.shape for n, t in loaded.outputs.items()
    }
