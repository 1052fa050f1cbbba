"""Hooks are called in bounded time, whichever kind they are, and fail in one set of errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pluggy
import pytest

from svcreg.engine import dispatch as module
from svcreg.engine.dispatch import Dispatcher
from svcreg.errors import (
    BackendLoadError,
    PermissionDeniedError,
    ProtocolError,
    RegistryError,
    RegistryTimeoutError,
    RegistryUnavailableError,
)
from svcreg.hookspecs import PROJECT, Delta, ObserverSpec, Snapshot, hookimpl
from svcreg.model import Service
from tests.support.engine import NAME, asynchronous, dispatcher, ids, service, until


class Acme:
    """Answers what a test puts into `does`, by operation: a value, an error, or a callable."""

    def __init__(self, **does: Any) -> None:
        self.does = does
        self.calls: list[tuple[Any, ...]] = []
        self.threads: set[str] = set()

    def answer(self, operation: str, *arguments: Any) -> Any:
        self.calls.append((operation, *arguments))
        self.threads.add(threading.current_thread().name)
        does = self.does.get(operation)
        if isinstance(does, BaseException):
            raise does
        return does() if callable(does) else does

    def count(self, operation: str) -> int:
        return sum(call[0] == operation for call in list(self.calls))


class DefAcme(Acme):
    @hookimpl
    def svcreg_open(self, config: object) -> None:
        self.answer("open")

    @hookimpl
    def svcreg_close(self) -> None:
        self.answer("close")

    @hookimpl
    def svcreg_register(self, service: Service, ttl: float) -> None:
        self.answer("register", service, ttl)

    @hookimpl
    def svcreg_deregister(self, service: Service) -> None:
        self.answer("deregister", service)

    @hookimpl
    def svcreg_get(self, name: str) -> Sequence[Service]:
        found: Sequence[Service] = self.answer("get", name)
        return found

    @hookimpl
    def svcreg_list(self) -> Sequence[str]:
        found: Sequence[str] = self.answer("list")
        return found

    @hookimpl
    def svcreg_watch(self, name: str | None, stop: threading.Event) -> Iterator[Snapshot | Delta]:
        yield from self.answer("watch", name) or ()
        while not stop.wait(0.005):
            pass
        self.calls.append(("stopped",))


class AsyncAcme(Acme):
    @hookimpl
    async def svcreg_open(self) -> None:
        await self.awaited("open")

    @hookimpl
    async def svcreg_close(self) -> None:
        await self.awaited("close")

    @hookimpl
    async def svcreg_register(self, service: Service, ttl: float) -> None:
        await self.awaited("register", service, ttl)

    @hookimpl
    async def svcreg_deregister(self, service: Service) -> None:
        await self.awaited("deregister", service)

    @hookimpl
    async def svcreg_renew(self, services: Sequence[Service], ttl: float) -> Sequence[Service]:
        found: Sequence[Service] = await self.awaited("renew", services, ttl)
        return found

    @hookimpl
    async def svcreg_get(self, name: str) -> Sequence[Service]:
        found: Sequence[Service] = await self.awaited("get", name)
        return found

    @hookimpl
    async def svcreg_list(self) -> Sequence[str]:
        found: Sequence[str] = await self.awaited("list")
        return found

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> AsyncIterator[Snapshot | Delta]:
        try:
            for item in await self.awaited("watch", name) or ():
                yield item
            await asyncio.Event().wait()
        finally:
            self.calls.append(("stopped",))

    async def awaited(self, operation: str, *arguments: Any) -> Any:
        found = self.answer(operation, *arguments)
        return await found if asyncio.iscoroutine(found) else found


KINDS = {"def": DefAcme, "async": AsyncAcme}
Make = Callable[..., tuple[Any, Dispatcher]]


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Make:
    """Make a backend of either kind and the way to it."""

    def build(timeout: float = 5.0, **does: Any) -> tuple[Any, Dispatcher]:
        backend = KINDS[request.param](**does)
        return backend, dispatcher(backend, timeout=timeout)

    return build


# Calls.


def test_arguments_and_answers_pass_through(make: Make) -> None:
    backend, dispatch = make(get=[service("a")], list=["b", "a", "a"])

    @asynchronous
    async def scenario() -> None:
        await dispatch.register(service("a"), 30.0)
        await dispatch.deregister(service("a"))
        assert ids(await dispatch.get(NAME)) == ["a"]
        assert await dispatch.list() == ("a", "b")

    scenario()
    assert backend.calls == [
        ("open",),
        ("register", service("a"), 30.0),
        ("deregister", service("a")),
        ("get", NAME),
        ("list",),
    ]


def test_answer_of_nothing_at_all_is_an_empty_one(make: Make) -> None:
    _, dispatch = make()

    @asynchronous
    async def scenario() -> None:
        assert await dispatch.get(NAME) == ()
        assert await dispatch.list() == ()

    scenario()


@asynchronous
async def test_def_hooks_run_on_threads_and_async_hooks_on_the_loop() -> None:
    here = threading.current_thread().name
    for backend, is_here in ((DefAcme(), False), (AsyncAcme(), True)):
        await dispatcher(backend).list()
        assert (backend.threads == {here}) == is_here


@asynchronous
async def test_renewal_of_many_is_one_call_where_the_backend_has_the_hook() -> None:
    backend = AsyncAcme(renew=[service("b")])
    dispatch = dispatcher(backend)
    assert dispatch.can_renew
    assert ids(await dispatch.renew([service("a"), service("b")], 30.0)) == ["b"]
    backend.does["renew"] = None
    assert await dispatch.renew([service("a")], 30.0) == ()
    assert not dispatcher(DefAcme()).can_renew


# Errors.

RAISED = [
    (ConnectionRefusedError("nobody there"), RegistryUnavailableError, False),
    (TimeoutError("too slow"), RegistryTimeoutError, False),
    (TimeoutError(), RegistryTimeoutError, False),
    (RegistryUnavailableError("no leader"), RegistryUnavailableError, False),
    (PermissionDeniedError("no right"), PermissionDeniedError, True),
    (ProtocolError("nonsense"), ProtocolError, True),
    (ZeroDivisionError("a defect"), RegistryError, True),
]


@pytest.mark.parametrize(
    ("raised", "expected", "is_connected"), RAISED, ids=[repr(row[0]) for row in RAISED]
)
def test_errors_say_what_failed_and_where(
    make: Make, raised: Exception, expected: type[RegistryError], is_connected: bool
) -> None:
    _, dispatch = make(list=["a"], get=raised)

    @asynchronous
    async def scenario() -> None:
        await dispatch.list()
        assert dispatch.is_connected
        with pytest.raises(RegistryError) as caught:
            await dispatch.get(NAME)
        error = caught.value
        assert type(error) is expected
        assert (error.backend, error.operation, error.service) == ("acme", "get", NAME)
        assert str(raised) in str(error)
        if error is not raised:
            assert error.__cause__ is raised
            assert str(error).startswith("acme: get of 'greeter' failed: ")
        # Only what speaks against the connection does: a refusal is an answer.
        assert dispatch.is_connected == is_connected

    scenario()


def test_backend_that_says_more_than_core_knows_is_believed(make: Make) -> None:
    error = RegistryUnavailableError("x", backend="inner", operation="txn", service="other")
    _, dispatch = make(get=error)

    @asynchronous
    async def scenario() -> None:
        with pytest.raises(RegistryUnavailableError):
            await dispatch.get(NAME)

    scenario()
    assert (error.backend, error.operation, error.service) == ("inner", "txn", "other")


def test_stop_iteration_of_a_backend_is_an_error_like_any_other() -> None:
    @asynchronous
    async def scenario() -> None:
        with pytest.raises(RegistryError, match="StopIteration"):
            await dispatcher(DefAcme(list=StopIteration("oops"))).list()

    scenario()


# Time.


@asynchronous
async def test_async_hook_that_hangs_is_given_up_after_the_timeout() -> None:
    dispatch = dispatcher(AsyncAcme(get=lambda: asyncio.sleep(60)), timeout=0.05)
    with pytest.raises(RegistryTimeoutError, match=r"acme: get of 'greeter' .* within 0\.05 s"):
        await dispatch.get(NAME)
    assert not dispatch.is_connected


@asynchronous
async def test_shorter_timeout_of_one_call_counts_and_a_longer_one_does_not() -> None:
    dispatch = dispatcher(AsyncAcme(register=lambda: asyncio.sleep(60)), timeout=0.1)
    with pytest.raises(RegistryTimeoutError, match=r"within 0\.02 s"):
        await dispatch.register(service("a"), 30.0, timeout=0.02)
    with pytest.raises(RegistryTimeoutError, match=r"within 0\.1 s"):
        await dispatch.register(service("a"), 30.0, timeout=60)


@asynchronous
async def test_def_hook_that_hangs_is_abandoned_and_can_be_waited_for() -> None:
    go_on = threading.Event()
    backend = DefAcme(register=lambda: go_on.wait(20))
    dispatch = dispatcher(backend, timeout=0.05)
    with pytest.raises(RegistryTimeoutError):
        await dispatch.register(service("a"), 30.0)
    started = time.monotonic()
    await dispatch.settled(0.05)
    assert 0.04 <= time.monotonic() - started < 5  # as long as it may, and no longer
    settled = asyncio.create_task(dispatch.settled(20))
    go_on.set()
    await settled
    await dispatch.settled(20)


@asynchronous
async def test_outcome_of_an_abandoned_hook_troubles_nobody() -> None:
    go_on = threading.Event()

    def fail() -> None:
        go_on.wait(20)
        raise ConnectionResetError("late")

    dispatch = dispatcher(DefAcme(register=fail), timeout=0.05)
    with pytest.raises(RegistryTimeoutError):
        await dispatch.register(service("a"), 30.0)
    go_on.set()
    await dispatch.settled(20)


@asynchronous
async def test_def_hooks_under_way_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCKING_CALLS", 3)
    lock, running, most = threading.Lock(), 0, 0

    def work() -> tuple[()]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        return ()

    dispatch = dispatcher(DefAcme(get=work))
    await asyncio.gather(*(dispatch.get(NAME) for _ in range(12)))
    assert most == 3


@asynchronous
async def test_def_hook_runs_without_a_thread_while_the_interpreter_exits() -> None:
    backend = DefAcme()
    dispatch = dispatcher(backend)
    dispatch.is_exiting = True
    await dispatch.deregister(service("a"))
    assert backend.threads == {threading.current_thread().name}


# Opening and closing.


def test_backend_is_opened_once_however_many_begin_together(make: Make) -> None:
    backend, dispatch = make(get=())

    @asynchronous
    async def scenario() -> None:
        await asyncio.gather(*(dispatch.get(NAME) for _ in range(10)))
        await dispatch.list()

    scenario()
    assert backend.calls[0] == ("open",)
    assert backend.count("open") == 1


def test_opening_that_failed_is_tried_again_by_the_next_call(make: Make) -> None:
    backend, dispatch = make(open=ConnectionRefusedError("not yet"), list=["a"])

    @asynchronous
    async def scenario() -> None:
        for _ in range(2):
            with pytest.raises(RegistryUnavailableError, match="acme: open failed: not yet"):
                await dispatch.list()
        assert backend.count("list") == 0
        backend.does["open"] = None
        assert await dispatch.list() == ("a",)

    scenario()
    assert backend.count("open") == 3


def test_reader_that_gives_up_does_not_stop_the_opening_that_others_wait_for(make: Make) -> None:
    go_on = threading.Event()

    async def awaited() -> None:
        await until(go_on.is_set)

    backend, dispatch = make(list=["a"])
    backend.does["open"] = awaited if isinstance(backend, AsyncAcme) else lambda: go_on.wait(20)

    @asynchronous
    async def scenario() -> None:
        first, second = (asyncio.create_task(dispatch.list()) for _ in range(2))
        await until(lambda: backend.count("open"))
        first.cancel()
        await asyncio.wait({first})
        go_on.set()
        assert await second == ("a",)

    scenario()
    assert backend.count("open") == 1


def test_backend_that_was_never_used_is_not_closed(make: Make) -> None:
    backend, dispatch = make()
    asyncio.run(dispatch.close())
    assert backend.calls == []


def test_closing_a_backend_that_fails_is_logged_not_raised(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    backend, dispatch = make(close=ConnectionResetError("gone"))

    @asynchronous
    async def scenario() -> None:
        await dispatch.list()
        await dispatch.close()

    scenario()
    assert backend.calls[-1] == ("close",)
    assert "closing acme failed" in caplog.text


# Watching.


def test_watch_yields_what_the_backend_does_and_lets_go_of_it(make: Make) -> None:
    items = [Snapshot((service("a"),)), Delta((service("b"),))]
    backend, dispatch = make(watch=items)

    @asynchronous
    async def scenario() -> None:
        stream = dispatch.watch(NAME)
        assert [await anext(stream), await anext(stream)] == items
        assert dispatch.is_connected
        await stream.aclose()
        await until(lambda: ("stopped",) in backend.calls)

    scenario()
    assert backend.calls[:2] == [("open",), ("watch", NAME)]


def test_watch_that_fails_says_so_as_a_call_does(make: Make) -> None:
    _, dispatch = make(watch=ConnectionResetError("cut"))

    @asynchronous
    async def scenario() -> None:
        with pytest.raises(RegistryUnavailableError, match="acme: watch of 'greeter' failed: cut"):
            await anext(dispatch.watch(NAME))

    scenario()
    assert not dispatch.is_connected


def test_watch_that_yields_something_else_breaks_the_contract(make: Make) -> None:
    _, dispatch = make(watch=["garbage"])

    @asynchronous
    async def scenario() -> None:
        with pytest.raises(ProtocolError) as caught:
            await anext(dispatch.watch(NAME))
        assert caught.value.operation == "watch"

    scenario()


class Ending(DefAcme):
    @hookimpl
    def svcreg_watch(self, name: str | None) -> Iterator[Snapshot]:  # type: ignore[override] # a hook names the arguments it uses
        return iter([Snapshot((service("a"),))])


@asynchronous
async def test_def_watch_may_be_any_iterator_and_may_end() -> None:
    assert [item async for item in dispatcher(Ending()).watch(NAME)] == [Snapshot((service("a"),))]


class Eager(DefAcme):
    """Yields as fast as it can, until it is not asked any more."""

    @hookimpl
    def svcreg_watch(self, name: str | None) -> Iterator[Snapshot]:  # type: ignore[override] # see above
        try:
            while True:
                time.sleep(0.001)
                yield Snapshot()
        finally:
            self.calls.append(("stopped",))


@asynchronous
async def test_def_watch_that_does_not_look_at_stop_ends_with_its_next_item() -> None:
    backend = Eager()
    stream = dispatcher(backend).watch(NAME)
    await anext(stream)
    await stream.aclose()
    await until(lambda: ("stopped",) in backend.calls)


def test_backend_that_cannot_watch_everything_is_polled(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_PERIOD", 0.01)
    backend, dispatch = make(list=["other", NAME], get=[service("a")])

    @asynchronous
    async def scenario() -> None:
        async with contextlib.aclosing(dispatch.watch(None)) as stream:
            assert await anext(stream) == Snapshot((service("a"),))
            backend.does["list"] = []
            assert await anext(stream) == Snapshot()

    scenario()
    assert backend.count("watch") == 0


@asynchronous
async def test_backend_that_can_watch_everything_is_not_polled() -> None:
    class Whole(AsyncAcme):
        capabilities = frozenset({"watch-all"})

    backend = Whole(watch=[Snapshot((service("a"), service("b", name="other")))])
    async with contextlib.aclosing(dispatcher(backend).watch(None)) as stream:
        assert ids((await anext(stream)).services) == ["a", "b"]  # type: ignore[union-attr]
    assert backend.calls == [("open",), ("watch", None), ("stopped",)]


# The contract, where pluggy cannot see it.


class AwaitedWatch(DefAcme):
    @hookimpl
    async def svcreg_watch(self, name: str | None) -> Any:  # type: ignore[override] # that is the point
        return Snapshot()


class YieldingGet(DefAcme):
    @hookimpl
    def svcreg_get(self, name: str) -> Any:
        yield service("a")


class AsyncYieldingList(DefAcme):
    @hookimpl
    async def svcreg_list(self) -> Any:
        yield "a"


@pytest.mark.parametrize(
    ("backend", "complaint"),
    [
        (AwaitedWatch, "svcreg_watch must yield snapshots"),
        (YieldingGet, "svcreg_get must return its result, not yield"),
        (AsyncYieldingList, "svcreg_list must return its result, not yield"),
    ],
)
def test_hook_of_the_wrong_kind_is_refused_when_the_backend_loads(
    backend: type[Acme], complaint: str
) -> None:
    with pytest.raises(BackendLoadError, match=f"backend 'acme' breaks the contract: {complaint}"):
        dispatcher(backend())


# Observers.


class Observer:
    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.fails = False

    @hookimpl
    def svcreg_observe(
        self,
        operation: str,
        backend: str,
        service: str | None,
        seconds: float,
        error: BaseException | None,
    ) -> None:
        assert 0 <= seconds < 20
        self.seen.append((operation, backend, service, type(error)))
        if self.fails:
            raise ZeroDivisionError("the observer is broken")


def observed(backend: Acme) -> tuple[Observer, Observer, Dispatcher]:
    observers = pluggy.PluginManager(PROJECT)
    observers.add_hookspecs(ObserverSpec)
    one, other = Observer(), Observer()
    observers.register(one)
    observers.register(other)
    return one, other, dispatcher(backend, observers)


@asynchronous
async def test_observers_are_told_of_every_call_and_every_change_of_state() -> None:
    observer, other, dispatch = observed(
        AsyncAcme(watch=[Snapshot()], get=ConnectionRefusedError("x"))
    )
    async with contextlib.aclosing(dispatch.watch(NAME)) as stream:
        await anext(stream)
    with pytest.raises(RegistryUnavailableError):
        await dispatch.get(NAME)
    dispatch.observe_state(NAME, "lost", 1.5, None)
    assert observer.seen == [
        ("open", "acme", None, type(None)),
        ("watch", "acme", NAME, type(None)),
        ("get", "acme", NAME, RegistryUnavailableError),
        ("state:lost", "acme", NAME, type(None)),
    ]
    assert other.seen == observer.seen


@asynchronous
async def test_observer_that_fails_stops_nobody_else_and_is_not_called_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR, "svcreg")
    observer, other, dispatch = observed(AsyncAcme(list=["a"]))
    observer.fails = True
    for _ in range(3):
        assert await dispatch.list() == ("a",)
    assert len(observer.seen) == 1
    assert len(other.seen) == 1 + 3  # opening, and each call
    assert len(caplog.records) == 1
