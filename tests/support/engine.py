"""Parts of the engine put together by hand, for tests that look at one of them closely."""

from __future__ import annotations

import asyncio
import functools
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, ParamSpec

import pluggy

from svcreg.config import Config
from svcreg.engine.dispatch import Dispatcher
from svcreg.hookspecs import Delta, Snapshot
from svcreg.model import Event, Node, Service
from svcreg.plugins import build_backend
from tests.support.faulty import Faults, FaultyBackend, FaultyDefBackend, faults_of

PATIENCE = 10.0  # seconds; only a test that fails waits so long
NAME = "greeter"

P = ParamSpec("P")


def asynchronous(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(2 * PATIENCE):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.002)


def service(*node_ids: str, name: str = NAME, version: str = "", **metadata: str) -> Service:
    """Return a service whose nodes all have the metadata."""
    nodes = tuple(Node(one, "10.0.0.5:8080", metadata) for one in node_ids)
    return Service(name, version, nodes=nodes)


def ids(services: Iterable[Service]) -> list[str]:
    """Return the ids of all nodes, in order."""
    return [node.id for one in services for node in one.nodes]


def summary(events: Iterable[Event]) -> list[tuple[str, str]]:
    """Return action and node id of each event."""
    return [(event.action, event.service.nodes[0].id) for event in events]


def dispatcher(
    instance: object, observers: pluggy.PluginManager | None = None, **settings: Any
) -> Dispatcher:
    """Return what the engine would call this backend object through."""
    config = Config(backend="acme", **settings)
    return Dispatcher(build_backend(lambda _: instance, config), config, observers)


def faulty(kind: str, **settings: Any) -> tuple[Faults, Dispatcher]:
    """Return a faulty backend's switches and the way to it; `kind` is `async` or `def`."""
    config = Config(backend="faulty", addresses=(uuid.uuid4().hex,), **settings)
    backend: Any = {"async": FaultyBackend, "def": FaultyDefBackend}[kind]
    return faults_of(config), Dispatcher(build_backend(backend, config), config)


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def replay(
    events: Iterable[Event], start: Mapping[str, Service] | None = None
) -> dict[str, Service]:
    """Return what a consumer that keeps a dict of nodes has after these events.

    An event that does not fit, such as an update of a node that is not there, is an error.
    """
    state = dict(start or {})
    for event in events:
        (node,) = event.service.nodes
        if event.action == "create":
            assert node.id not in state, f"{node.id} is created twice"
            state[node.id] = event.service
        elif event.action == "update":
            assert state[node.id] != event.service, f"{node.id} is updated to what it was"
            state[node.id] = event.service
        else:
            del state[node.id]
    return state


def by_node(services: Sequence[Service]) -> dict[str, Service]:
    """Return each node with its service."""
    return {node.id: one.with_nodes((node,)) for one in services for node in one.nodes}


Item = Snapshot | Delta
