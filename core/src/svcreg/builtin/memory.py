"""The registry of one process: for tests, and for programs whose services share an interpreter."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

import msgspec

from svcreg.builtin.records import Key, by_name, group, split
from svcreg.builtin.watcher import Watcher
from svcreg.config import Config
from svcreg.errors import ConfigError
from svcreg.hookspecs import Delta, Snapshot, hookimpl
from svcreg.model import Service


class MemoryOptions(msgspec.Struct, frozen=True):
    """There is nothing to set."""


class MemoryBackend:
    """Shares what is registered among all registries of this process that name it alike.

    `memory` and `memory://tests` are two such names. A forked child starts with nothing, since what
    it would inherit is its parent's. No hook blocks for longer than a lookup takes.
    """

    capabilities = frozenset({"ttl", "push", "watch-all", "fencing", "endpoints"})
    default_address = ""

    def __init__(self, config: Config) -> None:
        config.parse_options(MemoryOptions)
        if len(config.addresses) > 1:
            raise ConfigError(
                f"memory takes one name, as in memory://tests, not {len(config.addresses)}"
            )
        name = config.addresses[0] if config.addresses else self.default_address
        self._store = _stores.setdefault((os.getpid(), name), _Store())
        self._owner = object()
        self._mine: set[Key] = set()

    @hookimpl
    async def svcreg_register(self, service: Service, ttl: float) -> None:
        self._store.put(service, ttl, self._owner)
        self._mine.update(key for key, _ in split(service))

    @hookimpl
    async def svcreg_deregister(self, service: Service) -> None:
        keys = [key for key, _ in split(service)]
        self._store.remove([(key, self._owner if key in self._mine else None) for key in keys])
        self._mine.difference_update(keys)

    @hookimpl
    async def svcreg_renew(self, services: Sequence[Service], ttl: float) -> Sequence[Service]:
        return [one for one in services if not self._store.renew(one, ttl, self._owner)]

    @hookimpl
    async def svcreg_get(self, name: str) -> Sequence[Service]:
        return group(self._store.records(name))

    @hookimpl
    async def svcreg_list(self) -> Sequence[str]:
        return self._store.names()

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> AsyncIterator[Snapshot | Delta]:
        watcher = Watcher(name)
        self._store.subscribe(watcher)
        try:
            while True:
                seconds = self._store.expire()
                item = watcher.take()
                if item is None:
                    await watcher.wait(seconds)
                else:
                    yield item
        finally:
            self._store.unsubscribe(watcher)


class _Entry:
    """A record that is listed until `expires`; `due` is where the queue of deadlines has it."""

    __slots__ = ("due", "expires", "key", "owner", "record")
    record: Service
    owner: object
    expires: float

    def __init__(self, key: Key) -> None:
        self.key = key
        self.due: float | None = None


class _Store:
    """What is registered under one name; any thread. A change costs the same whatever is stored."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, dict[str, _Entry]] = {}  # by service name, then by node id
        self._watchers: dict[str | None, set[Watcher]] = {}
        # Of an entry's items the one equal to its `due` counts. At the front, others are dropped
        # and that of a renewed entry moved back; so a renewal by itself moves nothing.
        self._deadlines: list[tuple[float, int, _Entry]] = []
        self._ticket = itertools.count()

    def put(self, service: Service, ttl: float, owner: object) -> None:
        changes: dict[Key, Service | None] = {}
        with self._lock:
            self._expire()
            for key, record in split(service):
                nodes = self._entries.setdefault(service.name, {})
                entry = nodes.get(key[1])
                if entry is None or entry.record != record:
                    changes[key] = record
                    # The dict's order is that of the last changes.
                    nodes[key[1]] = entry = nodes.pop(key[1], None) or _Entry(key)
                    entry.record = record
                entry.owner = owner
                self._extend(entry, ttl)
            self._publish(changes)

    def renew(self, service: Service, ttl: float, owner: object) -> bool:
        """Extend the nodes that are still the owner's; tell whether all nodes are there."""
        with self._lock:
            self._expire()
            nodes = self._entries.get(service.name, {})
            found = [nodes.get(node.id) for node in service.nodes]
            for entry in found:
                if entry is not None and entry.owner is owner:
                    self._extend(entry, ttl)
            return None not in found

    def remove(self, keys: Iterable[tuple[Key, object | None]]) -> None:
        """Remove nodes, each only from its owner where one is given; unknown is success."""
        dropped = []
        with self._lock:
            for (name, node_id), owner in keys:
                entry = self._entries.get(name, {}).get(node_id)
                if entry is not None and owner in (None, entry.owner):
                    dropped.append(self._drop(entry))
            self._publish(dict.fromkeys(dropped))

    def records(self, name: str | None) -> list[Service]:
        with self._lock:
            self._expire()
            return self._records(name)

    def names(self) -> list[str]:
        with self._lock:
            self._expire()
            return sorted(self._entries)

    def subscribe(self, watcher: Watcher) -> None:
        with self._lock:
            self._expire()
            watcher.reset(self._records(watcher.name))
            self._watchers.setdefault(watcher.name, set()).add(watcher)

    def unsubscribe(self, watcher: Watcher) -> None:
        with self._lock:
            self._forget(watcher)

    def expire(self) -> float | None:
        """Drop what is past its TTL; return the seconds until that happens next, if ever."""
        with self._lock:
            self._expire()
            return self._deadlines[0][0] - time.monotonic() if self._deadlines else None

    def _records(self, name: str | None) -> list[Service]:
        chosen = self._entries.values() if name is None else [self._entries.get(name, {})]
        return [entry.record for nodes in chosen for entry in nodes.values()]

    def _extend(self, entry: _Entry, ttl: float) -> None:
        entry.expires = time.monotonic() + ttl
        if entry.due is None or entry.expires < entry.due:
            is_sooner = entry.due is not None
            entry.due = entry.expires
            heapq.heappush(self._deadlines, (entry.due, next(self._ticket), entry))
            if is_sooner:  # who waits for the old deadline would come late
                for watchers in self._watchers.values():
                    for watcher in watchers:
                        watcher.wake()

    def _expire(self) -> None:
        """Drop what is past its TTL, and leave the true next deadline at the front."""
        now = time.monotonic()
        queue = self._deadlines
        dropped = []
        while queue:
            due, _, entry = queue[0]
            if entry.due != due:
                heapq.heappop(queue)
            elif entry.expires > due:
                entry.due = entry.expires
                heapq.heapreplace(queue, (entry.due, next(self._ticket), entry))
            elif due <= now:
                dropped.append(self._drop(entry))
            else:
                break
        self._publish(dict.fromkeys(dropped))

    def _drop(self, entry: _Entry) -> Key:
        name, node_id = entry.key
        entry.due = None
        nodes = self._entries[name]
        del nodes[node_id]
        if not nodes:
            del self._entries[name]
        return entry.key

    def _publish(self, changes: Mapping[Key, Service | None]) -> None:
        for name, part in by_name(changes).items():
            for watcher in tuple(self._watchers.get(name, ())):
                if watcher.is_abandoned:
                    self._forget(watcher)
                else:
                    watcher.change(part)

    def _forget(self, watcher: Watcher) -> None:
        watchers = self._watchers.get(watcher.name, set())
        watchers.discard(watcher)
        if not watchers:
            self._watchers.pop(watcher.name, None)


_stores: dict[tuple[int, str], _Store] = {}
"""By process and name; a store lives as long as its process, as a server would."""
