"""Both faces behind one blocking interface, so that each test is written once.

A thin adapter: every call goes straight to the face. The asyncio face is driven on an event loop of
its own, as an application's would be.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import svcreg
from svcreg import Event, Service
from svcreg.engine.loop import LoopThread

CALL_TIMEOUT = 30.0
"""Seconds after which a call of the asyncio face counts as hanging."""

T = TypeVar("T")


class Client(Protocol):
    """One registry, opened through one face. Every call blocks."""

    def register(self, service: Service, **options: Any) -> Held: ...
    def deregister(self, service: Service) -> None: ...
    def get(self, name: str) -> tuple[Service, ...]: ...
    def list(self) -> tuple[str, ...]: ...
    def select(self, name: str) -> svcreg.Node: ...
    def watch(self, name: str | None = None, *, pause_after: int | None = None) -> Watching:
        """Collect events in the background; after `pause_after` of them wait for `resume`."""
        ...

    @property
    def loop(self) -> LoopThread:
        """The private event loop of the registry."""
        ...

    def status(self) -> Any: ...
    def describe(self) -> str:
        """Return the registry's `repr`."""
        ...

    def block(self, seconds: float) -> None:
        """Keep the application's thread or loop from doing anything at all."""
        ...

    def close(self) -> None:
        """Close the registry; may be repeated."""
        ...

    def end(self) -> None:
        """Close the registry and end the application around it."""
        ...


class Held(Protocol):
    """One registration."""

    @property
    def raw(self) -> Any:
        """The face's own registration object."""
        ...

    def update(self, **changes: Any) -> None: ...
    def drain(self, grace: float) -> None: ...
    def close(self) -> None: ...


class Watching:
    """The events of one watch as they come; safe to read while they do."""

    def __init__(self, pause_after: int | None) -> None:
        self.events: list[Event] = []
        self.error: BaseException | None = None
        self.has_ended = threading.Event()
        self.pause_after = pause_after
        self.close: Callable[[], None] = lambda: None
        self.resume: Callable[[], None] = lambda: None

    def seen(self, node_id: str) -> list[str]:
        """Return the actions that concerned one node, in order."""
        return [event.action for event in list(self.events) if _id(event) == node_id]

    def state(self) -> dict[str, Service]:
        """Return what the events add up to, by node id; asserts that they make sense.

        Raises:
            AssertionError: A node was created twice, or changed or deleted without being there, or
                an event held several nodes.
        """
        state: dict[str, Service] = {}
        for event in list(self.events):
            assert len(event.service.nodes) == 1, f"an event of several nodes: {event}"
            node_id = _id(event)
            if event.action == "create":
                assert node_id not in state, f"created twice: {event}"
            else:
                assert node_id in state, f"{event.action} without create: {event}"
                assert event.service != state[node_id] or event.action == "delete", (
                    f"update without a change: {event}"
                )
            if event.action == "delete":
                del state[node_id]
            else:
                state[node_id] = event.service
        return state


