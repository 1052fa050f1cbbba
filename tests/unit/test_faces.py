"""The two faces offer the same calls, and each call does what it promises, in either."""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import svcreg
from svcreg import (
    AsyncRegistry,
    ConfigError,
    Endpoint,
    InvalidServiceError,
    Node,
    NoNodeError,
    Registration,
    Registry,
    RegistryClosedError,
    Service,
    selection,
)
from svcreg.aio import AsyncRegistration, AsyncWatch
from svcreg.registry import Watch
from tests.support.engine import NAME, asynchronous, ids, service, summary, until

COUNTERPART = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__"}
COUNTERPART |= {"__aiter__": "__iter__", "__anext__": "__next__"}
FACES = [(Registry, AsyncRegistry), (Registration, AsyncRegistration), (Watch, AsyncWatch)]


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    with svcreg.open(url) as registry:
        yield registry


# The same calls.


def methods(cls: type) -> dict[str, Callable[..., Any]]:
    """Return what a user may call, under the names of the blocking face."""
    found = inspect.getmembers(cls, inspect.isfunction)
    is_offered = {**COUNTERPART, **dict.fromkeys(COUNTERPART.values(), "")}
    return {
        COUNTERPART.get(name, name): method
        for name, method in found
        if not name.startswith("_") or name in is_offered
    }


def parameters(method: Callable[..., Any]) -> list[tuple[str, object, object]]:
    found = inspect.signature(method).parameters.values()
    return [(one.name, one.kind, one.default) for one in found]


@pytest.mark.parametrize(("blocking", "asyncio_"), FACES)
def test_faces_have_the_same_methods_and_parameters(blocking: type, asyncio_: type) -> None:
    ours, theirs = methods(blocking), methods(asyncio_)
    assert sorted(ours) == sorted(theirs)
    for name, method in ours.items():
        assert parameters(method) == parameters(theirs[name]), name


def test_faces_are_opened_by_the_same_arguments() -> None:
    assert parameters(svcreg.open) == parameters(svcreg.aio.open)


@pytest.mark.parametrize(("blocking", "asyncio_"), FACES)
def test_types_of_parameters_are_the_same_but_for_what_is_awaited(
    blocking: type, asyncio_: type
) -> None:
    ours, theirs = methods(blocking), methods(asyncio_)
    for name, method in ours.items():
        if name.startswith("__"):
            continue
        for one, other in zip(
            inspect.signature(method).parameters.values(),
            inspect.signature(theirs[name]).parameters.values(),
            strict=True,
        ):
            if one.name != "fn":
                assert one.annotation == other.annotation, (name, one.name)


@pytest.mark.parametrize(("blocking", "asyncio_"), FACES)
def test_every_method_says_what_the_caller_gets(blocking: type, asyncio_: type) -> None:
    for cls in (blocking, asyncio_):
        for name, method in methods(cls).items():
            if not name.startswith("__"):
                assert inspect.getdoc(method), f"{cls.__name__}.{name}"


def test_faces_have_the_same_properties() -> None:
    for name in ("service", "state", "last_renewal", "error"):
        assert inspect.getattr_static(Registration, name) is inspect.getattr_static(
            AsyncRegistration, name
        )


def test_names_that_do_not_exist_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'register'"):
        _ = svcreg.register
    assert sorted(svcreg.__all__) == dir(svcreg)


# Selecting.


def test_select_answers_one_node_and_says_when_there_is_none(registry: Registry) -> None:
    with pytest.raises(NoNodeError, match="none is registered"):
        registry.select(NAME)
    with registry.register(service("a", "b", zone="z1")):
        picked = [registry.select(NAME, strategy="round_robin").id for _ in range(4)]
        assert picked == ["a", "b", "a", "b"]
        with pytest.raises(NoNodeError, match="all 2 are filtered out"):
            registry.select(NAME, filters=[selection.zone("z2")])
        with pytest.raises(ConfigError, match="there is no strategy 'best'"):
            registry.select(NAME, strategy="best")


