"""Registrations stay listed: renewed together, judged by acknowledgements, registered anew."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from svcreg.config import Config
from svcreg.engine import heartbeat as module
from svcreg.engine.dispatch import Dispatcher
from svcreg.engine.registrar import Registrar
from svcreg.engine.writer import Entry
from svcreg.model import Service
from tests.support.engine import asynchronous, faulty, service, until
from tests.support.faulty import Faults

TTL, INTERVAL = 0.6, 0.05  # shorter than a program may ask for
KINDS = ("async", "def")
RENEWAL = {"async": "renew", "def": "register"}


class Beating:
    """Registrations over a backend that misbehaves on demand."""

    def __init__(self, faults: Faults, dispatch: Dispatcher, registrar: Registrar) -> None:
        self.faults, self.dispatch, self.registrar = faults, dispatch, registrar

    async def add(self, record: Service, ttl: float = TTL) -> Entry:
        entry = Entry(record, ttl, INTERVAL, None)
        await self.registrar.add(entry, required=True)
        return entry


@asynccontextmanager
async def beating(kind: str = "async") -> AsyncIterator[Beating]:
    faults, dispatch = faulty(kind)
    registrar = Registrar(Config(backend="faulty"), dispatch)
    try:
        yield Beating(faults, dispatch, registrar)
    finally:
        faults.heal()
        await registrar.close()


def is_well(entry: Entry) -> bool:
    return entry.state == "active" and entry.error is None


@pytest.mark.parametrize("kind", KINDS)
def test_registration_outlives_its_ttl(kind: str) -> None:
    @asynchronous
    async def scenario() -> None:
        async with beating(kind) as world:
            entry = await world.add(service("a"))
            ends = time.monotonic() + 1.5 * TTL

            def is_over() -> bool:
                assert world.faults.ids() == {"a"}
                assert entry.state == "active"
                return time.monotonic() > ends

            await until(is_over)
            assert time.time() - (entry.last_renewal or 0) < TTL / 2

    scenario()


@asynchronous
async def test_all_of_one_ttl_are_renewed_in_one_call() -> None:
    async with beating() as world:
        entries = [await world.add(service(f"n{n}")) for n in range(20)]
        since = time.monotonic()
        await until(lambda: all(entry.acked_at > since for entry in entries))
        assert world.faults.count("renew", since=since) <= 3
        assert world.faults.count("register", since=since) == 0


@asynchronous
async def test_what_the_registry_no_longer_knows_is_registered_anew_and_the_rest_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "svcreg.registrar")
    async with beating() as world:
        await world.add(service("a"))
        await world.add(service("b"))
        since = time.monotonic()
        world.faults.store.remove(service("b"))
        await until(lambda: world.faults.ids() == {"a", "b"})
        assert world.faults.count("register", since=since) == 1
    lost, restored = [record.getMessage() for record in caplog.records]
    assert "'greeter' lost: " in lost
    assert "no longer knows it" in lost
    assert "'greeter' restored after" in restored


@pytest.mark.parametrize("kind", KINDS)
def test_failed_renewal_is_told_by_the_error_and_forgotten_when_made_good(kind: str) -> None:
    @asynchronous
    async def scenario() -> None:
        async with beating(kind) as world:
            entry = await world.add(service("a"), ttl=60.0)
            world.faults.fail(RENEWAL[kind])
            await until(lambda: entry.error is not None)
            assert entry.state == "active"  # it is listed all the same
            world.faults.heal()
            await until(lambda: is_well(entry))

    scenario()


@pytest.mark.parametrize("kind", KINDS)
def test_silence_of_two_thirds_of_the_ttl_is_a_loss(kind: str) -> None:
    @asynchronous
    async def scenario() -> None:
        async with beating(kind) as world:
            entry = await world.add(service("a"))
            world.faults.fail("renew", "register")
            await until(lambda: entry.state == "lost")
            silence = time.monotonic() - entry.acked_at
            assert TTL * 2 / 3 - 0.05 <= silence < 5  # before the record can have expired
            await until(lambda: entry.error is not None)
            world.faults.heal()
            await until(lambda: is_well(entry))
            assert world.faults.ids() == {"a"}

    scenario()


@asynchronous
async def test_loss_names_the_last_error_of_the_registry() -> None:
    async with beating() as world:
        entry = await world.add(service("a"))
        said: list[str] = []
        world.dispatch.observe_state = (  # type: ignore[method-assign] # to see every change
            lambda name, state, seconds, error: said.append(str(error))
        )
        world.faults.fail("renew", "register")
        await until(lambda: entry.state == "lost")
    assert "no renewal was acknowledged for" in said[0]
    assert "(last error: faulty: renew failed: the registry is down)" in said[0]


@asynchronous
async def test_attempts_while_the_registry_is_down_are_few_and_never_end() -> None:
    async with beating() as world:
        entry = await world.add(service("a"))
        world.faults.fail("renew", "register")
        since = time.monotonic()
        await until(lambda: time.monotonic() - since > 1.0)
        assert entry.state == "lost"
        # Delays are capped at the interval and spread between a tenth of it and all of it.
        assert 5 <= world.faults.count("renew", "register", since=since) <= 10 / INTERVAL


@asynchronous
async def test_record_that_changed_while_it_was_renewed_does_not_count_as_acknowledged() -> None:
    async with beating() as world:
        entry = await world.add(service("a"), ttl=60.0)
        world.faults.delay(0.02, "renew")
        await until(lambda: entry.call is not None)
        before, entry.service = entry.acked_at, service("a", weight="2")
        await until(lambda: entry.call is None)
        assert entry.acked_at == before


@asynchronous
async def test_registration_closed_while_it_was_renewed_stays_closed() -> None:
    async with beating() as world:
        entry, other = await world.add(service("a")), await world.add(service("b"))
        world.faults.delay(0.02, "renew")
        await until(lambda: entry.call is not None)
        await world.registrar.remove(entry)
        since = time.monotonic()
        await until(lambda: other.acked_at > since)
        assert entry.state == "closed"
        assert world.faults.ids() == {"b"}


@asynchronous
async def test_record_is_looked_at_as_a_reader_would_and_registered_anew_when_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "READ_BACK_BEATS", 1)
    async with beating() as world:
        await world.add(service("a"), ttl=60.0)
        world.faults.is_lying = True  # renewals are acknowledged without looking
        world.faults.forget()
        await until(lambda: world.faults.ids() == {"a"})


@asynchronous
async def test_looking_at_records_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_BACK_BEATS", 1)
    monkeypatch.setattr(module, "READ_BACK_SERVICES", 2)
    async with beating() as world:
        for n in range(5):
            await world.add(service("a", name=f"s{n}"), ttl=60.0)
        await until(lambda: world.faults.count("get") >= 10)
    read = [call.name for call in world.faults.calls if call.operation == "get"]
    assert read[:5] == [f"s{n}" for n in range(5)]
    assert set(read[5:10]) == set(read[:5])


@asynchronous
async def test_record_that_cannot_be_read_is_not_taken_for_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "READ_BACK_BEATS", 1)
    async with beating() as world:
        entry = await world.add(service("a"), ttl=60.0)
        world.faults.fail("get")
        await until(lambda: world.faults.count("get") >= 3)
        assert is_well(entry)
        assert world.faults.count("register") == 1


@asynchronous
async def test_defect_of_ours_does_not_end_all_heartbeats_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with beating() as world:
        entry = await world.add(service("a"))
        with monkeypatch.context() as patch:

            async def fail(
                services: Sequence[Service], ttl: float, timeout: float | None = None
            ) -> Sequence[Service]:
                raise ZeroDivisionError("a defect")

            patch.setattr(world.dispatch, "renew", fail)
            await until(lambda: "heartbeat failed" in caplog.text)
        since = time.monotonic()
        await until(lambda: entry.acked_at > since)


@asynchronous
async def test_changes_of_state_reach_the_observers() -> None:
    async with beating() as world:
        seen: list[tuple[str, str]] = []
        world.dispatch.observe_state = (  # type: ignore[method-assign] # the end of that wire is tested elsewhere
            lambda name, state, seconds, error: seen.append((name, state))
        )
        entry = await world.add(service("a"))
        world.faults.forget()
        await until(lambda: ("greeter", "lost") in seen)
        await until(lambda: is_well(entry))
        await world.registrar.remove(entry)
    assert [state for _, state in seen] == ["active", "lost", "active", "closed"]


@asynchronous
async def test_heartbeat_without_registrations_is_over() -> None:
    async with beating() as world:
        entry = await world.add(service("a"))
        await world.registrar.remove(entry)
        await until(lambda: not any("renew" in one.get_name() for one in asyncio.all_tasks()))
        await world.add(service("b"))  # and the next one begins another
        since = time.monotonic()
        await until(lambda: world.faults.count("renew", since=since))