class BlockingClient:
    """The blocking face."""

    def __init__(self, url: str, **options: Any) -> None:
        self._registry = svcreg.open(url, **options)

    def register(self, service: Service, **options: Any) -> Held:
        return _BlockingHeld(self._registry.register(service, **options))

    def deregister(self, service: Service) -> None:
        self._registry.deregister(service)

    def get(self, name: str) -> tuple[Service, ...]:
        return self._registry.get(name)

    def list(self) -> tuple[str, ...]:
        return self._registry.list()

    def select(self, name: str) -> svcreg.Node:
        return self._registry.select(name)

    def watch(self, name: str | None = None, *, pause_after: int | None = None) -> Watching:
        watching = Watching(pause_after)
        may_go_on = threading.Event()
        watch = self._registry.watch(name).__enter__()

        def consume() -> None:
            try:
                for event in watch:
                    watching.events.append(event)
                    if len(watching.events) == watching.pause_after:
                        may_go_on.wait(CALL_TIMEOUT)
            except BaseException as error:
                watching.error = error
            finally:
                watching.has_ended.set()

        thread = threading.Thread(target=consume, name="conformance-watch", daemon=True)

        def close() -> None:
            may_go_on.set()
            watch.close()
            thread.join(CALL_TIMEOUT)

        watching.close, watching.resume = close, may_go_on.set
        thread.start()
        return watching

    @property
    def loop(self) -> LoopThread:
        return self._registry._engine.loop

    def status(self) -> Any:
        return self._registry.status()

    def describe(self) -> str:
        return repr(self._registry)

    def block(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        self._registry.close()

    def end(self) -> None:
        self.close()


class _BlockingHeld:
    def __init__(self, raw: svcreg.Registration) -> None:
        self.raw = raw

    def update(self, **changes: Any) -> None:
        self.raw.update(**changes)

    def drain(self, grace: float) -> None:
        self.raw.drain(grace)

    def close(self) -> None:
        self.raw.close()


class AsyncioClient:
    """The asyncio face, on an application's event loop in a thread of its own."""

    def __init__(self, url: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="conformance-application", daemon=True
        )
        self._thread.start()
        try:
            self._registry = self._run(self._open(url, options))
        except BaseException:
            self._stop()
            raise

    def register(self, service: Service, **options: Any) -> Held:
        return _AsyncioHeld(self._run(self._registry.register(service, **options)), self._run)

    def deregister(self, service: Service) -> None:
        self._run(self._registry.deregister(service))

    def get(self, name: str) -> tuple[Service, ...]:
        return self._run(self._registry.get(name))

    def list(self) -> tuple[str, ...]:
        return self._run(self._registry.list())

    def select(self, name: str) -> svcreg.Node:
        return self._run(self._registry.select(name))

    def watch(self, name: str | None = None, *, pause_after: int | None = None) -> Watching:
        watching = Watching(pause_after)
        may_go_on = asyncio.Event()
        watch = self._run(self._watch(name))

        async def consume() -> None:
            try:
                async for event in watch:
                    watching.events.append(event)
                    if len(watching.events) == watching.pause_after:
                        await asyncio.wait_for(may_go_on.wait(), CALL_TIMEOUT)
            except BaseException as error:
                watching.error = error
            finally:
                watching.has_ended.set()

        future = asyncio.run_coroutine_threadsafe(consume(), self._loop)

        def close() -> None:
            if self._loop.is_running():
                may_go_on.set()
                self._run(watch.aclose())
                future.result(CALL_TIMEOUT)

        watching.close = close
        watching.resume = lambda: _discard(self._loop.call_soon_threadsafe(may_go_on.set))
        return watching

    @property
    def loop(self) -> LoopThread:
        return self._registry._engine.loop

    def status(self) -> Any:
        return self._registry.status()

    def describe(self) -> str:
        return repr(self._registry)

    def block(self, seconds: float) -> None:
        async def block() -> None:
            time.sleep(seconds)  # noqa: ASYNC251 - what the test is about

        self._run(block())

    def close(self) -> None:
        self._run(self._registry.aclose())

    def end(self) -> None:
        if self._thread.is_alive():
            self.close()
            self._stop()

    def _stop(self) -> None:
        asyncio.run_coroutine_threadsafe(_cancel_tasks(), self._loop).result(CALL_TIMEOUT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT)
        self._loop.close()

    async def _open(self, url: str, options: dict[str, Any]) -> svcreg.AsyncRegistry:
        return svcreg.aio.open(url, **options)

    async def _watch(self, name: str | None) -> Any:
        return await self._registry.watch(name).__aenter__()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the application's loop has ended
            work.close()
            raise
        return future.result(CALL_TIMEOUT)


class _AsyncioHeld:
    def __init__(self, raw: Any, run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self.raw = raw
        self._run = run

    def update(self, **changes: Any) -> None:
        self._run(self.raw.update(**changes))

    def drain(self, grace: float) -> None:
        self._run(self.raw.drain(grace))

    def close(self) -> None:
        self._run(self.raw.aclose())


async def _cancel_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _discard(result: object) -> None:
    return None


def _id(event: Event) -> str:
    return event.service.nodes[0].id
