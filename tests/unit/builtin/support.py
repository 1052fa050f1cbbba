"""Call the hooks of a backend as the engine does, and wait for what they say."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, ParamSpec

from svcreg.builtin.memory import MemoryBackend
from svcreg.builtin.sqlite import SqliteBackend
from svcreg.config import load_config
from svcreg.hookspecs import Delta, Snapshot
from svcreg.model import Node, Service

PATIENCE = 10.0  # seconds; only a test that fails waits so long
CLASSES = {"memory": MemoryBackend, "sqlite": SqliteBackend}

P = ParamSpec("P")


def asynchronous(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def service(name: str, *node_ids: str, version: str = "", **metadata: str) -> Service:
    """A service whose nodes are at 10.0.0.1, each with the metadata."""
    nodes = [Node(one, "10.0.0.1:80", metadata) for one in node_ids]
    return Service(name, version, nodes=nodes)


def ids(services: Sequence[Service]) -> list[str]:
    return [node.id for one in services for node in one.nodes]


class Watch:
    """One running `svcreg_watch`."""

    def __init__(self, items: AsyncIterator[Snapshot | Delta]) -> None:
        self._items = items

    async def next(self) -> Snapshot | Delta:
        async with asyncio.timeout(PATIENCE):
            return await anext(self._items)

    async def delta(self) -> Delta:
        item = await self.next()
        assert isinstance(item, Delta)
        return item

    async def snapshot(self) -> Snapshot:
        item = await self.next()
        assert isinstance(item, Snapshot)
        return item

    async def deleted(self) -> list[str]:
        delta = await self.delta()
        assert not delta.upserts
        return ids(delta.deletes)

    async def put(self) -> list[str]:
        delta = await self.delta()
        assert not delta.deletes
        return ids(delta.upserts)


class Hooks:
    """One backend instance, whose hooks may be `def` or `async def`."""

    def __init__(self, url: str, *, timeout: float = 5.0) -> None:
        config = load_config(url, timeout=timeout, environ={})
        self.backend: Any = CLASSES[config.backend](config)

    async def register(self, service: Service, ttl: float = 60.0) -> None:
        await _result(self.backend.svcreg_register(service, ttl))

    async def deregister(self, service: Service) -> None:
        await _result(self.backend.svcreg_deregister(service))

    async def renew(self, *services: Service, ttl: float = 60.0) -> Sequence[Service]:
        found: Sequence[Service] = await _result(self.backend.svcreg_renew(services, ttl))
        return found

    async def get(self, name: str) -> Sequence[Service]:
        found: Sequence[Service] = await _result(self.backend.svcreg_get(name))
        return found

    async def list(self) -> Sequence[str]:
        found: Sequence[str] = await _result(self.backend.svcreg_list())
        return found

    @asynccontextmanager
    async def watch(self, name: str | None) -> AsyncIterator[Watch]:
        items = self.backend.svcreg_watch(name)
        try:
            yield Watch(items)
        finally:
            await items.aclose()

    def close(self) -> None:
        if hasattr(self.backend, "svcreg_close"):
            self.backend.svcreg_close()


async def eventually(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not await condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.01)


async def _result(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
