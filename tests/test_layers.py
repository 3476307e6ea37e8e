"""Which rooms of the house know which: arrows point one way (docs/architecture.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

TOPS = ("quern", "compiler", "runtime", "frontends")
GRAPHS = "errors types graph tensor body evaluate autodiff rewrite"
GROUPS = "group joining roles cost_model weight_cost_model"

# Of each folder: what its modules may import beside the folder itself. "compiler" are the modules
# beside its folders, too; a folder stands for all that is in it.
MAY_IMPORT = {
    "compiler/loops": {"compiler": "errors types"},
    "compiler/llvm": {"compiler": "errors types loops"},
    # The gradient of a recurrence is that of its body, expanded.
    "compiler/ops": {"compiler": f"{GRAPHS} passes.expand"},
    "compiler/lower": {"compiler": f"errors types graph {GROUPS} ops loops llvm.target"},
    "compiler/tensor": {"compiler": "errors types graph ops"},
    "compiler/passes": {
        "compiler": f"{GRAPHS} {GROUPS} flops batching splits ops loops llvm.target lower.tile"
    },
    "compiler/draw": {
        "compiler": "errors files types graph group layout_blocks printer ops passes"
    },
    "compiler": {"compiler": "*", "runtime": "image program"},
    "runtime/data": {"compiler": "errors"},
    "runtime": {"compiler": "*", "runtime": "*"},
    "frontends": {"compiler": "*", "runtime": "*", "frontends": "*"},
    "quern": {"compiler": "*", "runtime": "*", "frontends": "*", "quern": "*"},
}


def room_of(module: str) -> str:
    """The innermost folder of the table that a module is in."""
    found = [room for room in MAY_IMPORT if f"{module}.".startswith(f"{room.replace('/', '.')}.")]
    return max(found, key=len)


def modules() -> list[Path]:
    return [file for top in TOPS for file in (ROOT / top).rglob("*.py")]


def imported(file: Path) -> Iterator[str]:
    """Modules of this project that a file imports when it runs, as `compiler.ops.base`."""
    tree = ast.parse(file.read_text())
    for block in [n for n in ast.walk(tree) if isinstance(n, ast.If)]:
        if ast.unparse(block.test) == "TYPE_CHECKING":
            block.body = []
    # As installed: all folders lie in the package.
    folders = file.relative_to(ROOT).parent.parts
    package = folders if folders[0] == "quern" else ("quern", *folders)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            base = (*base, *(node.module.split(".") if node.module else ()))
            base = base[1:] if len(base) > 1 and base[1] in TOPS else base
            for name in node.names:
                whole = ROOT.joinpath(*base, name.name)
                is_module = whole.is_dir() or whole.with_suffix(".py").exists()
                yield ".".join((*base, name.name) if is_module else base)


def allows(room: str, module: str) -> bool:
    if module == "quern":  # the version
        return True
    top, _, inside = module.partition(".")
    names = MAY_IMPORT[room].get(top, "").split()
    return names == ["*"] or any(f"{inside}.".startswith(f"{name}.") for name in names)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_knows_only_what_is_below_it(room: str) -> None:
    wrong = []
    for file in modules():
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        if room_of(module) == room:
            own = (m for m in imported(file) if room_of(m) != room)
            wrong += [f"{module} imports {m}" for m in own if not allows(room, m)]
    assert not wrong


def test_every_import_is_seen() -> None:
    found = set(imported(ROOT / "compiler" / "lower" / "concat.py"))
    assert {"compiler.loops.ir", "compiler.ops.movement", "compiler.lower.binding"} <= found
    inside_a_function = set(imported(ROOT / "compiler" / "ops" / "recurrence_gradient.py"))
    assert "compiler.passes.expand" in inside_a_function


def test_every_folder_of_the_compiler_is_a_room() -> None:
    folders = {f"compiler/{p.parent.name}" for p in (ROOT / "compiler").glob("*/__init__.py")}
    assert folders <= MAY_IMPORT.keys()
