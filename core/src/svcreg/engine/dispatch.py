"""Call one hook of one backend, `def` or `async def`, in bounded time, with one set of errors."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pluggy

from svcreg.config import Config
from svcreg.engine.loop import start_thread
from svcreg.engine.sieve import Sieve
from svcreg.errors import (
    BackendLoadError,
    RegistryError,
    RegistryTimeoutError,
    RegistryUnavailableError,
    SvcregError,
)
from svcreg.hookspecs import Delta, Snapshot
from svcreg.model import Service

BLOCKING_CALLS = 32
"""`def` hooks under way at once in one registry; each occupies a thread."""

POLL_PERIOD = 2.0
"""Seconds between looks at the whole registry where a backend cannot watch every service."""

_log = logging.getLogger("svcreg.dispatch")


class Dispatcher:
    """The engine's only way to its backend. To be used on the engine's loop alone.

    Every call lasts at most the configured timeout and raises nothing but `SvcregError`.

    Attributes:
        is_connected: Whether the last call that needed the registry was answered.
        is_exiting: Set while the interpreter exits, when no thread can be started any more: a
            `def` hook then runs on the loop's own thread, which has nothing else left to do.
    """

    def __init__(
        self,
        backend: pluggy.PluginManager,
        config: Config,
        observers: pluggy.PluginManager | None = None,
    ) -> None:
        self._config = config
        self._observers = observers
        self._hooks = {
            name.removeprefix("svcreg_"): _Hook(name, caller, config.backend)
            for name, caller in vars(backend.hook).items()
            if name.startswith("svcreg_") and caller.get_hookimpls()
        }
        (instance,) = backend.get_plugins()
        self.capabilities: frozenset[str] = frozenset(getattr(instance, "capabilities", ()))
        self.default_address: str = getattr(instance, "default_address", None) or ""
        self.is_connected = False
        self.is_exiting = False
        self._is_used = False
        self._opening: asyncio.Task[None] | None = None
        self._sieve = Sieve(config.backend)
        self._slots = asyncio.Semaphore(BLOCKING_CALLS)
        self._stragglers: set[asyncio.Future[Any]] = set()

    @property
    def can_renew(self) -> bool:
        """Whether the backend renews many registrations in one call."""
        return "renew" in self._hooks

    @property
    def can_drain(self) -> bool:
        """Whether the backend hides nodes before it withdraws them."""
        return "drain" in self._hooks

    async def register(self, service: Service, ttl: float, timeout: float | None = None) -> None:
        """Create or replace the nodes of `service`."""
        await self._call("register", service.name, timeout, service=service, ttl=ttl)

    async def deregister(self, service: Service) -> None:
        """Withdraw the nodes of `service`."""
        await self._call("deregister", service.name, service=service)

    async def drain(self, service: Service) -> None:
        """Hide the nodes of `service` from readers."""
        await self._call("drain", service.name, service=service)

    async def renew(
        self, services: Sequence[Service], ttl: float, timeout: float | None = None
    ) -> Sequence[Service]:
        """Extend the TTL of registrations; return those that the registry no longer knows."""
        lost = await self._call("renew", None, timeout, services=services, ttl=ttl)
        return tuple(lost or ())

    async def get(self, name: str) -> Sequence[Service]:
        """Read every node of one service."""
        return self._sieve.services(await self._call("get", name, name=name) or (), name)

    async def list(self) -> tuple[str, ...]:
        """Read the names of all services, sorted."""
        return self._sieve.names(await self._call("list", None) or ())

    async def watch(self, name: str | None) -> AsyncGenerator[Snapshot | Delta, None]:
        """Yield what changes until the connection is lost, which raises.

        A backend that cannot watch every service is polled instead.
        """
        await self._open()
        hook = self._hooks["watch"]
        if name is None and "watch-all" not in self.capabilities:
            items: AsyncIterator[Snapshot | Delta] = self._poll()
        elif hook.is_async:
            items = hook.caller(name=name, stop=threading.Event())
        else:
            items = self._watch_in_thread(hook, name)
        started = time.monotonic()
        error: BaseException | None = None
        try:
            with self._translated("watch", name):
                async for item in items:
                    self.is_connected = True
                    yield self._sieve.item(item, name)
        except Exception as caught:
            error = caught
            raise
        finally:
            self._observe("watch", name, time.monotonic() - started, error)
            if isinstance(items, AsyncGenerator):
                await items.aclose()

    async def close(self) -> None:
        """Let the backend release what it holds; never raises."""
        if self._is_used and "close" in self._hooks:
            try:
                await self._call("close", None)
            except SvcregError as error:
                _log.warning("closing %s failed: %s", self._config.backend, error)

    async def settled(self, timeout: float) -> None:
        """Wait until no abandoned `def` hook is still at work, at most `timeout` seconds."""
        if self._stragglers:
            await asyncio.wait(self._stragglers, timeout=timeout)

    def observe_state(self, name: str, state: str, seconds: float, error: Exception | None) -> None:
        """Tell the observers that a registration has changed its state."""
        self._observe(f"state:{state}", name, seconds, error)

    async def _open(self) -> None:
        """Open the backend once; a failure is for this call, and the next one tries again."""
        self._is_used = True
        if "open" not in self._hooks:
            return
        task = self._opening
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = asyncio.create_task(self._invoke("open", None, None, {"config": self._config}))
            self._opening = task
        if not task.done():
            await asyncio.wait({task})
        task.result()

    async def _call(
        self, operation: str, about: str | None, timeout: float | None = None, **arguments: Any
    ) -> Any:
        if operation != "close":
            await self._open()
        return await self._invoke(operation, about, timeout, arguments)

    async def _invoke(
        self,
        operation: str,
        service: str | None,
        timeout: float | None,
        arguments: dict[str, Any],
    ) -> Any:
        hook = self._hooks[operation]
        limit = self._config.timeout if timeout is None else min(timeout, self._config.timeout)
        started = time.monotonic()
        error: BaseException | None = None
        try:
            with self._translated(operation, service, limit):
                async with asyncio.timeout(limit):
                    if hook.is_async:
                        result = await hook.caller(**arguments)
                    elif self.is_exiting:
                        result = hook.caller(**arguments)
                    else:
                        async with self._slots:
                            result = await self._in_thread(hook.caller, arguments)
            self.is_connected = True
            return result
        except Exception as caught:
            error = caught
            raise
        finally:
            self._observe(operation, service, time.monotonic() - started, error)

    async def _in_thread(self, function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        done = start_thread(function, **arguments)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            if not done.done():
                self._stragglers.add(done)
                done.add_done_callback(self._forget_straggler)
            raise

    def _forget_straggler(self, done: asyncio.Future[Any]) -> None:
        self._stragglers.discard(done)
        if not done.cancelled():
            done.exception()  # its outcome interests nobody any more

    async def _watch_in_thread(
        self, hook: _Hook, name: str | None
    ) -> AsyncGenerator[Snapshot | Delta, None]:
        """Drive a `def` generator on a daemon thread of its own."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Snapshot | Delta | BaseException | None] = asyncio.Queue()
        stop = threading.Event()

        def post(item: Snapshot | Delta | BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody listens
                loop.call_soon_threadsafe(queue.put_nowait, item)

        def pump() -> None:
            try:
                items = hook.caller(name=name, stop=stop)
                with (
                    contextlib.closing(items)
                    if hasattr(items, "close")
                    else contextlib.nullcontext()
                ):
                    for item in items:
                        if stop.is_set():
                            return
                        post(item)
                post(None)
            except BaseException as error:
                post(error)

        threading.Thread(target=pump, name=f"svcreg-watch-{name}", daemon=True).start()
        try:
            while (item := await queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()

    async def _poll(self) -> AsyncGenerator[Snapshot, None]:
        """Stand in for a watch of every service, with the hooks that every backend has."""
        while True:
            names = await self.list()
            found = [service for name in names for service in await self.get(name)]
            yield Snapshot(found)
            await asyncio.sleep(POLL_PERIOD)

    @contextlib.contextmanager
    def _translated(
        self, operation: str, service: str | None, limit: float | None = None
    ) -> Iterator[None]:
        """Turn whatever a hook raises into an error that says what failed, and where."""
        backend = self._config.backend
        what = f"{backend}: {operation}" + (f" of {service!r}" if service else "")
        try:
            yield
        except SvcregError as error:
            if isinstance(error, RegistryError):
                error.backend = error.backend or backend
                error.operation = error.operation or operation
                error.service = error.service or service
                if error.retryable:
                    self.is_connected = False
            raise
        except Exception as error:
            where: dict[str, Any] = {"backend": backend, "operation": operation, "service": service}
            if isinstance(error, TimeoutError):
                self.is_connected = False
                said = str(error) or (f"no answer within {limit:g} s" if limit else "timed out")
                raise RegistryTimeoutError(f"{what} failed: {said}", **where) from error
            if isinstance(error, OSError):
                self.is_connected = False
                raise RegistryUnavailableError(f"{what} failed: {error}", **where) from error
            raise RegistryError(
                f"{what} failed: {type(error).__name__}: {error}", **where
            ) from error

    def _observe(
        self, operation: str, service: str | None, seconds: float, error: BaseException | None
    ) -> None:
        if self._observers is None:
            return
        told = {
            "operation": operation,
            "backend": self._config.backend,
            "service": service,
            "seconds": seconds,
            "error": error,
        }
        # One by one: an observer watches, and must stop neither the work nor its neighbours.
        for observer in self._observers.hook.svcreg_observe.get_hookimpls():
            try:
                observer.function(*(told[name] for name in observer.argnames))
            except Exception:
                name = observer.plugin_name
                _log.exception("observer %s failed and is not called any more", name)
                self._observers.unregister(observer.plugin)


class _Hook:
    """One implemented hook, and whether it is to be awaited."""

    def __init__(self, name: str, caller: pluggy.HookCaller, backend: str) -> None:
        function = caller.get_hookimpls()[0].function
        self.caller = caller
        if name == "svcreg_watch":
            self.is_async = inspect.isasyncgenfunction(function)
            is_wrong = inspect.iscoroutinefunction(function)
        else:
            self.is_async = inspect.iscoroutinefunction(function)
            is_wrong = inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
        if is_wrong:
            kind = "yield snapshots" if name == "svcreg_watch" else "return its result, not yield"
            raise BackendLoadError(f"backend {backend!r} breaks the contract: {name} must {kind}")
