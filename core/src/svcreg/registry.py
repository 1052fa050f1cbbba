"""The blocking face."""

from __future__ import annotations

import signal
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FrameType
from typing import Any, Self, TypeVar

from msgspec.structs import replace

from svcreg import health
from svcreg.config import load_config, parse_seconds, register_times
from svcreg.engine.directory import Subscription
from svcreg.engine.engine import Engine, Status
from svcreg.engine.writer import Entry, State
from svcreg.errors import RegistryClosedError
from svcreg.model import Endpoint, Event, Node, Service
from svcreg.selection import Attempts, Filter, Selector, Selectors, Strategy

T = TypeVar("T")


def open(
    backend: str | None = None,
    *,
    address: str | Iterable[str] | None = None,
    timeout: float | None = None,
    **options: Any,
) -> Registry:
    """Return the registry that the arguments, or else the environment, name.

    Nothing is connected and no thread is started before the first call that needs it.

    Args:
        backend: A name such as `consul`, or a URL such as `etcd://10.0.0.1:2379?ca=ca.pem`.
            Default: `MICRO_REGISTRY`, then `mdns`.
        address: `host:port`, several with commas or in a list. Default: the URL's, then
            `MICRO_REGISTRY_ADDRESS`, then the backend's own.
        timeout: Seconds that one attempt at one registry call may take. Default: the URL's, then 5.
        **options: `tls`, `ca`, `cert`, `key`, `verify`, `username`, `password`, `token`,
            `advertise`, `empty_grace`, `feed_idle` (seconds), and the backend's own options.

    Raises:
        BackendNotFoundError: No such backend is installed; says what is, and what to install.
        BackendLoadError: The backend's plugin is broken; says how.
        ConfigError: A setting is wrong; says which.
    """
    return Registry(Engine(load_config(backend, address=address, timeout=timeout, options=options)))


