"""One registry in one process: the parts of the engine put together, forked and shut down."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import msgspec

from svcreg.config import Config
from svcreg.engine.advertise import advertised
from svcreg.engine.directory import Directory, Key, Record, Subscription
from svcreg.engine.dispatch import Dispatcher
from svcreg.engine.feed import Feeds
from svcreg.engine.loop import LoopThread
from svcreg.engine.names import Names
from svcreg.engine.registrar import Registrar
from svcreg.engine.writer import Check, Entry
from svcreg.errors import InvalidServiceError, RegistryClosedError, RegistryError, SvcregError
from svcreg.model import Service, check_name, check_service
from svcreg.plugins import build_backend, load_factory, load_observers

OWN_WRITE_PATIENCE = 0.5
"""Seconds that a write waits to show in what this registry already watches."""

EXIT_TIMEOUT = 2.0
"""Seconds that the interpreter's exit waits for withdrawals, of all registries together."""

CLOSE_GRACE = 0.75
"""Seconds that watches, and then the backend, have to let go after everything is withdrawn."""

T = TypeVar("T")

_log = logging.getLogger("svcreg.engine")


class FeedStatus(msgspec.Struct, frozen=True):
    """How fresh what we know of one service is; `name` None stands for every service.

    `age` is the seconds since the registry's last sign of life, `stale` whether it is lost.
    """

    name: str | None
    nodes: int
    age: float
    stale: bool
    error: str | None


class RegistrationStatus(msgspec.Struct, frozen=True):
    """One registration: its state, and when the registry last acknowledged it (Unix seconds)."""

    name: str
    nodes: tuple[str, ...]
    state: str
    ttl: float
    last_renewal: float | None
    error: str | None


class Status(msgspec.Struct, frozen=True):
    """A registry at one moment. `connected` tells whether its last call was answered."""

    backend: str
    connected: bool
    feeds: tuple[FeedStatus, ...]
    registrations: tuple[RegistrationStatus, ...]


