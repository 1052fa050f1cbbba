"""Runs the conformance suite over go-micro's dialect, which takes no service without a version.

The suite's services mostly have none. Here they get one on their way in, and lose it on their way
out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from msgspec.structs import replace

from svcreg import Event, Service
from svcreg.testing.conformance.base import World
from svcreg.testing.conformance.faces import AsyncioClient, Client, Held
from svcreg.testing.conformance.processes import Owner

VERSION = "none"


class VersionedWorld(World):
    """Registries and processes that give every service a version."""

    def open(self, url: str | None = None, **options: Any) -> Client:
        client = _VersionedClient(url or self.url, **options)
        self._opened.append(client)
        return client

    def spawn(self, service: Service, mode: Any = "hold", ttl: float | None = None) -> Owner:
        return super().spawn(_with_version(service), mode, ttl)


class _VersionedClient(AsyncioClient):
    def register(self, service: Service, **options: Any) -> Held:
        return super().register(_with_version(service), **options)

    def get(self, name: str) -> tuple[Service, ...]:
        return tuple(map(_without_version, super().get(name)))

    async def _watch(self, name: str | None) -> Any:
        return _VersionlessWatch(await super()._watch(name))


class _VersionlessWatch:
    def __init__(self, watch: Any) -> None:
        self._watch = watch
        self.aclose = watch.aclose

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for event in self._watch:
            yield replace(event, service=_without_version(event.service))


def _with_version(service: Service) -> Service:
    return replace(service, version=service.version or VERSION)


def _without_version(service: Service) -> Service:
    return replace(service, version=service.version.replace(VERSION, ""))