class Closing(ABC):
    """Closes at the end of a `with` block."""

    @abstractmethod
    def close(self) -> None:
        """Let go. Safe to repeat."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Registry(Closing):
    """Registration and discovery for blocking code. Any thread may use it; see `open`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._selectors = Selectors(lambda name: engine.directory.services(name), engine.warm)

    def register(
        self,
        service: Service,
        *,
        ttl: float | None = None,
        interval: float | None = None,
        check: health.Check | None = None,
        required: bool = True,
    ) -> Registration:
        """Register a service's nodes and keep them registered until the result is closed.

        Returns once the registry has acknowledged every node. The nodes stay listed whatever
        happens to the registry meanwhile: what it forgets is registered anew.

        Args:
            service: With at least one node. A node whose host is empty, `0.0.0.0` or `::` is
                given the address of the route to the registry.
            ttl: Seconds that the nodes stay listed after the last renewal, should this process
                die. At least 1. Default: `MICRO_REGISTER_TTL`, then 90.
            interval: Seconds between renewals, at most half the TTL. Default: a third of it.
            check: The nodes are listed while it passes; see `svcreg.health`. If it does not pass at
                once, this returns with the state `pending`.
            required: With False, return at once and keep trying.

        Raises:
            InvalidServiceError: The service breaks a rule; says which field and why.
            ConfigError: `ttl` or `interval` is wrong.
            RegistryError: `required`, and the registry did not acknowledge. Nothing is left behind.
        """
        seconds, period = register_times(ttl, interval)
        gate = None if check is None else health.as_check(check, self._engine.config.timeout)
        work = self._engine.register(service, seconds, period, gate, required=required)
        return Registration(self._engine, self._engine.call(work))

    def deregister(self, service: Service) -> None:
        """Withdraw a service's nodes, whoever registered them; an unknown node is success.

        Only the name and the ids of the nodes matter. A registration of ours that holds one of them
        lets go of it first.

        Raises:
            InvalidServiceError: The service names no node.
            RegistryError: The registry did not acknowledge.
        """
        self._engine.call(self._engine.deregister(service))

    def get(self, name: str, *, timeout: float | None = None) -> tuple[Service, ...]:
        """Return a service by version, from memory once it is known; `()` if there is none.

        The first call begins to watch the service and waits for its first snapshot. While the
        registry is down, what was known last is returned.

        Args:
            name: Service name as registered; case-sensitive.
            timeout: Seconds to wait for the first snapshot. Default: that of the registry.

        Raises:
            InvalidServiceError: `name` cannot be a service name.
            RegistryUnavailableError: Nothing was ever known and the registry cannot be reached.
            RegistryTimeoutError: Nothing was ever known and it did not answer in time.
        """
        known = self._engine.directory.services(name)
        return self._engine.call(self._engine.get(name, timeout)) if known is None else known

    def list(self) -> tuple[str, ...]:
        """Return the sorted names of all services, at most one second old while the registry is up.

        Raises:
            RegistryUnavailableError: Nothing was ever known and the registry cannot be reached.
        """
        fresh = self._engine.names.fresh()
        return self._engine.call(self._engine.list()) if fresh is None else fresh

    def watch(self, name: str | None = None) -> Watch:
        """Return the changes of one service, or of all, as an iterator to be closed.

        First comes a `create` for every node already there, then one event per change: none lost,
        none doubled, across reconnections. An unreachable registry is waited for.

        Raises:
            InvalidServiceError: `name` cannot be a service name.
        """
        return Watch(self._engine, self._engine.call(self._engine.subscribe(name)))

    def select(
        self,
        name: str,
        *,
        strategy: str | Strategy | None = None,
        filters: Sequence[Filter] = (),
        key: str | None = None,
    ) -> Node:
        """Return one node of `name`, from memory once the service is known.

        Args:
            name: Service name as registered; case-sensitive.
            strategy: `random`, `round_robin`, or an object. Default: `MICRO_SELECTOR`, `random`.
            filters: Applied in order; see `svcreg.selection`.
            key: For strategies that stick to one node per key; others ignore it.

        Raises:
            NoNodeError: Nothing is registered, or everything was filtered out.
            RegistryUnavailableError: Nothing was ever known and the registry cannot be reached.
        """
        self.get(name)
        return self._selectors.shared(name, strategy, filters).pick(key)

    def selector(
        self,
        name: str,
        *,
        strategy: str | Strategy | None = None,
        filters: Sequence[Filter] = (),
    ) -> Selector:
        """Return a reusable selector for hot paths; arguments and errors as `select`."""
        self.get(name)
        return self._selectors.make(name, strategy, filters)

    def call(
        self,
        name: str,
        fn: Callable[[Node], T],
        *,
        attempts: int = 3,
        timeout: float | None = None,
        strategy: str | Strategy | None = None,
        filters: Sequence[Filter] = (),
        key: str | None = None,
        retry_on: tuple[type[Exception], ...] = (Exception,),
    ) -> T:
        """Return `fn(node)`, trying other nodes when it raises.

        Args:
            name: Service name as registered.
            fn: Called with the chosen node; it may be called more than once, so it must be
                safe to repeat, or `retry_on` must leave out what may have happened.
            attempts: Calls of `fn` at most; retries also end when they exceed a fifth of all calls.
            timeout: Seconds after which no further attempt is made.
            strategy: As for `select`.
            filters: As for `select`.
            key: As for `select`.
            retry_on: Errors after which another node is tried; any other is raised at once.

        Raises:
            NoNodeError: There is no node to call.
            Exception: What `fn` raised last.
        """
        self.get(name)
        plan = Attempts(
            self._selectors.shared(name, strategy, filters),
            self._selectors.budget,
            attempts=attempts,
            timeout=timeout,
            retry_on=retry_on,
            key=key,
        )
        while True:
            node = plan.next_node()
            try:
                return fn(node)
            except plan.retry_on:
                delay = plan.delay()
                if delay is None:
                    raise
            time.sleep(delay)

    def status(self) -> Status:
        """Return the state of connection, feeds and registrations, from memory."""
        return self._engine.status()

    def close(self) -> None:
        """Withdraw our registrations, end watches and let go of the registry. Safe to repeat.

        Takes at most the timeout and three seconds, and does not raise because a registry is down.
        """
        self._engine.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._engine.config.backend}>"


