"""Registries of an etcd server keep the contract."""

from __future__ import annotations

import pytest

from svcreg.testing import BackendConformance
from tests.support.etcd import Etcd, etcd, prefix

__all__ = ["etcd", "prefix"]  # fixtures

pytestmark = pytest.mark.server("etcd")


class TestEtcd(BackendConformance):
    ttl = 1.0
    grace = 2.0  # etcd grants no less than 1.5 elections, and looks for ended leases twice a second

    @pytest.fixture
    def backend_url(self, etcd: Etcd, prefix: str) -> str:
        return f"etcd://{etcd.endpoint}?prefix={prefix}"
