"""A watch that fails is begun anew; readers wait for one attempt, and never for a known answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from svcreg.config import Config
from svcreg.engine import feed as module
from svcreg.engine.backoff import Backoff
from svcreg.engine.directory import Directory, Known
from svcreg.engine.feed import Feed, Feeds
from svcreg.errors import (
    PermissionDeniedError,
    RegistryTimeoutError,
    RegistryUnavailableError,
)
from svcreg.hookspecs import Delta, Snapshot, hookimpl
from svcreg.model import Service
from tests.support.engine import NAME, asynchronous, dispatcher, ids, service, summary, until

Said = Snapshot | Delta | Exception | None
FOR_EVER = 60.0  # seconds; longer than any test here may take


class Scripted:
    """A backend whose watch says what a test lets it: items, errors, or None for its end."""

    capabilities = frozenset({"watch-all"})

    def __init__(self, *script: Said) -> None:
        self.connections = self.reads = self.listings = 0
        self.services: Sequence[Service] = ()  # what a plain read answers
        self.read_error: Exception | None = None
        self.on_read: Any = None
        self._says: asyncio.Queue[Said] = asyncio.Queue()
        self.say(*script)

    def say(self, *items: Said) -> None:
        for item in items:
            self._says.put_nowait(item)

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> AsyncIterator[Snapshot | Delta]:
        self.connections += 1
        while (item := await self._says.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    @hookimpl
    async def svcreg_get(self, name: str) -> Sequence[Service]:
        self.reads += 1
        if self.on_read is not None:
            self.on_read()
        if self.read_error is not None:
            raise self.read_error
        return self.services

    @hookimpl
    async def svcreg_list(self) -> Sequence[str]:
        self.listings += 1
        if self.read_error is not None:
            raise self.read_error
        return ()

    @hookimpl
    async def svcreg_register(self, service: Service, ttl: float) -> None:
        raise NotImplementedError

    @hookimpl
    async def svcreg_deregister(self, service: Service) -> None:
        raise NotImplementedError


@asynccontextmanager
async def feeding(
    backend: Scripted, *, name: str | None = NAME, grace: float = 30.0, timeout: float = 5.0
) -> AsyncIterator[Feed]:
    feed = Feed(Known(name, grace), dispatcher(backend), timeout)
    try:
        yield feed
    finally:
        await feed.stop()


@pytest.fixture(autouse=True)
def _delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Backoff", lambda: Backoff(0.001, 0.002))


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only a reader's wish begin the next attempt."""
    monkeypatch.setattr(module, "Backoff", lambda: Backoff(FOR_EVER * 10, FOR_EVER * 10))


