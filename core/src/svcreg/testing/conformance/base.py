"""What every test of the suite stands on: where the registry is, and what may be asked of it."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import pytest

from svcreg.config import load_config
from svcreg.hookspecs import CAPABILITIES
from svcreg.model import NAME_LIMIT, Node, Service
from svcreg.plugins import backends, build_backend, load_factory
from svcreg.testing.conformance.faces import AsyncioClient, BlockingClient, Client, Watching
from svcreg.testing.conformance.processes import Mode, Owner
from svcreg.testing.facts import Facts, Measured
from svcreg.testing.settings import declared, find_backend

FACES: dict[str, type[BlockingClient | AsyncioClient]] = {
    "blocking": BlockingClient,
    "asyncio": AsyncioClient,
}
POLL = 0.01
"""Seconds between two looks at a condition."""

TestT = TypeVar("TestT", bound=Callable[..., None])


def needs(*capabilities: str) -> Callable[[TestT], TestT]:
    """Mark a test of capabilities; it is skipped for a backend that does not claim them all."""
    if unknown := set(capabilities) - set(CAPABILITIES):
        raise ValueError(f"unknown capabilities: {unknown}")

    def mark(test: TestT) -> TestT:
        test.svcreg_needs = capabilities  # type: ignore[attr-defined] # read by _skip_unclaimed
        return test

    return mark


class Base:
    """Settings and fixtures of the suite; see `BackendConformance`.

    Attributes:
        backend: The registry, as given to `svcreg.open`: text, or a fixture that gives it.
        server: The TCP server behind it, `host:port` or a fixture that gives a
            `svcreg.testing.Server`; None where there is none, or none to be disturbed.
        server_version: Text for the report, or a fixture that gives it.
        plant_garbage: A fixture that gives a callable, which writes a record that makes no sense
            beside those of the service of a name.
        faces: The faces that each test runs through.
        ttl: Seconds; the TTL of the tests that wait for a record to expire. As short as the
            backend allows, because the suite waits for it several times.
        grace: Seconds after the TTL within which a dead node must be gone.
        settle: Seconds within which every reader must see a change, and one call must return.
        recovery: Seconds within which everything is well again after the server is.
        rounds: Times that a registration races against the start of a watch.
        race_seconds: Seconds after which that race ends, however many rounds were run.
        name_limit: Longest service name and node id that the backend stores. A longer one must
            be refused with `InvalidServiceError`.
        record_size: Bytes of metadata in one node that the backend must be able to store.
    """

    # Any, because a subclass may make fixtures of them.
    backend: Any = None
    server: Any = None
    server_version: Any = None
    plant_garbage: Any = None
    faces: Sequence[str] = ("asyncio", "blocking")
    ttl = 1.0
    grace = 2.0
    settle = 3.0
    recovery = 8.0  # core tries again after 5 s at the latest
    rounds = 1000
    race_seconds = 5.0
    name_limit = NAME_LIMIT
    record_size = 4096

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "world" in metafunc.fixturenames:
            metafunc.parametrize("world", self.faces, indirect=True)

    @pytest.fixture
    def backend_environment(self) -> Mapping[str, str]:
        """Return the environment variables that another process needs to find the backend."""
        return os.environ

    @pytest.fixture(autouse=True)
    def facts(self, request: pytest.FixtureRequest) -> Iterator[Facts]:
        """Return what the report is to say of this test."""
        test: str = request.function.__name__
        areas = [cls.__name__ for cls in request.cls.__mro__ if test in vars(cls)]
        needs = getattr(request.function, "svcreg_needs", ())
        facts = Facts(test, areas[-1].lower(), list(needs))
        yield facts
        request.node.user_properties.append(facts.as_property())

    @pytest.fixture
    def registry_url(self, request: pytest.FixtureRequest) -> str:
        """Return the registry's URL, whoever names it."""
        return find_backend(request)

    @pytest.fixture
    def capabilities(self, registry_url: str) -> frozenset[str]:
        """Return what the backend says it can do."""
        config = load_config(registry_url)
        (backend,) = build_backend(load_factory(config.backend), config).get_plugins()
        return frozenset(getattr(backend, "capabilities", ()))

    @pytest.fixture(autouse=True)
    def _skip_unclaimed(
        self,
        request: pytest.FixtureRequest,
        facts: Facts,
        registry_url: str,
        capabilities: frozenset[str],
    ) -> None:
        facts.backend = load_config(registry_url).backend
        info = backends()[facts.backend]
        facts.distribution, facts.version = info.distribution, info.version
        facts.server = declared(request, "server_version")
        facts.capabilities = sorted(capabilities)
        if missing := sorted(set(facts.needs) - capabilities):
            pytest.skip(f"the backend does not claim {' and '.join(missing)}")

    @pytest.fixture
    def world(
        self,
        request: pytest.FixtureRequest,
        facts: Facts,
        registry_url: str,
        backend_environment: Mapping[str, str],
    ) -> Iterator[World]:
        """Open registries for one test, through one of the faces."""
        world = World(self, registry_url, request.param, backend_environment, facts)
        facts.face = request.param
        yield world
        world.close()


