"""Two backends as somebody else might write them: one all `def`, one all `async def`.

Over a store in this process. They differ in everything the contract leaves open: one pushes
snapshots and has no optional hook, the other polls, yields deltas, renews and compares owners.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence

from svcreg import Config, Delta, Node, Service, Snapshot, hookimpl

POLL = 0.02  # seconds between two looks of the backend that polls
Key = tuple[str, str]


class Store:
    """Records by service name and node id, each with the time it ends and who wrote it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.revision = 0
        self._records: dict[Key, tuple[Service, float, object]] = {}

    def put(self, service: Service, ttl: float, owner: object) -> None:
        with self.changed:
            for node in service.nodes:
                record = service.with_nodes((node,))
                self._records[service.name, node.id] = (record, time.monotonic() + ttl, owner)
            self._bump()

    def remove(self, service: Service, owner: object | None = None) -> None:
        """Remove nodes; with an owner, only those that nobody else has written since."""
        with self.changed:
            for node in service.nodes:
                _, _, holder = self._records.get((service.name, node.id), (None, 0, owner))
                if owner is None or holder is owner:
                    self._records.pop((service.name, node.id), None)
            self._bump()

    def owner(self, name: str, node: Node) -> object | None:
        with self.changed:
            self._expire()
            record = self._records.get((name, node.id))
            return record[2] if record else None

    def read(self, name: str | None) -> dict[Key, Service]:
        with self.changed:
            self._expire()
            return {
                key: record
                for key, (record, _, _) in self._records.items()
                if name is None or key[0] == name
            }

    def _expire(self) -> None:
        now = time.monotonic()
        gone = [key for key, (_, ends, _) in self._records.items() if ends < now]
        for key in gone:
            del self._records[key]
        if gone:
            self._bump()

    def _bump(self) -> None:
        self.revision += 1
        self.changed.notify_all()


_stores: dict[str, Store] = {}


def store_of(config: Config) -> Store:
    return _stores.setdefault(",".join(config.addresses), Store())


class DefBackend:
    """Blocks in every hook, and pushes a snapshot whenever anything has changed."""

    capabilities = frozenset({"ttl", "push", "endpoints"})

    def __init__(self, config: Config) -> None:
        self._store = store_of(config)

    @hookimpl
    def svcreg_register(self, service: Service, ttl: float) -> None:
        self._store.put(service, ttl, self)

    @hookimpl
    def svcreg_deregister(self, service: Service) -> None:
        self._store.remove(service)

    @hookimpl
    def svcreg_get(self, name: str) -> Sequence[Service]:
        return list(self._store.read(name).values())

    @hookimpl
    def svcreg_list(self) -> Sequence[str]:
        return [name for name, _ in self._store.read(None)]

    @hookimpl
    def svcreg_watch(self, name: str, stop: threading.Event) -> Iterator[Snapshot]:
        store, last = self._store, None
        while not stop.is_set():
            now = store.read(name)
            if now != last:
                last = now
                yield Snapshot(tuple(now.values()))
            with store.changed:
                store.changed.wait(0.1)


class AsyncBackend:
    """Awaits in every hook; its watch compares every so often and yields the difference."""

    capabilities = frozenset({"ttl", "watch-all", "fencing", "endpoints"})

    def __init__(self, config: Config) -> None:
        self._store = store_of(config)
        self._mine: set[Key] = set()
        self._is_open = False

    @hookimpl
    async def svcreg_open(self) -> None:
        assert not self._is_open
        self._is_open = True

    @hookimpl
    async def svcreg_close(self) -> None:
        assert self._is_open
        self._is_open = False

    @hookimpl
    async def svcreg_register(self, service: Service, ttl: float) -> None:
        assert self._is_open
        await asyncio.sleep(0)
        self._store.put(service, ttl, self)
        self._mine.update((service.name, node.id) for node in service.nodes)

    @hookimpl
    async def svcreg_deregister(self, service: Service) -> None:
        for node in service.nodes:
            is_mine = (service.name, node.id) in self._mine
            self._mine.discard((service.name, node.id))
            self._store.remove(service.with_nodes((node,)), self if is_mine else None)

    @hookimpl
    async def svcreg_renew(self, services: Sequence[Service], ttl: float) -> Sequence[Service]:
        lost = []
        for service in services:
            owners = [self._store.owner(service.name, node) for node in service.nodes]
            if None in owners:
                lost.append(service)
            elif all(owner is self for owner in owners):
                self._store.put(service, ttl, self)
        return lost

    @hookimpl
    async def svcreg_get(self, name: str) -> Sequence[Service]:
        return tuple(self._store.read(name).values())

    @hookimpl
    async def svcreg_list(self) -> Sequence[str]:
        return tuple({name for name, _ in self._store.read(None)})

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> AsyncIterator[Snapshot | Delta]:
        last = self._store.read(name)
        yield Snapshot(tuple(last.values()), revision=str(self._store.revision))
        while True:
            await asyncio.sleep(POLL)
            now = self._store.read(name)
            upserts = tuple(record for key, record in now.items() if last.get(key) != record)
            deletes = tuple(
                Service(key[0], nodes=(Node(key[1], ""),)) for key in last if key not in now
            )
            last = now
            if upserts or deletes:
                yield Delta(upserts, deletes, str(self._store.revision))
