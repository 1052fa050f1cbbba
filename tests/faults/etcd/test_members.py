"""A member dies or falls silent: the registration stays, and the watch misses and repeats nothing.

`SVCREG_ROUNDS=20 pytest -s tests/faults/etcd/test_members.py` is the long run; it prints figures.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from functools import partial

import pytest

from svcreg.testing.conformance.faces import BlockingClient, Held
from tests.faults.etcd.conftest import Fleet, Subject, node
from tests.support.etcd import Etcd, unique, wait_for

ROUNDS = int(os.environ.get("SVCREG_ROUNDS", "3"))  # read now: tests run without such settings
TTL = 6.0
"""Seconds: more than a failover takes, and less than the round, so that renewals must go on."""

pytestmark = [
    pytest.mark.server("etcd"),
    pytest.mark.xdist_group("etcd-members"),
    pytest.mark.timeout(60 + 30 * ROUNDS),
]

Fault = Callable[[Fleet], tuple[int, Callable[[], None]]]
"""Breaks one member; returns its number and what mends it."""


def kill_connected(fleet: Fleet) -> tuple[int, Callable[[], None]]:
    number = fleet.connected()
    member = fleet.cluster.members[number]
    member.kill()
    return number, lambda: start_again(member)


def kill_leader(fleet: Fleet) -> tuple[int, Callable[[], None]]:
    leader = fleet.cluster.leader()
    leader.kill()
    return fleet.cluster.members.index(leader), lambda: start_again(leader)


def black_hole_connected(fleet: Fleet) -> tuple[int, Callable[[], None]]:
    number = fleet.connected()
    fleet.proxies[number].black_hole()
    return number, fleet.proxies[number].heal


def test_short_lease_outlives_a_member_that_falls_silent(fleet: Fleet, prefix: str) -> None:
    """Nothing is watched here, so only the renewals can notice."""
    name = unique("svc")
    client = BlockingClient(fleet.url(prefix))
    try:
        for _ in range(ROUNDS if ROUNDS > 3 else 1):
            held = client.register(node(name, "own"), ttl=3.0)
            key = f"{prefix}{name}/own"
            before = fleet.cluster.leader().items(key)[key]
            proxy = fleet.proxies[fleet.connected()]
            proxy.black_hole()
            wait_for(partial(is_renewed, held, time.time() + 4.0), 12, "renewals elsewhere")
            assert fleet.cluster.leader().items(key)[key] == before
            proxy.heal()
    finally:
        client.end()


def start_again(member: Etcd) -> None:
    member.stop()
    member.start()


@pytest.mark.parametrize("fault", [kill_connected, kill_leader, black_hole_connected])
def test_registration_stays_and_watch_misses_nothing_when(
    fault: Fault, fleet: Fleet, prefix: str
) -> None:
    subject = Subject(fleet, prefix, TTL)
    delays = []
    expected: dict[str, list[str]] = {"own": ["create"]}
    try:
        for _ in range(ROUNDS):
            before = subject.record(fleet.cluster.leader())
            old = subject.write(fleet.cluster.leader(), 3)
            expected |= {node_id: ["create"] for node_id in old}
            subject.await_events(expected)

            broken, mend = fault(fleet)
            broken_at = time.monotonic()
            writer = wait_for(partial(quorum, fleet, broken), 15, "a quorum")
            new = subject.write(writer, 3)
            # One of at least four: the loss of most, right after a failure, core holds back.
            subject.remove(writer, old[:1])
            expected |= {node_id: ["create"] for node_id in new}
            expected[old[0]] = ["create", "delete"]
            subject.await_events(expected)
            delays.append(time.monotonic() - broken_at)

            since = subject.held.raw.last_renewal
            wait_for(partial(is_renewed, subject.held, since), TTL, "a renewal")
            mend()
            wait_for(fleet.other(broken).is_healthy, 10)
            assert subject.record(fleet.cluster.leader()) == before  # same lease, never put again
            assert subject.held.raw.state == "active"
        subject.await_events(expected)
    finally:
        subject.close()
    print(
        f"\n{fault.__name__}: {ROUNDS} rounds, events again after "
        f"{statistics.median(delays):.2f} s (median), {max(delays):.2f} s (worst); "
        f"{len(expected)} nodes, none lost or doubled"
    )


def is_renewed(held: Held, since: float) -> bool:
    return bool(held.raw.last_renewal > since)


def quorum(fleet: Fleet, broken: int) -> Etcd | None:
    """Return a sound member that can write."""
    member = fleet.other(broken)
    return member if member.is_healthy() else None
