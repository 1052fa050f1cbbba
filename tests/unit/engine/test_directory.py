"""What readers see, what is held back from them, and what a watch hears of it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcreg.engine import directory as module
from svcreg.engine.directory import (
    UNWELL_WINDOW,
    Directory,
    Known,
    Subscription,
    group,
    merge,
    records_of,
)
from svcreg.errors import PermissionDeniedError, RegistryClosedError
from svcreg.hookspecs import Delta, Snapshot
from svcreg.model import Event, Service
from tests.support.engine import (
    NAME,
    Clock,
    asynchronous,
    by_node,
    ids,
    replay,
    service,
    summary,
    until,
)

GRACE = 30.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(clock: Clock) -> Known:
    return Known(NAME, GRACE, clock)


def collected(subscription: Subscription) -> list[Event]:
    """Return what is queued, without waiting."""
    events = list(subscription._events)
    subscription._events.clear()
    return events


def is_holding(known: Known) -> bool:
    return known.obey_at is not None


def lose_and_restore(known: Known, clock: Clock, *items: Snapshot | Delta) -> None:
    """Lose the source, and hear these from it when it is back."""
    known.lost()
    clock.now += 2.0
    for item in items:
        known.apply(item)


# Grouping.


def test_services_are_one_per_version_sorted_with_nodes_sorted_by_id() -> None:
    records = records_of(
        [
            service("c", version="2"),
            service("b", version="1"),
            service("a", version="2"),
            service("z", name="alpha"),
        ]
    )
    grouped = group(records.values())
    assert [(one.name, one.version, ids([one])) for one in grouped] == [
        ("alpha", "", ["z"]),
        ("greeter", "1", ["b"]),
        ("greeter", "2", ["a", "c"]),
    ]


def test_node_id_that_is_given_twice_counts_once() -> None:
    records = records_of([service("a", version="1"), service("a", version="2")])
    assert [one.version for one in group(records.values())] == ["2"]


def test_nodes_of_one_id_in_two_services_are_two() -> None:
    assert len(records_of([service("a"), service("a", name="other")])) == 2


# Events.


def test_events_tell_what_changed_and_nothing_else(known: Known) -> None:
    subscription = known.subscribe()
    known.apply(Snapshot((service("a", "b"),)))
    known.apply(Snapshot((service("a", "b"),)))
    known.apply(Snapshot((service("b", "c"),)))
    known.apply(Delta((service("b", weight="2"),)))
    assert summary(collected(subscription)) == [
        ("create", "a"),
        ("create", "b"),
        ("create", "c"),
        ("delete", "a"),
        ("update", "b"),
    ]


def test_change_of_version_is_one_update(known: Known) -> None:
    known.apply(Snapshot((service("a", version="1"),)))
    subscription = known.subscribe()
    collected(subscription)
    known.apply(Delta((service("a", version="2"),)))
    (event,) = collected(subscription)
    assert (event.action, event.service.version) == ("update", "2")
    assert [one.version for one in known.services] == ["2"]


def test_watch_begins_with_a_create_for_each_node_there(known: Known) -> None:
    known.apply(Snapshot((service("a", "b"),)))
    assert summary(collected(known.subscribe())) == [("create", "a"), ("create", "b")]


def test_delete_of_what_is_not_there_is_silent(known: Known) -> None:
    known.apply(Snapshot((service("a"),)))
    subscription = known.subscribe()
    collected(subscription)
    known.apply(Delta(deletes=(service("ghost"),)))
    assert collected(subscription) == []
    assert ids(known.services) == ["a"]


def test_delete_tells_the_node_as_last_known_not_as_the_source_named_it(known: Known) -> None:
    known.apply(Snapshot((service("a", zone="z1"),)))
    subscription = known.subscribe()
    collected(subscription)
    known.apply(Delta(deletes=(service("a"),)))
    assert collected(subscription)[0].service == service("a", zone="z1")


def test_readers_hold_an_immutable_snapshot_that_is_swapped_whole(known: Known) -> None:
    known.apply(Snapshot((service("a"),)))
    before = known.services
    known.apply(Snapshot((service("a"),)))
    assert known.services is before  # nothing changed, so what was cached for it stays good
    known.apply(Delta((service("b"),)))
    assert (ids(before), ids(known.services)) == (["a"], ["a", "b"])


# Staleness, and what is held back.


def test_lost_source_leaves_what_is_known_as_stale(known: Known, clock: Clock) -> None:
    known.apply(Snapshot((service("a"),)))
    clock.now += 5
    known.lost()
    clock.now += 5
    known.lost()
    assert ids(known.services) == ["a"]
    assert known.stale_since == clock.now - 5  # since the first sign, not the last
    assert known.fresh_at == clock.now - 10


def test_source_that_is_back_is_fresh(known: Known, clock: Clock) -> None:
    lose_and_restore(known, clock, Snapshot((service("a"),)))
    assert known.stale_since is None
    assert known.fresh_at == clock.now


@pytest.mark.parametrize("left", [(), ("a",), ("a", "b")])
def test_healthy_source_is_obeyed_at_once(known: Known, left: tuple[str, ...]) -> None:
    known.apply(Snapshot((service("a", "b", "c", "d", "e"),)))
    known.apply(Snapshot((service(*left),)))
    assert ids(known.services) == list(left)
    assert known.obey_at is None


@pytest.mark.parametrize(
    ("before", "after", "is_held"),
    [
        ("a", "", True),  # all of them
        ("abc", "", True),
        ("abc", "a", False),  # most of them, but too few to tell
        ("abcd", "ab", False),  # just half
        ("abcd", "a", True),  # more than half of at least four
        ("abcde", "ab", True),
        ("abcde", "abc", False),
        ("abcd", "wxyz", True),  # replaced altogether
        ("a", "z", False),
    ],
)
def test_losses_right_after_a_reconnection_are_held_back(
    known: Known, clock: Clock, before: str, after: str, is_held: bool
) -> None:
    known.apply(Snapshot((service(*before),)))
    lose_and_restore(known, clock, Snapshot((service(*after),)))
    assert ids(known.services) == sorted({*before, *after} if is_held else after)
    assert known.obey_at == (clock.now + GRACE if is_held else None)
    assert [key[1] for key in sorted(known.truth)] == sorted(after)  # what the source said


def test_what_is_held_back_is_let_go_when_its_time_has_come(known: Known, clock: Clock) -> None:
    known.apply(Snapshot((service("a", "b"),)))
    subscription = known.subscribe()
    lose_and_restore(known, clock, Snapshot())
    collected(subscription)
    clock.now += GRACE - 0.1
    known.obey()
    assert ids(known.services) == ["a", "b"]
    assert collected(subscription) == []
    clock.now += 0.2
    known.obey()
    assert known.services == ()
    assert sorted(summary(collected(subscription))) == [("delete", "a"), ("delete", "b")]
    known.obey()
    assert known.obey_at is None


def test_node_that_comes_back_in_time_never_went(known: Known, clock: Clock) -> None:
    known.apply(Snapshot((service("a", "b"),)))
    subscription = known.subscribe()
    collected(subscription)
    lose_and_restore(known, clock, Snapshot(), Delta((service("a"),)))
    assert is_holding(known)  # b is still awaited
    known.apply(Delta((service("b", weight="2"),)))
    assert not is_holding(known)
    assert summary(collected(subscription)) == [("update", "b")]
    clock.now += 2 * GRACE
    known.obey()
    assert ids(known.services) == ["a", "b"]


def test_losses_one_by_one_after_a_reconnection_count_together(known: Known, clock: Clock) -> None:
    known.apply(Snapshot((service("a", "b", "c", "d"),)))
    lose_and_restore(known, clock, Snapshot((service("a", "b", "c", "d"),)))
    for gone in "abc":
        clock.now += 0.5
        known.apply(Delta(deletes=(service(gone),)))
    assert ids(known.services) == ["c", "d"]  # the third made it more than half
    assert known.obey_at == clock.now + GRACE


def test_source_that_has_been_well_for_a_while_is_obeyed_again(known: Known, clock: Clock) -> None:
    known.apply(Snapshot((service("a", "b"),)))
    lose_and_restore(known, clock, Snapshot((service("a", "b"),)))
    clock.now += UNWELL_WINDOW
    known.apply(Snapshot())
    assert known.services == ()
    assert known.obey_at is None


def test_explicit_delete_by_a_source_that_is_well_again_lets_go_at_once(
    known: Known, clock: Clock
) -> None:
    known.apply(Snapshot((service("a", "b"),)))
    lose_and_restore(known, clock, Snapshot())
    clock.now += UNWELL_WINDOW
    known.apply(Delta(deletes=(service("a"),)))
    assert ids(known.services) == ["b"]
    known.apply(Delta(deletes=(service("b"),)))
    assert known.services == ()
    assert known.obey_at is None


def test_snapshot_that_still_lacks_what_is_held_does_not_let_go_early(
    known: Known, clock: Clock
) -> None:
    known.apply(Snapshot((service("a", "b"),)))
    lose_and_restore(known, clock, Snapshot())
    obey_at = known.obey_at
    clock.now += UNWELL_WINDOW + 1
    known.apply(Snapshot((service("c"),)))
    assert ids(known.services) == ["a", "b", "c"]
    assert known.obey_at == obey_at


def test_second_outage_does_not_prolong_what_is_held(known: Known, clock: Clock) -> None:
    known.apply(Snapshot((service("a", "b"),)))
    lose_and_restore(known, clock, Snapshot())
    obey_at = known.obey_at
    lose_and_restore(known, clock, Snapshot())
    assert known.obey_at == obey_at
    assert ids(known.services) == ["a", "b"]


def test_nothing_that_is_held_back_goes_while_the_source_cannot_be_asked(
    known: Known, clock: Clock
) -> None:
    known.apply(Snapshot((service("a", "b"),)))
    lose_and_restore(known, clock, Snapshot())
    assert known.obey_at is not None
    known.lost()
    clock.now = known.obey_at + 1
    known.obey()
    assert ids(known.services) == ["a", "b"]
    known.apply(Snapshot())  # the source is back, and says the same as before
    known.obey()
    assert known.services == ()


def test_first_snapshot_after_failures_is_believed(known: Known, clock: Clock) -> None:
    lose_and_restore(known, clock, Snapshot())
    assert known.is_known
    assert known.services == ()
    assert known.obey_at is None


# Properties.

NODES = st.sampled_from("abcdef")
SERVICES = st.builds(
    lambda ids, version, weight: service(*sorted(ids), version=version, weight=weight),
    st.sets(NODES),
    st.sampled_from(["", "2"]),
    st.sampled_from(["1", "2"]),
)
STEPS = st.one_of(
    st.builds(lambda one: Snapshot((one,)), SERVICES),
    st.builds(lambda ups, downs: Delta((ups,), (service(*downs),)), SERVICES, st.sets(NODES)),
    st.just("lost"),
    st.sampled_from([0.5, UNWELL_WINDOW, GRACE]),
)


def take(known: Known, clock: Clock, step: Snapshot | Delta | str | float) -> None:
    if isinstance(step, (Snapshot, Delta)):
        known.apply(step)
    elif isinstance(step, float):
        clock.now += step
        known.obey()
    else:
        known.lost()


@given(st.lists(STEPS, max_size=20), st.integers(0, 20))
def test_events_replayed_over_a_dict_give_what_readers_see(
    steps: list[Snapshot | Delta | str | float], late: int
) -> None:
    clock = Clock()
    known = Known(NAME, GRACE, clock)
    early, late_comer = known.subscribe(), None
    for n, step in enumerate(steps):
        if n == late:
            late_comer = known.subscribe()
        take(known, clock, step)
    assert replay(collected(early)) == by_node(known.services)
    if late_comer is not None:
        assert replay(collected(late_comer)) == by_node(known.services)


@given(st.lists(STEPS, max_size=20))
def test_readers_see_all_the_source_says_and_beyond_it_only_what_is_held(
    steps: list[Snapshot | Delta | str | float],
) -> None:
    clock = Clock()
    known = Known(NAME, GRACE, clock)
    for step in steps:
        take(known, clock, step)
        said = {record.node.id: record.service() for record in known.truth.values()}
        seen = by_node(known.services)
        assert {key: seen.get(key) for key in said} == said
        if known.obey_at is None:
            assert seen == said
        elif known.stale_since is None:
            assert clock.now < known.obey_at <= clock.now + GRACE
    clock.now += GRACE
    known.obey()
    assert known.stale_since or len(by_node(known.services)) == len(known.truth)


def difference(before: Service, after: Service) -> Delta:
    old, new = by_node([before]), by_node([after])
    upserts = [one for key, one in new.items() if old.get(key) != one]
    deletes = [one for key, one in old.items() if key not in new]
    return Delta(upserts, deletes)


@given(st.lists(SERVICES, max_size=12))
def test_deltas_and_snapshots_of_the_same_changes_come_to_the_same(states: list[Service]) -> None:
    by_snapshot, by_delta = Known(NAME, GRACE), Known(NAME, GRACE)
    watches = [by_snapshot.subscribe(), by_delta.subscribe()]
    by_delta.apply(Snapshot())
    before = service()
    for state in states:
        by_snapshot.apply(Snapshot((state,)))
        by_delta.apply(difference(before, state))
        before = state
        assert by_snapshot.services == by_delta.services
        first, second = map(collected, watches)
        assert sorted(summary(first)) == sorted(summary(second))


@given(st.lists(STEPS, max_size=20), st.integers(0, 20))
def test_merged_events_have_the_same_effect_and_one_event_per_node(
    steps: list[Snapshot | Delta | str | float], begin: int
) -> None:
    clock = Clock()
    known = Known(NAME, GRACE, clock)
    for step in steps[:begin]:
        take(known, clock, step)
    start = by_node(known.services)
    subscription = known.subscribe()
    collected(subscription)
    for step in steps[begin:]:
        take(known, clock, step)
    events = collected(subscription)
    merged = merge(events)
    assert len({event.service.nodes[0].id for event in merged}) == len(merged) <= len(events)
    assert merge(merged) == merged
    state = dict(start)
    for event in merged:  # an update to what it was is allowed here: there and back again
        (node,) = event.service.nodes
        assert (event.action == "create") == (node.id not in state)
        if event.action == "delete":
            del state[node.id]
        else:
            state[node.id] = event.service
    assert state == by_node(known.services)


# Subscriptions.


def test_slow_consumer_gets_the_net_change_and_bounded_memory(
    known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVENT_BACKLOG", 10)
    known.apply(Snapshot((service("old"),)))
    subscription = Subscription(known, backlog=10)
    known.subscriptions.add(subscription)
    subscription.publish([])
    longest = 0
    for n in range(200):
        known.apply(Snapshot((service("a", "b", round=str(n)),)))
        longest = max(longest, len(subscription._events))
    assert longest <= 12
    events = collected(subscription)
    state = replay(merge(events), {"old": service("old")})
    assert state == {"a": service("a", round="199"), "b": service("b", round="199")}
    assert ("delete", "old") in summary(events)


def test_backlog_of_more_nodes_than_its_limit_is_not_merged_for_each_event(known: Known) -> None:
    subscription = Subscription(known, backlog=3)
    known.subscriptions.add(subscription)
    known.apply(Snapshot((service(*"abcdefgh"),)))
    assert len(subscription._events) == 8  # one per node: nothing to merge
    known.apply(Delta((service("a", weight="2"),)))
    assert len(subscription._events) == 9  # and there is room before the next attempt


def test_node_that_came_and_went_unnoticed_is_not_mentioned() -> None:
    events = [Event("create", service("a"), 1.0), Event("delete", service("a"), 2.0)]
    assert merge(events) == []


def test_node_that_went_and_came_back_is_an_update() -> None:
    gone, back = service("a", weight="1"), service("a", weight="2")
    (merged,) = merge([Event("delete", gone, 1.0), Event("create", back, 2.0)])
    assert (merged.action, merged.service, merged.timestamp) == ("update", back, 2.0)


@asynchronous
async def test_consumer_waits_for_events_and_gets_all_that_are_queued(known: Known) -> None:
    subscription = known.subscribe()
    waiting = asyncio.create_task(subscription.next_batch(0))
    await until(lambda: subscription._waiter is not None)
    known.apply(Snapshot((service("a", "b"),)))
    assert summary(await waiting) == [("create", "a"), ("create", "b")]


@asynchronous
async def test_batch_that_was_on_its_way_to_a_cancelled_reader_is_handed_out_again(
    known: Known,
) -> None:
    known.apply(Snapshot((service("a"),)))
    subscription = known.subscribe()
    lost = await subscription.next_batch(0)  # the reader never saw it
    known.apply(Delta((service("b"),)))
    assert await subscription.next_batch(0) == lost
    assert summary(await subscription.next_batch(1)) == [("create", "b")]


@asynchronous
async def test_end_comes_after_the_events_queued_before_it(known: Known) -> None:
    known.apply(Snapshot((service("a"),)))
    subscription = known.subscribe()
    known.close()
    assert known.subscriptions == set()
    known.apply(Delta((service("b"),)))  # after the end, so it is not heard
    assert summary(await subscription.next_batch(0)) == [("create", "a")]
    assert await subscription.next_batch(1) == ()


@asynchronous
async def test_error_ends_the_watch_and_wakes_who_waits(known: Known) -> None:
    subscription = known.subscribe()
    waiting = asyncio.create_task(subscription.next_batch(0))
    await until(lambda: subscription._waiter is not None)
    known.close(PermissionDeniedError("no right"))
    with pytest.raises(PermissionDeniedError, match="no right"):
        await waiting


# Waiting for one's own write.


@asynchronous
async def test_writer_waits_until_its_write_shows(known: Known) -> None:
    known.apply(Snapshot())
    waiting = asyncio.create_task(known.wait_until(lambda seen: (NAME, "b") in seen))
    await until(lambda: known._changed)
    known.apply(Delta((service("a"),)))
    await until(lambda: known._changed)
    assert not waiting.done()
    known.apply(Delta((service("b"),)))
    await waiting
    assert known._changed == set()


@asynchronous
async def test_writer_does_not_wait_for_a_source_that_is_lost(known: Known) -> None:
    known.apply(Snapshot())
    waiting = asyncio.create_task(known.wait_until(lambda seen: bool(seen)))
    await until(lambda: known._changed)
    known.lost()
    await asyncio.wait_for(waiting, 5)
    await asyncio.wait_for(known.wait_until(lambda seen: bool(seen)), 5)


# The directory.


def test_nothing_is_answered_before_the_first_snapshot() -> None:
    directory = Directory(GRACE)
    assert directory.services(NAME) is None
    known = directory.add(NAME)
    assert directory.known(NAME) is known
    assert directory.services(NAME) is None
    known.apply(Snapshot())
    assert directory.services(NAME) == ()  # known to be nothing


def test_reading_counts_as_use(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Directory(GRACE)
    known = directory.add(NAME)
    known.apply(Snapshot())
    known.used_at = 0.0
    directory.services(NAME)
    assert known.used_at > 0


def test_service_that_is_not_watched_any_more_is_forgotten() -> None:
    directory = Directory(GRACE)
    directory.add(NAME).apply(Snapshot((service("a"),)))
    directory.remove(NAME)
    directory.remove(NAME)
    assert directory.services(NAME) is None


@asynchronous
async def test_closing_ends_every_watch_and_begins_no_other() -> None:
    directory = Directory(GRACE)
    subscription = directory.add(None).subscribe()
    directory.close()
    assert await subscription.next_batch(0) == ()
    assert directory.known(None) is None
    with pytest.raises(RegistryClosedError):
        directory.add(NAME)
