"""The registry of one process keeps the contract."""

from __future__ import annotations

import pytest

from svcreg.testing import BackendConformance


class TestMemory(BackendConformance):
    ttl = 1.0
    grace = 1.0

    @pytest.fixture
    def backend(self, request: pytest.FixtureRequest) -> str:
        return f"memory://{abs(hash(request.node.nodeid))}"
