"""The object cache: what was stored comes back, or nothing does, whatever happens around it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from quern.compiler.llvm.cache import (
    ObjectCache,
    default_directory,
    object_key,
    secret_key,
)
from quern.compiler.llvm.pool import compile_all
from quern.compiler.llvm.target import Target

AVX2, SSE = Target.named("avx2"), Target.named("sse")


@pytest.fixture
def cache(tmp_path: Path) -> ObjectCache:
    return ObjectCache(tmp_path / "cache")


def entry(cache: ObjectCache, key: str) -> Path:
    """The file that holds an entry."""
    return cache.directory / "objects" / key


class TestEntries:
    def test_come_back(self, cache: ObjectCache) -> None:
        for key, data in {"a": b"", "b": b"\0" * 1000, "c": os.urandom(5000)}.items():
            assert cache.get(key) is None
            cache.put(key, data)
            assert cache.get(key) == data
            assert ObjectCache(cache.directory).get(key) == data
        assert (cache.stats.hits, cache.stats.misses, cache.stats.stored) == (3, 3, 3)
        assert cache.stats.disabled == ""

    def test_last_one_stored_counts(self, cache: ObjectCache) -> None:
        cache.put("a", b"first")
        cache.put("a", b"second")
        assert cache.get("a") == b"second"

    def test_leave_no_other_files(self, cache: ObjectCache) -> None:
        cache.put("a", b"data")
        assert sorted(os.listdir(cache.directory)) == ["key", "objects"]
        assert os.listdir(cache.directory / "objects") == ["a"]

    @pytest.mark.parametrize(
        "damage",
        [
            lambda data: b"",
            lambda data: data[:10],
            lambda data: data[:-1],
            lambda data: data + b"\0",
            lambda data: bytes([data[0] ^ 1]) + data[1:],
            lambda data: data[:-1] + bytes([data[-1] ^ 128]),
        ],
        ids=["empty", "cut in digest", "cut in data", "longer", "digest", "data"],
    )
    def test_damaged_ones_are_dropped(
        self, cache: ObjectCache, damage: Callable[[bytes], bytes]
    ) -> None:
        cache.put("a", b"some machine code")
        file = entry(cache, "a")
        file.write_bytes(damage(file.read_bytes()))
        assert cache.get("a") is None
        assert not file.exists()
        assert (cache.stats.dropped, cache.stats.misses, cache.stats.hits) == (1, 1, 0)

    def test_one_cannot_stand_for_another(self, cache: ObjectCache) -> None:
        cache.put("a", b"code of a")
        entry(cache, "a").rename(entry(cache, "b"))
        assert cache.get("b") is None

    def test_written_under_another_secret_are_dropped(
        self, cache: ObjectCache, tmp_path: Path
    ) -> None:
        stranger = ObjectCache(tmp_path / "other")
        stranger.put("a", b"foreign code")
        entry(stranger, "a").rename(entry(cache, "a"))
        assert cache.get("a") is None
        assert cache.stats.dropped == 1

    def test_removed_by_another_process_is_a_miss(self, cache: ObjectCache) -> None:
        cache.put("a", b"data")
        entry(cache, "a").unlink()
        assert cache.get("a") is None
        assert cache.stats.disabled == ""

    @pytest.mark.parametrize("key", ["", "../key", "a/b"])
    def test_key_cannot_lead_elsewhere(self, cache: ObjectCache, key: str) -> None:
        with pytest.raises(ValueError, match="not a cache key"):
            cache.put(key, b"data")


class TestLimit:
    def test_least_recently_used_go_first(self, tmp_path: Path) -> None:
        cache = ObjectCache(tmp_path, limit=10_000)
        for age, key in enumerate("abcde"):
            cache.put(key, bytes(1800))
            os.utime(entry(cache, key), (1000.0 + age,) * 2)
        assert cache.get("a") is not None  # used now, so the youngest
        cache.put("f", bytes(1800))
        assert sorted(os.listdir(tmp_path / "objects")) == ["a", "d", "e", "f"]
        assert cache.stats.evicted == 2

    def test_holds(self, tmp_path: Path) -> None:
        cache = ObjectCache(tmp_path, limit=50_000)
        for i in range(200):
            cache.put(f"k{i}", bytes(i * 10))
            size = sum(file.stat().st_size for file in (tmp_path / "objects").iterdir())
            assert size <= cache.limit
        assert cache.get("k199") is not None

    def test_holds_for_what_others_stored(self, tmp_path: Path) -> None:
        one, other = (ObjectCache(tmp_path, limit=32_000) for _ in range(2))
        for i in range(100):
            one.put(f"a{i}", bytes(1000))
            other.put(f"b{i}", bytes(1000))
            # Each may be behind by what it lets pass between two looks at the folder.
            size = sum(file.stat().st_size for file in (tmp_path / "objects").iterdir())
            assert size <= 32_000 * (1 + 2 / 16)

    def test_abandoned_files_go(self, tmp_path: Path) -> None:
        ObjectCache(tmp_path)
        old = tmp_path / "objects" / ".unfinished-old"
        new = tmp_path / "objects" / ".unfinished-new"
        for file in (old, new):
            file.write_bytes(b"half")
        os.utime(old, (1000.0, 1000.0))
        ObjectCache(tmp_path).put("a", b"data")
        assert not old.exists()
        assert new.exists()


class TestFolder:
    def test_from_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        monkeypatch.setenv("QUERN_CACHE_DIR", "~/own")
        assert default_directory() == tmp_path / "own"
        monkeypatch.delenv("QUERN_CACHE_DIR")
        assert default_directory() == tmp_path / "xdg" / "quern"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        assert default_directory() == tmp_path / ".cache" / "quern"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert default_directory() == tmp_path / ".cache" / "quern"

    def test_is_the_users_own(self, cache: ObjectCache) -> None:
        for folder in (cache.directory, cache.directory / "objects"):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    def test_that_cannot_be_made_means_no_cache(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        cache = ObjectCache(tmp_path / "file" / "cache")
        cache.put("a", b"data")
        assert cache.get("a") is None
        assert "file" in cache.stats.disabled
        assert cache.verify(b"data", cache.sign(b"data"))

    def test_that_vanishes_means_no_cache(self, cache: ObjectCache) -> None:
        (cache.directory / "objects").rmdir()
        cache.put("a", b"data")
        assert cache.get("a") is None
        assert "objects" in cache.stats.disabled

    def test_key_of_another_user_is_not_trusted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        secret_key(tmp_path)
        user = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
        assert "belongs to another user" in ObjectCache(tmp_path).stats.disabled


class TestSecret:
    def test_is_made_once(self, tmp_path: Path) -> None:
        key = secret_key(tmp_path)
        assert len(key) == 32
        assert secret_key(tmp_path) == key
        assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
        assert os.listdir(tmp_path) == ["key"]

    @pytest.mark.parametrize("content", [b"", b"short", bytes(33)])
    def test_damaged_is_replaced(self, tmp_path: Path, content: bytes) -> None:
        secret_key(tmp_path)
        (tmp_path / "key").write_bytes(content)
        key = secret_key(tmp_path)
        assert len(key) == 32
        assert key != content
        assert secret_key(tmp_path) == key

    def test_readable_by_others_is_replaced(self, tmp_path: Path) -> None:
        key = secret_key(tmp_path)
        (tmp_path / "key").chmod(0o644)
        assert secret_key(tmp_path) != key

    def test_link_is_not_followed(self, tmp_path: Path) -> None:
        secret_key(tmp_path)
        (tmp_path / "key").rename(tmp_path / "elsewhere")
        (tmp_path / "key").symlink_to("elsewhere")
        with pytest.raises(OSError, match="key"):
            secret_key(tmp_path)

    def test_signs(self, cache: ObjectCache, tmp_path: Path) -> None:
        digest = cache.sign(b"code")
        assert cache.verify(b"code", digest)
        assert ObjectCache(cache.directory).verify(b"code", digest)
        assert not cache.verify(b"Code", digest)
        assert not cache.verify(b"code", digest[:-1])
        assert not cache.verify(b"code", "")
        assert not cache.verify(b"code", "ü" * 64)
        assert not ObjectCache(tmp_path / "other").verify(b"code", digest)


class TestKeys:
    def test_say_everything(self) -> None:
        keys = {
            object_key(AVX2, "ab", "c"),
            object_key(AVX2, "a", "bc"),
            object_key(AVX2, "abc"),
            object_key(AVX2, "abc", ""),
            object_key(SSE, "abc"),
        }
        assert len(keys) == 5
        assert all(len(key) == 64 and key.isalnum() for key in keys)

    def test_are_stable(self) -> None:
        assert object_key(AVX2, "abc") == object_key(Target.named("avx2"), b"abc")


def test_compiled_units_are_kept(cache: ObjectCache) -> None:
    units = {f"f{i}": f"define float @f{i}() {{ ret float {i}.0 }}" for i in range(4)}
    first = compile_all(units, AVX2, cache)
    assert (first.compiled, first.cached) == (4, 0)
    entry(cache, object_key(AVX2, units["f1"])).write_bytes(b"damaged")
    second = compile_all(units, AVX2, ObjectCache(cache.directory))
    assert (second.compiled, second.cached) == (1, 3)
    assert second.objects == first.objects
    assert compile_all(units, SSE, cache).cached == 0


HAMMER = textwrap.dedent("""\
    import random, sys
    from pathlib import Path
    from quern.compiler.llvm.cache import ObjectCache, secret_key

    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    cache = ObjectCache(folder, limit=60_000)  # room for half of them
    choose = random.Random(seed)
    for _ in range(1500):
        number = choose.randrange(40)
        data = bytes([number]) * (100 * number)
        found = cache.get(f"k{number}")
        assert found is None or found == data, number
        if found is None:
            cache.put(f"k{number}", data)
    stats = cache.stats
    assert not stats.disabled, stats
    assert not stats.dropped, stats
    print(secret_key(folder).hex(), stats.hits > 0, stats.evicted > 0)
    """)


def test_several_processes_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HAMMER, str(folder), str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(4)
    ]
    results = [process.communicate(timeout=60) for process in processes]
    assert [error for _, error in results] == [""] * 4
    # All made or found the same secret, and the cache was of use to all of them.
    assert len({output for output, _ in results}) == 1
    assert results[0][0].split()[1:] == ["True", "True"]
    size = sum(file.stat().st_size for file in (folder / "objects").iterdir())
    assert size <= 60_000 * (1 + 4 / 16)


def test_several_processes_agree_on_the_secret(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom quern.compiler.llvm.cache import secret_key\n"
        "sys.stdin.read()\nprint(secret_key(Path(sys.argv[1])).hex())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()  # now
        process.stdin = None
    assert len({process.communicate(timeout=60)[0] for process in processes}) == 1
    assert os.listdir(tmp_path) == ["key"]
