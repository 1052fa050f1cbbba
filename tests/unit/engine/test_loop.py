"""The private loop: from which threads it may be called, and how it ends."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import time
from collections.abc import Iterator

import pytest

from svcreg.engine import loop as module
from svcreg.engine.loop import LoopThread, start_thread
from svcreg.errors import RegistryClosedError
from tests.support.engine import asynchronous, until


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread("test-loop")
    yield loop
    loop.stop()


async def thread_name() -> str:
    return threading.current_thread().name


async def fail() -> None:
    raise ConnectionResetError("as it happens")


class Hanging:
    """Work that never ends, and tells whether it has begun and been cancelled."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self.is_cancelled = threading.Event()

    async def __call__(self) -> None:
        self.has_begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.is_cancelled.set()
            raise


def test_no_thread_is_started_before_it_is_needed() -> None:
    loop = LoopThread("test-loop")
    assert not loop.is_running
    loop.stop()
    assert not loop.is_running


def test_all_work_runs_on_one_daemon_thread_of_that_name(loop: LoopThread) -> None:
    assert {loop.call(thread_name()) for _ in range(3)} == {"test-loop"}
    assert loop.is_running
    assert [t.daemon for t in threading.enumerate() if t.name == "test-loop"] == [True]


def test_threads_that_begin_together_get_one_loop(loop: LoopThread) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: loop.call(running_loop()), range(16)))
    assert len(set(found)) == 1


async def running_loop() -> int:
    return id(asyncio.get_running_loop())


def test_error_of_the_work_is_the_error_of_the_call(loop: LoopThread) -> None:
    with pytest.raises(ConnectionResetError, match="as it happens"):
        loop.call(fail())


def test_blocking_call_from_the_loop_itself_is_refused_not_a_deadlock(loop: LoopThread) -> None:
    async def hook() -> None:
        loop.call(thread_name())

    with pytest.raises(RuntimeError, match="own event loop"):
        loop.call(hook(), timeout=5)


def test_wait_that_times_out_cancels_the_work(loop: LoopThread) -> None:
    hanging = Hanging()
    with pytest.raises(TimeoutError):
        loop.call(hanging(), timeout=0.02)
    assert hanging.is_cancelled.wait(5)


