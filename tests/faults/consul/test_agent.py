"""An agent dies, forgets, or is tampered with; what is registered is soon listed again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from svcreg import Node, Registry, Service
from tests.support.consul import Agent, running_agent, unique
from tests.support.servers import eventually

pytestmark = pytest.mark.server("consul")

TTL = 3.0
OpenRegistry = Callable[..., Registry]


def one(name: str, address: str = "10.0.0.5:8080", **metadata: str) -> Service:
    return Service(name, "1", nodes=(Node(f"{name}-1", address, metadata),))


def shows(agent: Agent, service: Service, timeout: float = 10.0) -> float:
    """Wait until the agent lists exactly this node; return the seconds it took."""
    (node,) = service.nodes
    started = time.monotonic()

    def is_there() -> bool:
        try:
            entries = agent.get(f"health/service/{service.name}", passing="1")
        except OSError:
            return False
        found = [(e["Service"]["ID"], e["Service"]["Address"]) for e in entries]
        return found == [(node.id, node.host)]

    eventually(is_there, timeout, f"{node.id} listed")
    return time.monotonic() - started


@pytest.mark.parametrize("polls", [32, 0], ids=["long poll", "shared watch"])
def test_agent_that_lost_everything_is_told_again_within_a_ttl(
    own_agent: Agent, connect: OpenRegistry, polls: int
) -> None:
    service = one(unique())
    reader = connect(own_agent.address, polls=polls)
    registration = connect(own_agent.address).register(service, ttl=TTL)
    assert reader.get(service.name) == (service,)
    own_agent.kill()
    eventually(lambda: reader.status().feeds[0].stale, 5)
    assert reader.get(service.name) == (service,)  # stale beats empty
    own_agent.start()
    assert shows(own_agent, service) <= TTL
    eventually(lambda: registration.state == "active", TTL)
    eventually(lambda: not reader.status().feeds[0].stale, 10)
    assert reader.get(service.name) == (service,)


def test_agent_that_kept_its_data_lists_the_node_within_a_ttl(
    tmp_path: Path, connect: OpenRegistry
) -> None:
    with running_agent(tmp_path / "consul", dev=False) as agent:
        service = one(unique())
        registration = connect(agent.address).register(service, ttl=TTL)
        shows(agent, service)
        agent.kill()
        agent.start()  # ready once it has a leader, which is itself
        assert shows(agent, service) <= TTL
        eventually(lambda: registration.state == "active", TTL)


def test_node_removed_from_the_agent_by_hand_returns(consul: Agent, connect: OpenRegistry) -> None:
    service = one(unique())
    connect(consul.address).register(service, ttl=TTL)
    shows(consul, service)
    consul.put(f"agent/service/deregister/{service.nodes[0].id}")
    eventually(lambda: not consul.ids(service.name), 2)
    assert shows(consul, service) <= TTL


def test_node_removed_from_the_catalogue_by_hand_returns(
    consul: Agent, connect: OpenRegistry
) -> None:
    service = one(unique())
    connect(consul.address).register(service, ttl=1.0)
    shows(consul, service)
    consul.put("catalog/deregister", {"Node": consul.name, "ServiceID": service.nodes[0].id})
    # The agent would put it back a minute later; reading back does it within a few beats.
    assert shows(consul, service) < 10


@pytest.mark.parametrize("keeps_check", [True, False])
def test_record_overwritten_by_hand_is_restored(
    consul: Agent, connect: OpenRegistry, *, keeps_check: bool
) -> None:
    service = one(unique(), zone="z1")
    connect(consul.address).register(service, ttl=TTL)
    shows(consul, service)
    params = {} if keeps_check else {"replace-existing-checks": "true"}
    body = {"Name": service.name, "ID": service.nodes[0].id, "Address": "10.9.9.9", "Port": 1}
    consul.put("agent/service/register", body, **params)
    assert shows(consul, service) <= TTL


def test_successor_with_the_same_id_is_left_alone(consul: Agent, connect: OpenRegistry) -> None:
    old, new = one(unique(), "10.0.0.1:1"), None
    new = one(old.name, "10.0.0.2:2")
    first, second = connect(consul.address), connect(consul.address)
    predecessor = first.register(old, ttl=1.0, interval=0.1)
    second.register(new, ttl=TTL)
    shows(consul, new)
    renewed_until = time.time() + 0.5
    eventually(lambda: (predecessor.last_renewal or 0) > renewed_until)
    assert shows(consul, new) < 1
    predecessor.close()
    first.close()
    assert shows(consul, new) < 1


def test_critical_check_of_a_former_life_does_not_hide_the_node(
    consul: Agent, connect: OpenRegistry
) -> None:
    # An agent restores the status of a check when its service is registered anew.
    service = one(unique())
    node = service.nodes[0]
    body = {"Name": service.name, "ID": node.id, "Check": {"TTL": "10s", "Status": "critical"}}
    consul.put("agent/service/register", body)
    connect(consul.address).register(service, ttl=TTL)
    assert shows(consul, service) < 2


def test_same_node_id_in_two_services_of_one_agent(consul: Agent, connect: OpenRegistry) -> None:
    registry = connect(consul.address)
    first, second = (Service(unique(), nodes=(Node("shared-1", f"10.0.0.{n}:1"),)) for n in (1, 2))
    held = [registry.register(service, ttl=TTL) for service in (first, second)]
    reader = connect(consul.address)
    assert reader.get(first.name) == (first,)
    assert reader.get(second.name) == (second,)
    held[0].close()
    eventually(lambda: reader.get(first.name) == ())
    assert reader.get(second.name) == (second,)
    connect(consul.address).deregister(second)  # by somebody who has not registered it
    eventually(lambda: reader.get(second.name) == (), 2)
