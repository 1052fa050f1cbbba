"""A backend that misbehaves on demand, for tests of the engine: over a dict, with switches.

`faulty` is all `async def` and renews, `faulty-def` all `def` and has no optional hook.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from svcreg import Config, Service, Snapshot, hookimpl
from tests.support.small_backends import AsyncBackend, DefBackend, Key, Store, store_of

T = TypeVar("T")
HOOKS = ("register", "deregister", "get", "list", "watch", "renew")
POLL = 0.005  # seconds between two looks of a watch
HANG_LIMIT = 20.0  # seconds after which a hook that hangs gives up, so that no test does


class Call(NamedTuple):
    """One hook that was called."""

    operation: str
    name: str | None
    at: float


class Faults:
    """Switches of one store; any thread.

    Attributes:
        calls: Every call that reached the backend, also those that then failed.
        store: What is registered.
        is_empty: Whether reads answer that there is nothing.
        is_deaf: Whether watches say nothing more after their first snapshot.
        is_lying: Whether renewals are acknowledged without looking.
        extra: Put beside what is registered in every answer: garbage, for instance.
    """

    def __init__(self, store: Store) -> None:
        self.calls: list[Call] = []
        self.store = store
        self.is_empty = self.is_deaf = self.is_lying = False
        self.extra: tuple[Any, ...] = ()
        self.epoch = 0
        self._errors: dict[str, Exception] = {}
        self._delays: dict[str, float] = {}
        self._hanging: dict[str, threading.Event] = {}

    def fail(self, *operations: str, error: Exception | None = None) -> None:
        """Let these operations, or all, raise."""
        for operation in operations or HOOKS:
            self._errors[operation] = error or ConnectionRefusedError("the registry is down")

    def cut(self) -> None:
        """Lose every connection and refuse new ones."""
        self.fail()
        self.epoch += 1

    def delay(self, seconds: float, *operations: str) -> None:
        """Let these operations, or all, take effect so much later."""
        self._delays.update(dict.fromkeys(operations or HOOKS, seconds))

    def hang(self, *operations: str) -> None:
        """Let these operations, or all, neither answer nor fail until `heal`."""
        for operation in operations or HOOKS:
            self._hanging[operation] = threading.Event()

    def heal(self) -> None:
        """End every fault; what hangs goes on."""
        hanging, self._hanging = self._hanging, {}
        self._errors, self._delays = {}, {}
        self.is_empty = self.is_deaf = self.is_lying = False
        self.extra = ()
        for event in hanging.values():
            event.set()

    def forget(self) -> None:
        """Lose what is registered, as a server does that restarts with a clean state."""
        for service in self.store.read(None).values():
            self.store.remove(service)

    def count(self, *operations: str, since: float = 0.0) -> int:
        """Return how often these operations were called."""
        calls = list(self.calls)
        return sum(call.operation in operations and call.at >= since for call in calls)

    def ids(self, name: str | None = None) -> set[str]:
        """Return the ids of the nodes that are registered."""
        return {node_id for _, node_id in self.store.read(name)}

    def read(self, name: str | None) -> dict[Key, Service]:
        return {} if self.is_empty else self.store.read(name)

    def steps(self, operation: str, name: str | None) -> Iterator[float]:
        """Note a call and yield the seconds to wait, again and again, until it may take effect."""
        self.calls.append(Call(operation, name, time.monotonic()))
        if delay := self._delays.get(operation):
            yield delay
        if error := self._errors.get(operation):
            raise error
        if event := self._hanging.get(operation):
            ends = time.monotonic() + HANG_LIMIT
            while not event.is_set() and time.monotonic() < ends:
                yield POLL

    def snapshot(self, records: dict[Key, Service]) -> Snapshot:
        return Snapshot((*records.values(), *self.extra))


_faults: dict[Store, Faults] = {}


def faults_of(config: Config) -> Faults:
    store = store_of(config)
    return _faults.setdefault(store, Faults(store))


class FaultyBackend(AsyncBackend):
    """`AsyncBackend` with switches."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._faults = faults_of(config)

    @hookimpl
    async def svcreg_close(self) -> None:
        self._faults.calls.append(Call("close", None, time.monotonic()))
        await super().svcreg_close()

    async def _obey(self, operation: str, name: str | None = None) -> None:
        for seconds in self._faults.steps(operation, name):
            await asyncio.sleep(seconds)

    async def _sent(self, work: Coroutine[Any, Any, T]) -> T:
        """Await a write that takes effect even when nobody waits for it any more: it was sent."""
        task = asyncio.create_task(work)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    @hookimpl
    async def svcreg_register(self, service: Service, ttl: float) -> None:
        async def write() -> None:
            await self._obey("register", service.name)
            await AsyncBackend.svcreg_register(self, service, ttl)

        await self._sent(write())

    @hookimpl
    async def svcreg_deregister(self, service: Service) -> None:
        async def write() -> None:
            await self._obey("deregister", service.name)
            await AsyncBackend.svcreg_deregister(self, service)

        await self._sent(write())

    @hookimpl
    async def svcreg_renew(self, services: Sequence[Service], ttl: float) -> Sequence[Service]:
        async def write() -> Sequence[Service]:
            await self._obey("renew")
            if self._faults.is_lying:
                return ()
            return await AsyncBackend.svcreg_renew(self, services, ttl)

        return await self._sent(write())

    @hookimpl
    async def svcreg_get(self, name: str) -> Sequence[Service]:
        await self._obey("get", name)
        return self._faults.snapshot(self._faults.read(name)).services

    @hookimpl
    async def svcreg_list(self) -> Sequence[str]:
        await self._obey("list")
        return tuple({name for name, _ in self._faults.read(None)})

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> AsyncIterator[Snapshot]:
        faults, epoch, last = self._faults, self._faults.epoch, None
        await self._obey("watch", name)
        while True:
            if faults.epoch != epoch:
                raise ConnectionResetError("the connection was cut")
            now = faults.read(name)
            if last is None or (now != last and not faults.is_deaf):
                last = now
                yield faults.snapshot(now)
            await asyncio.sleep(POLL)


class FaultyDefBackend(DefBackend):
    """`DefBackend` with switches."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._faults = faults_of(config)

    def _obey(self, operation: str, name: str | None = None) -> None:
        for seconds in self._faults.steps(operation, name):
            time.sleep(seconds)

    @hookimpl
    def svcreg_register(self, service: Service, ttl: float) -> None:
        self._obey("register", service.name)
        super().svcreg_register(service, ttl)

    @hookimpl
    def svcreg_deregister(self, service: Service) -> None:
        self._obey("deregister", service.name)
        super().svcreg_deregister(service)

    @hookimpl
    def svcreg_get(self, name: str) -> Sequence[Service]:
        self._obey("get", name)
        return self._faults.snapshot(self._faults.read(name)).services

    @hookimpl
    def svcreg_list(self) -> Sequence[str]:
        self._obey("list")
        return tuple({name for name, _ in self._faults.read(None)})

    @hookimpl
    def svcreg_watch(self, name: str, stop: threading.Event) -> Iterator[Snapshot]:
        faults, epoch, last = self._faults, self._faults.epoch, None
        self._obey("watch", name)
        while not stop.is_set():
            if faults.epoch != epoch:
                raise ConnectionResetError("the connection was cut")
            now = faults.read(name)
            if last is None or (now != last and not faults.is_deaf):
                last = now
                yield faults.snapshot(now)
            stop.wait(POLL)
