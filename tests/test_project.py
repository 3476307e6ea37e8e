"""The package as a whole: what is installed, what `import quern` gives and what it costs."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from importlib import import_module, metadata
from pathlib import Path

import pytest

import quern

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def python(*arguments: str) -> str:
    """Run a fresh interpreter and return what it prints."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_every_folder_of_code_is_installed() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    folders = {
        ".".join([package, *init.parent.relative_to(ROOT / folder).parts])
        for package, folder in setuptools["package-dir"].items()
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert folders == set(setuptools["packages"])


@pytest.mark.parametrize("package", PROJECT["tool"]["setuptools"]["packages"])
def test_every_package_imports_and_says_what_it_is_for(package: str) -> None:
    assert import_module(package).__doc__


def test_version_is_the_installed_one() -> None:
    assert metadata.version("quern") == quern.__version__
    assert python("-m", "quern", "--version") == f"quern {quern.__version__}"


def test_importing_quern_loads_none_of_its_dependencies() -> None:
    loaded = python("-c", "import quern, sys; print(*sys.modules)").split()
    assert "quern" in loaded
    assert not {"numpy", "networkx", "llvmlite", "rich", "safetensors"} & set(loaded)


def test_every_public_name_resolves() -> None:
    for name in quern.__all__:
        assert getattr(quern, name) is not None
        assert name in dir(quern)


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_page_of_the_house_names_files_that_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/]+\.(?:py|md)\b", text))
    rooms = ("compiler", "docs", "examples", "frontends", "runtime", "tests")
    files = [f"/{path.relative_to(ROOT)}" for room in rooms for path in (ROOT / room).rglob("*.*")]
    assert [name for name in named if not any(f.endswith(f"/{name}") for f in files)] == []


def test_unknown_name_is_an_attribute_error() -> None:
    name = "no_such_name"
    with pytest.raises(AttributeError, match="'quern' has no attribute 'no_such_name'"):
        getattr(quern, name)


def test_type_checkers_see_the_same_public_names() -> None:
    tree = ast.parse(inspect.getsource(quern))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    declared = {name for block in blocks for statement in block.body for name in bound(statement)}
    assert declared | {"__version__"} == set(quern.__all__)


def bound(statement: ast.stmt) -> set[str]:
    """Names that a statement binds."""
    if isinstance(statement, ast.Assign):
        return {target.id for target in statement.targets if isinstance(target, ast.Name)}
    if not isinstance(statement, ast.ImportFrom):
        return set()
    names = {alias.asname or alias.name for alias in statement.names}
    if names != {"*"}:
        return names
    home = import_module("." * statement.level + (statement.module or ""), "quern")
    listed = getattr(home, "__all__", None)
    if listed is not None:
        return set(listed)
    assigned = (s for s in ast.parse(inspect.getsource(home)).body if isinstance(s, ast.Assign))
    return {name for each in assigned for name in bound(each)}
