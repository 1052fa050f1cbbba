"""Backends that are wrong in one way each; the one they are made from passes the suite.

The entry point is `build`, and the address names the class: `broken://LosesTheSecondEvent`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import ClassVar

from msgspec.structs import replace

from svcreg import Config, Delta, ProtocolError, Service, Snapshot, hookimpl
from svcreg.builtin.memory import MemoryBackend
from svcreg.builtin.records import Key, split

Items = AsyncIterator[Snapshot | Delta]

_log = logging.getLogger("svcreg.broken")

garbage: set[str] = set()
"""Names of the services beside whose records there is one that makes no sense."""


def build(config: Config) -> MemoryBackend:
    """Return the backend that the address names."""
    kind = globals()[config.addresses[0]]
    backend = kind(config)
    assert isinstance(backend, MemoryBackend)
    return backend


@contextlib.asynccontextmanager
async def following(items: Items) -> AsyncIterator[Items]:
    """Give what a watch yields, and close it at the end."""
    assert isinstance(items, AsyncGenerator)
    async with contextlib.aclosing(items):
        yield items


class Good(MemoryBackend):
    """Wrong in no way."""


class DropsTheEmptySnapshot(MemoryBackend):
    """Says nothing until there is something."""

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> Items:
        async with following(super().svcreg_watch(name)) as items:
            async for item in items:
                if not isinstance(item, Snapshot) or item.services:
                    yield item


class LosesTheSecondEvent(MemoryBackend):
    """Tells of several changes at once only the first."""

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> Items:
        async with following(super().svcreg_watch(name)) as items:
            async for item in items:
                yield (
                    Delta(_first(item.upserts), _first(item.deletes))
                    if isinstance(item, Delta)
                    else item
                )


class MissesChangesOfMetadata(MemoryBackend):
    """Takes a node that is known for one that is unchanged."""

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> Items:
        known: dict[str, str] = {}
        async with following(super().svcreg_watch(name)) as items:
            async for item in items:
                upserts = item.services if isinstance(item, Snapshot) else item.upserts
                now = {node.id: one.version for one in upserts for node in one.nodes}
                is_new = any(known.get(node) != version for node, version in now.items())
                if isinstance(item, Snapshot) or item.deletes or is_new:
                    yield item
                known.update(now)


class WatchesWithAGap(MemoryBackend):
    """Reads first and watches from a little later on."""

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> Items:
        read = await self.svcreg_get(name) if name else ()
        await asyncio.sleep(0.001)
        async with following(super().svcreg_watch(name)) as items:
            yield Snapshot(read) if name else await anext(items)
            if name:
                await anext(items)
            async for item in items:
                yield item


class PollsAndClaimsPush(MemoryBackend):
    """Looks for changes now and then."""

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> Items:
        last: Sequence[Service] | None = None
        while True:
            now = self._store.records(name)
            if now != last:
                last = now
                yield Snapshot(now)
            await asyncio.sleep(0.5)


class ReadsByPrefix(MemoryBackend):
    """Has no delimiter at the end of a service's name."""

    @hookimpl
    async def svcreg_get(self, name: str) -> Sequence[Service]:
        return [one for one in self._store.records(None) if one.name.startswith(name)]

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> Items:
        async with following(super().svcreg_watch(None)) as items:
            async for item in items:
                if isinstance(item, Snapshot):
                    yield Snapshot(_of(item.services, name))
                else:
                    yield Delta(_of(item.upserts, name), _of(item.deletes, name))


class Resurrects(MemoryBackend):
    """Has a write under way that comes after the withdrawal."""

    @hookimpl
    async def svcreg_deregister(self, service: Service) -> None:
        await super().svcreg_deregister(service)
        loop = asyncio.get_running_loop()
        loop.call_later(0.1, self._store.put, service, 60.0, self._owner)


class NeverExpires(MemoryBackend):
    """Keeps what nobody renews."""

    @hookimpl
    async def svcreg_register(self, service: Service, ttl: float) -> None:
        await super().svcreg_register(service, 3600)


