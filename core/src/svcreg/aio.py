"""The asyncio face: the same calls as `svcreg.registry`, awaited where they wait."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar

from svcreg import health
from svcreg.config import load_config, parse_seconds, register_times
from svcreg.engine.directory import Subscription
from svcreg.engine.engine import Engine, Status
from svcreg.errors import RegistryClosedError
from svcreg.model import Endpoint, Event, Node, Service
from svcreg.registry import RegistrationView
from svcreg.selection import Attempts, Filter, Selector, Selectors, Strategy

T = TypeVar("T")


def open(
    backend: str | None = None,
    *,
    address: str | Iterable[str] | None = None,
    timeout: float | None = None,
    **options: Any,
) -> AsyncRegistry:
    """Return the registry that the arguments, or else the environment, name; see `svcreg.open`."""
    return AsyncRegistry(
        Engine(load_config(backend, address=address, timeout=timeout, options=options))
    )


class AsyncClosing(ABC):
    """Closes at the end of an `async with` block."""

    @abstractmethod
    async def aclose(self) -> None:
        """Let go. Safe to repeat."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()


class AsyncRegistry(AsyncClosing):
    """Registration and discovery for asyncio code; to be used from any number of event loops.

    All I/O runs on a private loop in a thread of its own, so a busy application loop delays
    no renewal. What is answered from memory never leaves the caller's loop.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._selectors = Selectors(lambda name: engine.directory.services(name), engine.warm)

    async def register(
        self,
        service: Service,
        *,
        ttl: float | None = None,
        interval: float | None = None,
        check: health.Check | None = None,
        required: bool = True,
    ) -> AsyncRegistration:
        """Register a service's nodes and keep them registered; see `Registry.register`.

        To be used as `async with await registry.register(...)`, or closed with `aclose`.
        """
        seconds, period = register_times(ttl, interval)
        gate = None if check is None else health.as_check(check, self._engine.config.timeout)
        work = self._engine.register(service, seconds, period, gate, required=required)
        return AsyncRegistration(self._engine, await self._engine.acall(work))

    async def deregister(self, service: Service) -> None:
        """Withdraw a service's nodes, whoever registered them; see `Registry.deregister`."""
        await self._engine.acall(self._engine.deregister(service))

    async def get(self, name: str, *, timeout: float | None = None) -> tuple[Service, ...]:
        """Return a service by version, from memory once it is known; see `Registry.get`."""
        known = self._engine.directory.services(name)
        if known is None:
            return await self._engine.acall(self._engine.get(name, timeout))
        return known

    async def list(self) -> tuple[str, ...]:
        """Return the sorted names of all services; see `Registry.list`."""
        fresh = self._engine.names.fresh()
        return await self._engine.acall(self._engine.list()) if fresh is None else fresh

    def watch(self, name: str | None = None) -> AsyncWatch:
        """Return the changes of one service, or of all; see `Registry.watch`.

        The watch begins with `async with`, or with the first event that is awaited.
        """
        return AsyncWatch(self._engine, name)

    async def select(
        self,
        name: str,
        *,
        strategy: str | Strategy | None = None,
        filters: Sequence[Filter] = (),
        key: str | None = None,
    ) -> Node:
        """Return one node of `name`, from memory once it is known; see `Registry.select`."""
        await self.get(name)
        return self._selectors.shared(name, strategy, filters).pick(key)

    async def selector(
        self,
        name: str,
        *,
        strategy: str | Strategy | None = None,
        filters: Sequence[Filter] = (),
    ) -> Selector:
        """Return a reusable selector, whose `pick` does not wait; see `Registry.selector`."""
        await self.get(name)
        return self._selectors.make(name, strategy, filters)

    async def call(
        self,
        name: str,
        fn: Callable[[Node], Awaitable[T]],
        *,
        attempts: int = 3,
        timeout: float | None = None,
        strategy: str | Strategy | None = None,
        filters: Sequence[Filter] = (),
        key: str | None = None,
        retry_on: tuple[type[Exception], ...] = (Exception,),
    ) -> T:
        """Return `await fn(node)`, trying other nodes when it raises; see `Registry.call`.

        Here `timeout` also ends an attempt under way, with `TimeoutError`.
        """
        await self.get(name)
        plan = Attempts(
            self._selectors.shared(name, strategy, filters),
            self._selectors.budget,
            attempts=attempts,
            timeout=timeout,
            retry_on=retry_on,
            key=key,
        )
        async with asyncio.timeout(timeout):
            while True:
                node = plan.next_node()
                try:
                    return await fn(node)
                except plan.retry_on:
                    delay = plan.delay()
                    if delay is None:
                        raise
                await asyncio.sleep(delay)

    def status(self) -> Status:
        """Return the state of connection, feeds and registrations, from memory."""
        return self._engine.status()

    async def aclose(self) -> None:
        """Withdraw our registrations, end watches, let go of the registry; see `Registry.close`."""
        await self._engine.aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._engine.config.backend}>"


class AsyncRegistration(RegistrationView, AsyncClosing):
    """Our promise to keep nodes listed, until it is closed. An asynchronous context manager."""

    async def update(
        self,
        *,
        metadata: Mapping[str, str] | None = None,
        version: str | None = None,
        endpoints: Sequence[Endpoint] | None = None,
        nodes: Sequence[Node] | None = None,
        service_metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Change the record in place; see `Registration.update`."""
        service = self._changed(metadata, version, endpoints, nodes, service_metadata)
        await self._engine.acall(self._engine.update(self._entry, service))

    async def drain(self, grace: float) -> None:
        """Leave service, then wait `grace` seconds for clients to notice; see `Registration`."""
        grace = parse_seconds("grace", grace)
        if self._entry.state != "closed":
            try:
                await self._engine.acall(self._engine.drain(self._entry))
            except RegistryClosedError:
                pass  # closing the registry has withdrawn it
        await asyncio.sleep(grace)
        await self.aclose()

    async def aclose(self) -> None:
        """Withdraw; see `Registration.close`."""
        if self._entry.state != "closed":
            try:
                await self._engine.acall(self._engine.withdraw(self._entry))
            except RegistryClosedError:
                pass  # closing the registry has withdrawn it


class AsyncWatch(AsyncClosing):
    """An asynchronous iterator over events, to be closed; for one task.

    Cancelling a wait for an event loses none.
    """

    def __init__(self, engine: Engine, name: str | None) -> None:
        self._engine = engine
        self._name = name
        self._subscription: Subscription | None = None
        self._received = 0
        self._events: deque[Event] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if not self._events:
            subscription = await self._subscribed()
            try:
                batch = await self._engine.acall(subscription.next_batch(self._received))
            except RegistryClosedError:
                raise StopAsyncIteration from None
            if not batch:
                raise StopAsyncIteration
            self._received += 1
            self._events.extend(batch)
        return self._events.popleft()

    async def aclose(self) -> None:
        """End the watch. Safe to repeat."""
        if self._subscription is not None:
            try:
                await self._engine.acall(_close(self._subscription))
            except RegistryClosedError:
                pass  # closing the registry has ended it

    async def _subscribed(self) -> Subscription:
        if self._subscription is None:
            self._subscription = await self._engine.acall(self._engine.subscribe(self._name))
        return self._subscription

    async def __aenter__(self) -> Self:
        await self._subscribed()
        return self


async def _close(subscription: Subscription) -> None:
    subscription.close()
