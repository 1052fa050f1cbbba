"""Agents come and go, leaders die, a quorum is lost: nothing that lives stays unlisted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from svcreg import Node, Registry, Service
from svcreg.testing import FaultProxy
from tests.support.consul import Agent, Cluster, running_agent, running_cluster, unique
from tests.support.servers import eventually

pytestmark = [pytest.mark.server("consul"), pytest.mark.slow]

TTL = 3.0
ELECTION_TTL = 15.0
OpenRegistry = Callable[..., Registry]


def one(name: str) -> Service:
    return Service(name, "1", nodes=(Node(f"{name}-1", "10.0.0.5:8080"),))


def ids(registry: Registry, name: str) -> set[str]:
    return {node.id for service in registry.get(name) for node in service.nodes}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path) as cluster:
        yield cluster


class Agents:
    """A server, and two agents without a server in them, which programs talk to."""

    def __init__(self, server: Agent, first: Agent, second: Agent) -> None:
        self.server, self.first, self.second = server, first, second
        self.addresses = f"{first.address},{second.address}"


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    with running_agent(tmp_path / "server", name="server", dev=False) as server:
        joined = {
            "server": False,
            "retry_join": [f"127.0.0.1:{server.ports['serf_lan']}"],
            "retry_interval": "1s",
        }
        clients = [
            Agent(tmp_path / n, name=n, dev=False, config=joined) for n in ("first", "second")
        ]
        try:
            for client in clients:
                del client.config["bootstrap_expect"]
                client.start()
            yield Agents(server, *clients)
        finally:
            for client in clients:
                client.stop()


def test_next_agent_takes_over_and_gives_back(agents: Agents, connect: OpenRegistry) -> None:
    service = one(unique())
    registry = connect(agents.addresses, timeout=2)
    watcher = connect(agents.server.address)
    registration = registry.register(service, ttl=TTL)
    eventually(lambda: ids(watcher, service.name))
    agents.first.kill()

    def homes() -> set[str]:
        entries = agents.server.get(f"health/service/{service.name}", passing="1")
        return {entry["Node"]["Node"] for entry in entries}

    eventually(lambda: homes() == {"second"}, 3 * TTL, "registered with the second agent")
    assert registration.state == "active"
    assert ids(registry, service.name) == {service.nodes[0].id}  # reads go there, too
    agents.first.start()
    eventually(lambda: homes() == {"first"}, 15, "back with the first agent")
    registration.close()
    eventually(lambda: not agents.server.entries(service.name), 3)


def test_agent_that_swallows_everything_is_passed_over(
    agents: Agents, connect: OpenRegistry
) -> None:
    with FaultProxy(agents.first.address) as proxy:
        name = unique()
        registry = connect(f"{proxy.address},{agents.second.address}", timeout=2)
        other = connect(agents.second.address)
        assert registry.get(name) == ()  # a long poll is under way through the proxy
        registration = registry.register(one(name), ttl=TTL)
        eventually(lambda: ids(registry, name))
        proxy.black_hole()
        other.register(Service(name, "1", nodes=(Node(f"{name}-2", "10.0.0.6:1"),)), ttl=60)
        # The poll would hear nothing for half a minute; a renewal finds out, and it moves on.
        eventually(lambda: ids(registry, name) == {f"{name}-1", f"{name}-2"}, 3 * TTL)
        eventually(lambda: registration.state == "active", TTL)


def test_registrations_and_watches_outlive_the_leader(
    cluster: Cluster, connect: OpenRegistry
) -> None:
    leader = cluster.leader()
    asked = next(agent for agent in cluster.agents if agent is not leader)
    name = unique()
    registry = connect(asked.address)
    # While an agent waits for a leader to take a change, it takes no renewal: a TTL must be
    # longer than an election.
    registration = registry.register(one(name), ttl=ELECTION_TTL)
    watcher = connect(asked.address)
    eventually(lambda: ids(watcher, name) == {f"{name}-1"})
    leader.kill()
    killed_at = time.monotonic()
    second = Service(name, "1", nodes=(Node(f"{name}-2", "10.0.0.6:1"),))
    registry.register(second, ttl=ELECTION_TTL, required=False)
    while ids(watcher, name) != {f"{name}-1", f"{name}-2"}:
        assert f"{name}-1" in ids(watcher, name)
        assert time.monotonic() - killed_at < 20
        time.sleep(0.02)
    assert registration.state == "active"


def test_without_a_quorum_reads_answer_and_registrations_return_by_themselves(
    cluster: Cluster, connect: OpenRegistry
) -> None:
    kept, *lost = cluster.agents
    name = unique()
    registry = connect(kept.address)
    registration = registry.register(one(name), ttl=TTL)
    watcher = connect(kept.address)
    eventually(lambda: ids(watcher, name) == {f"{name}-1"})
    eventually(lambda: kept.get(f"health/service/{name}", stale="1"))  # it has it itself
    for agent in lost:
        agent.kill()
    eventually(lambda: not kept.get("status/leader"), 15, "the loss of the leader")
    assert ids(watcher, name) == {f"{name}-1"}
    # A program that starts now has no memory; the one server left answers it.
    newcomer = connect(kept.address)
    started = time.monotonic()
    assert ids(newcomer, name) == {f"{name}-1"}
    assert time.monotonic() - started < 5
    late = registry.register(
        Service(name, "1", nodes=(Node(f"{name}-2", "10.0.0.6:1"),)), ttl=TTL, required=False
    )
    for agent in lost:
        agent.start(wait=False)
    for agent in lost:
        agent.wait()
    both = {f"{name}-1", f"{name}-2"}
    eventually(lambda: ids(watcher, name) == both and ids(newcomer, name) == both, 20)
    eventually(lambda: kept.ids(name) == both, 20)
    eventually(lambda: registration.state == late.state == "active", 5)
