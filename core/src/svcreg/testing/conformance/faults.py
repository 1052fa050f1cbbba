"""The network between a registry and its server fails in every way, and then works again.

The suite's proxy stands between them, which needs a `server`. What a backend does about it is to
raise, soon: core tries again, and keeps what was known.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from svcreg import RegistryError, Service
from svcreg.engine import feed
from svcreg.testing.conformance.base import Base, World, ids, needs, one
from svcreg.testing.conformance.faces import Client
from svcreg.testing.conformance.hygiene import open_descriptors
from svcreg.testing.proxy import FaultProxy
from svcreg.testing.settings import address_of, find_server

TIMEOUT = 1.0
"""Seconds that one attempt may take, for registries behind a line that fails."""

ATTEMPTS = 40.0
"""Connections per second, at most, in the first seconds in which each is reset. Core's delays grow
from a tenth of a second, for the watch and the registration each; a loop makes hundreds."""

SPARE = 4
"""Files and sockets, at most, that may be open in addition after an outage: spare connections."""

FLOOD = 128 * 2**20
KEPT = 64 * 2**20
"""Bytes of an answer without an end, and how many more of memory it may cost."""

CUTS = (1, 20, 300)
"""Bytes after which answers are cut off: within the first line, the header, and the content."""


class Line(NamedTuple):
    """The way to the server: `proxy` makes it fail, and `url` leads over it."""

    proxy: FaultProxy
    url: str


class Faults(Base):
    """Tests of a line that fails."""

    @pytest.fixture
    def line(self, request: pytest.FixtureRequest, registry_url: str) -> Iterator[Line]:
        """Put the proxy between the backend and its server."""
        address = address_of(find_server(request))
        assert address in registry_url, f"the server's address, {address}, is no part of the URL"
        with FaultProxy(address) as proxy:
            yield Line(proxy, registry_url.replace(address, proxy.address))

    def test_server_that_refuses_at_first_is_found_later(self, line: Line, world: World) -> None:
        line.proxy.refuse()
        name = world.name()
        here, there = world.open(line.url, timeout=TIMEOUT), world.open()
        watching = here.watch(name)
        with pytest.raises(RegistryError):
            here.get(name)
        with pytest.raises(RegistryError):
            here.register(one(name, "required"), ttl=60)
        late = here.register(one(name, "late"), ttl=60, required=False)
        assert late.raw.state == "pending"
        line.proxy.heal()
        seconds = world.eventually(
            lambda: watching.seen("late"),
            self.recovery,
            "what failed at first leaves nothing behind that keeps it from working later",
        )
        world.measure("the server is found after it refused", seconds, "s", self.recovery)
        there.register(one(name, "other"), ttl=60)
        world.eventually(lambda: set(watching.state()) == {"late", "other"})

    @needs("ttl")
    def test_outage_shorter_than_the_ttl_is_no_event(self, line: Line, world: World) -> None:
        name = world.name()
        here, there = world.open(line.url, timeout=TIMEOUT), world.open()
        held = here.register(one(name, "node"), ttl=3 * self.ttl, interval=self.ttl / 3)
        here.get(name)
        watching = there.watch(name)
        world.eventually(lambda: watching.seen("node"))
        line.proxy.cut()
        cut_at = time.monotonic()
        world.eventually(lambda: here.status().feeds[0].stale)
        assert list(here.get(name)) == [one(name, "node")]  # stale beats empty
        world.eventually(lambda: time.monotonic() - cut_at > self.ttl)
        line.proxy.heal()
        healed_at = time.time()
        world.eventually(lambda: held.raw.last_renewal > healed_at, 2 * self.ttl)
        world.eventually(lambda: not here.status().feeds[0].stale, self.recovery)
        assert watching.seen("node") == ["create"]
        assert held.raw.state == "active"

    @needs("ttl")
    def test_outage_longer_than_the_ttl_is_made_good(self, line: Line, world: World) -> None:
        name = world.name()
        here, there = world.open(line.url, timeout=TIMEOUT), world.open()
        held = here.register(one(name, "node"), ttl=self.ttl)
        here.get(name)
        watching = there.watch(name)
        world.eventually(lambda: watching.seen("node"))
        accepted, descriptors = line.proxy.accepted, open_descriptors()
        line.proxy.reset()
        reset_at = time.monotonic()
        bound = self.ttl + self.grace
        seconds = world.eventually(lambda: watching.seen("node") == ["create", "delete"], bound)
        world.measure("the node of an owner that is cut off goes", seconds, "s", bound)
        world.eventually(lambda: held.raw.state == "lost")
        world.eventually(lambda: time.monotonic() - reset_at > 1.5)
        rate = (line.proxy.accepted - accepted) / (time.monotonic() - reset_at)
        world.measure("attempts to connect during an outage", rate, "per second", ATTEMPTS)
        assert rate <= ATTEMPTS, "a backend raises and does not try again by itself: core does"
        line.proxy.heal()
        seconds = world.eventually(
            lambda: watching.seen("node") == ["create", "delete", "create"], self.recovery
        )
        world.measure("a node is back after an outage", seconds, "s", self.recovery)
        world.eventually(lambda: held.raw.state == "active")
        world.eventually(
            lambda: open_descriptors() <= descriptors + SPARE,
            why="what was opened for an attempt that failed is closed",
        )

    def test_reconnecting_tells_the_differences_only(self, line: Line, world: World) -> None:
        name = world.name()
        here, there = world.open(line.url, timeout=TIMEOUT), world.open()
        held = {n: there.register(one(name, n, n="1"), ttl=60) for n in "abcde"}
        watching = here.watch(name)
        world.eventually(lambda: len(watching.state()) == len(held))
        line.proxy.cut()
        world.eventually(lambda: here.status().feeds[0].stale)
        held["a"].update(metadata={"n": "2"})
        held["b"].close()
        there.register(one(name, "f"), ttl=60)
        line.proxy.heal()
        world.eventually(lambda: watching.seen("f"), self.recovery)
        there.register(one(name, "barrier"), ttl=60)
        world.eventually(lambda: watching.seen("barrier"))
        heard = {n: watching.seen(n) for n in "abcdef"}
        untold = {n: ["create"] for n in "cdef"}
        assert heard == {"a": ["create", "update"], "b": ["create", "delete"], **untold}

    @needs("ttl")
    def test_line_that_hangs_holds_nobody_up(self, line: Line, world: World) -> None:
        name = world.name()
        here, there = world.open(line.url, timeout=TIMEOUT), world.open()
        held = here.register(one(name, "node"), ttl=60)
        here.get(name)
        line.proxy.black_hole()
        assert taken(lambda: here.get(name)) < TIMEOUT / 2
        with pytest.raises(RegistryError):
            here.register(one(name, "late"), ttl=self.ttl)
        with pytest.raises(RegistryError):
            here.get(world.name())
        seconds = taken(held.close)
        world.measure("a registration is closed while the line hangs", seconds, "s", TIMEOUT + 1)
        assert seconds <= TIMEOUT + 1
        line.proxy.heal()
        world.eventually(lambda: registers(here, one(name, "next")), self.recovery)
        world.eventually(lambda: "next" in ids(there.get(name)))
        # What was sent and never acknowledged may arrive now, and nobody renews it.
        bound = self.ttl + self.grace + self.settle
        world.settles(lambda: "late" not in ids(there.get(name)), 0.5, bound)

    def test_renewals_under_way_bring_nothing_back(self, line: Line, world: World) -> None:
        name = world.name()
        here, there = world.open(line.url), world.open()
        held = [here.register(one(name, f"node-{n}"), ttl=1.0, interval=0.1) for n in range(3)]
        watching = there.watch(name)
        world.eventually(lambda: len(watching.state()) == len(held))
        line.proxy.latency(0.1)
        sent = line.proxy.sent
        world.eventually(lambda: line.proxy.sent > sent)  # a renewal that comes late
        for registration in held:
            registration.close()
        line.proxy.heal()
        world.eventually(lambda: not watching.state())
        world.stays(lambda: not watching.state(), 0.5)

    def test_connection_whose_other_end_has_gone_is_replaced(
        self, line: Line, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A watch that says nothing is compared with a read, usually after a minute.
        monkeypatch.setattr(feed, "RECONCILE_PERIOD", 0.5)
        monkeypatch.setattr(feed, "SECOND_LOOK", 0.2)
        name = world.name()
        here, there = world.open(line.url, timeout=TIMEOUT), world.open()
        held = here.register(one(name, "node"), ttl=3.0, interval=0.3)
        watching = here.watch(name)
        world.eventually(lambda: watching.seen("node"))
        line.proxy.half_open()
        lost_at = time.time()
        there.register(one(name, "other"), ttl=60)
        bound = self.recovery
        seconds = world.eventually(
            lambda: watching.seen("other"), bound, "a call that was not answered costs a connection"
        )
        world.measure("a watch finds out that the other end has gone", seconds, "s", bound)
        world.eventually(lambda: held.raw.last_renewal > lost_at + TIMEOUT, bound)
        assert list(there.get(name)) == list(here.get(name))

    def test_answers_that_are_cut_off_are_errors(self, line: Line, world: World) -> None:
        name, there = world.name(), world.open()
        metadata = {"filling": "x" * 400}
        for n in range(5):
            there.register(one(name, f"node-{n}", "10.0.0.5:80", **metadata), ttl=60)
        full = {f"node-{n}" for n in range(5)}
        world.eventually(lambda: ids(there.get(name)) == full)
        for after in CUTS:
            line.proxy.truncate(after)
            here = world.open(line.url, timeout=TIMEOUT)
            with contextlib.suppress(RegistryError):
                assert ids(here.get(name)) == full, "part of an answer is no answer"
            with contextlib.suppress(RegistryError):
                assert name in here.list(), "part of an answer is no answer"
            line.proxy.heal()
            world.eventually(lambda here=here: answer(here, name) == full, self.recovery)  # type: ignore[misc]

    def test_answer_without_an_end_is_not_read_to_its_end(self, line: Line, world: World) -> None:
        name, there = world.name(), world.open()
        there.register(one(name, "node"), ttl=60)
        here = world.open(line.url, timeout=TIMEOUT)
        here.list()  # what is loaded once costs memory once
        line.proxy.flood(FLOOD)
        with Memory() as memory:
            with pytest.raises(RegistryError):
                here.get(name)
            with contextlib.suppress(RegistryError):
                here.list()
        world.measure("memory that a flood costs", memory.growth / 2**20, "MiB", KEPT / 2**20)
        assert memory.growth <= KEPT, "what is read before it can be understood has a limit"
        line.proxy.heal()
        world.eventually(lambda: answer(here, name) == {"node"}, self.recovery)


class Memory:
    """The memory that this process has at most while the block runs, beyond what it had before."""

    def __enter__(self) -> Memory:
        self._before = self._most = resident()
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._has_ended.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        """Bytes; 0 where the system does not tell."""
        return self._most - self._before

    def _watch(self) -> None:
        while not self._has_ended.wait(0.005):
            self._most = max(self._most, resident())


def resident() -> int:
    """Return the bytes of memory that this process occupies; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * 4096 if statm.exists() else 0


def taken(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started = time.monotonic()
    call()
    return time.monotonic() - started


def registers(client: Client, service: Service) -> bool:
    """Tell whether a registration succeeds."""
    try:
        client.register(service, ttl=60)
    except RegistryError:
        return False
    return True


def answer(client: Client, name: str) -> set[str] | None:
    """Return the ids of the nodes that a registry answers; None where it answers an error."""
    try:
        return ids(client.get(name))
    except RegistryError:
        return None
