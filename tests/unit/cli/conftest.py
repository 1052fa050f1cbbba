"""The command line in this process, on a registry in memory for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import svcreg as library
from tests.unit.cli.support import Svcreg

_RICH = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM")


@pytest.fixture(autouse=True)
def _colours_as_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _RICH:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def svcreg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Svcreg:
    """`svcreg` on a registry of this test, named by the environment."""
    url = f"memory://{uuid.uuid4().hex}"
    settings = {"MICRO_REGISTRY": url, "TERM": "xterm", "COLUMNS": "120", "LINES": "24"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return Svcreg(tmp_path, url)


@pytest.fixture
def registry(svcreg: Svcreg) -> Iterator[library.Registry]:
    """The same registry, for the test itself."""
    with library.open(svcreg.url) as opened:
        yield opened
