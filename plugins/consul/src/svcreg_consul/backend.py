"""The hooks of the Consul backend, each a few lines over its parts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import msgspec

from svcreg import Config, Delta, Service, Snapshot, hookimpl
from svcreg.errors import ProtocolError
from svcreg_consul.askers import Askers
from svcreg_consul.catalogue import Catalogue
from svcreg_consul.client import Client
from svcreg_consul.options import DEFAULT_ADDRESS, load_settings
from svcreg_consul.reader import Reader, Sighting, group
from svcreg_consul.registrations import Registrations
from svcreg_consul.watcher import Update, follow, watch

READS_AT_ONCE = 8
"""Plain reads under way at once; core reads every watched service now and then to compare."""

_names_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class ConsulBackend:
    """Registers and finds nodes through Consul agents, in go-micro's format.

    All hooks run on the registry's event loop. Connections are made on first use.
    """

    # No `fencing`: Consul has no write that compares. What a predecessor withdraws late is looked
    # at first, but between that and the withdrawal lies a millisecond.
    capabilities = frozenset({"ttl", "push", "watch-all", "endpoints", "cross-process"})
    default_address = DEFAULT_ADDRESS

    def __init__(self, config: Config) -> None:
        settings = load_settings(config)
        self.default_address = settings.addresses[0].label  # which CONSUL_HTTP_ADDR may name
        self._options = settings.options
        self._client = Client(settings)
        self._askers = Askers(self._client, settings)
        self._reader = Reader(passing_only=settings.options.passing_only)
        self._registrations = Registrations(self._client, self._reader, settings.options)
        self._catalogues = {
            dc: Catalogue(self._askers, self._reader, dc) for dc in settings.options.datacentres
        }
        self._polls = 0
        self._reads = asyncio.Semaphore(READS_AT_ONCE)

    @hookimpl
    async def svcreg_close(self) -> None:
        for catalogue in self._catalogues.values():
            await catalogue.close()
        await self._registrations.close()
        await self._client.close()

    @hookimpl
    async def svcreg_register(self, service: Service, ttl: float) -> None:
        await self._registrations.register(service, ttl)

    @hookimpl
    async def svcreg_renew(self, services: Sequence[Service], ttl: float) -> Sequence[Service]:
        return await self._registrations.renew(services)

    @hookimpl
    async def svcreg_drain(self, service: Service) -> None:
        await self._registrations.drain(service)

    @hookimpl
    async def svcreg_deregister(self, service: Service) -> None:
        await self._registrations.deregister(service)

    @hookimpl
    async def svcreg_get(self, name: str) -> Sequence[Service]:
        found: dict[str, Sighting] = {}
        for dc in reversed(self._options.datacentres):
            async with self._reads:
                reply = await self._askers.entries("get", name, dc).read()
            found.update(await self._reader.read(name, reply.body))
        return group(found.values())

    @hookimpl
    async def svcreg_list(self) -> Sequence[str]:
        names: set[str] = set()
        for dc in self._options.datacentres:
            reply = await self._askers.names("list", dc).read()
            try:
                names.update(_names_decoder.decode(reply.body))
            except (msgspec.MsgspecError, ValueError) as error:
                raise ProtocolError(f"consul: the catalogue makes no sense: {error}") from None
        return sorted(names)

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> AsyncIterator[Snapshot | Delta]:
        has_poll = name is not None and self._polls < self._options.polls
        self._polls += has_poll
        try:
            sources = [self._follow(name, dc, has_poll=has_poll) for dc in self._catalogues]
            async with contextlib.aclosing(watch(sources)) as items:
                async for item in items:
                    yield item
        finally:
            self._polls -= has_poll

    def _follow(self, name: str | None, dc: str, *, has_poll: bool) -> AsyncGenerator[Update, None]:
        if name is None or not has_poll:
            return self._catalogues[dc].follow(name)
        return follow(self._askers.entries("watch", name, dc), self._reader, name)
