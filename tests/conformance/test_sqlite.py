"""The registry in a file keeps the contract, between processes too."""

from __future__ import annotations

from pathlib import Path

import pytest

from svcreg.testing import BackendConformance


class TestSqlite(BackendConformance):
    ttl = 1.0
    grace = 1.0

    @pytest.fixture
    def backend(self, tmp_path: Path) -> str:
        return f"sqlite://{tmp_path}/registry.db"
