"""What the author of a plugin writes: one backend of each kind, complete."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator, Sequence

import svcreg
from svcreg import Delta, Node, Service, Snapshot


class BlockingBackend:
    capabilities = frozenset({"ttl"})

    def __init__(self, config: svcreg.Config) -> None:
        self._address = config.addresses[0] if config.addresses else "127.0.0.1:1"
        self._timeout: float = config.timeout
        self._services: dict[str, Service] = {}

    @svcreg.hookimpl
    def svcreg_register(self, service: Service, ttl: float) -> None:
        self._services[service.name] = service

    @svcreg.hookimpl
    def svcreg_deregister(self, service: Service) -> None:
        self._services.pop(service.name, None)

    @svcreg.hookimpl
    def svcreg_get(self, name: str) -> Sequence[Service]:
        return [service for key, service in self._services.items() if key == name]

    @svcreg.hookimpl
    def svcreg_list(self) -> Sequence[str]:
        return sorted(self._services)

    @svcreg.hookimpl
    def svcreg_watch(self, name: str | None, stop: threading.Event) -> Iterator[Snapshot | Delta]:
        while not stop.wait(1.0):
            yield Snapshot(tuple(self._services.values()))


class AsyncBackend:
    def __init__(self, config: svcreg.Config) -> None:
        self._config = config

    @svcreg.hookimpl
    async def svcreg_register(self, service: Service) -> None:
        if not service.nodes:
            raise svcreg.PermissionDeniedError("no right to register nothing")

    @svcreg.hookimpl
    async def svcreg_deregister(self, service: Service) -> None: ...

    @svcreg.hookimpl
    async def svcreg_get(self, name: str) -> Sequence[Service]:
        return ()

    @svcreg.hookimpl
    async def svcreg_list(self) -> Sequence[str]:
        return ()

    @svcreg.hookimpl
    async def svcreg_watch(self, name: str | None) -> AsyncIterator[Snapshot | Delta]:
        yield Snapshot((Service("greeter", nodes=(Node("g-1", "10.0.0.5:8080"),)),))
        yield Delta(deletes=(Service("greeter", nodes=(Node("g-1", ""),)),))