class RegistrationView:
    """What there is to see of a registration, in either face; from memory, in any thread."""

    def __init__(self, engine: Engine, entry: Entry) -> None:
        self._engine = engine
        self._entry = entry

    @property
    def service(self) -> Service:
        """The record as it is registered, with advertised addresses filled in."""
        return self._entry.service

    @property
    def state(self) -> State:
        """`pending`, `active`, `lost` (being registered anew) or `closed`."""
        return self._entry.state

    @property
    def last_renewal(self) -> float | None:
        """When the registry last acknowledged it, in Unix seconds."""
        return self._entry.last_renewal

    @property
    def error(self) -> Exception | None:
        """Why it is not active, or why the last attempt failed; None when all is well."""
        return self._entry.error

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.service.name!r} {self.state}>"

    def _changed(
        self,
        metadata: Mapping[str, str] | None,
        version: str | None,
        endpoints: Sequence[Endpoint] | None,
        nodes: Sequence[Node] | None,
        service_metadata: Mapping[str, str] | None,
    ) -> Service:
        service = self._entry.service
        nodes = service.nodes if nodes is None else nodes
        if metadata is not None:
            nodes = [replace(node, metadata=metadata) for node in nodes]
        return Service(
            service.name,
            service.version if version is None else version,
            service.metadata if service_metadata is None else service_metadata,
            service.endpoints if endpoints is None else endpoints,
            nodes,
        )


class Registration(RegistrationView, Closing):
    """Our promise to keep nodes listed, until it is closed. A context manager."""

    def update(
        self,
        *,
        metadata: Mapping[str, str] | None = None,
        version: str | None = None,
        endpoints: Sequence[Endpoint] | None = None,
        nodes: Sequence[Node] | None = None,
        service_metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Change the record in place; what is left out stays. The node is never unlisted meanwhile.

        Unless the registration is active, the new record is only kept, and listed with it.

        Args:
            metadata: Replaces the metadata of every node.
            version: The service's version.
            endpoints: The service's endpoints.
            nodes: The nodes; one that is not among them any more is withdrawn.
            service_metadata: Replaces the metadata of the service itself.

        Raises:
            InvalidServiceError: The new record breaks a rule; nothing was changed.
            RegistryClosedError: The registration is closed.
            RegistryError: Not acknowledged yet; it is written as soon as the registry takes it.
        """
        service = self._changed(metadata, version, endpoints, nodes, service_metadata)
        self._engine.call(self._engine.update(self._entry, service))

    def drain(self, grace: float) -> None:
        """Leave service, then wait `grace` seconds for clients to notice, so that none is cut off.

        Readers do not get the nodes any more from the beginning. Where the registry has a way to
        say that a node leaves on purpose (Consul's maintenance) that is shown until the end.
        """
        grace = parse_seconds("grace", grace)
        if self._entry.state != "closed":
            try:
                self._engine.call(self._engine.drain(self._entry))
            except RegistryClosedError:
                pass  # closing the registry has withdrawn it
        time.sleep(grace)
        self.close()

    def close(self) -> None:
        """Withdraw. Bounded in time; does not raise because a registry is down. Safe to repeat."""
        if self._entry.state != "closed":
            try:
                self._engine.call(self._engine.withdraw(self._entry))
            except RegistryClosedError:
                pass  # closing the registry has withdrawn it


class Watch(Closing):
    """An iterator over events, to be closed; ends when its registry is closed. For one thread."""

    def __init__(self, engine: Engine, subscription: Subscription) -> None:
        self._engine = engine
        self._subscription = subscription
        self._received = 0
        self._events: deque[Event] = deque()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        if not self._events:
            try:
                batch = self._engine.call(self._subscription.next_batch(self._received))
            except RegistryClosedError:
                raise StopIteration from None
            if not batch:
                raise StopIteration
            self._received += 1
            self._events.extend(batch)
        return self._events.popleft()

    def close(self) -> None:
        """End the watch. Safe to repeat."""
        try:
            self._engine.call(_close(self._subscription))
        except RegistryClosedError:
            pass  # closing the registry has ended it


async def _close(subscription: Subscription) -> None:
    subscription.close()


def handle_signals(*signals: signal.Signals) -> None:
    """Make SIGTERM (and SIGHUP, or the signals given) end the program so that it deregisters.

    Python's default ends a process without running anything. After this call such a signal
    raises `SystemExit(128 + number)` in the main thread: `with` blocks close what they hold, and
    what is still registered when the interpreter exits is withdrawn. A handler that the program
    has installed itself is left alone. Call it from the main thread.
    """
    wanted = signals or tuple(
        getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
    )
    for number in wanted:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