class World:
    """The registries and processes of one test."""

    def __init__(
        self,
        suite: Base,
        url: str,
        face: Literal["blocking", "asyncio"],
        environment: Mapping[str, str],
        facts: Facts,
    ) -> None:
        self.suite = suite
        self.url = url
        self.face = face
        self.settle = suite.settle
        self._environment = environment
        self._facts = facts
        self._opened: list[Client] = []
        self._owners: list[Owner] = []

    def open(self, url: str | None = None, **options: Any) -> Client:
        """Open one more registry on the same store, or at another URL."""
        client = FACES[self.face](url or self.url, **options)
        self._opened.append(client)
        return client

    def spawn(
        self,
        service: Service,
        mode: Mode = "hold",
        ttl: float | None = None,
    ) -> Owner:
        """Register from a process of its own, with the suite's TTL; return once it is listed."""
        ttl = self.suite.ttl if ttl is None else ttl
        owner = Owner(self.url, self.face, service, ttl, mode, self._environment)
        self._owners.append(owner)
        owner.wait_for("registered", self.settle + 10)  # an interpreter must start first
        return owner

    def name(self, suffix: str = "") -> str:
        """Return a service name that no other test uses."""
        return f"conformance-{uuid.uuid4().hex[:12]}{suffix}"

    def eventually(
        self, condition: Callable[[], object], within: float | None = None, why: str = ""
    ) -> float:
        """Wait until a condition holds; return the seconds that took.

        Args:
            condition: What is to hold.
            within: Seconds that it may take, by default the suite's `settle`.
            why: What the contract demands, for the message when it does not hold.

        Raises:
            AssertionError: It did not in time.
        """
        limit = self.settle if within is None else within
        started = time.monotonic()
        while not condition():
            late = time.monotonic() - started > limit
            assert not late, f"not within {limit:g} s: {why or describe(condition)}"
            time.sleep(POLL)
        return time.monotonic() - started

    def shows(
        self, client: Client, name: str, expected: Sequence[Service], within: float | None = None
    ) -> None:
        """Wait until a registry answers exactly `expected`."""
        wanted = normal(expected)
        try:
            self.eventually(lambda: normal(client.get(name)) == wanted, within)
        except AssertionError:
            assert normal(client.get(name)) == wanted

    def stays(self, condition: Callable[[], object], seconds: float) -> None:
        """Assert that a condition holds all the time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert condition(), f"no longer holds: {describe(condition)}"
            time.sleep(POLL)

    def settles(self, condition: Callable[[], object], seconds: float, within: float) -> None:
        """Wait until a condition has held for so many seconds without a break."""
        held_since = time.monotonic()

        def has_held() -> bool:
            nonlocal held_since
            if not condition():
                held_since = time.monotonic()
            return time.monotonic() - held_since > seconds

        self.eventually(has_held, within, describe(condition))

    def stays_quiet(self, watching: Watching, seconds: float) -> None:
        """Assert that a watch hears of nothing more."""
        before = len(watching.events)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert watching.events[before:] == []
            time.sleep(POLL)

    def measure(self, what: str, value: float, unit: str, bound: float | None = None) -> None:
        """Note for the report what was measured, and what it may be at most."""
        self._facts.measured[what] = Measured(value, unit, bound)

    def close(self) -> None:
        """Close every registry and end every process."""
        for owner in self._owners:
            owner.kill()
        for client in self._opened:
            client.end()


def one(name: str, node_id: str, address: str = "10.0.0.5:8080", **metadata: str) -> Service:
    """Return a service with one node."""
    return Service(name, nodes=(Node(node_id, address, metadata),))


def normal(services: Sequence[Service]) -> list[Service]:
    """Return services in one order, so that equal contents compare equal."""
    by_id = [s.with_nodes(sorted(s.nodes, key=lambda node: node.id)) for s in services]
    return sorted(by_id, key=lambda s: (s.name, s.version))


def ids(services: Sequence[Service]) -> set[str]:
    """Return the ids of all nodes."""
    return {node.id for service in services for node in service.nodes}


def describe(condition: Callable[[], object]) -> str:
    """Return where a condition is written, for the message when it fails."""
    code = condition.__code__
    return f"the condition at {code.co_filename}:{code.co_firstlineno}"
