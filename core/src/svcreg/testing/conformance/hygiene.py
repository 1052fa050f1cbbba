"""Closing is final and leaves nothing behind, and what is secret stays so."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from pathlib import Path

import pytest

import svcreg
from svcreg import RegistryClosedError
from svcreg.testing.conformance.base import Base, World, one

SECRET = "s3cr3t-Pa55phrase"  # noqa: S105 - of nothing
CYCLES = 3
"""Times that a registry is opened, used and closed, after a first time that warms up."""

WATCHES = 10
IDLE = 0.25
"""Services watched in the test of watches that end, and seconds after which they no longer are."""


class Hygiene(Base):
    """Tests of closing, and of what gets out."""

    def test_closing_twice_is_harmless(self, world: World) -> None:
        client, name = world.open(), world.name()
        held, watching = client.register(one(name, "node")), client.watch(name)
        for _ in range(2):
            held.close()
            watching.close()
        for _ in range(2):
            client.close()
            held.close()
            watching.close()

    def test_closing_an_unused_registry_is_harmless(self, world: World) -> None:
        world.open().close()

    def test_use_after_closing_is_refused(self, world: World) -> None:
        client, name = world.open(), world.name()
        held = client.register(one(name, "node"))
        client.get(name)
        client.close()
        for call in (
            lambda: client.get(name),
            lambda: client.get(world.name()),
            lambda: client.list(),
            lambda: client.select(name),
            lambda: client.register(one(name, "node")),
            lambda: client.deregister(one(name, "node")),
            lambda: client.watch(name),
            lambda: client.watch(),
            lambda: held.update(version="2"),
        ):
            with pytest.raises(RegistryClosedError):
                call()
        assert not client.status().connected

    def test_update_after_closing_the_registration_is_refused(self, world: World) -> None:
        client, name = world.open(), world.name()
        held = client.register(one(name, "node"))
        held.close()
        assert held.raw.state == "closed"
        with pytest.raises(RegistryClosedError):
            held.update(version="2")
        assert client.get(name) == ()

    def test_closing_the_registry_withdraws_what_it_registered(self, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        for n in range(5):
            here.register(one(name, f"node-{n}"))
        world.eventually(lambda: len(there.get(name)) and len(there.get(name)[0].nodes) == 5)
        here.close()
        world.shows(there, name, [])

    def test_status_tells_of_registrations_and_feeds(self, world: World) -> None:
        client, name = world.open(), world.name()
        held = client.register(one(name, "node"), ttl=60)
        client.get(name)
        status = client.status()
        assert status.connected
        (registration,) = status.registrations
        assert (registration.name, registration.nodes) == (name, ("node",))
        assert (registration.state, registration.ttl, registration.error) == ("active", 60, None)
        assert [(feed.name, feed.stale) for feed in status.feeds] == [(name, False)]
        assert (held.raw.state, held.raw.error) == ("active", None)
        held.close()
        assert client.status().registrations == ()

    def test_asyncio_face_serves_one_event_loop_after_another(
        self, registry_url: str, world: World
    ) -> None:
        name = world.name()
        registry = svcreg.aio.open(registry_url)

        async def register() -> None:
            await registry.register(one(name, "node"))
            assert len(await registry.get(name)) == 1

        async def read() -> None:
            assert list(await registry.get(name)) == [one(name, "node")]
            async with registry.watch(name) as events:
                assert (await anext(events)).action == "create"

        asyncio.run(register())  # the loop ends, and the registration stays
        asyncio.run(read())
        asyncio.run(registry.aclose())
        world.shows(world.open(), name, [])

    def test_nothing_is_left_running_or_open(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        def cycle() -> None:
            name, client = world.name(), world.open()
            client.register(one(name, "node"), ttl=1.0, interval=0.1)
            client.watch(name)
            client.watch(world.name())  # where nothing ever happens
            client.get(name)
            client.list()
            client.end()

        cycle()  # what is loaded or opened once per process is no leak
        threads, descriptors = running(), open_descriptors()
        for _ in range(CYCLES):
            cycle()
        world.eventually(lambda: running() <= threads)
        gc.collect()
        world.eventually(lambda: open_descriptors() <= descriptors)
        errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
        assert errors == []

    def test_watches_that_nobody_needs_any_more_leave_nothing_running(self, world: World) -> None:
        client = world.open(feed_idle=IDLE)

        def cycle() -> None:
            for _ in range(WATCHES):
                client.get(world.name())
            world.eventually(lambda: not client.status().feeds, 2 * IDLE + self.settle)

        cycle()  # what serves all watches may stay
        before = at_work()
        cycle()
        world.eventually(
            lambda: at_work() < before + WATCHES,
            why="every thread and task that a watch started ends when the watch is cancelled, or "
            "`stop` is set",
        )

    def test_secrets_are_nowhere(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        client, name = world.open(token=SECRET), world.name()
        held = client.register(one(name, "node"))
        watching = client.watch(name)
        client.get(name)
        client.list()
        shown = [repr(client.status()), client.describe(), repr(held.raw)]
        watching.close()
        held.close()
        client.close()
        shown += [repr(client.status()), client.describe(), repr(held.raw), repr(watching.events)]
        assert SECRET not in "".join(shown)
        assert SECRET not in caplog.text


def at_work() -> int:
    """Return the number of threads and of unfinished tasks of this process."""
    gc.collect()
    tasks = [one for one in gc.get_objects() if isinstance(one, asyncio.Task)]
    return running() + sum(not task.done() for task in tasks)


def running() -> int:
    """Return the number of threads of this process."""
    return threading.active_count()


def open_descriptors() -> int:
    """Return the number of open files and sockets of this process; 0 where it cannot tell."""
    folder = next((f for f in (Path("/proc/self/fd"), Path("/dev/fd")) if f.is_dir()), None)
    return len(os.listdir(folder)) if folder else 0  # noqa: PTH208 - nothing but the number
