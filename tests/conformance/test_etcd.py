"""Registries of etcd keep the contract, whatever stands between them and whichever etcd it is."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from svcreg.testing import BackendConformance
from tests.support.etcd import (
    TIMERS,
    Certificates,
    Etcd,
    EtcdCluster,
    certificates,
    etcd,
    prefix,
    running_cluster,
    running_etcd,
)

__all__ = ["certificates", "etcd", "prefix"]  # fixtures

pytestmark = pytest.mark.server("etcd")

LIMITED = "/limited/registry/"
"""The prefix that a role is limited to."""

Factory = pytest.TempPathFactory


class Conformance(BackendConformance):
    ttl = 1.0
    grace = 2.0  # etcd grants no less than 1.5 elections, and looks for ended leases twice a second


class TestEtcd(Conformance):
    @pytest.fixture
    def backend(self, etcd: Etcd, prefix: str) -> str:
        return f"etcd://{etcd.endpoint}?prefix={prefix}"


class Variant(Conformance):
    """Stays on one worker, so that it needs only one server."""

    # Both faces in the long run, and otherwise one: what differs lies far below the faces.
    faces = ("asyncio", "blocking") if "SVCREG_ROUNDS" in os.environ else ("asyncio",)


@pytest.fixture(scope="module")
def etcd_34(tmp_path_factory: Factory) -> Iterator[Etcd]:
    with running_etcd(tmp_path_factory.mktemp("etcd"), version="3.4") as server:
        yield server


@pytest.mark.xdist_group("etcd-3.4")
class TestEtcd34(Variant):
    @pytest.fixture
    def backend(self, etcd_34: Etcd, prefix: str) -> str:
        return f"etcd://{etcd_34.endpoint}?prefix={prefix}"


@pytest.fixture(scope="module")
def etcd_tls(tmp_path_factory: Factory, certificates: Certificates) -> Iterator[Etcd]:
    with running_etcd(
        tmp_path_factory.mktemp("etcd"),
        scheme="https",
        context=certificates.context(),
        options=(*TIMERS, *certificates.options(mutual=False)),
    ) as server:
        yield server


@pytest.mark.xdist_group("etcd-tls")
class TestEtcdOverTls(Variant):
    @pytest.fixture
    def backend(self, etcd_tls: Etcd, prefix: str, certificates: Certificates) -> str:
        return f"etcd://{etcd_tls.endpoint}?prefix={prefix}&ca={certificates.ca}"


@pytest.fixture(scope="module")
def etcd_mutual(tmp_path_factory: Factory, certificates: Certificates) -> Iterator[Etcd]:
    with running_etcd(
        tmp_path_factory.mktemp("etcd"),
        scheme="https",
        context=certificates.context(certificates.cert, certificates.key),
        options=(*TIMERS, *certificates.options(mutual=True)),
    ) as server:
        yield server


@pytest.mark.xdist_group("etcd-mutual-tls")
class TestEtcdOverMutualTls(Variant):
    @pytest.fixture
    def backend(self, etcd_mutual: Etcd, prefix: str, certificates: Certificates) -> str:
        cert, key = certificates.issue("conformance")
        files = f"ca={certificates.ca}&cert={cert}&key={key}"
        return f"etcd://{etcd_mutual.endpoint}?prefix={prefix}&{files}"


@pytest.fixture(scope="module")
def etcd_password(tmp_path_factory: Factory) -> Iterator[Etcd]:
    options = (*TIMERS, "--bcrypt-cost=4")
    with running_etcd(tmp_path_factory.mktemp("etcd"), options=options) as server:
        server.add_user("app", "p@ss/w:rd", LIMITED)
        server.enable_auth("root")
        yield server


@pytest.mark.xdist_group("etcd-password")
class TestEtcdWithPassword(Variant):
    @pytest.fixture
    def backend(self, etcd_password: Etcd) -> str:
        return f"etcd://app:p%40ss%2Fw%3Ard@{etcd_password.endpoint}?prefix={LIMITED}"


@pytest.fixture(scope="module")
def etcd_cluster(tmp_path_factory: Factory) -> Iterator[EtcdCluster]:
    with running_cluster(tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


@pytest.mark.xdist_group("etcd-cluster")
class TestEtcdCluster(Variant):
    grace = 4.0  # elections take longer among several

    @pytest.fixture
    def backend(self, etcd_cluster: EtcdCluster, prefix: str) -> str:
        endpoints = ",".join(member.endpoint for member in etcd_cluster.members)
        return f"etcd://{endpoints}?prefix={prefix}"
