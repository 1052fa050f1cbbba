"""The registry of one process keeps the contract."""

from __future__ import annotations

import pytest

from svcreg.testing import BackendConformance


class TestMemory(BackendConformance):
    grace = 1.0
    race_seconds = 20.0  # all thousand rounds, also on a busy machine

    @pytest.fixture
    def backend(self, request: pytest.FixtureRequest) -> str:
        return f"memory://{abs(hash(request.node.nodeid))}"