class Engine:
    """What both faces stand on. Its coroutines are to be run with `call` or `acall`.

    In a forked child it starts anew on first use, knowing nothing of the parent's registrations.
    """

    def __init__(self, config: Config) -> None:
        self._factory = load_factory(config.backend)
        self.config = config
        self._is_closed = False
        self._is_inherited = False
        self._lock = threading.RLock()
        self._build()
        _engines.add(self)

    def _build(self) -> None:
        backend = build_backend(self._factory, self.config)
        self.directory = Directory(self.config.empty_grace)
        self.loop = LoopThread(f"svcreg-{self.config.backend}")
        self.dispatch = Dispatcher(backend, self.config, load_observers())
        self.names = Names(self.dispatch)
        self._feeds = Feeds(self.config, self.directory, self.dispatch)
        self._registrar = Registrar(self.config, self.dispatch)

    # From any thread.

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run one of the coroutines below and wait for it."""
        return self._ready(work).call(work)

    async def acall(self, work: Coroutine[Any, Any, T]) -> T:
        """Run one of the coroutines below and await it on another loop."""
        return await self._ready(work).acall(work)

    def warm(self, name: str) -> None:
        """Begin to watch a service without waiting for it."""
        with contextlib.suppress(RegistryClosedError):
            work = self.get(name, None)
            self._ready(work).submit(work)

    def close(self, timeout: float | None = None) -> None:
        """Withdraw, end watches, close the backend and stop the loop, in bounded time."""
        if not self._begin_close():
            return
        limit = self.config.timeout if timeout is None else timeout
        try:
            if self.loop.is_running:
                with contextlib.suppress(TimeoutError, RegistryClosedError):
                    self.loop.call(self._close(limit), timeout=limit + 2.5 * CLOSE_GRACE)
        finally:
            self.loop.stop()
            _in_use.discard(self)

    async def aclose(self) -> None:
        """As `close`, without blocking the caller's loop."""
        await asyncio.to_thread(self.close)

    def status(self) -> Status:
        """Return what there is to tell, from memory."""
        now = time.monotonic()
        feeds = () if self._is_inherited else self._feeds.all()
        entries = [] if self._is_inherited else self._registrar.entries
        return Status(
            self.config.backend,
            self.dispatch.is_connected and not self._is_closed and not self._is_inherited,
            tuple(
                FeedStatus(
                    feed.known.name,
                    len(feed.known.truth),
                    now - feed.known.fresh_at,
                    feed.known.stale_since is not None,
                    str(feed.error) if feed.error else None,
                )
                for feed in feeds
            ),
            tuple(
                RegistrationStatus(
                    entry.service.name,
                    tuple(node.id for node in entry.service.nodes),
                    entry.state,
                    entry.ttl,
                    entry.last_renewal,
                    str(entry.error) if entry.error else None,
                )
                for entry in entries
            ),
        )

    # On the loop.

    async def get(self, name: str, timeout: float | None) -> tuple[Service, ...]:
        """Return a service's newest snapshot, waiting for the first one."""
        check_name(name)
        limit = self.config.timeout if timeout is None else timeout
        return await self._feeds.ensure(name).wait_known(limit)

    async def list(self) -> tuple[str, ...]:
        """Return the names of all services."""
        return await self.names.get()

    async def subscribe(self, name: str | None) -> Subscription:
        """Watch one service, or all."""
        if name is not None:
            check_name(name)
        return self._feeds.ensure(name).known.subscribe()

    async def register(
        self,
        service: Service,
        ttl: float,
        interval: float,
        check: Check | None,
        *,
        required: bool,
    ) -> Entry:
        """Register a service's nodes and keep them registered."""
        service = await self._checked(service)
        entry = Entry(service, ttl, interval, check)
        await self._registrar.add(entry, required=required)
        await self._show(entry)
        return entry

    async def update(self, entry: Entry, service: Service) -> None:
        """Change a registration's record in place."""
        if entry.state == "closed":
            raise RegistryClosedError(f"the registration of {entry.service.name!r} is closed")
        await self._registrar.update(entry, await self._checked(service))
        await self._show(entry)

    async def withdraw(self, entry: Entry) -> None:
        """End a registration; a registry that is down is logged, and left to its TTL."""
        try:
            async with asyncio.timeout(self.config.timeout + CLOSE_GRACE):
                await self._registrar.remove(entry)
        except (SvcregError, TimeoutError) as error:
            _log.warning(
                "%r was not withdrawn and ends with its TTL of %g s: %s",
                entry.service.name,
                entry.ttl,
                str(error) or "timed out",
            )
        else:
            await self._hide(entry.service)

    async def drain(self, entry: Entry) -> None:
        """Take a registration's nodes away from readers; its end, `withdraw`, is to follow."""
        if self.dispatch.can_drain:
            try:
                async with asyncio.timeout(self.config.timeout):
                    await self._registrar.drain(entry)
            except (SvcregError, TimeoutError) as error:
                _log.warning("%r is withdrawn at once: %s", entry.service.name, error)
            else:
                await self._hide(entry.service)
                return
        await self.withdraw(entry)

    async def deregister(self, service: Service) -> None:
        """Withdraw nodes registered by anyone."""
        if not isinstance(service, Service):
            raise InvalidServiceError(f"expected a svcreg.Service, not {type(service).__name__}")
        check_name(service.name)
        if not service.nodes:
            raise InvalidServiceError(
                f"service {service.name!r} has no nodes; name those to withdraw"
            )
        for node in service.nodes:
            check_name(node.id, f"service {service.name!r}: node id")
        await self._registrar.release(service)
        await self._hide(service)

    async def _checked(self, service: Service) -> Service:
        addresses = self.config.addresses or (self.dispatch.default_address,)
        return await advertised(check_service(service), addresses[0], self.config.advertise)

    async def _show(self, entry: Entry) -> None:
        """Wait until a write of ours shows in what is watched here, so that a reader sees it."""
        self.names.invalidate()
        known = self.directory.known(entry.service.name)
        if known is None or entry.state != "active":
            return
        service, header = entry.service, entry.service.with_nodes(())
        carries_all = "endpoints" in self.dispatch.capabilities

        def is_shown(seen: Mapping[Key, Record]) -> bool:
            found = [seen.get((service.name, node.id)) for node in service.nodes]
            return all(
                record is not None
                and record.node == node
                and record.header.version == service.version
                and (record.header == header or not carries_all)
                for node, record in zip(service.nodes, found, strict=True)
            )

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OWN_WRITE_PATIENCE):
                await known.wait_until(is_shown)

    async def _hide(self, service: Service) -> None:
        """Wait until a withdrawal of ours shows in what is watched here."""
        self.names.invalidate()
        known = self.directory.known(service.name)
        if known is None or not known.is_known:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OWN_WRITE_PATIENCE):
                await known.wait_until(
                    lambda seen: not any((service.name, node.id) in seen for node in service.nodes)
                )

    async def _close(self, limit: float) -> None:
        self.directory.close()
        for work, seconds in (
            (self._registrar.close, limit),
            (self._feeds.close, CLOSE_GRACE),
            (self.dispatch.close, CLOSE_GRACE),
        ):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await work()

    # Life and death.

    def _ready(self, work: Coroutine[Any, Any, object]) -> LoopThread:
        if self._is_closed:
            work.close()
            raise RegistryClosedError("the registry is closed")
        if self._is_inherited:
            with self._lock:
                if self._is_inherited:
                    self._build()
                    self._is_inherited = False
        _in_use.add(self)
        return self.loop

    def _begin_close(self) -> bool:
        with self._lock:
            if self._is_closed:
                return False
            self._is_closed = True
            return not self._is_inherited

    def _abandon(self) -> None:
        """In a forked child: let go of the parent's loop, connections and registrations.

        They are kept, untouched, for as long as the process lives: destroying them would
        write to connections that are the parent's.
        """
        _abandoned.append(vars(self).copy())
        for entry in self._registrar.entries:
            entry.state = "closed"
        self.directory.close()
        self.loop.abandon()
        self._lock = threading.RLock()  # another thread of the parent may have held the old one
        self._is_inherited = True
        self.directory = Directory(self.config.empty_grace)


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_in_use: set[Engine] = set()
"""Held until closed: what a program has registered and then lost sight of is withdrawn at exit."""
_abandoned: list[dict[str, Any]] = []


def _after_fork() -> None:
    for engine in list(_engines):
        engine._abandon()


@atexit.register
def _at_exit() -> None:
    """Withdraw what is still registered; bounded, and without starting a thread."""
    deadline = time.monotonic() + EXIT_TIMEOUT
    for engine in list(_engines):
        engine.dispatch.is_exiting = True
        with contextlib.suppress(RegistryError, RuntimeError):
            engine.close(timeout=max(deadline - time.monotonic(), 0.1))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
