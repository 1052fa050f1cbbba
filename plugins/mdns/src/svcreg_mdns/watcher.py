"""What is heard on the link as `Snapshot` and `Delta`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from svcreg import Delta, Service, Snapshot
from svcreg.errors import RegistryError
from svcreg_mdns.nodes import Nodes


class Watcher:
    """Tells any number of watches what changes among the nodes."""

    def __init__(self) -> None:
        self.nodes = Nodes(self._changed)
        self._subscribers: set[_Subscriber] = set()

    async def watch(self, name: str | None) -> AsyncGenerator[Snapshot | Delta, None]:
        """Yield what is there, then every change of it.

        Raises:
            RegistryUnavailableError: The network interface has gone.
        """
        subscriber = _Subscriber(name)
        self._subscribers.add(subscriber)
        try:
            yield Snapshot(self.nodes.services(name))
            while True:
                yield await subscriber.take()
        finally:
            self._subscribers.discard(subscriber)

    def fail(self, error: RegistryError) -> None:
        """End every watch with an error."""
        for subscriber in self._subscribers:
            subscriber.fail(error)

    def _changed(self, before: Service | None, after: Service | None) -> None:
        for subscriber in self._subscribers:
            subscriber.add(before, after)


class _Subscriber:
    """Changes that one watch has not taken yet: the last one per node, so it stays bounded."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._changes: dict[tuple[str, str], tuple[Service, bool]] = {}
        self._error: RegistryError | None = None
        self._ready = asyncio.Event()

    def add(self, before: Service | None, after: Service | None) -> None:
        service = after or before
        if service is None or (self._name is not None and service.name != self._name):
            return
        self._changes[service.name, service.nodes[0].id] = service, after is not None
        self._ready.set()

    def fail(self, error: RegistryError) -> None:
        self._error = error
        self._ready.set()

    async def take(self) -> Delta:
        await self._ready.wait()
        self._ready.clear()
        if self._error is not None:
            raise self._error
        changes, self._changes = self._changes, {}
        return Delta(
            upserts=tuple(service for service, is_there in changes.values() if is_there),
            deletes=tuple(service for service, is_there in changes.values() if not is_there),
        )
