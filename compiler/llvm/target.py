"""The processor that code is made for: instruction sets, vector width, tuning."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Self

import llvmlite.binding as llvm

from ..errors import ArtifactError, CompileError, UsageError
from .processors import last_cache_bytes

if TYPE_CHECKING:
    from ..types import DType


@dataclass(frozen=True)
class _Level:
    """A step of the x86-64 instruction set; each includes the ones before it.

    Arguments:
        name: what QUERN_TARGET calls it.
        cpu: LLVM's name of the psABI level (x86-64 psABI, section 3.1.1).
        vector_bits: widest vector register.
        features: what the level adds, by LLVM's names.
        extras: used where the processor has them, but not part of the level.
    """

    name: str
    cpu: str
    vector_bits: int
    features: tuple[str, ...]
    extras: tuple[str, ...] = ()


_LEVELS = (
    _Level(
        "sse",
        "x86-64-v2",
        128,
        ("cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3"),
        ("prfchw",),
    ),
    _Level(
        "avx2",
        "x86-64-v3",
        256,
        ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"),
        ("avxvnni", "gfni"),
    ),
    _Level(
        "avx512",
        "x86-64-v4",
        512,
        ("avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"),
        (
            "amx-bf16",
            "amx-int8",
            "amx-tile",
            "avx512bf16",
            "avx512fp16",
            "avx512vbmi",
            "avx512vbmi2",
            "avx512vnni",
        ),
    ),
)

# What every x86-64 processor has.
_BASELINE = frozenset({"64bit", "cmov", "cx8", "fxsr", "mmx", "sse", "sse2"})
_KNOWN = frozenset(f for level in _LEVELS for f in level.features + level.extras)
_USUAL_CACHE = 32 << 20
_WIDTHS = tuple(level.vector_bits for level in _LEVELS)


@cache
def _host_features() -> Mapping[str, bool]:
    """Every feature LLVM knows on this architecture, and whether this processor has it."""
    return dict(llvm.get_host_cpu_features())


@dataclass(frozen=True)
class Target:
    """A processor to make code for.

    Arguments:
        cpu: LLVM's name of the processor. It chooses tuning only, never instructions.
        features: the instruction sets that may be used beyond the x86-64 baseline, by LLVM's
            names, sorted. Everything else is switched off, whatever `cpu` has.
        vector_bits: width of the vectors that kernels are written in: 128, 256 or 512.
        cache_bytes: of the last level of caches.
    """

    cpu: str
    features: tuple[str, ...]
    vector_bits: int
    cache_bytes: int = _USUAL_CACHE

    @property
    def registers(self) -> int:
        """Number of vector registers that kernels are written for.

        Vectors of 512 bits come with 32 of them, also where LLVM makes narrower ones of them.
        Without multiply-adds, two are left to products on their way to the sums.
        """
        if "avx512vl" in self.features or self.vector_bits == 512:
            return 32
        return 16 if self.has_fma else 14

    @property
    def has_fma(self) -> bool:
        """Whether a multiply-add is one instruction (otherwise LLVM's `fma` is a libm call)."""
        return "fma" in self.features

    def lanes(self, dtype: DType) -> int:
        """Elements of `dtype` in one vector."""
        return self.vector_bits // 8 // dtype.size

    @property
    def level(self) -> str:
        """Name of the highest level whose instructions are all there."""
        return _highest(frozenset(self.features)).name

    @property
    def key(self) -> str:
        """The instruction set in one line, for cache keys; equal for targets that share code.

        Tuning is left out: code tuned for one processor is right on another that has the same
        instructions.
        """
        return f"x86-64/{self.vector_bits}/" + "+".join(self.features)

    @property
    def llvm_features(self) -> str:
        """The same as LLVM's feature string, with everything not named switched off."""
        wanted = _BASELINE.union(self.features)
        names = sorted(_host_features().keys() | wanted)
        # First what is off: switching a feature off also switches off those that need it.
        off = [f"-{name}" for name in names if name not in wanted]
        return ",".join(off + [f"+{name}" for name in names if name in wanted])

    @property
    def missing(self) -> tuple[str, ...]:
        """Instruction sets of this target that the present machine does not have."""
        return missing_features(self.features)

    @classmethod
    def host(cls) -> Target:
        """The target to compile for here: this machine, or a lower one that QUERN_TARGET names.

        Raises:
            UsageError: QUERN_TARGET is no target, or one this machine cannot run.
            CompileError: this machine is below the lowest target.
        """
        name = os.environ.get("QUERN_TARGET", "").strip()
        if not name:
            return _detect()
        target = cls.named(name)
        if target.missing:
            raise UsageError(
                f"QUERN_TARGET={name}: this machine ({_detect().level}) has no "
                f"{', '.join(target.missing)}; name a lower target or unset it"
            )
        return target

    @classmethod
    def named(cls, name: str) -> Self:
        """The generic target "sse" (SSE4.2), "avx2" (with FMA) or "avx512" (F, BW, CD, DQ, VL).

        The present machine need not be able to run it, so that its assembly can be read anywhere.
        "avx2:512" has vectors of 512 bits, each of which LLVM keeps in two registers: slow code,
        but of kernels as AVX-512 has them, on machines without it.

        Raises:
            UsageError: there is no such target.
        """
        wanted, colon, width = name.lower().partition(":")
        for index, level in enumerate(_LEVELS):
            if level.name == wanted:
                bits = {str(bits): bits for bits in _WIDTHS}
                if colon and width not in bits:
                    raise UsageError(
                        f"there is no target {name!r}: vectors have {', '.join(bits)} bits"
                    )
                return cls(level.cpu, _required(index), bits.get(width, level.vector_bits))
        known = ", ".join(level.name for level in _LEVELS)
        raise UsageError(f"there is no target {name!r}; targets are {known}")

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `from_json` reads."""
        return {
            "cpu": self.cpu,
            "features": list(self.features),
            "vector_bits": self.vector_bits,
        }

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """The target that `to_json` described.

        Raises:
            ArtifactError: `data` is not such a dictionary.
        """
        match data:
            case {"cpu": str(cpu), "features": [*features], "vector_bits": int(bits)} if (
                bits in _WIDTHS and all(isinstance(f, str) and f in _KNOWN for f in features)
            ):
                return cls(cpu, tuple(sorted(features)), bits)
        raise ArtifactError(f"not the description of a target: {data!r}")


def missing_features(features: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `features` that the present machine does not have."""
    host = _host_features()
    return tuple(name for name in features if not host.get(name, False))


def _required(index: int) -> tuple[str, ...]:
    """All features of a level and of those below it, sorted."""
    return tuple(sorted(f for level in _LEVELS[: index + 1] for f in level.features))


def _highest(features: frozenset[str]) -> _Level:
    """The highest level that `features` cover; the lowest when they cover none."""
    covered = [level for i, level in enumerate(_LEVELS) if features.issuperset(_required(i))]
    return covered[-1] if covered else _LEVELS[0]


@cache
def _detect() -> Target:
    """This machine."""
    present = frozenset(name for name, has in _host_features().items() if has)
    absent = [name for name in _required(0) if name not in present]
    if absent:
        raise CompileError(
            f"this machine lacks {', '.join(absent)}; Quern needs an x86-64 processor with SSE4.2"
        )
    level = _highest(present)
    index = _LEVELS.index(level)
    extras = (f for below in _LEVELS[: index + 1] for f in below.extras if f in present)
    features = tuple(sorted((*_required(index), *extras)))
    cache = last_cache_bytes() or _USUAL_CACHE
    return Target(llvm.get_host_cpu_name(), features, level.vector_bits, cache)
