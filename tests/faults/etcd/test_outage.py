"""etcd goes away altogether, forgets, or is told to forget: what was registered comes back."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from svcreg.codec import encode_service
from svcreg.testing import FaultProxy
from svcreg.testing.conformance.faces import BlockingClient
from svcreg_etcd.watches import PROBE_AFTER, PROBE_TIMEOUT
from tests.faults.etcd.conftest import node
from tests.support.etcd import Etcd, EtcdCluster, running_cluster, running_etcd, unique, wait_for
from tests.support.servers import Process

TTL = 2.0
COUNT = 50

pytestmark = pytest.mark.server("etcd")


@pytest.fixture
def client(etcd: Etcd, prefix: str) -> Iterator[BlockingClient]:
    client = BlockingClient(f"etcd://{etcd.endpoint}?prefix={prefix}")
    yield client
    client.end()


def register_many(client: BlockingClient, count: int = COUNT) -> str:
    """Register nodes of one service; return its name."""
    name = unique("svc")
    for number in range(count):
        client.register(node(name, f"n{number}"), ttl=TTL)
    return name


def are_listed(member: Etcd, folder: str, count: int = COUNT) -> Callable[[], bool]:
    """Return a condition: so many nodes hang on one lease, which is alive."""

    def look() -> bool:
        found = member.items(folder)
        leases = {item["lease"] for item in found.values()}
        return len(found) == count and len(leases) == 1 and leases <= set(member.leases())

    return look


def test_everything_is_registered_again_after_all_members_were_down_for_three_ttls(
    tmp_path: Path, prefix: str
) -> None:
    with running_cluster(tmp_path) as cluster:
        endpoints = ",".join(member.endpoint for member in cluster.members)
        client = BlockingClient(f"etcd://{endpoints}?prefix={prefix}")
        try:
            name = register_many(client)
            leader = cluster.leader()
            for member in cluster.members:
                member.kill()
            down_at = time.monotonic()
            wait_for(lambda: time.monotonic() - down_at > 3 * TTL, 30)
            restart(cluster)
            up_at = time.monotonic()
            wait_for(are_listed(leader, f"{prefix}{name}/"), 20, "the registrations")
            wait_for(lambda: all(r.state == "active" for r in client.status().registrations), 10)
            print(f"\n{COUNT} registrations are back {time.monotonic() - up_at:.2f} s after etcd")
            assert are_listed(leader, f"{prefix}{name}/")()
        finally:
            client.end()


def restart(cluster: EtcdCluster) -> None:
    for member in cluster.members:
        member.start(wait=False)
    for member in cluster.members:
        member.wait()


def test_everything_is_registered_again_after_etcd_lost_its_data(
    tmp_path: Path, prefix: str
) -> None:
    with running_etcd(tmp_path / "first") as server:
        client = BlockingClient(f"etcd://{server.endpoint}?prefix={prefix}")
        watcher = BlockingClient(f"etcd://{server.endpoint}?prefix={prefix}")
        try:
            name = register_many(client)
            watching = watcher.watch(name)
            wait_for(lambda: len(watching.state()) == COUNT)
            server.kill()
            (server.folder / "data").rename(server.folder / "old")
            server.start()
            wait_for(are_listed(server, f"{prefix}{name}/"), 20, "the registrations")
            wait_for(lambda: len(watching.state()) == COUNT, 20)
        finally:
            client.end()
            watcher.end()


def test_revoked_lease_is_replaced_at_the_next_renewal(
    client: BlockingClient, etcd: Etcd, prefix: str
) -> None:
    name = register_many(client)
    (lease,) = {item["lease"] for item in etcd.items(f"{prefix}{name}/").values()}
    etcd.call("lease/revoke", ID=lease)
    wait_for(are_listed(etcd, f"{prefix}{name}/"), TTL, "the registrations")
    (new,) = {item["lease"] for item in etcd.items(f"{prefix}{name}/").values()}
    assert new != lease


def test_restoring_leaves_a_successor_alone(
    client: BlockingClient, etcd: Etcd, prefix: str
) -> None:
    name = register_many(client, 3)
    key = f"{prefix}{name}/n1"
    (lease,) = {item["lease"] for item in etcd.items(f"{prefix}{name}/").values()}
    other = encode_service(node(name, "n1", "10.9.9.9:9"))
    etcd.put(key, other)
    etcd.call("lease/revoke", ID=lease)
    wait_for(lambda: len(etcd.items(f"{prefix}{name}/")) == 3, TTL, "the registrations")
    assert etcd.items(key)[key]["value"] == other
    client.end()  # withdraws what is its own
    assert set(etcd.items(f"{prefix}{name}/")) == {key}


def test_key_deleted_by_hand_comes_back(client: BlockingClient, etcd: Etcd, prefix: str) -> None:
    name = register_many(client, 3)
    etcd.delete(f"{prefix}{name}/n1")
    wait_for(are_listed(etcd, f"{prefix}{name}/", 3), 15, "the key")


def test_record_under_an_unchanged_key_is_not_written_again(
    client: BlockingClient, etcd: Etcd, prefix: str
) -> None:
    name = unique("svc")
    key = f"{prefix}{name}/n"
    held = client.register(node(name, "n", a="1"), ttl=60)
    before = etcd.items(key)[key]
    held.update(metadata={"a": "1"})
    client.register(node(name, "n", a="1"), ttl=60)
    assert etcd.items(key)[key] == before
    held = client.register(node(name, "n", a="2"), ttl=60)
    after = etcd.items(key)[key]
    assert (after["version"], after["lease"]) == (2, before["lease"])
    held.update(service_metadata={"b": "1"})
    assert etcd.items(key)[key]["version"] == 3


@pytest.mark.parametrize("is_compacted", [False, True], ids=["kept", "compacted"])
def test_changes_made_while_disconnected_are_seen_once(
    etcd: Etcd, prefix: str, *, is_compacted: bool
) -> None:
    with FaultProxy(etcd.endpoint) as proxy:
        client = BlockingClient(f"etcd://{proxy.address}?prefix={prefix}")
        try:
            name = unique("svc")
            for number in range(8):
                etcd.put(f"{prefix}{name}/n{number}", encode_service(node(name, f"n{number}")))
            watching = client.watch(name)
            wait_for(lambda: len(watching.events) == 8)
            proxy.cut()
            wait_for(lambda: any(feed.stale for feed in client.status().feeds))
            etcd.delete(f"{prefix}{name}/n0")
            etcd.put(f"{prefix}{name}/n1", encode_service(node(name, "n1", changed="yes")))
            etcd.put(f"{prefix}{name}/n8", encode_service(node(name, "n8")))
            if is_compacted:
                etcd.compact()
            proxy.heal()
            wait_for(lambda: watching.seen("n0") == ["create", "delete"], 15)
            assert watching.seen("n1") == ["create", "update"]
            assert watching.seen("n8") == ["create"]
            etcd.delete(f"{prefix}{name}/n8")
            wait_for(lambda: watching.seen("n8") == ["create", "delete"])
            assert len(watching.events) == 8 + 4
        finally:
            client.end()


def test_compaction_of_what_a_watch_is_about_to_ask_for_is_survived(
    etcd: Etcd, prefix: str
) -> None:
    """Between the read and the watch, a slow line leaves time for a compaction."""
    with FaultProxy(etcd.endpoint) as proxy:
        client = BlockingClient(f"etcd://{proxy.address}?prefix={prefix}")
        try:
            name = unique("svc")
            assert client.list() == ()  # connects
            proxy.latency(0.3)
            watching = client.watch(name)
            wait_for(lambda: proxy.sent and client.status().feeds, 5)
            for number in range(20):
                etcd.put(f"{prefix}{name}/n{number}", encode_service(node(name, f"n{number}")))
                etcd.compact()
            proxy.heal()
            wait_for(lambda: len(watching.state()) == 20, 15)
            assert all(watching.seen(f"n{number}") == ["create"] for number in range(20))
        finally:
            client.end()


def test_process_that_was_stopped_for_longer_than_its_ttl_comes_back(
    etcd: Etcd, prefix: str, tmp_path: Path
) -> None:
    url = f"etcd://{etcd.endpoint}?prefix={prefix}"
    name = unique("svc")
    key = f"{prefix}{name}/n"
    record = encode_service(node(name, "n")).decode()
    command = [sys.executable, "-m", "svcreg.testing.conformance.owner"]
    reader, writer = os.pipe()  # its standard input, which stays open
    with os.fdopen(reader, "rb") as stdin:
        process = Process(
            [*command, url, "blocking", record, "2", "hold"], tmp_path / "log", stdin=stdin
        )
    try:
        process.wait_until(lambda: etcd.items(key))
        os.kill(process.popen.pid, signal.SIGSTOP)
        wait_for(lambda: not etcd.items(key), 10, "the end of the TTL")
        os.kill(process.popen.pid, signal.SIGCONT)
        continued_at = time.monotonic()
        wait_for(lambda: etcd.items(key), 5, "the registration")
        print(f"\nback {time.monotonic() - continued_at:.2f} s after SIGCONT")
    finally:
        os.close(writer)
        process.stop()


def test_member_without_a_leader_is_noticed_and_left(tmp_path: Path, prefix: str) -> None:
    with running_cluster(tmp_path) as cluster:
        alone, *others = cluster.members
        client = BlockingClient(f"etcd://{alone.endpoint}?prefix={prefix}")
        try:
            name = register_many(client, 1)
            client.get(name)
            for member in others:
                member.kill()
            lost_at = time.monotonic()
            wait_for(lambda: any(feed.stale for feed in client.status().feeds), 10, "staleness")
            print(f"\nnoticed after {time.monotonic() - lost_at:.2f} s")
            assert client.get(name)  # stale beats empty
            for member in others:
                member.start(wait=False)
            wait_for(alone.is_healthy, 15)
            wait_for(lambda: not any(feed.stale for feed in client.status().feeds), 15)
        finally:
            client.end()


def test_transaction_whose_answer_was_lost_is_not_run_twice(etcd: Etcd, prefix: str) -> None:
    with FaultProxy(etcd.endpoint) as one, FaultProxy(etcd.endpoint) as two:
        client = BlockingClient(f"etcd://{one.address},{two.address}?prefix={prefix}")
        try:
            name = unique("svc")
            client.register(node(name, "first"), ttl=30)
            (one if one.open_connections else two).black_hole("to-client")
            client.register(node(name, "second"), ttl=30)
            written = etcd.items(prefix)[f"{prefix}{name}/second"]
            assert written["version"] == 1
        finally:
            client.end()


def test_watch_of_an_idle_etcd_is_not_taken_for_dead(tmp_path: Path, prefix: str) -> None:
    """Nothing at all is written, and keys of nobody else are there to be read."""
    with running_etcd(tmp_path) as server, FaultProxy(server.endpoint) as proxy:
        client = BlockingClient(f"etcd://{proxy.address}?prefix={prefix}")
        try:
            name = unique("svc")
            server.put(f"{prefix}{name}/n", encode_service(node(name, "n")))
            watching = client.watch(name)
            wait_for(lambda: watching.seen("n"))
            sent, watched_at = proxy.sent, time.monotonic()
            wait_for(lambda: time.monotonic() > watched_at + 2 * (PROBE_AFTER + PROBE_TIMEOUT), 15)
            assert proxy.accepted == 1
            assert proxy.sent > sent  # it was asked for signs of life
            server.delete(f"{prefix}{name}/n")
            wait_for(lambda: watching.seen("n") == ["create", "delete"])
        finally:
            client.end()
