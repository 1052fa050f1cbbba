"""One task per watched service: stream in, reconnect, prove that the stream is alive."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import random
import time
from collections.abc import Mapping

from svcreg.config import Config
from svcreg.engine.backoff import Backoff
from svcreg.engine.directory import Directory, Key, Known, Record, records_of
from svcreg.engine.dispatch import Dispatcher
from svcreg.errors import (
    RegistryTimeoutError,
    RegistryUnavailableError,
    SvcregError,
)
from svcreg.hookspecs import Delta, Snapshot
from svcreg.model import Node, Service

RECONCILE_PERIOD = 60.0
"""Seconds of silence, give or take 20 %, after which a watch is compared with a plain read."""

SECOND_LOOK = 1.0
"""Seconds between the two reads that must both differ before a silent watch counts as dead."""

KICK_AFTER = 1.0
"""Seconds after a failed attempt from which on a reader's wish cuts the backoff short."""

STOP_TIMEOUT = 2.0
"""Seconds that ending a watch waits for the backend to let go of it."""

_log = logging.getLogger("svcreg.feed")


class Feed:
    """Keeps what is `Known` of one service in step with the registry. Loop only."""

    def __init__(self, known: Known, dispatch: Dispatcher, timeout: float) -> None:
        self.known = known
        self.error: SvcregError | None = None
        self._dispatch = dispatch
        self._timeout = timeout
        self._failed_at = 0.0
        self._waiting = 0
        self._attempt: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._kick = asyncio.Event()
        self._obey: asyncio.TimerHandle | None = None
        self._label = "every service" if known.name is None else repr(known.name)
        self._task = asyncio.create_task(self._run(), name=f"svcreg-feed-{known.name}")

    def is_unused_since(self, moment: float) -> bool:
        """Return whether nobody has asked since then, on the monotonic clock, nor waits now."""
        return not (self.known.subscriptions or self._waiting or self.known.used_at >= moment)

    async def wait_known(self, timeout: float) -> tuple[Service, ...]:
        """Return the newest snapshot, waiting for the first one.

        Raises:
            SvcregError: Nothing was ever known, and the last attempt failed so.
            RegistryTimeoutError: Nothing was known within `timeout` seconds.
        """
        if not self.known.is_known:
            if self.error is not None:
                if time.monotonic() - self._failed_at < KICK_AFTER:
                    self._raise_error()
                self._kick.set()
            self._waiting += 1
            try:
                # wait() and not wait_for(): many readers wait for the one attempt, and none ends it
                done, _ = await asyncio.wait({self._attempt}, timeout=timeout)
            finally:
                self._waiting -= 1
                self.known.used_at = time.monotonic()
            if not self.known.is_known:
                if not done:
                    raise RegistryTimeoutError(
                        f"nothing is known of {self._label} yet and no answer came within "
                        f"{timeout:g} s",
                        operation="get",
                        service=self.known.name,
                    )
                self._raise_error()
        return self.known.services

    async def stop(self) -> None:
        """End the watch; what is known stays as it is."""
        self._task.cancel()
        if self._obey is not None:
            self._obey.cancel()
        await asyncio.wait({self._task}, timeout=STOP_TIMEOUT)
        self._end_attempt()

    def _end_attempt(self) -> None:
        """Wake those who wait for the attempt under way; later ones wait for the next."""
        ended, self._attempt = self._attempt, asyncio.get_running_loop().create_future()
        ended.set_result(None)

    def _raise_error(self) -> None:
        error = self.error or RegistryUnavailableError(f"the watch of {self._label} was stopped")
        raise copy.copy(error) from error.__cause__  # a copy: readers on many threads raise it

    async def _run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._stream(backoff)
            except SvcregError as error:
                self._note_loss(error)
            except Exception as error:  # a defect of ours must not end the watch for ever
                _log.exception("watch of %s failed", self._label)
                self._note_loss(RegistryUnavailableError(f"watch of {self._label}: {error}"))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.next()):
                    await self._kick.wait()
            self._kick.clear()

    async def _stream(self, backoff: Backoff) -> None:
        """Follow one connection until it is lost, which raises."""
        async with contextlib.aclosing(self._dispatch.watch(self.known.name)) as stream:
            item = asyncio.ensure_future(anext(stream))
            is_first = True
            try:
                while True:
                    patience = self._timeout if is_first else _jittered(RECONCILE_PERIOD)
                    done, _ = await asyncio.wait({item}, timeout=patience)
                    if done:
                        self._receive(item.result(), is_first=is_first)
                        backoff.reset()
                        is_first = False
                        item = asyncio.ensure_future(anext(stream))
                    elif is_first:
                        raise RegistryTimeoutError(
                            f"the watch of {self._label} gave no snapshot within {patience:g} s"
                        )
                    else:
                        await self._prove(item)
            except StopAsyncIteration:
                raise RegistryUnavailableError(f"the watch of {self._label} ended") from None
            finally:
                item.cancel()
                await asyncio.wait({item})
                if not item.cancelled():
                    item.exception()  # seen: a result that came too late interests nobody

    def _receive(self, item: Snapshot | Delta, *, is_first: bool) -> None:
        known = self.known
        if is_first and known.stale_since is not None:
            _log.info(
                "watch of %s restored after %.1f s",
                self._label,
                time.monotonic() - known.stale_since,
            )
        known.apply(item)
        self.error = None
        self._end_attempt()
        if self._obey is not None:
            self._obey.cancel()
            self._obey = None
        if known.obey_at is not None:
            delay = known.obey_at - time.monotonic()
            self._obey = asyncio.get_running_loop().call_later(max(delay, 0) + 0.001, known.obey)

    async def _prove(self, item: asyncio.Future[Snapshot | Delta]) -> None:
        """Compare with a plain read; raise when the watch has evidently gone deaf.

        `item` is what the watch says next: once it speaks, it needs no other proof.
        """
        known = self.known
        if known.name is None:
            await self._dispatch.list()
            known.fresh_at = time.monotonic()
            return
        for _ in range(2):
            read = records_of(await self._dispatch.get(known.name))
            if _nodes(read) == _nodes(known.truth):
                known.fresh_at = time.monotonic()
                return
            await asyncio.wait({item}, timeout=SECOND_LOOK)
            if item.done():
                return
        raise RegistryUnavailableError(
            f"the watch of {self._label} has gone silent: a plain read shows something else"
        )

    def _note_loss(self, error: SvcregError) -> None:
        is_new = self.error is None
        self.error = error
        self._failed_at = time.monotonic()
        if is_new:
            _log.warning("watch of %s lost, trying again: %s", self._label, error)
        self.known.lost()
        self._end_attempt()
        if not error.retryable and not self.known.is_known:
            self.known.close(error)


