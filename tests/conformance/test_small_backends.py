"""A plugin of somebody else's keeps the contract, be it all `def` or all `async def`."""

from __future__ import annotations

import pytest

from svcreg.testing import BackendConformance
from tests.support.plugins import Distributions


class TestDefBackend(BackendConformance):
    grace = 1.0
    rounds = 100

    @pytest.fixture
    def backend(self, distributions: Distributions, request: pytest.FixtureRequest) -> str:
        point = {"acme-def": "tests.support.small_backends:DefBackend"}
        distributions.install("svcreg-acme-def", {}, point)
        return f"acme-def://{abs(hash(request.node.nodeid))}"


class TestAsyncBackend(BackendConformance):
    grace = 1.0
    rounds = 100

    @pytest.fixture
    def backend(self, distributions: Distributions, request: pytest.FixtureRequest) -> str:
        point = {"acme-async": "tests.support.small_backends:AsyncBackend"}
        distributions.install("svcreg-acme-async", {}, point)
        return f"acme-async://{abs(hash(request.node.nodeid))}"