def test_caller_on_another_loop_is_not_blocked_and_its_cancellation_reaches_the_work(
    loop: LoopThread,
) -> None:
    hanging = Hanging()

    @asynchronous
    async def scenario() -> None:
        assert await loop.acall(thread_name()) == "test-loop"
        with pytest.raises(ConnectionResetError):
            await loop.acall(fail())
        task = asyncio.create_task(loop.acall(hanging()))
        await until(hanging.has_begun.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    scenario()
    assert hanging.is_cancelled.wait(5)


def test_stopping_cancels_what_is_under_way_and_says_so_to_blocking_callers(
    loop: LoopThread,
) -> None:
    hanging = Hanging()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        call = pool.submit(lambda: loop.call(hanging()))
        assert hanging.has_begun.wait(5)
        loop.stop()
        with pytest.raises(RegistryClosedError, match="closed meanwhile"):
            call.result(5)
    assert not loop.is_running


def test_stopping_says_so_to_callers_on_another_loop(loop: LoopThread) -> None:
    hanging = Hanging()

    @asynchronous
    async def scenario() -> None:
        call = asyncio.create_task(loop.acall(hanging()))
        await until(hanging.has_begun.is_set)
        await asyncio.to_thread(loop.stop)
        with pytest.raises(RegistryClosedError, match="closed meanwhile"):
            await call

    scenario()


def test_stopped_loop_takes_no_more_work(loop: LoopThread) -> None:
    loop.call(thread_name())
    loop.stop()
    loop.stop()
    for _ in range(2):
        with pytest.raises(RegistryClosedError, match="is closed"):
            loop.call(thread_name())  # and the coroutine is not left un-awaited, a warning


def test_loop_that_was_never_started_can_be_stopped_for_good() -> None:
    loop = LoopThread("test-loop")
    loop.stop()
    with pytest.raises(RegistryClosedError):
        loop.call(thread_name())


def test_loop_may_be_stopped_from_itself_without_a_deadlock(loop: LoopThread) -> None:
    async def stop() -> None:
        loop.stop()

    loop.call(stop(), timeout=5)
    assert not loop.is_running
    # It cannot wait for its own end, so that is still to be done; nothing else may be.
    with pytest.raises(RegistryClosedError):
        loop.call(thread_name())


def test_work_that_does_not_let_itself_be_cancelled_holds_the_stop_up_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STOP_TIMEOUT", 0.2)
    loop, has_begun, release = LoopThread("test-loop"), threading.Event(), threading.Event()

    async def stubborn() -> None:
        has_begun.set()
        while not release.is_set():
            try:
                await asyncio.sleep(0.005)
            except asyncio.CancelledError:
                release.wait(0.05)  # and then it ends
                return

    loop.submit(stubborn())
    assert has_begun.wait(5)
    started = time.monotonic()
    loop.stop()
    assert time.monotonic() - started < 5
    release.set()


def test_abandoned_loop_reads_nothing_of_its_connections_any_more() -> None:
    """What a forked child does; here the loop's thread lives on, and must not be disturbed."""
    loop = LoopThread("test-loop")
    reading, writing = os.pipe()
    kept = os.dup(reading)

    async def watch_pipe() -> None:
        asyncio.get_running_loop().add_reader(reading, lambda: None)

    loop.call(watch_pipe())
    selector, inner = loop._selector, loop._loop
    assert selector is not None
    assert inner is not None
    connections = {reading: selector.get_map()[reading]}

    class Selected:  # the pipe alone: the loop needs its own descriptors to end with the test
        @staticmethod
        def get_map() -> object:
            return connections

    loop._selector = Selected()  # type: ignore[assignment] # see above
    loop.abandon()
    assert not loop.is_running
    os.write(writing, b"data of the parent")
    assert os.read(reading, 100) == b""  # the null device
    assert os.read(kept, 100) == b"data of the parent"
    with pytest.raises(RegistryClosedError):
        loop.call(thread_name())
    inner.call_soon_threadsafe(inner.remove_reader, reading)
    loop.stop()
    for descriptor in (reading, writing, kept):
        os.close(descriptor)


def test_loop_that_never_started_can_be_abandoned() -> None:
    loop = LoopThread("test-loop")
    loop.abandon()
    with pytest.raises(RegistryClosedError):
        loop.call(thread_name())


# Threads of single calls.


@asynchronous
async def test_call_on_a_thread_of_its_own_gives_its_result_or_its_error() -> None:
    assert await start_thread(lambda number: number + 1, number=1) == 2
    with pytest.raises(ZeroDivisionError):
        await start_thread(lambda: 1 // 0)


@asynchronous
async def test_stop_iteration_which_no_future_carries_becomes_a_runtime_error() -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await start_thread(lambda: next(iter(())))


@asynchronous
async def test_thread_is_a_daemon_so_that_no_call_keeps_the_process_from_ending() -> None:
    assert (await start_thread(threading.current_thread)).daemon


@asynchronous
async def test_result_that_nobody_waits_for_any_more_is_dropped() -> None:
    go_on, is_over = threading.Event(), threading.Event()

    def work() -> None:
        go_on.wait(20)
        is_over.set()

    future = start_thread(work)
    future.cancel()
    go_on.set()
    await asyncio.to_thread(is_over.wait, 20)
    await asyncio.sleep(0)
    assert future.cancelled()


def test_result_after_the_loop_has_been_closed_is_dropped() -> None:
    go_on, threads = threading.Event(), []

    def work() -> None:
        threads.append(threading.current_thread())
        go_on.wait(20)

    async def begin() -> None:
        start_thread(work)
        await until(lambda: threads)

    asyncio.run(begin())
    go_on.set()
    threads[0].join(20)
    assert not threads[0].is_alive()
