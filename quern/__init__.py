"""Quern: a graph compiler for neural networks on CPUs.

The public names, nothing else. Each is imported from its home on first use, so that `import quern`
itself loads neither NumPy nor LLVM.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Public name -> the module it lives in. A public module (`nn`) maps to itself (`.nn`).
_EXPORTS: dict[str, str] = {
    "Trainer": ".frontends.training.trainer",
    "compile": ".frontends.compile",
    "draw": ".compiler.draw",
    "interpret": ".frontends.compile",
    "load": ".runtime.artifact",
    "manual_seed": ".frontends.nn.init",
    "nn": ".nn",
    "optim": ".optim",
    "spec": ".frontends.nn.trace",
    "trace": ".frontends.nn.trace",
}

__all__ = ["__version__", *_EXPORTS]

if TYPE_CHECKING:
    # The names of _EXPORTS once more, for type checkers and editors:
    from . import nn as nn
    from . import optim as optim
    from .compiler.draw import draw as draw
    from .frontends.compile import compile as compile
    from .frontends.compile import interpret as interpret
    from .frontends.nn.init import manual_seed as manual_seed
    from .frontends.nn.trace import spec as spec
    from .frontends.nn.trace import trace as trace
    from .frontends.training.trainer import Trainer as Trainer
    from .runtime.artifact import load as load
else:  # unseen by type checkers, so that they still find a misspelt name

    def __getattr__(name: str) -> object:
        """Import a public name on its first use (PEP 562)."""
        if name not in _EXPORTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(_EXPORTS[name], __name__)
        value = module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | _EXPORTS.keys())
