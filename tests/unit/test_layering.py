"""Imports point one way: a module of core uses only modules from rows above its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "core" / "src"
PLUGINS = sorted((ROOT / "plugins").glob("*/src"))

# The module table of CONTRIBUTING.md, top row first. A name stands for the module and everything
# below it; the modules of one row may use each other.
ROWS = (
    "svcreg.errors",  # above the model, whose validation raises InvalidServiceError
    "svcreg.model",
    "svcreg.hookspecs",
    "svcreg.codec",
    "svcreg.config",
    "svcreg.plugins",
    "svcreg.builtin",
    "svcreg.engine.loop",
    "svcreg.engine.sieve",
    "svcreg.engine.dispatch",
    "svcreg.engine.backoff",
    "svcreg.engine.advertise",
    "svcreg.engine.names",
    "svcreg.engine.directory",
    "svcreg.engine.feed",
    "svcreg.engine.writer",
    "svcreg.engine.heartbeat",
    "svcreg.engine.registrar",
    "svcreg.engine.engine",
    "svcreg.engine",
    "svcreg.selection",
    "svcreg.health",
    "svcreg.registry",
    "svcreg.aio",
    "svcreg",  # __init__: the public API, re-exported
    "svcreg.integrations",
    "svcreg.cli",
    "svcreg.__main__",
    "svcreg.testing",
)

# What a plugin may rely on; everything else of core may change without notice.
PUBLIC = frozenset(
    {
        "svcreg",
        "svcreg.codec",
        "svcreg.config",
        "svcreg.errors",
        "svcreg.hookspecs",
        "svcreg.model",
    }
)


def module_name(path: Path, source: Path) -> str:
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_of(source: Path) -> dict[str, Path]:
    return {module_name(path, source): path for path in sorted(source.rglob("*.py"))}


CORE_MODULES = modules_of(CORE)
# pytest loads it in every run of everybody's: it imports svcreg only once an option asks for it.
CORE_MODULES.pop("_svcreg_pytest")


def imported_modules(name: str, path: Path) -> list[tuple[int, str]]:
    """Every svcreg module that a file imports anywhere, with the line, TYPE_CHECKING included."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            # `from svcreg import errors` uses svcreg.errors; `... import Node` uses svcreg.
            for alias in node.names:
                member = f"{base}.{alias.name}"
                found.append((node.lineno, member if member in CORE_MODULES else base))
    return [(line, used) for line, used in found if used.split(".")[0] == "svcreg"]


def row_of(name: str) -> int | None:
    """The row of the longest prefix in the table; the root package stands only for itself."""
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        prefix = ".".join(parts[:length])
        if prefix in ROWS:
            return ROWS.index(prefix)
    return ROWS.index("svcreg") if name == "svcreg" else None


@pytest.mark.parametrize("name", CORE_MODULES)
def test_core_module_imports_only_from_rows_above(name: str) -> None:
    row = row_of(name)
    assert row is not None, f"{name} has no row in the module table: give it one, here and there"
    wrong = []
    for line, used in imported_modules(name, CORE_MODULES[name]):
        used_row = row_of(used)
        assert used_row is not None, f"{name}:{line} imports {used}, which has no row"
        if used_row > row:
            wrong.append(f"line {line}: {used} is below {name}")
    assert not wrong, "; ".join(wrong)


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, path) for source in PLUGINS for name, path in modules_of(source).items()],
)
def test_plugin_uses_only_public_modules_of_core(name: str, path: Path) -> None:
    used = {used for _, used in imported_modules(name, path)}
    assert used <= PUBLIC, f"{name} uses {sorted(used - PUBLIC)}, which are private to core"


def test_command_line_reaches_registries_through_the_public_api() -> None:
    private = ("svcreg.engine", "svcreg.builtin", "svcreg.plugins")
    wrong = [
        f"{name}:{line} {used}"
        for name, path in CORE_MODULES.items()
        if name.startswith("svcreg.cli")
        for line, used in imported_modules(name, path)
        if used.startswith(private)
    ]
    assert not wrong


def test_table_finds_an_upward_import(tmp_path: Path) -> None:
    path = tmp_path / "feed.py"
    path.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import svcreg.cli\n")
    assert imported_modules("svcreg.engine.feed", path) == [(3, "svcreg.cli")]
    cli, feed = row_of("svcreg.cli.main"), row_of("svcreg.engine.feed")
    assert cli is not None
    assert feed is not None
    assert cli > feed
    assert row_of("svcreg.unheard_of") is None