def test_selector_is_its_own_and_follows_the_registry(registry: Registry) -> None:
    with registry.register(service("a", "b")) as registration:
        first = registry.selector(NAME, strategy="round_robin")
        assert [first.pick().id for _ in range(3)] == ["a", "b", "a"]
        second = registry.selector(NAME, strategy="round_robin")
        with second.use() as node:
            assert node.id == "a"
        registration.update(nodes=[Node("c", "10.0.0.5:8080")])
        assert first.pick().id == "c"
    with pytest.raises(NoNodeError):
        first.pick()


def test_strategy_of_the_environment_is_the_default(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("MICRO_SELECTOR", "round_robin")
    with svcreg.open(url) as registry, registry.register(service("a", "b", "c")):
        assert [registry.select(NAME).id for _ in range(4)] == list("abca")
        assert [registry.selector(NAME).pick().id for _ in range(2)] == ["a", "a"]


def test_key_reaches_a_strategy_of_ones_own(registry: Registry) -> None:
    class Sticky:
        def pick(self, nodes: Any, key: str | None) -> Node:
            return nodes[len(key or "") % len(nodes)]  # type: ignore[no-any-return]

    with registry.register(service("a", "b")):
        assert registry.select(NAME, strategy=Sticky(), key="x").id == "b"
        assert registry.select(NAME, strategy=Sticky(), key="xy").id == "a"
        assert registry.call(NAME, lambda node: node.id, strategy=Sticky(), key="x") == "b"


@asynchronous
async def test_asyncio_face_selects_likewise() -> None:
    async with svcreg.aio.open(f"memory://{uuid.uuid4().hex}") as registry:
        with pytest.raises(NoNodeError):
            await registry.select(NAME)
        async with await registry.register(service("a", "b", zone="z1")):
            picked = [(await registry.select(NAME, strategy="round_robin")).id for _ in range(3)]
            assert picked == ["a", "b", "a"]
            selector = await registry.selector(NAME, filters=[selection.zone("z1")])
            assert selector.pick().id in ("a", "b")
            with pytest.raises(NoNodeError):
                await registry.select(NAME, filters=[selection.zone("z2")])


# Calling.


class Flaky:
    """A call that fails so many times, and remembers which nodes it was made on."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.failures = failures
        self.error = error or ConnectionRefusedError("node is down")
        self.nodes: list[str] = []

    def __call__(self, node: Node) -> str:
        self.nodes.append(node.id)
        if len(self.nodes) <= self.failures:
            raise self.error
        return f"hello from {node.id}"

    async def awaited(self, node: Node) -> str:
        await asyncio.sleep(0)
        return self(node)


class Caller:
    """Makes the same call through either face."""

    def __init__(self, face: str, url: str) -> None:
        self.face, self.url = face, url

    def __call__(
        self, *node_ids: str, fn: Flaky, times: int = 1, **options: Any
    ) -> list[str | Exception]:
        """Register nodes, make calls, and return what each gave or raised."""
        found: list[str | Exception] = []
        if self.face == "blocking":
            with svcreg.open(self.url) as registry:
                if node_ids:
                    registry.register(service(*node_ids))
                for _ in range(times):
                    try:
                        found.append(registry.call(NAME, fn, **options))
                    except Exception as error:
                        found.append(error)
            return found

        @asynchronous
        async def scenario() -> None:
            async with svcreg.aio.open(self.url) as registry:
                if node_ids:
                    await registry.register(service(*node_ids))
                for _ in range(times):
                    try:
                        found.append(await registry.call(NAME, fn.awaited, **options))
                    except Exception as error:
                        found.append(error)

        scenario()
        return found


@pytest.fixture(params=["blocking", "asyncio"])
def caller(request: pytest.FixtureRequest, url: str) -> Caller:
    return Caller(request.param, url)


def test_call_tries_other_nodes_and_returns_what_one_gives(caller: Caller) -> None:
    fn = Flaky(2)
    (answer,) = caller("a", "b", "c", fn=fn)
    assert sorted(fn.nodes) == ["a", "b", "c"]
    assert answer == f"hello from {fn.nodes[-1]}"


def test_call_that_fails_everywhere_raises_what_failed_last(caller: Caller) -> None:
    fn = Flaky(99)
    assert caller("a", "b", fn=fn, attempts=3) == [fn.error]
    assert len(fn.nodes) == 3
    assert set(fn.nodes) == {"a", "b"}


def test_call_with_one_attempt_is_made_once(caller: Caller) -> None:
    fn = Flaky(99)
    assert caller("a", fn=fn, attempts=1) == [fn.error]
    assert fn.nodes == ["a"]


def test_error_that_is_not_to_be_retried_is_raised_at_once(caller: Caller) -> None:
    fn = Flaky(1, ValueError("a defect of the caller"))
    assert caller("a", fn=fn, retry_on=(OSError,)) == [fn.error]
    assert fn.nodes == ["a"]


def test_call_without_a_node_says_so(caller: Caller) -> None:
    fn = Flaky(0)
    (error,) = caller(fn=fn)
    assert isinstance(error, NoNodeError)
    assert fn.nodes == []


def test_call_begins_no_attempt_after_its_timeout(caller: Caller) -> None:
    fn = Flaky(99)
    (error,) = caller("a", fn=fn, attempts=1000, timeout=0.2)
    assert error is fn.error or isinstance(error, TimeoutError)
    assert 1 <= len(fn.nodes) <= 12


def test_retries_of_many_calls_together_are_bounded(caller: Caller) -> None:
    fn = Flaky(10_000)
    errors = caller("a", fn=fn, attempts=4, times=20)
    assert errors == [fn.error] * 20
    # 20 calls, 10 retries saved up, and a fifth of the calls.
    assert 30 <= len(fn.nodes) <= 34


@pytest.mark.parametrize("option", [{"attempts": 0}, {"timeout": -1}])
def test_call_refuses_what_makes_no_sense(caller: Caller, option: dict[str, Any]) -> None:
    fn = Flaky(0)
    (error,) = caller("a", fn=fn, **option)
    assert isinstance(error, ConfigError)
    assert fn.nodes == []


@asynchronous
async def test_awaited_call_is_ended_by_its_timeout() -> None:
    async with svcreg.aio.open(f"memory://{uuid.uuid4().hex}") as registry:
        await registry.register(service("a"))
        was_cancelled = asyncio.Event()

        async def hang(node: Node) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                was_cancelled.set()

        with pytest.raises(TimeoutError):
            await registry.call(NAME, hang, timeout=0.05)
        assert was_cancelled.is_set()


# Registrations.

CHANGES: list[dict[str, Any]] = [
    {"metadata": {"zone": "z2"}},
    {"version": "2"},
    {"endpoints": [Endpoint("Greeter.Hello")]},
    {"service_metadata": {"team": "blue"}},
    {"nodes": [Node("b", "10.0.0.6:8080"), Node("c", "10.0.0.7:8080")]},
    {"nodes": [Node("c", "10.0.0.7:8080")], "metadata": {"weight": "2"}, "version": "3"},
    {},
]
BEFORE = Service(
    NAME,
    "1",
    {"team": "red"},
    (Endpoint("Greeter.Bye"),),
    (Node("a", "10.0.0.5:8080", {"zone": "z1"}), Node("b", "10.0.0.6:8080", {"zone": "z1"})),
)


def changed(
    metadata: dict[str, str] | None = None,
    version: str = "1",
    endpoints: list[Endpoint] | None = None,
    nodes: list[Node] | None = None,
    service_metadata: dict[str, str] | None = None,
) -> Service:
    after = list(BEFORE.nodes) if nodes is None else nodes
    if metadata is not None:
        after = [Node(node.id, node.address, metadata) for node in after]
    return Service(
        NAME,
        version,
        BEFORE.metadata if service_metadata is None else service_metadata,
        BEFORE.endpoints if endpoints is None else endpoints,
        after,
    )


@pytest.mark.parametrize("change", CHANGES, ids=["+".join(one) or "nothing" for one in CHANGES])
def test_update_changes_what_is_named_and_leaves_the_rest(
    registry: Registry, change: dict[str, Any]
) -> None:
    with registry.register(BEFORE) as registration:
        assert registry.get(NAME) == (BEFORE,)
        registration.update(**change)
        assert registration.service == changed(**change)
        assert registry.get(NAME) == (changed(**change),)


@asynchronous
async def test_update_through_the_asyncio_face_does_the_same() -> None:
    async with svcreg.aio.open(f"memory://{uuid.uuid4().hex}") as registry:
        async with await registry.register(BEFORE) as registration:
            for change in CHANGES:
                await registration.update(nodes=BEFORE.nodes, version="1")
                await registration.update(**change)
            assert await registry.get(NAME) == (registration.service,)
        assert await registry.get(NAME) == ()


def test_update_that_breaks_a_rule_changes_nothing(registry: Registry) -> None:
    with registry.register(BEFORE) as registration:
        wrong: list[dict[str, Any]] = [
            {"nodes": []},
            {"nodes": [Node("c", "no port")]},
            {"metadata": {"k": 1}},
        ]
        for change in wrong:
            with pytest.raises(InvalidServiceError):
                registration.update(**change)
        assert registry.get(NAME) == (BEFORE,)
        assert registration.state == "active"


def test_closed_registration_cannot_be_changed(registry: Registry) -> None:
    registration = registry.register(BEFORE)
    registration.close()
    registration.close()
    with pytest.raises(RegistryClosedError, match="registration of 'greeter' is closed"):
        registration.update(version="2")


def test_registration_shows_its_state_without_asking(registry: Registry) -> None:
    registration = registry.register(service("a"))
    assert (registration.state, registration.error) == ("active", None)
    assert abs((registration.last_renewal or 0) - time.time()) < 60
    assert repr(registration) == "<Registration 'greeter' active>"
    registry.close()
    assert repr(registration) == "<Registration 'greeter' closed>"
    registration.close()  # the registry has withdrawn it


def test_drain_withdraws_first_and_waits_then(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registration = registry.register(service("a"))
    slept: list[tuple[float, tuple[Service, ...]]] = []

    def sleep(seconds: float) -> None:
        slept.append((seconds, registry.get(NAME)))

    monkeypatch.setattr("svcreg.registry.time", SimpleNamespace(sleep=sleep))
    registration.drain(30)
    assert slept == [(30.0, ())]


@asynchronous
async def test_drain_of_the_asyncio_face_does_the_same() -> None:
    grace = 0.5
    async with svcreg.aio.open(f"memory://{uuid.uuid4().hex}") as registry:
        registration = await registry.register(service("a"))
        assert repr(registration) == "<AsyncRegistration 'greeter' active>"
        started = time.monotonic()
        draining = asyncio.create_task(registration.drain(grace))
        await until(lambda: registration.state == "closed")
        assert time.monotonic() - started < grace
        await draining
        assert time.monotonic() - started >= grace
        assert await registry.get(NAME) == ()


def test_grace_of_a_drain_is_checked_before_anything_is_withdrawn(registry: Registry) -> None:
    with registry.register(service("a")) as registration:
        with pytest.raises(ConfigError, match="grace"):
            registration.drain(-1)
        assert registration.state == "active"


def test_check_that_is_none_is_refused_before_anything_is_registered(registry: Registry) -> None:
    with pytest.raises(ConfigError, match="a check is a callable"):
        registry.register(service("a"), check="tcp:127.0.0.1:80")  # type: ignore[arg-type] # that is the point
    assert registry.list() == ()


# Watches and closing.


def test_watch_ends_when_it_or_its_registry_is_closed(registry: Registry) -> None:
    registry.register(service("a"))
    with registry.watch(NAME) as events:
        assert summary([next(events)]) == [("create", "a")]
        events.close()
        assert list(events) == []
    other = registry.watch()
    assert summary([next(other)]) == [("create", "a")]
    registry.close()
    assert list(other) == []
    other.close()


@asynchronous
async def test_watch_of_the_asyncio_face_ends_likewise() -> None:
    registry = svcreg.aio.open(f"memory://{uuid.uuid4().hex}")
    await registry.register(service("a"))
    unused = registry.watch(NAME)
    await unused.aclose()  # which never began
    async with registry.watch(NAME) as events:
        assert summary([await anext(events)]) == [("create", "a")]
        await events.aclose()
        assert [event async for event in events] == []
    other = registry.watch()
    assert summary([await anext(other)]) == [("create", "a")]
    await registry.aclose()
    assert [event async for event in other] == []
    await other.aclose()


@asynchronous
async def test_cancelled_wait_for_an_event_loses_none() -> None:
    url = f"memory://{uuid.uuid4().hex}"
    async with svcreg.aio.open(url) as registry, registry.watch(NAME) as events:
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        await registry.register(service("a"))
        async with asyncio.timeout(5):
            assert summary([await anext(events)]) == [("create", "a")]


def closed_calls(registry: Registry) -> list[Callable[[], object]]:
    return [
        lambda: registry.register(service("a")),
        lambda: registry.deregister(service("a")),
        lambda: registry.get("never-seen"),
        lambda: registry.watch(),
        lambda: registry.select("never-seen"),
    ]


def test_closed_registry_is_an_error_of_its_own(registry: Registry) -> None:
    registry.register(service("a"))
    registry.close()
    registry.close()
    for call in closed_calls(registry):
        with pytest.raises(RegistryClosedError):
            call()
    assert repr(registry) == "<Registry memory>"


@asynchronous
async def test_closed_asyncio_registry_is_too() -> None:
    registry = svcreg.aio.open(f"memory://{uuid.uuid4().hex}")
    async with registry:
        await registry.register(service("a"))
        await registry.deregister(service("a"))
        assert registry.status().backend == "memory"
    await registry.aclose()
    calls: list[Awaitable[object]] = [registry.register(service("a")), registry.get("never-seen")]
    for call in calls:
        with pytest.raises(RegistryClosedError):
            await call
    assert repr(registry) == "<AsyncRegistry memory>"


def test_status_tells_of_feeds_and_registrations(registry: Registry) -> None:
    assert not registry.status().connected
    with registry.register(service("a", "b"), ttl=60):
        assert ids(registry.get(NAME)) == ["a", "b"]
        status = registry.status()
        (feed,), (held,) = status.feeds, status.registrations
        assert (status.backend, status.connected) == ("memory", True)
        assert (feed.name, feed.nodes, feed.stale, feed.error) == (NAME, 2, False, None)
        assert (held.name, held.nodes, held.state, held.ttl) == (NAME, ("a", "b"), "active", 60.0)
    registry.close()
    assert not registry.status().connected


# Signals.


@pytest.fixture
def _handlers() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_program_so_that_it_withdraws(url: str, number: signal.Signals) -> None:
    svcreg.handle_signals()
    with svcreg.open(url) as observer:
        with pytest.raises(SystemExit) as caught, svcreg.open(url) as registry:
            registry.register(service("a"))
            signal.raise_signal(number)
        assert caught.value.code == 128 + number
        assert observer.get(NAME) == ()


@pytest.mark.usefixtures("_handlers")
def test_handler_of_the_program_is_left_alone() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    svcreg.handle_signals()
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]


@pytest.mark.usefixtures("_handlers")
def test_only_the_signals_given_are_handled() -> None:
    svcreg.handle_signals(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with pytest.raises(SystemExit):
        signal.raise_signal(signal.SIGUSR1)


# Through the environment.


def test_advertised_address_is_in_the_record(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "svcreg")
    with svcreg.open(url, advertise="192.0.2.9") as registry:
        registration = registry.register(Service(NAME, nodes=[Node("a", ":8080")]))
        assert registration.service.nodes[0].address == "192.0.2.9:8080"
        registration.update(nodes=[Node("a", "0.0.0.0:9090")])
        assert registry.get(NAME)[0].nodes[0].address == "192.0.2.9:9090"
