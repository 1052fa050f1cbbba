"""The hooks of the mDNS backend, each a few lines over its parts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

from svcreg import Config, Delta, Service, Snapshot, hookimpl
from svcreg.errors import RegistryError, RegistryUnavailableError
from svcreg_mdns.dialect import Dialect
from svcreg_mdns.dnssd import DnsSd
from svcreg_mdns.gomicro import GoMicro
from svcreg_mdns.interfaces import Interface, find_interfaces, join_names
from svcreg_mdns.options import DNS_SD, GO_MICRO, GROUP_ADDRESS, Options, load_options
from svcreg_mdns.watcher import Watcher

RESCAN_SECONDS = 5.0
"""How often to look for interfaces that have come or gone; costs less than a millisecond."""

_log = logging.getLogger("svcreg.mdns")


class MdnsBackend:
    """Registers and finds nodes on the local link, with no server.

    All hooks run on the registry's event loop. The sockets are opened on first use; should the
    last interface go, the next call opens them anew.
    """

    capabilities = frozenset({"ttl", "push", "watch-all", "fencing", "endpoints", "cross-process"})
    default_address = GROUP_ADDRESS

    def __init__(self, config: Config) -> None:
        self._options = load_options(config)
        self._session: _Session | None = None
        self._opening = asyncio.Lock()
        if self._options.dialect == GO_MICRO:
            # Its records have no room for who registered them, nor for metadata of services.
            self.capabilities = self.capabilities - {"fencing", "endpoints"}

    @hookimpl
    async def svcreg_close(self) -> None:
        async with self._opening:
            if self._session is not None:
                await self._session.close()
                self._session = None

    @hookimpl
    async def svcreg_register(self, service: Service, ttl: float) -> None:
        session = await self._open()
        for dialect in session.dialects:
            await dialect.register(service, ttl)

    @hookimpl
    async def svcreg_renew(self, services: Sequence[Service], ttl: float) -> Sequence[Service]:
        session = await self._open()
        lost = [await dialect.renew(services, ttl) for dialect in session.dialects]
        return lost[0]  # what is not in the second dialect is not fit for it

    @hookimpl
    async def svcreg_deregister(self, service: Service) -> None:
        session = await self._open()
        if not session.dialects[0].holds(service):
            await session.look(service.name)  # to know what there is to withdraw
        for dialect in session.dialects:
            await dialect.withdraw(service)

    @hookimpl
    async def svcreg_get(self, name: str) -> Sequence[Service]:
        session = await self._open()
        await session.look(name)
        return session.watcher.nodes.services(name)

    @hookimpl
    async def svcreg_list(self) -> Sequence[str]:
        session = await self._open()
        await session.look(None)
        return session.watcher.nodes.names()

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> AsyncIterator[Snapshot | Delta]:
        session = await self._open()
        await session.look(name)
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
                self._session = _Session(self._options)
                await self._session.open()
            return self._session


class _Session:
    """The dialects on one set of interfaces, from first use until they are closed or lost.

    Of two dialects the first decides whose a node is, and what does not fit is refused by it.
    """

    def __init__(self, options: Options) -> None:
        self.watcher = Watcher()
        self.is_lost = False
        self._chosen = options.interface_names()
        self._interfaces: tuple[Interface, ...] = ()
        self._upkeep: asyncio.Task[None] | None = None
        self.dialects = _dialects(options, self.watcher)

    async def open(self) -> None:
        try:
            self._interfaces = find_interfaces(self._chosen)
            for dialect in self.dialects:
                await dialect.open(self._interfaces)
        except BaseException:
            self.is_lost = True
            raise
        self._upkeep = asyncio.create_task(self._keep_up())

    async def close(self) -> None:
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.wait({self._upkeep})
        for dialect in reversed(self.dialects):
            await dialect.close()

    async def look(self, name: str | None) -> None:
        """Ask who is there, where that is not known yet."""
        await asyncio.gather(*(dialect.look(name) for dialect in self.dialects))

    async def _keep_up(self) -> None:
        tasks = [asyncio.create_task(dialect.keep_up()) for dialect in self.dialects]
        tasks.append(asyncio.create_task(self._rescan()))
        try:
            await asyncio.gather(*tasks)
        except Exception as error:
            self.is_lost = True
            if not isinstance(error, RegistryError):
                _log.exception("the upkeep of the link failed")
                error = RegistryUnavailableError(f"mdns: the link failed: {error}", backend="mdns")
            self.watcher.fail(error)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _rescan(self) -> None:
        """Follow interfaces that have come or gone.

        Raises:
            RegistryUnavailableError: No interface is left.
        """
        while True:
            await asyncio.sleep(RESCAN_SECONDS)
            interfaces = find_interfaces(self._chosen)
            if interfaces != self._interfaces:
                before, now = join_names(self._interfaces), join_names(interfaces)
                _log.info("interfaces changed from %s to %s", before, now)
                self._interfaces = interfaces
            for dialect in self.dialects:
                await dialect.use(interfaces)


def _dialects(options: Options, watcher: Watcher) -> tuple[Dialect, ...]:
    if options.dialect == DNS_SD:
        return (DnsSd(watcher.nodes, _ignore),)
    if options.dialect == GO_MICRO:
        return (GoMicro(watcher.nodes, options.domain, is_alone=True),)
    go_micro = GoMicro(watcher.nodes, options.domain, is_alone=False)
    return DnsSd(watcher.nodes, go_micro.lose), go_micro


def _ignore(service: Service, is_taken_over: bool) -> None:
    """There is no other dialect to be told."""