class Feeds:
    """The feeds of one registry, by service name; None watches every service. Loop only."""

    def __init__(self, config: Config, directory: Directory, dispatch: Dispatcher) -> None:
        self._config = config
        self._directory = directory
        self._dispatch = dispatch
        self._feeds: dict[str | None, Feed] = {}
        self._sweeper: asyncio.Task[None] | None = None

    def ensure(self, name: str | None) -> Feed:
        """Return the feed of a service, started if there was none."""
        feed = self._feeds.get(name)
        if feed is None:
            known = self._directory.add(name)
            feed = self._feeds[name] = Feed(known, self._dispatch, self._config.timeout)
            if self._sweeper is None:
                self._sweeper = asyncio.create_task(self._sweep(), name="svcreg-sweeper")
        feed.known.used_at = time.monotonic()
        return feed

    def all(self) -> tuple[Feed, ...]:
        """Return every feed there is."""
        return tuple(self._feeds.values())

    async def close(self) -> None:
        """End every feed."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        feeds, self._feeds = list(self._feeds.values()), {}
        await asyncio.gather(*(feed.stop() for feed in feeds))

    async def _sweep(self) -> None:
        """End the feeds that nobody has used for a while."""
        while True:
            await asyncio.sleep(self._config.feed_idle / 4)
            before = time.monotonic() - self._config.feed_idle
            for name, feed in list(self._feeds.items()):
                if feed.is_unused_since(before):
                    del self._feeds[name]
                    self._directory.remove(name)
                    await feed.stop()


def _nodes(records: Mapping[Key, Record]) -> dict[Key, tuple[str, Node]]:
    """Return what a plain read and a watch must agree on: a read has one header per version."""
    return {key: (record.header.version, record.node) for key, record in records.items()}


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.2)
