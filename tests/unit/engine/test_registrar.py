"""Who holds a node, what a change or a withdrawal writes, and what a check lets through."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from svcreg.config import Config
from svcreg.engine import registrar as module
from svcreg.engine.registrar import Registrar
from svcreg.engine.writer import Check, Entry
from svcreg.errors import (
    PermissionDeniedError,
    RegistryTimeoutError,
    RegistryUnavailableError,
)
from svcreg.model import Node, Service
from tests.support.engine import NAME, asynchronous, faulty, ids, service, until

KINDS = ("async", "def")


class Ours:
    """A registrar over a backend that misbehaves on demand."""

    def __init__(self, kind: str, timeout: float) -> None:
        self.faults, self.dispatch = faulty(kind, timeout=timeout)
        self.registrar = Registrar(Config(backend="faulty", timeout=timeout), self.dispatch)

    async def add(
        self,
        record: Service,
        *,
        check: Check | None = None,
        required: bool = True,
        ttl: float = 60.0,
        interval: float = 20.0,
    ) -> Entry:
        entry = Entry(record, ttl, interval, check)
        await self.registrar.add(entry, required=required)
        return entry

    @property
    def listed(self) -> list[str]:
        return sorted(self.faults.ids())

    def record(self, node_id: str) -> Service:
        return self.faults.store.read(None)[NAME, node_id]

    async def close(self) -> None:
        self.faults.heal()
        await self.registrar.close()


@asynccontextmanager
async def ours(kind: str = "async", timeout: float = 5.0) -> AsyncIterator[Ours]:
    world = Ours(kind, timeout)
    try:
        yield world
    finally:
        await world.close()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_PERIOD", 0.01)
    monkeypatch.setattr(module, "SETTLE_DELAY", 0.01)


def outcome(entry: Entry) -> tuple[str, str]:
    """Return state and kind of error; a call, so that mypy keeps no stale idea of them."""
    return entry.state, type(entry.error).__name__


# Registering.


@asynchronous
async def test_registration_is_listed_and_active_when_acknowledged() -> None:
    async with ours() as world:
        entry = await world.add(service("a", "b"))
        assert world.listed == ["a", "b"]
        assert outcome(entry) == ("active", "NoneType")
        assert entry.last_renewal is not None
        assert world.registrar.entries == [entry]


@asynchronous
async def test_required_registration_that_fails_leaves_nothing_behind() -> None:
    async with ours() as world:
        world.faults.fail("register")
        with pytest.raises(RegistryUnavailableError):
            await world.add(service("a"))
        assert world.registrar.entries == []
        world.faults.heal()
        await until(lambda: not world.registrar._background)
        assert world.listed == []


@asynchronous
async def test_refused_registration_is_not_withdrawn_since_it_cannot_have_happened() -> None:
    async with ours() as world:
        world.faults.fail("register", error=PermissionDeniedError("no right"))
        with pytest.raises(PermissionDeniedError):
            await world.add(service("a"))
        assert not world.registrar._background
        assert world.faults.count("deregister") == 0


@asynchronous
async def test_late_effect_of_a_registration_that_went_unanswered_is_withdrawn() -> None:
    async with ours("def", timeout=0.03) as world:
        world.faults.delay(0.1, "register")
        with pytest.raises(RegistryTimeoutError):
            await world.add(service("a"))
        await until(lambda: world.faults.count("deregister"))
        await until(lambda: not world.registrar._background)
        assert world.faults.store.revision >= 2  # it did arrive, and went again
        assert world.listed == []


@asynchronous
async def test_late_effect_is_withdrawn_however_long_the_registry_is_away() -> None:
    async with ours() as world:
        world.faults.fail()
        with pytest.raises(RegistryUnavailableError):
            await world.add(service("a"))
        await until(lambda: world.faults.count("get") >= 3)
        world.faults.store.put(service("a"), 60, "the write that was never answered")
        world.faults.heal()
        await until(lambda: not world.registrar._background)
        assert world.listed == []


@asynchronous
async def test_what_never_arrived_is_looked_for_until_its_ttl_has_passed() -> None:
    async with ours() as world:
        world.faults.fail()
        with pytest.raises(RegistryUnavailableError):
            await world.add(service("a"), ttl=0.2, interval=0.1)
        await until(lambda: not world.registrar._background)
        assert world.faults.count("get") >= 2


@asynchronous
async def test_registering_again_and_again_in_vain_leaves_one_look_to_do() -> None:
    async with ours() as world:
        world.faults.fail()
        for _ in range(5):
            with pytest.raises(RegistryUnavailableError):
                await world.add(service("a"))
        await until(lambda: len(world.registrar._background) == 1)
        world.faults.heal()
        await until(lambda: not world.registrar._background)


@asynchronous
async def test_registration_that_need_not_succeed_at_once_is_made_later() -> None:
    async with ours() as world:
        world.faults.fail("register")
        entry = await world.add(service("a"), required=False, interval=0.2)
        await until(lambda: outcome(entry) == ("pending", "RegistryUnavailableError"))
        world.faults.heal()
        await until(lambda: outcome(entry) == ("active", "NoneType"))
        assert world.listed == ["a"]


@asynchronous
async def test_successor_that_came_meanwhile_is_not_withdrawn_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SETTLE_DELAY", 0.4)
    async with ours("def", timeout=0.03) as world:
        world.faults.delay(0.1, "register")
        with pytest.raises(RegistryTimeoutError):
            await world.add(service("a"))
        await until(lambda: world.listed == ["a"])
        world.faults.store.put(service("a", pid="2"), 60, "somebody else")
        await until(lambda: not world.registrar._background)
        assert world.record("a") == service("a", pid="2")


# Who holds a node.


@asynchronous
async def test_node_that_is_registered_again_belongs_to_the_newer_registration() -> None:
    async with ours() as world:
        first = await world.add(service("a"))
        second = await world.add(service("a", weight="2"))
        assert (first.state, second.state) == ("closed", "active")
        await world.registrar.remove(first)
        assert world.record("a") == service("a", weight="2")
        assert world.registrar.entries == [second]


@asynchronous
async def test_registration_keeps_the_nodes_that_are_not_taken_over() -> None:
    async with ours() as world:
        first = await world.add(service("a", "b"))
        second = await world.add(service("b", "c"))
        assert ids([first.service]) == ["a"]
        assert first.state == "active"
        await world.registrar.remove(first)
        assert world.listed == ["b", "c"]
        await world.registrar.remove(second)
        assert world.listed == []


@asynchronous
async def test_failed_take_over_gives_the_node_back() -> None:
    async with ours() as world:
        first = await world.add(service("a"))
        world.faults.fail("register")
        with pytest.raises(RegistryUnavailableError):
            await world.add(service("a", weight="2"))
        world.faults.heal()
        await until(lambda: not world.registrar._background)
        assert first.state == "active"
        assert world.record("a") == service("a")  # nor is it withdrawn with the one that failed
        await world.registrar.remove(first)
        assert world.listed == []


@asynchronous
async def test_failed_take_over_gives_nothing_back_to_a_registration_closed_meanwhile() -> None:
    async with ours(timeout=0.2) as world:
        first = await world.add(service("a"))
        world.faults.hang("register")
        second = asyncio.create_task(world.add(service("a")))
        await until(lambda: world.faults.count("register") == 2)
        await world.registrar.remove(first)
        with pytest.raises(RegistryTimeoutError):
            await second
        assert world.registrar.entries == []


@asynchronous
async def test_registration_closed_before_it_was_acknowledged_is_not_kept() -> None:
    async with ours() as world:
        world.faults.delay(0.05, "register")
        adding = asyncio.create_task(world.add(service("a")))
        await until(lambda: world.registrar.entries)
        (entry,) = world.registrar.entries
        await world.registrar.remove(entry)
        await adding
        assert entry.state == "closed"
        assert world.registrar.entries == []
        assert world.listed == []


@asynchronous
async def test_registrations_of_one_ttl_share_a_heartbeat_which_ends_with_the_last() -> None:
    async with ours() as world:
        entries = [await world.add(service(one)) for one in "abc"]
        other = await world.add(service("d"), ttl=90.0, interval=30.0)
        assert len(world.registrar._groups) == 2
        for entry in (*entries, other):
            await world.registrar.remove(entry)
        assert not world.registrar._groups
        await until(lambda: not any("renew" in t.get_name() for t in asyncio.all_tasks()))


# Changing.


@pytest.mark.parametrize("kind", KINDS)
def test_update_writes_what_is_new_and_withdraws_what_is_dropped(kind: str) -> None:
    @asynchronous
    async def scenario() -> None:
        async with ours(kind) as world:
            entry = await world.add(service("a", "b"))
            await world.registrar.update(entry, service("b", "c", weight="2"))
            assert world.listed == ["b", "c"]
            assert world.record("b") == service("b", weight="2")
            await world.registrar.remove(entry)
            assert world.listed == []

    scenario()


@asynchronous
async def test_update_takes_nodes_over_as_registering_does() -> None:
    async with ours() as world:
        first, second = await world.add(service("a", "b")), await world.add(service("c"))
        await world.registrar.update(second, service("b", "c"))
        assert ids([first.service]) == ["a"]
        await world.registrar.remove(first)
        assert world.listed == ["b", "c"]


@asynchronous
async def test_dropped_node_may_be_registered_by_itself_and_is_then_not_withdrawn() -> None:
    async with ours() as world:
        first = await world.add(service("a", "b"))
        await world.registrar.update(first, service("a"))
        await world.add(service("b"))
        await world.registrar.remove(first)
        assert world.listed == ["b"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operation", ["register", "deregister"])
def test_update_that_the_registry_does_not_take_is_told_again(kind: str, operation: str) -> None:
    @asynchronous
    async def scenario() -> None:
        async with ours(kind) as world:
            entry = await world.add(service("a", "b"), interval=0.2)
            world.faults.fail(operation)
            with pytest.raises(RegistryUnavailableError):
                await world.registrar.update(entry, service("a", weight="2"))
            assert outcome(entry) == ("lost", "RegistryUnavailableError")
            world.faults.heal()
            await until(lambda: outcome(entry) == ("active", "NoneType"))
            assert world.record("a") == service("a", weight="2")

    scenario()


@asynchronous
async def test_update_of_what_is_not_listed_is_only_kept() -> None:
    is_ready = asyncio.Event()

    async def check() -> bool:
        return is_ready.is_set()

    async with ours() as world:
        entry = await world.add(service("a"), check=check)
        await world.registrar.update(entry, service("a", weight="2"))
        assert world.faults.count("register") == 0
        is_ready.set()
        await until(lambda: entry.state == "active")
        assert world.record("a") == service("a", weight="2")


@asynchronous
async def test_update_waits_for_the_write_under_way_so_that_the_newer_record_stays() -> None:
    async with ours() as world:
        entry = await world.add(service("a"), interval=0.1)
        world.faults.delay(0.03, "renew")
        await until(lambda: entry.call is not None)
        await world.registrar.update(entry, service("a", weight="2"))
        assert entry.call is None
        assert world.record("a") == service("a", weight="2")


# Withdrawing.


@asynchronous
async def test_withdrawing_waits_for_the_write_under_way_so_that_nothing_comes_back() -> None:
    async with ours() as world:
        entry = await world.add(service("a"), interval=0.1)
        world.faults.delay(0.05, "renew")
        await until(lambda: entry.call is not None)
        await world.registrar.remove(entry)
        assert world.listed == []
        assert world.faults.calls[-1].operation == "deregister"


@asynchronous
async def test_withdrawing_is_repeated_where_an_unanswered_write_may_still_arrive() -> None:
    async with ours("def", timeout=0.05) as world:
        entry = await world.add(service("a"), ttl=2.0, interval=0.1)
        world.faults.delay(0.2, "register")  # with a def backend a renewal is a registration
        await until(lambda: entry.is_unsettled)
        await world.registrar.remove(entry)
        await until(lambda: not world.registrar._background)
        assert world.faults.count("deregister") == 2
        assert world.listed == []


@asynchronous
async def test_what_was_never_listed_is_not_withdrawn() -> None:
    async def never() -> bool:
        return False

    async with ours() as world:
        entry = await world.add(service("a"), check=never)
        await world.registrar.remove(entry)
        await world.registrar.remove(entry)
        assert world.faults.count("deregister") == 0
        assert entry.state == "closed"


@asynchronous
async def test_withdrawal_that_fails_is_raised_and_the_registration_is_closed() -> None:
    async with ours() as world:
        entry = await world.add(service("a"))
        world.faults.fail("deregister")
        with pytest.raises(RegistryUnavailableError):
            await world.registrar.remove(entry)
        assert entry.state == "closed"
        assert world.registrar.entries == []


@asynchronous
async def test_releasing_a_node_of_ours_lets_go_of_it_and_keeps_the_others() -> None:
    async with ours() as world:
        entry = await world.add(service("a", "b"), interval=0.1)
        await world.registrar.release(service("a"))
        assert world.listed == ["b"]
        assert ids([entry.service]) == ["b"]
        renewed = world.faults.count("renew")
        await until(lambda: world.faults.count("renew") > renewed)
        assert world.listed == ["b"]
        await world.registrar.release(service("b"))
        assert entry.state == "closed"
        assert world.listed == []


@asynchronous
async def test_releasing_withdraws_what_others_registered_and_what_is_unknown() -> None:
    async with ours() as world:
        world.faults.store.put(service("theirs", "other"), 60, "somebody else")
        mine = await world.add(service("mine"))
        await world.registrar.release(Service(NAME, nodes=(Node("theirs", ""), Node("ghost", ""))))
        assert world.listed == ["mine", "other"]
        assert mine.state == "active"


@asynchronous
async def test_closing_withdraws_everything_and_logs_what_failed_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "svcreg")
    world = Ours("async", 5.0)
    for one in "abc":
        await world.add(service(one))
    world.faults.fail("deregister")
    await world.registrar.close()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("3 of 3 registrations were not withdrawn and end with their TTL: ")
    await world.registrar.close()


# Checks.


class Health:
    """A check that a test steers, and that counts how often it was asked."""

    def __init__(self, *, is_well: bool) -> None:
        self.is_well = is_well
        self.asked = 0
        self.outcomes: list[Any] = []  # for the next calls, before `is_well` counts again

    async def __call__(self) -> bool:
        self.asked += 1
        result = self.outcomes.pop(0) if self.outcomes else self.is_well
        if isinstance(result, Exception):
            raise result
        return bool(result)


@asynchronous
async def test_node_is_listed_while_its_check_passes_and_only_then() -> None:
    async with ours() as world:
        health = Health(is_well=False)
        entry = await world.add(service("a"), check=health)
        assert outcome(entry) == ("pending", "SvcregError")
        await until(lambda: health.asked >= 3)
        assert world.faults.count("register") == 0
        health.is_well = True
        await until(lambda: entry.state == "active")
        assert world.listed == ["a"]
        health.is_well = False
        await until(lambda: entry.state == "pending")
        await until(lambda: world.listed == [])
        health.is_well = True
        await until(lambda: world.listed == ["a"])
        await until(lambda: entry.state == "active")


@asynchronous
async def test_single_failure_of_a_check_is_a_hiccup_and_an_error_is_a_failure() -> None:
    async with ours() as world:
        health = Health(is_well=True)
        entry = await world.add(service("a"), check=health)
        health.outcomes = [ConnectionRefusedError("x"), True, False, True, False, True]
        await until(lambda: not health.outcomes)
        assert entry.state == "active"
        assert world.faults.count("deregister") == 0
        health.outcomes = [ConnectionRefusedError("x"), ConnectionRefusedError("x")]
        await until(lambda: world.faults.count("deregister") == 1)
        await until(lambda: entry.state == "active")  # and back again


@asynchronous
async def test_node_whose_check_fails_stays_unlisted_though_the_registry_could_not_be_told() -> (
    None
):
    async with ours() as world:
        health = Health(is_well=True)
        entry = await world.add(service("a"), check=health, interval=0.1)
        world.faults.fail("deregister")
        health.is_well = False
        await until(lambda: world.faults.count("deregister"))
        assert outcome(entry) == ("pending", "SvcregError")
        renewed, asked = world.faults.count("renew"), health.asked
        await until(lambda: health.asked > asked + 15)
        assert world.faults.count("renew") == renewed  # so that its TTL ends it


@asynchronous
async def test_closed_registration_is_not_checked_any_more() -> None:
    async with ours() as world:
        health = Health(is_well=True)
        entry = await world.add(service("a"), check=health)
        await world.registrar.remove(entry)
        assert entry.gate is not None
        await asyncio.wait({entry.gate}, timeout=5)
        assert entry.gate.cancelled()
