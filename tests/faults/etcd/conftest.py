"""Clusters behind proxies, and what a registry is seen to do while they fail."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from svcreg import Node, Service
from svcreg.codec import encode_service
from svcreg.testing import FaultProxy
from svcreg.testing.conformance.faces import BlockingClient, Watching
from tests.support.etcd import (
    Etcd,
    EtcdCluster,
    etcd,
    prefix,
    running_cluster,
    unique,
    wait_for,
)

__all__ = ["etcd", "prefix"]  # fixtures


def node(name: str, node_id: str, address: str = "10.0.0.5:8080", **metadata: str) -> Service:
    """Return a service with one node."""
    return Service(name, nodes=(Node(node_id, address, metadata),))


class Fleet:
    """Three members, each behind a proxy."""

    def __init__(self, cluster: EtcdCluster) -> None:
        self.cluster = cluster
        self.proxies = [FaultProxy(member.endpoint) for member in cluster.members]

    def __enter__(self) -> Fleet:
        for proxy in self.proxies:
            proxy.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for proxy in self.proxies:
            proxy.close()

    def url(self, prefix: str) -> str:
        return f"etcd://{','.join(p.address for p in self.proxies)}?prefix={prefix}"

    def connected(self) -> int:
        """Return the number of the member that the registry is connected to."""

        def find() -> list[int]:
            return [n for n, proxy in enumerate(self.proxies) if proxy.open_connections]

        found = wait_for(find, 10, "a connection")
        assert isinstance(found, list)
        return int(found[0])

    def other(self, *numbers: int) -> Etcd:
        """Return a member that is none of these."""
        return next(m for n, m in enumerate(self.cluster.members) if n not in numbers)


class Subject:
    """A registry that registers one node and watches its service, and the proof that it did."""

    def __init__(self, fleet: Fleet, prefix: str, ttl: float) -> None:
        self.name = unique("svc")
        self.prefix = prefix
        self._fleet = fleet
        self._written = 0
        self.client = BlockingClient(fleet.url(prefix))
        self.held = self.client.register(node(self.name, "own"), ttl=ttl)
        self.watching: Watching = self.client.watch(self.name)
        wait_for(lambda: self.watching.seen("own"), 10, "the first event")

    def close(self) -> None:
        self.watching.close()
        self.client.end()

    def key(self, node_id: str) -> str:
        return f"{self.prefix}{self.name}/{node_id}"

    def record(self, member: Etcd) -> dict[str, object]:
        """Return what a member has under the registered node's key."""
        return member.items(self.key("own"))[self.key("own")]

    def write(self, member: Etcd, count: int) -> list[str]:
        """Have somebody else add nodes."""
        added = [f"n{self._written + n}" for n in range(count)]
        self._written += count
        for node_id in added:
            member.put(self.key(node_id), encode_service(node(self.name, node_id)))
        return added

    def remove(self, member: Etcd, node_ids: list[str]) -> None:
        """Have somebody else remove nodes."""
        for node_id in node_ids:
            member.delete(self.key(node_id))

    def await_events(self, expected: dict[str, list[str]], timeout: float = 20.0) -> float:
        """Wait until exactly these events were seen; return the seconds it took."""
        started = time.monotonic()

        def is_there() -> bool:
            return all(self.watching.seen(node_id) == seen for node_id, seen in expected.items())

        try:
            wait_for(is_there, timeout)
        except pytest.fail.Exception:
            seen = {node_id: self.watching.seen(node_id) for node_id in expected}
            wrong = {
                node_id: seen[node_id] for node_id in seen if seen[node_id] != expected[node_id]
            }
            pytest.fail(f"after {timeout:g} s wrong: {wrong}; status: {self.client.status()}")
        return time.monotonic() - started


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """One cluster of three for the tests of a module; every test leaves it well."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def fleet(cluster: EtcdCluster) -> Iterator[Fleet]:
    """The cluster behind proxies of one test."""
    with Fleet(cluster) as fleet:
        yield fleet
