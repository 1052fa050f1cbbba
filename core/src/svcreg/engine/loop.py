"""The private event loop of one registry, in one daemon thread, started on first use."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import selectors
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from svcreg.errors import RegistryClosedError

STOP_TIMEOUT = 1.0
"""Seconds that stopping waits for the thread; it is a daemon, so the process may end without it."""

WAIT = 0.5
"""Seconds of one wait for a result. A signal that arrives in the instant before Python waits for a
lock is handled only after the wait, so no wait may be for ever: Ctrl-C would seem not to work."""

T = TypeVar("T")


class LoopThread:
    """Runs coroutines on a loop that no application code can block.

    `call` and `acall` may be used from any thread but the loop's own.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.RLock()  # reentrant: a signal handler may close while we start
        self._loop: asyncio.AbstractEventLoop | None = None
        self._selector: selectors.BaseSelector | None = None
        self._thread: threading.Thread | None = None
        self._is_stopped = False

    @property
    def is_running(self) -> bool:
        """Whether the thread has been started and not yet stopped."""
        return self._loop is not None and not self._is_stopped

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start `work` on the loop and return its future.

        Raises:
            RegistryClosedError: The loop has been stopped.
        """
        try:
            with self._lock:  # so that what is submitted is known to the loop before it is stopped
                return asyncio.run_coroutine_threadsafe(work, self._ensure_started())
        except BaseException:
            work.close()
            raise

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run `work` on the loop and wait for it, at most `timeout` seconds.

        Interrupting the wait, as Ctrl-C does, cancels the work.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError(
                "a blocking registry call was made on the registry's own event loop (from an async "
                "hook or check); use the asyncio face there, or a def"
            )
        future = self.submit(work)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while not future.done():
                left = WAIT if deadline is None else min(WAIT, deadline - time.monotonic())
                with contextlib.suppress(TimeoutError):
                    future.exception(max(left, 0.0))
                if left <= 0 and not future.done():
                    raise TimeoutError(f"not done within {timeout:g} s")
            return future.result()
        except concurrent.futures.CancelledError:
            raise RegistryClosedError("the registry was closed meanwhile") from None
        except BaseException:
            future.cancel()
            raise

    async def acall(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the private loop and await it from another; cancelling cancels the work."""
        future = self.submit(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._is_stopped and not (task and task.cancelling()):
                raise RegistryClosedError("the registry was closed meanwhile") from None
            raise

    def stop(self) -> None:
        """Cancel every task, end the loop and its thread. Safe to repeat."""
        with self._lock:
            self._is_stopped = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None or thread is threading.current_thread():
            return
        with contextlib.suppress(RuntimeError):  # already closed
            loop.call_soon_threadsafe(loop.stop)
        thread.join(STOP_TIMEOUT)

    def abandon(self) -> None:
        """Let go of everything in a forked child, where the thread does not exist.

        The child's copies of the sockets are replaced by the null device: the parent's
        connections then close when the parent closes them, nobody reads the parent's data,
        and the descriptor numbers stay taken, so that closing them late harms nobody.
        The epoll registrations, which parent and child share, are left as they are.
        """
        self._is_stopped = True
        if self._selector is None:
            return
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for key in list((self._selector.get_map() or {}).values()):
            with contextlib.suppress(OSError):
                os.dup2(null, key.fd, inheritable=False)
        os.close(null)

    def _ensure_started(self) -> asyncio.AbstractEventLoop:
        if self._is_stopped:
            raise RegistryClosedError("the registry is closed")
        if self._loop is None:
            self._selector = selectors.DefaultSelector()
            self._loop = asyncio.SelectorEventLoop(self._selector)
            self._thread = threading.Thread(
                target=self._run, args=(self._loop,), name=self._name, daemon=True
            )
            self._thread.start()
        return self._loop

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks, timeout=STOP_TIMEOUT / 2))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()


def start_thread(function: Callable[..., T], **arguments: Any) -> asyncio.Future[T]:
    """Call `function` on a daemon thread of its own; return a future of the running loop.

    Not on an executor's thread: the interpreter joins those at exit, so that one call which hangs
    would keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = function(**arguments)
        except StopIteration as caught:  # which no future can carry
            error = RuntimeError(f"{function!r} raised {caught!r}")
        except BaseException as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits
            loop.call_soon_threadsafe(_resolve, future, result, error)

    threading.Thread(target=work, name="svcreg-call", daemon=True).start()
    return future


def _resolve(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
