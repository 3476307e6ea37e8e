"""Machine code of loop kernels: from the cache, or emitted here and compiled by workers."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from .llvm.cache import ObjectCache, object_key
from .llvm.emit import emit, fingerprint
from .llvm.pool import Compilation
from .llvm.target import Target
from .routine import Routine


class MachineCode:
    """Objects of kernels by their symbols. Workers compile the first ones while more are emitted.

    Arguments:
        target: the machine.
        workers: processes that compile.

    Attributes:
        compiled: number of kernels that were compiled.
        cached: number of kernels that were in the cache.
    """

    def __init__(self, target: Target, workers: int | None = None) -> None:
        self.target = target
        self.compiled = self.cached = 0
        self._cache = ObjectCache()
        self._keys: dict[str, str] = {}
        self._found: dict[str, bytes] = {}
        self._compilation = Compilation(target, workers=workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._compilation.__exit__(kind, error, trace)

    def add(self, routines: Iterable[Routine]) -> int:
        """More kernels; those that were added before are left out.

        Returns:
            The size of their LLVM IR in bytes, as far as they are not in the cache.
        """
        size = 0
        for routine in routines:
            symbol = routine.symbol
            if symbol in self._keys:
                continue
            key = self._keys[symbol] = object_key(self.target, fingerprint(), symbol)
            found = self._cache.get(key)
            if found is not None:
                self._found[symbol] = found
                self.cached += 1
                continue
            ir = emit(routine.kernel, self.target, symbol, routine.bodies).ir
            self._compilation.add(symbol, ir)
            size += len(ir)
            self.compiled += 1
        return size

    def objects(self) -> dict[str, bytes]:
        """The objects of all kernels, once they are there.

        Raises:
            CodegenError: LLVM refuses a kernel's IR, or dies of it.
        """
        for symbol, data in self._compilation.result().objects.items():
            self._cache.put(self._keys[symbol], data)
            self._found[symbol] = data
        return {symbol: self._found[symbol] for symbol in self._keys}
