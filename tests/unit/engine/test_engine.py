"""The parts together: own writes show, what hangs is bounded, forks and exits let go."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import svcreg
from svcreg import InvalidServiceError, Node, Registry, RegistryClosedError, Service
from svcreg.engine import engine as module
from svcreg.engine.engine import Engine
from tests.support.engine import NAME, asynchronous, ids, service
from tests.support.faulty_world import KINDS, World, eventually
from tests.support.plugins import Distributions


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def world(distributions: Distributions) -> Iterator[World]:
    """Give a registry that misbehaves on demand."""
    distributions.install(
        "svcreg-faulty", {}, {"faulty": f"tests.support.faulty:{KINDS['faulty']}"}
    )
    world = World("faulty")
    yield world
    world.close()


def engine_of(registry: Registry) -> Engine:
    return registry._engine


# Own writes.


def test_own_writes_show_in_what_is_watched_here(url: str) -> None:
    with svcreg.open(url) as registry:
        assert registry.get(NAME) == ()
        registration = registry.register(service("a"))
        assert ids(registry.get(NAME)) == ["a"]
        registration.update(metadata={"weight": "2"})
        assert registry.get(NAME) == (service("a", weight="2"),)
        registration.update(service_metadata={"team": "red"})
        assert registry.get(NAME)[0].metadata == {"team": "red"}
        registration.update(version="2")
        assert [one.version for one in registry.get(NAME)] == ["2"]
        registration.close()
        assert registry.get(NAME) == ()
        assert registry.list() == ()


LATE = """
import asyncio
from svcreg import Snapshot, hookimpl

class Late:
    def __init__(self, config):
        self.services = ()

    @hookimpl
    async def svcreg_register(self, service):
        self.services = (service,)

    @hookimpl
    async def svcreg_deregister(self):
        self.services = ()

    @hookimpl
    async def svcreg_get(self):
        return self.services

    @hookimpl
    async def svcreg_list(self):
        return ()

    @hookimpl
    async def svcreg_watch(self):
        read = self.services
        await asyncio.sleep(0.1)  # on its way to us
        while True:
            yield Snapshot(read)
            await asyncio.sleep(0.02)
            read = self.services
"""


def test_own_write_shows_also_where_the_watch_has_just_begun(distributions: Distributions) -> None:
    distributions.install("svcreg-late", {"svcreg_late": LATE}, {"late": "svcreg_late:Late"})
    with svcreg.open("late") as registry, registry.watch(NAME):
        registry.register(service("a"))
        assert ids(registry.get(NAME)) == ["a"]


DRAINING = (
    LATE.replace("class Late", "class Draining").replace("sleep(0.1)", "sleep(0)")
    + """
    calls = []

    @hookimpl
    async def svcreg_drain(self, service):
        self.calls.append("drain")
        if service.version == "broken":
            raise ConnectionError("cut")
        self.services = ()

    @hookimpl
    async def svcreg_renew(self, services, ttl):
        self.calls.append("renew")
        return ()