@pytest.fixture
def _watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let silence be doubted soon."""
    monkeypatch.setattr(module, "RECONCILE_PERIOD", 0.01)
    monkeypatch.setattr(module, "SECOND_LOOK", 0.01)


def has_recovered(feed: Feed) -> bool:
    return feed.error is None and feed.known.stale_since is None


CUT = ConnectionResetError("cut")


# Readers.


@asynchronous
async def test_readers_wait_for_the_first_snapshot_and_then_not_any_more() -> None:
    backend = Scripted()
    async with feeding(backend) as feed:
        readers = [asyncio.create_task(feed.wait_known(5)) for _ in range(10)]
        await until(lambda: backend.connections)
        backend.say(Snapshot((service("a"),)))
        assert {tuple(ids(await reader)) for reader in readers} == {("a",)}
        assert ids(await feed.wait_known(0)) == ["a"]
    assert backend.connections == 1
    assert backend.reads == 0


@asynchronous
async def test_reader_that_gives_up_does_not_end_the_attempt_of_the_others() -> None:
    backend = Scripted()
    async with feeding(backend) as feed:
        first, second = (asyncio.create_task(feed.wait_known(5)) for _ in range(2))
        await until(lambda: backend.connections)
        first.cancel()
        await asyncio.wait({first})
        backend.say(Snapshot((service("a"),)))
        assert ids(await second) == ["a"]


@asynchronous
async def test_reader_waits_no_longer_than_it_wants_to() -> None:
    async with feeding(Scripted()) as feed:
        with pytest.raises(
            RegistryTimeoutError, match=r"'greeter' yet .* within 0\.02 s"
        ) as caught:
            await feed.wait_known(0.02)
    assert (caught.value.operation, caught.value.service) == ("get", NAME)


@pytest.mark.usefixtures("_patient")
@asynchronous
async def test_failed_attempt_is_the_answer_for_all_who_wait_and_for_those_soon_after() -> None:
    backend = Scripted()
    async with feeding(backend) as feed:
        readers = [asyncio.create_task(feed.wait_known(5)) for _ in range(10)]
        await until(lambda: backend.connections)
        backend.say(CUT)
        errors = await asyncio.gather(*readers, return_exceptions=True)
        for _ in range(10):
            with pytest.raises(RegistryUnavailableError, match="cut") as caught:
                await feed.wait_known(5)
            errors.append(caught.value)
    assert {type(error) for error in errors} == {RegistryUnavailableError}
    assert len({id(error) for error in errors}) == 20  # each with a traceback of its own
    assert {error.__cause__ for error in errors if isinstance(error, Exception)} == {CUT}
    assert backend.connections == 1


@pytest.mark.usefixtures("_patient")
@asynchronous
async def test_reader_cuts_a_long_delay_short(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Scripted(CUT)
    async with feeding(backend) as feed:
        with pytest.raises(RegistryUnavailableError):
            await feed.wait_known(5)
        monkeypatch.setattr(module, "KICK_AFTER", 0.0)
        backend.say(Snapshot((service("a"),)))
        assert ids(await feed.wait_known(5)) == ["a"]
    assert backend.connections == 2


@asynchronous
async def test_watch_that_says_nothing_at_first_is_given_up_after_the_timeout() -> None:
    backend = Scripted()
    async with feeding(backend, timeout=0.03) as feed:
        with pytest.raises(RegistryTimeoutError, match=r"gave no snapshot within 0\.03 s"):
            await feed.wait_known(5)
        await until(lambda: backend.connections >= 2)
        backend.say(Snapshot((service("a"),)))
        await until(lambda: feed.known.is_known)
        assert feed.error is None


@asynchronous
async def test_readers_of_a_feed_that_is_stopped_are_told_so() -> None:
    backend = Scripted()
    async with feeding(backend) as feed:
        reader = asyncio.create_task(feed.wait_known(5))
        await until(lambda: backend.connections)
        await feed.stop()
        with pytest.raises(RegistryUnavailableError, match="'greeter' was stopped"):
            await reader


# Losing the source and finding it again.


@asynchronous
async def test_reconnecting_tells_the_difference_and_clears_the_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "svcreg.feed")
    backend = Scripted(Snapshot((service("a", "b", "c"),)))
    async with feeding(backend) as feed:
        subscription = feed.known.subscribe()
        await subscription.next_batch(0)
        backend.say(CUT, CUT, CUT)
        await until(lambda: backend.connections == 4)
        assert feed.known.stale_since is not None
        assert str(feed.error) == "acme: watch of 'greeter' failed: cut"
        assert ids(feed.known.services) == ["a", "b", "c"]
        backend.say(Snapshot((service("b", "c", "d"),)))
        assert summary(await subscription.next_batch(1)) == [("create", "d"), ("delete", "a")]
        assert has_recovered(feed)
    lost, restored = [record.getMessage() for record in caplog.records]  # not one per attempt
    assert lost.startswith("watch of 'greeter' lost, trying again: ")
    assert restored.startswith("watch of 'greeter' restored after 0.")


@asynchronous
async def test_watch_that_ends_without_an_error_is_lost_all_the_same() -> None:
    backend = Scripted(Snapshot((service("a"),)), None)
    async with feeding(backend) as feed:
        await until(lambda: backend.connections == 2)
        assert "the watch of 'greeter' ended" in str(feed.error)


@asynchronous
async def test_refusal_ends_the_watches_where_nothing_was_ever_known() -> None:
    backend = Scripted(PermissionDeniedError("no right"))
    async with feeding(backend) as feed:
        with pytest.raises(PermissionDeniedError, match="no right"):
            await feed.known.subscribe().next_batch(0)


@asynchronous
async def test_refusal_later_on_leaves_the_watches_waiting() -> None:
    backend = Scripted(Snapshot((service("a"),)), PermissionDeniedError("token expired"))
    async with feeding(backend) as feed:
        subscription = feed.known.subscribe()
        await until(lambda: backend.connections == 2)
        backend.say(Snapshot((service("a", "b"),)))
        await until(lambda: len(feed.known.truth) == 2)
        assert summary(await subscription.next_batch(0)) == [("create", "a"), ("create", "b")]


@asynchronous
async def test_defect_of_ours_does_not_end_the_watch_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Scripted()
    async with feeding(backend) as feed:
        with monkeypatch.context() as patch:

            def fail(item: object) -> None:
                raise ZeroDivisionError("a defect")

            patch.setattr(feed.known, "apply", fail)
            backend.say(Snapshot())
            with pytest.raises(RegistryUnavailableError, match="a defect"):
                await feed.wait_known(5)
        backend.say(Snapshot((service("a"),)))
        await until(lambda: feed.known.is_known)
    assert "ZeroDivisionError" in caplog.text


@asynchronous
async def test_what_is_held_back_is_let_go_in_time_without_anything_happening() -> None:
    backend = Scripted(Snapshot((service("a", "b"),)), CUT, Snapshot())
    async with feeding(backend, grace=0.1) as feed:
        await until(lambda: feed.known.obey_at is not None)
        restored = time.monotonic()
        assert ids(feed.known.services) == ["a", "b"]
        await until(lambda: feed.known.services == ())
        assert time.monotonic() - restored >= 0.05


@asynchronous
async def test_what_has_come_back_in_time_is_not_let_go() -> None:
    backend = Scripted(Snapshot((service("a", "b"),)), CUT, Snapshot())
    async with feeding(backend, grace=0.1) as feed:
        subscription = feed.known.subscribe()
        await until(lambda: feed.known.obey_at is not None)
        backend.say(Delta((service("a", "b"),)))
        await until(lambda: feed.known.obey_at is None)
        assert feed._obey is None
        backend.say(Delta((service("c"),)))
        await until(lambda: len(feed.known.truth) == 3)
        events = summary(await subscription.next_batch(0))
        assert sorted(events) == [("create", "a"), ("create", "b"), ("create", "c")]


# Proof of life.


@pytest.mark.usefixtures("_watchful")
@asynchronous
async def test_deaf_watch_is_found_by_a_plain_read_and_replaced() -> None:
    backend = Scripted(Snapshot((service("a"),)))
    backend.services = (service("a", "b"),)
    async with feeding(backend) as feed:
        await until(lambda: backend.connections == 2)
        assert backend.reads >= 2  # one that differs may be ahead of the watch
        assert "has gone silent" in str(feed.error)
        backend.say(Snapshot((service("a", "b"),)))
        await until(lambda: ids(feed.known.services) == ["a", "b"])


@pytest.mark.usefixtures("_watchful")
@asynchronous
async def test_silence_that_a_plain_read_confirms_is_health() -> None:
    backend = Scripted(Snapshot((service("a", version="1"),)))
    # A read has one header per version, so only what nodes say is compared.
    backend.services = (Service(NAME, "1", {"read": "yes"}, nodes=service("a").nodes),)
    async with feeding(backend) as feed:
        await until(lambda: feed.known.is_known)
        heard = feed.known.fresh_at
        await until(lambda: backend.reads >= 3)
        assert feed.known.fresh_at > heard
    assert backend.connections == 1


@pytest.mark.usefixtures("_watchful")
@asynchronous
async def test_read_that_is_merely_ahead_of_the_watch_is_no_proof() -> None:
    backend = Scripted(Snapshot((service("a"),)))
    backend.services = (service("a", "b"),)

    def catch_up() -> None:
        if backend.reads == 1:
            backend.say(Delta((service("b"),)))

    backend.on_read = catch_up
    async with feeding(backend) as feed:
        await until(lambda: backend.reads >= 4)
        assert ids(feed.known.services) == ["a", "b"]
    assert backend.connections == 1


@pytest.mark.usefixtures("_watchful")
@asynchronous
async def test_difference_that_is_gone_at_the_second_look_is_no_proof() -> None:
    backend = Scripted(Snapshot((service("a"),)))

    def answer() -> None:
        backend.services = (service("a", "b"),) if backend.reads == 1 else (service("a"),)

    backend.on_read = answer
    async with feeding(backend):
        await until(lambda: backend.reads >= 4)
    assert backend.connections == 1


@pytest.mark.usefixtures("_watchful")
@pytest.mark.parametrize("name", [NAME, None])
def test_registry_that_cannot_be_read_is_lost_though_the_watch_is_silent(name: str | None) -> None:
    @asynchronous
    async def scenario() -> None:
        backend = Scripted(Snapshot())
        backend.read_error = CUT
        async with feeding(backend, name=name) as feed:
            await until(lambda: backend.connections == 2)
            assert feed.known.stale_since is not None

    scenario()


@pytest.mark.usefixtures("_watchful")
@asynchronous
async def test_watch_of_every_service_is_proved_by_a_listing() -> None:
    backend = Scripted(Snapshot((service("a"),)))
    async with feeding(backend, name=None) as feed:
        await until(lambda: feed.known.is_known)
        heard = feed.known.fresh_at
        await until(lambda: backend.listings >= 2)
        await until(lambda: feed.known.fresh_at > heard)
    assert (backend.connections, backend.reads) == (1, 0)


# The feeds of one registry.


def feeds_over(backend: Scripted, *, idle: float = 600.0) -> tuple[Directory, Feeds]:
    directory = Directory(30.0)
    config = Config(backend="acme", feed_idle=idle)
    return directory, Feeds(config, directory, dispatcher(backend))


@asynchronous
async def test_service_has_one_feed_however_many_ask() -> None:
    backend = Scripted(Snapshot())
    directory, feeds = feeds_over(backend)
    assert feeds.ensure(NAME) is feeds.ensure(NAME)
    assert feeds.ensure(None) is not feeds.ensure(NAME)
    assert len(feeds.all()) == 2
    assert directory.known(NAME) is feeds.ensure(NAME).known
    await feeds.close()
    assert feeds.all() == ()


@asynchronous
async def test_service_that_nobody_asks_for_is_not_watched_any_more() -> None:
    backend = Scripted(Snapshot((service("a"),)), Snapshot((service("a"),)))
    directory, feeds = feeds_over(backend, idle=0.04)
    watched = feeds.ensure("watched").known.subscribe()
    await feeds.ensure(NAME).wait_known(5)
    await until(lambda: directory.known(NAME) is None)  # to read would count as use
    assert directory.services(NAME) is None
    assert [feed.known.name for feed in feeds.all()] == ["watched"]
    watched.close()
    await until(lambda: not feeds.all())
    await feeds.close()


@asynchronous
async def test_service_that_is_asked_for_now_and_then_goes_on_being_watched() -> None:
    backend = Scripted(Snapshot((service("a"),)))
    directory, feeds = feeds_over(backend, idle=0.1)
    await feeds.ensure(NAME).wait_known(5)
    ends = time.monotonic() + 0.3

    def is_over() -> bool:
        assert directory.services(NAME) is not None
        return time.monotonic() > ends

    await until(is_over)
    assert backend.connections == 1
    await feeds.close()


@asynchronous
async def test_service_whose_first_answer_is_waited_for_is_in_use() -> None:
    backend = Scripted()
    _, feeds = feeds_over(backend, idle=0.02)
    waiting = asyncio.create_task(feeds.ensure(NAME).wait_known(5))
    done, _ = await asyncio.wait({waiting}, timeout=0.1)  # several idle times
    assert not done
    backend.say(Snapshot((service("a"),)))
    assert ids(await waiting) == ["a"]
    await feeds.close()
