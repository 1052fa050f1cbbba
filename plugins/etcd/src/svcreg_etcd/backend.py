"""The hooks of the etcd backend, each a few lines over its parts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from svcreg import Config, Delta, Service, Snapshot, hookimpl
from svcreg_etcd.cluster import Cluster
from svcreg_etcd.errors import translated
from svcreg_etcd.leases import Leases
from svcreg_etcd.options import DEFAULT_ADDRESS, load_settings
from svcreg_etcd.records import Keyspace
from svcreg_etcd.watcher import Reader, merge, watch
from svcreg_etcd.watches import Watches


class EtcdBackend:
    """Registers and finds nodes in an etcd cluster of version 3.4 or later.

    All hooks run on the registry's event loop. The first one that needs it connects.

    Attributes:
        capabilities: All there are; without `endpoints` in layouts that have no room for them.
    """

    capabilities = frozenset({"ttl", "push", "watch-all", "fencing", "endpoints", "cross-process"})
    default_address = DEFAULT_ADDRESS

    def __init__(self, config: Config) -> None:
        settings = load_settings(config)
        self.default_address = settings.endpoints[0]  # which ETCDCTL_ENDPOINTS may name
        self._keyspace = Keyspace(settings.options.layout, settings.options.prefix)
        if not self._keyspace.layout.keeps_endpoints:
            self.capabilities = self.capabilities - {"endpoints"}
        self._cluster = Cluster(settings)
        self._leases = Leases(self._cluster, self._keyspace)
        self._watches = Watches(self._cluster)
        self._reader = Reader(self._cluster, self._keyspace)

    @hookimpl
    async def svcreg_close(self) -> None:
        await self._leases.close()
        await self._watches.close()
        self._cluster.close()

    @hookimpl
    async def svcreg_register(self, service: Service, ttl: float) -> None:
        with translated(f"register of {service.name!r}"):
            await self._leases.register(service, ttl)

    @hookimpl
    async def svcreg_deregister(self, service: Service) -> None:
        with translated(f"deregister of {service.name!r}"):
            await self._leases.deregister(service)

    @hookimpl
    async def svcreg_renew(self, services: Sequence[Service], ttl: float) -> Sequence[Service]:
        with translated("renew"):
            return await self._leases.renew(services, ttl)

    @hookimpl
    async def svcreg_get(self, name: str) -> Sequence[Service]:
        with translated(f"get of {name!r}"):
            _, records = await self._reader.read(name)
            return merge(records.values())

    @hookimpl
    async def svcreg_list(self) -> Sequence[str]:
        with translated("list"):
            _, records = await self._reader.read(None)
            return sorted({record.name for record in records.values()})

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> AsyncIterator[Snapshot | Delta]:
        with translated("watch of every service" if name is None else f"watch of {name!r}"):
            items = watch(self._reader, self._watches, self._keyspace, name)
            async with contextlib.aclosing(items):
                async for item in items:
                    yield item
