"""What a PyTorch module computes: calls of ATen operators, one after the other."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb
from typing import Any

from ...compiler.errors import SourceLocation, UsageError
from .table import OPERATORS

# Operators that there is no function for are taken apart, and what they become perhaps once more.
_MOST_ROUNDS = 4

_OF_PACKED = (
    "it exports no packed sequences: write the module with quern.nn, where nn.utils.rnn packs "
    "them, and give it the weights by load_state_dict"
)


@dataclass(frozen=True)
class Program:
    """A module that was exported for inputs of certain shapes.

    Arguments:
        exported: PyTorch's `ExportedProgram`, without side effects.
    """

    exported: Any

    @property
    def nodes(self) -> Sequence[Any]:
        """The `torch.fx.Node`s in order."""
        return tuple(self.exported.graph.nodes)

    @property
    def constants(self) -> Mapping[str, Any]:
        """Tensors that are neither parameters nor buffers, by name."""
        constants: Mapping[str, Any] = self.exported.constants
        return constants

    def result(self, outputs: Sequence[Any]) -> Any:
        """Outputs in the structure that the module returns."""
        from torch.utils import _pytree as pytree

        return pytree.tree_unflatten(list(outputs), self.exported.call_spec.out_spec)


def export(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
    """Has PyTorch write down what a module does.

    Arguments:
        module: a `torch.nn.Module`, in the modes that it is to be exported in.
        args: examples of its arguments.
        kwargs: those that are given by name.

    Raises:
        UsageError: it does what depends on the numbers in its inputs, or does not take these.
    """
    import torch

    with _quiet():
        try:
            exported = torch.export.export(module, args, kwargs).run_decompositions({})
            for _ in range(_MOST_ROUNDS):
                known = torch.export.default_decompositions()
                missing = {t for t in _targets(exported) if str(t) not in OPERATORS and t in known}
                if not missing:
                    break
                exported = exported.run_decompositions({t: known[t] for t in missing})
        except Exception as error:
            # Whatever the module's own code raises, and everything that export finds amiss.
            lines = str(error).strip().splitlines() or [type(error).__name__]
            advice = _OF_PACKED if _is_of_packed(error) else "see torch.export"
            raise UsageError(
                f"PyTorch cannot export {type(module).__name__}: {lines[0]}; {advice}"
            ) from error
    return Program(exported)


def _is_of_packed(error: Exception) -> bool:
    """Whether it comes from packed sequences, or from a recurrent layer that reads one."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return any(
        f.f_globals.get("__name__") == "torch.nn.utils.rnn"
        or f.f_locals.get("batch_sizes") is not None
        for f in frames
    )


def _targets(exported: Any) -> set[Any]:
    return {n.target for n in exported.graph.nodes if n.op == "call_function"}


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch warns of its own matters while it exports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def module_path(node: Any) -> str:
    """Dotted name of the innermost module that called an operator; "" for the outermost one."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return re.sub(r"@\d+", "", stack[-1][0]) if stack else ""


def source_of(node: Any) -> SourceLocation | None:
    """The user's line that called an operator: the innermost one of neither PyTorch nor ours."""
    own = (str(Path(sys.modules["torch"].__file__ or "").parent), str(Path(__file__).parent))
    frames = re.findall(r'File "(.+)", line (\d+)', node.meta.get("stack_trace") or "")
    for file, line in reversed(frames):
        if not file.startswith(own):
            return SourceLocation(file, int(line))
    return None
