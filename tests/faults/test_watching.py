"""Watching and reading: rows 17, 18, 20, 27, 28 and 30 of the list of failures."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import svcreg
from svcreg import Endpoint, Node, PermissionDeniedError, RegistryUnavailableError, Service
from svcreg.engine import feed
from tests.support.faulty_world import World, eventually, one, stays

NAME = "greeter"
RECONNECT = 6.0  # seconds; the longest delay between two attempts is 5


def nodes(*ids: str, **metadata: str) -> Service:
    return Service(NAME, nodes=tuple(Node(i, "10.0.0.5:8080", metadata) for i in ids))


def test_row_17_reconnecting_yields_the_difference_only(world: World) -> None:
    world.put(nodes("same", "changed", "gone"))
    watching = world.watch(NAME)
    eventually(lambda: len(watching.events) == 3)
    world.faults.cut()
    world.put(nodes("changed", new="yes"), nodes("added"))
    world.faults.store.remove(nodes("gone"))
    world.faults.heal()
    eventually(lambda: len(watching.events) == 6, RECONNECT)
    world.put(nodes("barrier"))
    eventually(lambda: watching.seen("barrier"))
    after = sorted((event.action, event.service.nodes[0].id) for event in watching.events[3:6])
    assert after == [("create", "added"), ("delete", "gone"), ("update", "changed")]
    assert watching.seen("same") == ["create"]


def test_row_17_many_cuts_in_a_row_double_nothing(world: World) -> None:
    world.put(nodes("a", "b"))
    watching = world.watch(NAME)
    eventually(lambda: len(watching.events) == 2)
    for n in range(5):
        attempts = world.faults.count("watch")
        world.faults.cut()
        world.put(nodes("a", round=str(n)))
        world.faults.heal()
        eventually(lambda n=n: watching.state().get("a") == nodes("a", round=str(n)), RECONNECT)  # type: ignore[misc]
        assert world.faults.count("watch") > attempts
    assert watching.seen("a") == ["create"] + ["update"] * 5
    assert watching.seen("b") == ["create"]


def test_row_17_change_of_endpoints_while_away_is_an_update(world: World) -> None:
    world.put(nodes("a"))
    watching = world.watch(NAME)
    eventually(lambda: watching.seen("a") == ["create"])
    world.faults.cut()
    world.put(Service(NAME, "", {"k": "v"}, (Endpoint("Hello"),), nodes("a").nodes))
    world.faults.heal()
    eventually(lambda: watching.seen("a") == ["create", "update"], RECONNECT)
    assert watching.events[-1].service.endpoints == (Endpoint("Hello"),)


def test_row_18_watch_that_has_gone_deaf_is_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "RECONCILE_PERIOD", 0.2)
    monkeypatch.setattr(feed, "SECOND_LOOK", 0.1)
    watching = world.watch(NAME)
    eventually(lambda: world.faults.count("watch") == 1)
    world.faults.is_deaf = True
    world.put(nodes("a"))
    eventually(lambda: watching.seen("a") == ["create"], RECONNECT)


def test_row_18_healthy_silence_is_no_reason_to_reconnect(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "RECONCILE_PERIOD", 0.05)
    world.put(nodes("a"))
    watching = world.watch(NAME)
    eventually(lambda: world.faults.count("get") >= 5)
    assert world.faults.count("watch") == 1
    assert watching.seen("a") == ["create"]


def test_row_20_absent_then_present(world: World) -> None:
    registry, watching = world.open(), world.watch(NAME)
    assert registry.get(NAME) == ()
    world.put(nodes("a"))
    eventually(lambda: list(registry.get(NAME)) == [nodes("a")])
    eventually(lambda: watching.seen("a") == ["create"])


def test_row_20_failed_first_subscribe_poisons_nothing(world: World) -> None:
    world.faults.cut()
    registry, watching = world.open(), world.watch(NAME)
    with pytest.raises(RegistryUnavailableError):
        registry.get(NAME)
    stays(lambda: not watching.has_ended.is_set() and not watching.events, 0.3)
    world.faults.heal()
    world.put(nodes("a"))
    eventually(lambda: watching.seen("a") == ["create"], RECONNECT)
    eventually(lambda: registry.status().feeds[0].error is None, RECONNECT)
    assert list(registry.get(NAME)) == [nodes("a")]
    world.put(nodes("b"))
    eventually(lambda: watching.seen("b") == ["create"])


def test_refusal_that_no_retry_mends_is_raised_by_the_watch(world: World) -> None:
    world.faults.fail("watch", error=PermissionDeniedError("the token needs service:read"))
    watching = world.watch(NAME)
    eventually(watching.has_ended.is_set)
    assert isinstance(watching.error, PermissionDeniedError)
    assert watching.error.operation == "watch"
    with pytest.raises(PermissionDeniedError):
        world.open().get(NAME)


def test_row_27_empty_answers_after_a_reconnect_are_not_believed_for_a_while(
    world: World,
) -> None:
    world.put(nodes("a", "b"))
    registry = world.open(empty_grace=30)
    watching = world.watch(NAME, empty_grace=30)
    assert list(registry.get(NAME)) == [nodes("a", "b")]
    eventually(lambda: len(watching.events) == 2)
    attempts = world.faults.count("watch")
    world.faults.is_empty = True
    world.faults.cut()
    world.faults.heal()
    world.faults.is_empty = True  # as after a restart of the registry with its data still loading
    eventually(lambda: world.faults.count("watch") >= attempts + 2, RECONNECT)
    stays(lambda: list(registry.get(NAME)) == [nodes("a", "b")], 1.0)
    world.faults.is_empty = False
    world.put(nodes("c"))
    eventually(lambda: watching.seen("c") == ["create"])
    assert watching.seen("a") == watching.seen("b") == ["create"]
    eventually(lambda: list(registry.get(NAME)) == [nodes("a", "b", "c")])


def test_row_27_empty_answers_for_ever_are_obeyed_in_the_end(world: World) -> None:
    world.put(nodes("a", "b"))
    registry = world.open(empty_grace=1.0)
    assert list(registry.get(NAME)) == [nodes("a", "b")]
    world.faults.cut()
    world.faults.heal()
    world.faults.is_empty = True
    eventually(lambda: registry.status().feeds[0].nodes == 0, RECONNECT)
    restored = time.monotonic()
    eventually(lambda: registry.get(NAME) == (), 2.0)
    assert 0.7 <= time.monotonic() - restored <= 1.7


def test_row_27_scaling_to_zero_on_a_healthy_registry_is_obeyed_at_once(world: World) -> None:
    world.put(nodes("a", "b", "c", "d", "e"))
    registry = world.open(empty_grace=30)
    assert len(registry.get(NAME)[0].nodes) == 5
    world.faults.store.remove(nodes("a", "b", "c", "d", "e"))
    eventually(lambda: registry.get(NAME) == (), 1.0)


def test_row_27_stale_beats_empty_while_the_registry_is_down(world: World) -> None:
    world.put(nodes("a"))
    registry = world.open()
    names = registry.list()
    assert list(registry.get(NAME)) == [nodes("a")]
    world.faults.cut()
    eventually(lambda: registry.status().feeds[0].stale)
    stays(lambda: list(registry.get(NAME)) == [nodes("a")], 0.5)
    assert registry.select(NAME) == nodes("a").nodes[0]
    stays(lambda: registry.list() == names, 1.5)  # past the second for which names are fresh
    status = registry.status()
    assert not status.connected
    assert status.feeds[0].error is not None
    assert status.feeds[0].age > 0.5


def at_once(count: int, call: Any) -> list[Any]:
    """Return what a call gives or raises in each of many threads that begin together."""
    start = threading.Barrier(count)

    def run() -> Any:
        start.wait()
        found = []
        for _ in range(10):
            try:
                found.append(call())
            except svcreg.SvcregError as error:
                found.append(error)
        return found

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(run) for _ in range(count)]
        return [outcome for future in futures for outcome in future.result()]


def test_row_28_thousand_gets_with_the_registry_down_are_one_call(world: World) -> None:
    registry = world.open()
    world.faults.cut()
    world.faults.delay(0.5, "watch")
    started = time.monotonic()
    outcomes = at_once(100, lambda: registry.get(NAME))
    assert len(outcomes) == 1000
    assert all(isinstance(outcome, RegistryUnavailableError) for outcome in outcomes)
    # One call, and those that the feed itself makes until the last thread has come through.
    assert world.faults.count("watch", "get") <= 1 + (time.monotonic() - started) / 0.5


def test_row_28_thousand_gets_with_the_registry_up_are_one_read(world: World) -> None:
    world.put(nodes("a"))
    registry = world.open()
    world.faults.delay(0.2, "watch")
    outcomes = at_once(100, lambda: registry.get(NAME))
    assert outcomes == [(nodes("a"),)] * 1000
    assert world.faults.count("watch", "get") == 1


def test_row_28_thousand_lists_are_one_call(world: World) -> None:
    world.put(nodes("a"))
    registry = world.open()
    world.faults.delay(0.1, "list")
    assert at_once(100, registry.list) == [(NAME,)] * 1000
    assert world.faults.count("list") == 1


def test_row_28_requests_during_an_outage_are_few(world: World) -> None:
    registry = world.open()
    world.put(nodes("a"))
    registry.get(NAME)
    registry.list()
    world.faults.cut()
    cut_at = time.monotonic()
    while time.monotonic() - cut_at < 2.0:
        registry.get(NAME)
        registry.list()
        time.sleep(0.001)
    assert 1 <= world.faults.count("watch", "get", since=cut_at) <= 15
    assert world.faults.count("list", since=cut_at) <= 4


def test_row_28_get_that_fails_again_at_once_makes_no_new_call(world: World) -> None:
    registry = world.open()
    world.faults.cut()
    ends = time.monotonic() + 0.8
    failures = 0
    while time.monotonic() < ends:
        with pytest.raises(RegistryUnavailableError):
            registry.get(NAME)
        failures += 1
    assert failures > 100
    assert world.faults.count("watch", "get") <= 8


GARBAGE: dict[str, Any] = {
    "no service": "garbage",
    "none": None,
    "bad node id": Service(NAME, nodes=(Node("../b", "10.0.0.5:1"),)),
    "no node": Service(NAME, nodes=("b",)),  # type: ignore[arg-type]
    "bad metadata": Service(NAME, nodes=(Node("b", "10.0.0.5:1", {"k": 1}),)),  # type: ignore[dict-item]
    "other service": Service("other", nodes=(Node("b", "10.0.0.5:1"),)),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_row_30_bad_record_hides_no_good_one(
    world: World, garbage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "svcreg")
    world.faults.extra = (garbage,)
    world.put(nodes("a"))
    registry, watching = world.open(), world.watch(NAME)
    assert list(registry.get(NAME)) == [nodes("a")]
    world.put(nodes("c"))
    eventually(lambda: list(registry.get(NAME)) == [nodes("a", "c")])
    eventually(lambda: set(watching.state()) == {"a", "c"})
    assert registry.status().connected
    assert world.faults.count("watch") == 2  # one for each registry: no connection was lost


def test_row_30_bad_record_is_named_in_one_line_of_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "svcreg")
    world.faults.extra = (GARBAGE["bad node id"],)
    watching = world.watch(NAME)
    for n in range(5):
        world.put(nodes("a", n=str(n)))
        eventually(lambda n=n: watching.state() == {"a": nodes("a", n=str(n))})  # type: ignore[misc]
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "../b" in line]) == 1


def test_registering_while_a_watch_is_under_way_is_seen_by_the_same_registry(
    world: World,
) -> None:
    registry = world.open()
    assert registry.get(NAME) == ()
    registry.register(one(NAME), ttl=60)
    assert list(registry.get(NAME)) == [one(NAME)]
