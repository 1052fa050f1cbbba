"""Registries on Consul keep the contract: a plain agent, ACLs, mutual TLS, and a cluster."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterator

import pytest

from svcreg.testing import BackendConformance, Server
from svcreg.testing.conformance import hygiene
from svcreg.testing.conformance.liveness import Liveness
from svcreg.testing.conformance.restarts import Restarts
from svcreg.testing.conformance.watches import Watches
from svcreg.testing.settings import PlantGarbage
from tests.support.consul import (
    MASTER,
    Agent,
    Certificates,
    Cluster,
    acl_config,
    consul,
    running_agent,
    running_cluster,
    version,
)

__all__ = ["consul"]  # a fixture

pytestmark = pytest.mark.server("consul")

# Both in the long run, and otherwise one: what differs lies far below the faces.
VARIANT_FACES = ("asyncio", "blocking") if "SVCREG_ROUNDS" in os.environ else ("asyncio",)

# The policy of plugins/consul/README.md, for the names that the suite uses.
RULES = """
service_prefix "conformance-" { policy = "write" }
service_prefix "CONFORMANCE-" { policy = "write" }
service_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
"""


@pytest.fixture(scope="module")
def acl_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    folder = tmp_path_factory.mktemp("consul-acl")
    with running_agent(folder, token=MASTER, config=acl_config()) as agent:
        yield agent


@pytest.fixture(scope="module")
def token(acl_agent: Agent) -> str:
    return acl_agent.add_token(RULES)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_agent(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Agent]:
    with running_agent(
        tmp_path_factory.mktemp("consul-tls"),
        context=certificates.context(),
        config=certificates.config(mutual=True),
    ) as agent:
        yield agent


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("consul-cluster")) as cluster:
        yield cluster


class Conformance(BackendConformance):
    # An agent takes 200 connections from one address (`http_max_conns_per_client`), and counts a
    # long poll that was given up until it would have been answered.
    rounds = 60

    @pytest.fixture
    def server_version(self) -> str:
        return ".".join(map(str, version()[:2]))


class TestConsul(Conformance):
    @pytest.fixture
    def backend(self, consul: Agent) -> str:
        return f"consul://{consul.address}"

    @pytest.fixture
    def server(self, consul: Agent) -> str:
        return consul.address

    @pytest.fixture
    def plant_garbage(self, consul: Agent) -> PlantGarbage:
        bomb = "t-" + zlib.compress(json.dumps({"a": "x" * 3_000_000}).encode()).hex()

        def plant(name: str) -> None:
            record = {"ID": f"{name}-bomb", "Address": "10.0.0.1", "Port": 1, "Tags": [bomb]}
            consul.put("agent/service/register", {"Name": name, **record})

        return plant


class Restartable:
    """An agent as the suite may stop and start it."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.address = agent.address

    def stop(self) -> None:
        self._agent.kill()

    def start(self, *, keep_data: bool) -> None:
        if not keep_data:
            shutil.rmtree(self._agent.folder / "data")
        self._agent.start()


@pytest.fixture(scope="module")
def lasting_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with running_agent(tmp_path_factory.mktemp("consul-lasting"), dev=False) as agent:
        yield agent


@pytest.mark.xdist_group("consul-lasting")
class TestConsulWithData(Restarts):
    """An agent that has data to lose, which takes seconds to start."""

    recovery = 12.0  # it has to elect itself first

    @pytest.fixture
    def backend(self, lasting_agent: Agent) -> str:
        return f"consul://{lasting_agent.address}"

    @pytest.fixture
    def server(self, lasting_agent: Agent) -> Server:
        return Restartable(lasting_agent)


class TestSharedWatch(Watches, Liveness):
    """Every watch goes over the catalogue, as beyond the bound of long polls."""

    rounds = 60
    faces = VARIANT_FACES

    @pytest.fixture
    def backend(self, consul: Agent) -> str:
        return f"consul://{consul.address}?polls=0"


class Variant(Conformance):
    """Stays on one worker, so that it needs only one agent."""

    faces = VARIANT_FACES


@pytest.mark.xdist_group("consul-acl")
class TestConsulWithAcls(Variant):
    @pytest.fixture
    def backend(self, acl_agent: Agent, token: str, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("CONSUL_HTTP_TOKEN", token)
        monkeypatch.setattr(hygiene, "SECRET", token)  # another one would be refused
        return f"consul://{acl_agent.address}"


@pytest.mark.xdist_group("consul-tls")
class TestConsulOverMutualTls(Variant):
    @pytest.fixture
    def backend(self, tls_agent: Agent, certificates: Certificates) -> str:
        cert, key = certificates.client
        return f"consul://{tls_agent.address}?ca={certificates.ca}&cert={cert}&key={key}"


@pytest.mark.xdist_group("consul-cluster")
class TestConsulCluster(Variant):
    @pytest.fixture
    def backend(self, cluster: Cluster) -> str:
        return f"consul://{cluster.addresses}"
