"""Backend instances that share a registry of their own per test, and are closed after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.builtin.support import Hooks

Open = Callable[[], Hooks]


def _opener(url: str) -> Iterator[Open]:
    opened: list[Hooks] = []

    def open_another() -> Hooks:
        opened.append(Hooks(url))
        return opened[-1]

    yield open_another
    for hooks in opened:
        hooks.close()


@pytest.fixture(params=["memory", "sqlite"])
def open_hooks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Open another instance of either backend, all of one test on the same registry."""
    yield from _opener(f"{request.param}://{tmp_path}/registry.db")


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


@pytest.fixture
def open_sqlite(sqlite_path: Path) -> Iterator[Open]:
    """Open another instance of the sqlite backend, all of one test on the same file."""
    yield from _opener(f"sqlite://{sqlite_path}")
