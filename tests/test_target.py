"""Targets: what their names mean, and what the host is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ir_units import AVX2, AVX512, HOST, SSE

from quern.compiler.errors import ArtifactError, UsageError
from quern.compiler.llvm import target
from quern.compiler.llvm.target import Target
from quern.compiler.types import DType


class TestTarget:
    def test_the_host_runs_its_own_target(self) -> None:
        assert HOST.missing == ()
        assert HOST.lanes(DType.FLOAT32) * 32 == HOST.vector_bits
        assert HOST.lanes(DType.FLOAT64) * 64 == HOST.vector_bits

    def test_levels(self) -> None:
        assert [t.vector_bits for t in (SSE, AVX2, AVX512)] == [128, 256, 512]
        assert [t.registers for t in (SSE, AVX2, AVX512)] == [14, 16, 32]
        assert [t.has_fma for t in (SSE, AVX2, AVX512)] == [False, True, True]
        assert [t.level for t in (SSE, AVX2, AVX512)] == ["sse", "avx2", "avx512"]
        assert set(SSE.features) < set(AVX2.features) < set(AVX512.features)

    def test_key_is_the_instruction_set_without_tuning(self) -> None:
        assert replace(AVX2, cpu="skylake").key == AVX2.key
        assert replace(AVX2, vector_bits=128).key != AVX2.key
        assert len({SSE.key, AVX2.key, AVX512.key}) == 3

    def test_json_round_trip(self) -> None:
        for each in (SSE, AVX2, AVX512, HOST):
            assert Target.from_json(each.to_json()) == each

    @pytest.mark.parametrize(
        "data",
        [
            None,
            {},
            {**AVX2.to_json(), "vector_bits": 100},
            {**AVX2.to_json(), "features": ["x,+y"]},
        ],
    )
    def test_foreign_json_is_refused(self, data: object) -> None:
        with pytest.raises(ArtifactError, match="target"):
            Target.from_json(data)

    def test_environment_forces_a_lower_target(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QUERN_TARGET", "SSE")
        assert Target.host() == SSE

    def test_environment_names_a_width_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QUERN_TARGET", "sse:512")
        wide = Target.host()
        assert (wide.features, wide.vector_bits) == (SSE.features, 512)
        assert wide.registers == AVX512.registers
        assert wide.key not in (SSE.key, AVX512.key)

    def test_environment_cannot_name_nonsense(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QUERN_TARGET", "sse:64")
        with pytest.raises(UsageError, match="'sse:64': vectors have 128, 256, 512 bits"):
            Target.host()
        monkeypatch.setenv("QUERN_TARGET", "neon")
        with pytest.raises(UsageError, match="'neon'; targets are sse, avx2, avx512"):
            Target.host()

    def test_environment_cannot_name_what_would_not_run(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old_machine = dict.fromkeys(SSE.features, True)
        monkeypatch.setattr(target, "_host_features", lambda: old_machine)
        monkeypatch.setattr(target, "_detect", lambda: SSE)
        monkeypatch.setenv("QUERN_TARGET", "avx2")
        with pytest.raises(UsageError, match=r"this machine \(sse\) has no avx, avx2"):
            Target.host()
