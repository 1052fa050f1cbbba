"""Registries of etcd keep the contract, whatever stands between them and whichever etcd it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache

import pytest

from svcreg.testing import BackendConformance, Server
from svcreg.testing.settings import PlantGarbage
from tests.support.etcd import (
    TIMERS,
    Certificates,
    Etcd,
    EtcdCluster,
    certificates,
    etcd,
    prefix,
    program,
    running_cluster,
    running_etcd,
)

__all__ = ["certificates", "etcd", "prefix"]  # fixtures

pytestmark = pytest.mark.server("etcd")

LIMITED = "/limited/registry/"
"""The prefix that a role is limited to."""

Factory = pytest.TempPathFactory


@cache
def version_of(path: str) -> str:
    """Return major and minor version of a program of etcd."""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"etcd Version: (\d+\.\d+)", said.stdout)
    assert found, said.stdout
    return found[1]


class Conformance(BackendConformance):
    # etcd grants no less than 1.5 elections, and looks for ended leases twice a second.
    grace = 2.0
    rounds = 200
    version = ""

    @pytest.fixture
    def server_version(self) -> str:
        return version_of(program(self.version))


class Restartable:
    """A member as the suite may stop and start it."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd
        self.address = etcd.endpoint

    def stop(self) -> None:
        self._etcd.kill()

    def start(self, *, keep_data: bool) -> None:
        if not keep_data:
            shutil.rmtree(self._etcd.folder / "data")
        self._etcd.start()


class TestEtcd(Conformance):
    @pytest.fixture
    def backend(self, etcd: Etcd, prefix: str) -> str:
        return f"etcd://{etcd.endpoint}?prefix={prefix}"

    @pytest.fixture
    def server(self, etcd: Etcd) -> Server:
        return Restartable(etcd)

    @pytest.fixture
    def plant_garbage(self, etcd: Etcd, prefix: str) -> PlantGarbage:
        return lambda name: etcd.put(f"{prefix}{name}/garbage", b"\xff{")


class Variant(Conformance):
    """Stays on one worker, so that it needs only one server."""

    rounds = 100
    # Both faces in the long run, and otherwise one: what differs lies far below the faces.
    faces = ("asyncio", "blocking") if "SVCREG_ROUNDS" in os.environ else ("asyncio",)


@pytest.fixture(scope="module")
def etcd_34(tmp_path_factory: Factory) -> Iterator[Etcd]:
    with running_etcd(tmp_path_factory.mktemp("etcd"), version="3.4") as server:
        yield server


@pytest.mark.xdist_group("etcd-3.4")
class TestEtcd34(Variant):
    version = "3.4"

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
