"""The hooks of the mDNS backend, each a few lines over its parts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

from svcreg import Config, Delta, Service, Snapshot, hookimpl
from svcreg.errors import RegistryError, RegistryUnavailableError
from svcreg_mdns.client import Link
from svcreg_mdns.options import GROUP_ADDRESS, load_options
from svcreg_mdns.publisher import Publisher
from svcreg_mdns.sightings import Packet
from svcreg_mdns.watcher import Watcher

_log = logging.getLogger("svcreg.mdns")


class MdnsBackend:
    """Registers and finds nodes on the local link, with no server.

    All hooks run on the registry's event loop. The sockets are opened on first use; should the
    last interface go, the next call opens them anew.
    """

    capabilities = frozenset({"ttl", "push", "watch-all", "fencing", "endpoints", "cross-process"})
    default_address = GROUP_ADDRESS

    def __init__(self, config: Config) -> None:
        self._interfaces = load_options(config).interface_names()
        self._session: _Session | None = None
        self._opening = asyncio.Lock()

    @hookimpl
    async def svcreg_close(self) -> None:
        async with self._opening:
            if self._session is not None:
                await self._session.close()
                self._session = None

    @hookimpl
    async def svcreg_register(self, service: Service, ttl: float) -> None:
        session = await self._open()
        await session.publisher.register(service, ttl)

    @hookimpl
    async def svcreg_renew(self, services: Sequence[Service], ttl: float) -> Sequence[Service]:
        session = await self._open()
        return await session.publisher.renew(services, ttl)

    @hookimpl
    async def svcreg_deregister(self, service: Service) -> None:
        session = await self._open()
        if not session.publisher.holds(service):
            await session.watcher.start()  # to know what there is to withdraw
        await session.publisher.withdraw(service)

    @hookimpl
    async def svcreg_get(self, name: str) -> Sequence[Service]:
        session = await self._open()
        await session.watcher.start()
        return session.watcher.sightings.services(name)

    @hookimpl
    async def svcreg_list(self) -> Sequence[str]:
        session = await self._open()
        await session.watcher.start()
        return session.watcher.sightings.names()

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> AsyncIterator[Snapshot | Delta]:
        session = await self._open()
        changes = session.watcher.watch(name)
        try:
            async for change in changes:
                yield change
        finally:
            await changes.aclose()

    async def _open(self) -> _Session:
        async with self._opening:
            if self._session is None or self._session.is_lost:
                if self._session is not None:
                    await self._session.close()
                self._session = _Session(self._interfaces)
                await self._session.open()
            return self._session


class _Session:
    """One link with its publisher and watcher, from first use until it is closed or lost."""

    def __init__(self, interfaces: tuple[str, ...]) -> None:
        self.watcher = Watcher()
        self._link = Link(interfaces, self._hear)
        self.watcher.attach(self._link)
        self.publisher = Publisher(self._link, self.watcher.sightings)
        self.is_lost = False
        self._upkeep: asyncio.Task[None] | None = None

    async def open(self) -> None:
        try:
            await self._link.open()
        except BaseException:
            self.is_lost = True
            raise
        self._upkeep = asyncio.create_task(self._keep_up())

    async def close(self) -> None:
        if self._upkeep is not None:
            self._upkeep.cancel()
        self.watcher.close()
        self.publisher.cancel()
        await self._link.close()

    async def _keep_up(self) -> None:
        try:
            await self.watcher.keep_up()
        except Exception as error:
            self.is_lost = True
            if not isinstance(error, RegistryError):
                _log.exception("the upkeep of the link failed")
                error = RegistryUnavailableError(f"mdns: the link failed: {error}", backend="mdns")
            self.watcher.fail(error)

    def _hear(self, packet: Packet) -> None:
        self.publisher.hear(packet)
        self.watcher.hear(packet)
