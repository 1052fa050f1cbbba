"""The registry in a file keeps the contract, between processes too."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

import pytest

from svcreg.testing import BackendConformance
from svcreg.testing.settings import PlantGarbage


class TestSqlite(BackendConformance):
    grace = 1.0
    race_seconds = 20.0  # all thousand rounds, also on a busy machine

    @pytest.fixture
    def backend(self, tmp_path: Path) -> str:
        return f"sqlite://{tmp_path}/registry.db"

    @pytest.fixture
    def plant_garbage(self, tmp_path: Path) -> PlantGarbage:
        def plant(name: str) -> None:
            row = (name, "garbage", "somebody", 60.0, time.monotonic() + 60, b"\xff{")
            columns = "service, id, owner, ttl, expires, record"
            file = contextlib.closing(sqlite3.connect(tmp_path / "registry.db"))
            with file as connection, connection:
                connection.execute(f"INSERT INTO node ({columns}) VALUES (?, ?, ?, ?, ?, ?)", row)

        return plant