class ForgetsToRenew(MemoryBackend):
    """Says of every renewal that all is well."""

    @hookimpl
    async def svcreg_renew(self, services: Sequence[Service], ttl: float) -> Sequence[Service]:
        return ()


class LosesEndpoints(MemoryBackend):
    """Stores names and nodes and nothing else."""

    @hookimpl
    async def svcreg_register(self, service: Service, ttl: float) -> None:
        await super().svcreg_register(replace(service, endpoints=(), metadata={}), ttl)


class WithdrawsItsSuccessor(MemoryBackend):
    """Deletes by key, whoever has written it last."""

    @hookimpl
    async def svcreg_deregister(self, service: Service) -> None:
        self._mine.clear()
        await super().svcreg_deregister(service)


class RenewsOverItsSuccessor(MemoryBackend):
    """Renews by writing its own record again."""

    @hookimpl
    async def svcreg_renew(self, services: Sequence[Service], ttl: float) -> Sequence[Service]:
        for service in services:
            await self.svcreg_register(service, ttl)
        return ()


class ForgetsWhatItChanged(MemoryBackend):
    """Withdraws a node only as it was first registered."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._changed: set[Key] = set()

    @hookimpl
    async def svcreg_register(self, service: Service, ttl: float) -> None:
        keys = {key for key, _ in split(service)}
        self._changed.update(keys & self._mine)
        await super().svcreg_register(service, ttl)

    @hookimpl
    async def svcreg_deregister(self, service: Service) -> None:
        nodes = [record.nodes[0] for key, record in split(service) if key not in self._changed]
        await super().svcreg_deregister(service.with_nodes(nodes))


class ListsWhatIsGone(MemoryBackend):
    """Keeps the names of services without nodes."""

    _names: ClassVar[set[str]] = set()

    @hookimpl
    async def svcreg_list(self) -> Sequence[str]:
        self._names.update(await super().svcreg_list())
        return sorted(self._names)


class BlocksTheLoop(MemoryBackend):
    """Waits in an `async def` without awaiting."""

    @hookimpl
    async def svcreg_renew(self, services: Sequence[Service], ttl: float) -> Sequence[Service]:
        time.sleep(0.3)  # noqa: ASYNC251 - what is wrong
        return await super().svcreg_renew(services, ttl)


class LeaksATask(MemoryBackend):
    """Starts a task for each watch, and leaves it behind."""

    _tasks: ClassVar[set[asyncio.Task[None]]] = set()

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> Items:
        self._tasks.add(asyncio.create_task(asyncio.sleep(3600)))
        async with following(super().svcreg_watch(name)) as items:
            async for item in items:
                yield item


class LeaksADescriptor(MemoryBackend):
    """Opens something that it does not close."""

    @hookimpl
    async def svcreg_open(self) -> None:
        os.dup(0)


class TellsSecrets(MemoryBackend):
    """Logs how it is configured."""

    @hookimpl
    async def svcreg_open(self, config: Config) -> None:
        _log.debug("opened with token %s", config.token)


class ChokesOnGarbage(MemoryBackend):
    """Gives up on all records for the sake of one."""

    @hookimpl
    async def svcreg_get(self, name: str) -> Sequence[Service]:
        self._look_out(name)
        return await super().svcreg_get(name)

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> Items:
        async with following(super().svcreg_watch(name)) as items:
            async for item in items:
                self._look_out(name)
                yield item

    @staticmethod
    def _look_out(name: str | None) -> None:
        if name in garbage:
            raise ProtocolError("a record cannot be decoded")


class TakesLongToEnd(MemoryBackend):
    """Goes on for a while when its watch is cancelled."""

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> Items:
        async with following(super().svcreg_watch(name)) as items:
            try:
                async for item in items:
                    yield item
            finally:
                await asyncio.sleep(5)


def _first(services: Sequence[Service]) -> Sequence[Service]:
    return [service.with_nodes(service.nodes[:1]) for service in services[:1]]


def _of(services: Sequence[Service], prefix: str | None) -> list[Service]:
    return [service for service in services if service.name.startswith(prefix or "")]