"""
)


@pytest.mark.parametrize(("version", "state"), [("1", "pending"), ("broken", "closed")])
def test_drained_node_is_hidden_at_once_and_renewed_no_more(
    distributions: Distributions, monkeypatch: pytest.MonkeyPatch, version: str, state: str
) -> None:
    distributions.install(
        "svcreg-drain", {"svcreg_drain": DRAINING}, {"drain": "svcreg_drain:Draining"}
    )
    with svcreg.open("drain") as registry:
        assert registry.get(NAME) == ()
        registration = registry.register(
            service("a", version=version), ttl=1.0, interval=0.1, check=lambda: True
        )
        seen: list[tuple[str, Any]] = []
        calls = sys.modules["svcreg_drain"].Draining.calls

        def sleep(seconds: float) -> None:
            del calls[:]
            threading.Event().wait(seconds)
            seen.append((registration.state, registry.get(NAME)))

        monkeypatch.setattr("svcreg.registry.time", SimpleNamespace(sleep=sleep))
        registration.drain(0.5)
        assert seen == [(state, ())]
        assert calls == []
        assert registration.state == "closed"


def test_own_write_that_does_not_show_is_not_waited_for_for_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OWN_WRITE_PATIENCE", 0.05)
    registry = world.open()
    assert registry.get(NAME) == ()
    world.faults.is_deaf = True
    started = time.monotonic()
    registration = registry.register(service("a"))
    registration.update(metadata={"weight": "2"})
    registration.close()
    assert time.monotonic() - started < 5
    assert registry.get(NAME) == ()


def test_list_shows_own_writes_at_once(url: str) -> None:
    with svcreg.open(url) as registry:
        assert registry.list() == ()
        with registry.register(service("a")):
            assert registry.list() == (NAME,)
        assert registry.list() == ()


# Withdrawing.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("greeter", "expected a svcreg.Service, not str"),
        (Service(NAME), "has no nodes; name those to withdraw"),
        (Service("../greeter", nodes=(Node("a", ""),)), "service name"),
        (Service(NAME, nodes=(Node("../a", ""),)), "node id"),
    ],
)
def test_withdrawing_wants_the_names_of_nodes(url: str, wrong: Any, message: str) -> None:
    with svcreg.open(url) as registry, pytest.raises(InvalidServiceError, match=message):
        registry.deregister(wrong)


def test_withdrawing_needs_no_addresses(url: str) -> None:
    with svcreg.open(url) as registry:
        registration = registry.register(service("a", "b"))
        registry.deregister(Service(NAME, nodes=(Node("a", ""),)))
        assert ids(registry.get(NAME)) == ["b"]
        assert ids([registration.service]) == ["b"]


def test_closing_a_registration_while_the_registry_is_down_is_logged_not_raised(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "svcreg.engine")
    registration = world.open().register(service("a"), ttl=60)
    world.faults.fail("deregister")
    registration.close()
    assert registration.state == "closed"
    assert "'greeter' was not withdrawn and ends with its TTL of 60 s" in caplog.text


def test_closing_a_registry_that_hangs_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_GRACE", 0.05)
    registry = world.open(timeout=0.1)
    registry.register(service("a"))
    world.faults.hang()
    started = time.monotonic()
    registry.close()
    assert time.monotonic() - started < 5


# Life.


def test_nothing_is_started_before_the_first_call(url: str) -> None:
    before = threading.active_count()
    with svcreg.open(url) as registry:
        assert registry.status().feeds == ()
        assert threading.active_count() == before


def test_names_are_checked_before_the_backend_is_asked(world: World) -> None:
    registry = world.open()
    for call in (registry.get, registry.watch, registry.select):
        with pytest.raises(InvalidServiceError, match="not allowed"):
            call("../greeter")
    assert world.faults.calls == []


def test_service_that_was_let_go_is_watched_again_in_the_background(url: str) -> None:
    with svcreg.open(url, feed_idle=0.05) as registry:
        registry.register(service("a"))
        selector = registry.selector(NAME)
        eventually(lambda: registry.status().feeds == ())
        assert selector.pick().id == "a"
        eventually(lambda: registry.status().feeds)


def test_warming_a_closed_registry_is_nothing(url: str) -> None:
    registry = svcreg.open(url)
    registry.register(service("a"))
    selector = registry.selector(NAME)
    registry.close()
    assert selector.pick().id == "a"  # from memory, as long as the program goes on


@asynchronous
async def test_asyncio_caller_is_not_blocked_while_closing() -> None:
    registry = svcreg.aio.open(f"memory://{uuid.uuid4().hex}")
    await registry.register(service("a"))
    closing = asyncio.create_task(registry.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    await closing


# Fork and exit. What a process really does is in tests/faults; here, what the child's hook does.


def test_forked_child_knows_nothing_of_its_parent_and_begins_anew(url: str) -> None:
    registry = svcreg.open(url)
    engine = engine_of(registry)
    registration = registry.register(service("a"))
    registry.get(NAME)
    events = registry.watch(NAME)
    engine.loop.stop()  # in a child there is no thread of the parent's
    engine._abandon()
    assert registration.state == "closed"
    registration.close()
    status = registry.status()
    assert (status.connected, status.feeds, status.registrations) == (False, (), ())
    # The parent's registration is not withdrawn, and the child's engine works.
    assert ids(registry.get(NAME)) == ["a"]
    assert registry.status().connected
    with registry.register(service("b")):
        assert ids(registry.get(NAME)) == ["a", "b"]
    events.close()
    registry.close()


def test_child_that_closes_what_it_inherited_touches_nothing(url: str) -> None:
    registry = svcreg.open(url)
    registry.register(service("a"))
    engine_of(registry).loop.stop()
    engine_of(registry)._abandon()
    registry.close()
    with pytest.raises(RegistryClosedError):
        registry.get(NAME)
    with svcreg.open(url) as other:
        assert ids(other.get(NAME)) == ["a"]
        other.deregister(service("a"))


def test_every_registry_is_told_of_a_fork(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with svcreg.open(url) as registry:
        monkeypatch.setattr(module, "_engines", {engine_of(registry)})
        module._after_fork()
        assert engine_of(registry)._is_inherited
        assert registry.get(NAME) == ()
        assert not engine_of(registry)._is_inherited


def test_exit_withdraws_what_is_still_registered(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with svcreg.open(url) as observer:
        registry = svcreg.open(url)
        registration = registry.register(service("a"))
        unused = svcreg.open(url)
        monkeypatch.setattr(module, "_engines", [engine_of(registry), engine_of(unused)])
        module._at_exit()
        assert registration.state == "closed"
        assert observer.get(NAME) == ()
        with pytest.raises(RegistryClosedError):
            unused.get(NAME)


def test_exit_is_bounded_however_many_registries_hang(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXIT_TIMEOUT", 0.3)
    monkeypatch.setattr(module, "CLOSE_GRACE", 0.05)
    registries = [world.open() for _ in range(3)]
    for n, registry in enumerate(registries):
        registry.register(service(f"n{n}"))
    world.faults.hang()
    monkeypatch.setattr(module, "_engines", [engine_of(one) for one in registries])
    started = time.monotonic()
    module._at_exit()
    assert time.monotonic() - started < 5


def test_registry_that_is_in_use_is_held_until_it_is_closed(url: str) -> None:
    registry = svcreg.open(url)
    engine = engine_of(registry)
    assert engine not in module._in_use
    registry.register(service("a"))
    assert engine in module._in_use  # a program that lost sight of it is withdrawn at exit
    registry.close()
    assert engine not in module._in_use
