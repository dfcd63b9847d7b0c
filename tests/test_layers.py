"""The layer rule beyond import-linter: what is pure stays pure, and packages stay empty inside."""

import ast
from functools import cache
from pathlib import Path

import pytest

import zmesh

ROOT = Path(zmesh.__file__).parent
IMPURE = {
    "asyncio", "concurrent", "logging", "multiprocessing", "os", "random", "secrets", "selectors",
    "signal", "socket", "sqlite3", "subprocess", "threading", "time", "uuid", "zeroconf", "zmq",
}  # fmt: skip
PURE_PACKAGES = ("wire", "reliable", "patterns", "core")
PURE_MODULES = (
    "actions", "batches", "bounds", "deadlines", "errors", "events", "ids", "message", "options",
    "patience", "storage", "terms",
    "discovery.candidates", "discovery.hub_places", "discovery.membership",
    "discovery.membership_facts", "discovery.membership_statistics",
    "security.invitation", "security.joining",
)  # fmt: skip


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Return the names of all modules a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return frozenset(found)


def file_of(module: str) -> Path:
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


def reachable(path: Path) -> set[Path]:
    """Return the file and every file of zmesh that it imports, directly or not."""
    found: set[Path] = set()
    queue = [path]
    while queue:
        current = queue.pop()
        if current in found:
            continue
        found.add(current)
        for name in imports_of(current):
            if name.startswith("zmesh."):
                target = file_of(name.removeprefix("zmesh."))
                queue.append(target if target.exists() else target.with_suffix("") / "__init__.py")
    return found


def pure_files() -> list[Path]:
    packages = [path for name in PURE_PACKAGES for path in (ROOT / name).glob("*.py")]
    return packages + [file_of(module) for module in PURE_MODULES]


@pytest.mark.parametrize("path", pure_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_pure_module_reaches_no_clock_socket_or_randomness(path: Path) -> None:
    for file in reachable(path):
        impure = {name for name in imports_of(file) if name.split(".")[0] in IMPURE}
        assert not impure, f"{file.relative_to(ROOT)} imports {impure}"


def test_inner_packages_hold_a_docstring_and_nothing_else() -> None:
    for path in ROOT.glob("*/**/__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert len(body) == 1, path
        assert isinstance(body[0], ast.Expr), path


def test_no_module_is_over_600_lines_and_no_function_over_70() -> None:
    for path in ROOT.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert source.count("\n") <= 600, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                assert node.end_lineno - node.lineno < 70, f"{path}: {node.name}"
