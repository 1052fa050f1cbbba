"""All watches of a process on one stream: created, told apart, probed and given up."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from svcreg.errors import ConfigError
from svcreg_etcd import messages as m
from svcreg_etcd.client import Client, Stream
from svcreg_etcd.cluster import Cluster
from svcreg_etcd.errors import DEADLINE_EXCEEDED, PERMISSION_DENIED, UNAVAILABLE, RpcError

PROBE_AFTER = 2.5
"""Seconds of silence after which the member is asked for a sign of life."""

PROBE_TIMEOUT = 2.0
"""Seconds that it then has. The probe is a small read on the same connection: HTTP/2 pings end the
connection where they come more often than every 5 s, and requests for progress are not answered by
etcd 3.6 as long as nothing was written since the watch began."""

CREATE_TIMEOUT = 5.0
"""Seconds within which a member answers that it watches; otherwise the stream has gone deaf."""


class CompactedError(Exception):
    """The revision to watch from is no longer known: read everything, and watch from there."""


class Watch:
    """The changes below one prefix, in order. For one task."""

    def __init__(self, key: bytes, end: bytes, revision: int) -> None:
        self.request = m.WatchCreateRequest(
            key=key, range_end=end, start_revision=revision, fragment=True
        )
        self.created: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_closed = False
        self.on_close: Callable[[Watch], None] | None = None
        self._items: asyncio.Queue[Sequence[Any] | Exception] = asyncio.Queue()
        self._parts: list[Any] = []

    async def next(self) -> Sequence[Any]:
        """Return the events of one or more revisions, all that came together.

        Raises:
            RpcError: The stream was lost, or the watch refused.
            CompactedError: The changes since the revision asked for are no longer known.
        """
        item = await self._items.get()
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        """Have no more of it. Safe to repeat."""
        self.is_closed = True
        if self.on_close is not None:
            self.on_close(self)

    def feed(self, response: Any) -> None:
        """Take in a response; the parts of a large one are put together."""
        self._parts.extend(response.events)
        if not response.fragment and self._parts:
            self._items.put_nowait(self._parts)
            self._parts = []

    def fail(self, error: Exception) -> None:
        """End the watch, once what came before has been read."""
        if self.created.done():
            self._items.put_nowait(error)
        else:
            self.created.set_exception(error)


class Watches:
    """Opens watches, sharing one stream. Loop only."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._line: _Line | None = None
        self._lines: set[_Line] = set()

    async def open(self, key: bytes, end: bytes, revision: int) -> Watch:
        """Return a watch of all keys from `key` to before `end`.

        Raises:
            RpcError: It was refused, or the member cannot be reached.
        """
        line = self._current()
        try:
            return await line.create(Watch(key, end, revision))
        except RpcError as error:
            # The stream may be older than the token that the read before was done with.
            if not error.is_refused or line.token == self._cluster.token:
                raise
        line.retire()
        if self._line is line:
            self._line = None
        line = self._current()
        return await line.create(Watch(key, end, revision))

    async def close(self) -> None:
        """End every stream."""
        lines = list(self._lines)
        for line in lines:
            line.task.cancel()
        if lines:
            await asyncio.wait([line.task for line in lines])

    def _current(self) -> _Line:
        if self._line is None or self._line.task.done():
            self._line = line = _Line(self._cluster)
            self._lines.add(line)
            line.task.add_done_callback(lambda _: self._lines.discard(line))
        return self._line


class _Line:
    """One stream, from its opening to its end, and the watches on it."""

    def __init__(self, cluster: Cluster) -> None:
        self.token: str | None = None
        self._cluster = cluster
        self._client: Client | None = None
        self._stream: Stream | None = None
        self._opened = asyncio.Event()
        self._error: RpcError | None = None
        # Creates are answered in their order, and a refused one with no id to tell it by.
        self._pending: deque[Watch] = deque()
        self._watches: dict[int, Watch] = {}  # by id; the server's, never given twice
        self._is_retired = False
        self._sends: set[asyncio.Task[None]] = set()
        self.task = asyncio.create_task(self._run(), name="svcreg-etcd-watches")

    async def create(self, watch: Watch) -> Watch:
        await self._opened.wait()
        if self._error is not None or self._stream is None:
            raise (self._error or RpcError(UNAVAILABLE, "the stream was closed", "")).again()
        self._pending.append(watch)
        watch.on_close = self._give_up
        # Sent whatever becomes of us: an answer must find its watch first in line.
        request = m.WatchRequest(create_request=watch.request)
        self._send_soon(self._stream, request)
        try:
            async with asyncio.timeout(CREATE_TIMEOUT):
                await watch.created
        except TimeoutError:
            self.task.cancel()
            said = f"a watch was not begun within {CREATE_TIMEOUT:g} s"
            raise RpcError(DEADLINE_EXCEEDED, said, self._endpoint) from None
        except BaseException:
            watch.close()
            raise
        return watch

    def _give_up(self, watch: Watch) -> None:
        for watch_id, known in list(self._watches.items()):
            if known is watch:
                self._cancel(watch_id)
        self._end_if_unused()

    @property
    def _endpoint(self) -> str:
        return self._client.endpoint if self._client is not None else ""

    def retire(self) -> None:
        """Take no more watches; end with the last one."""
        self._is_retired = True
        self._end_if_unused()

    def _end_if_unused(self) -> None:
        if self._is_retired and not self._watches and not self._pending:
            self.task.cancel()

    def _cancel(self, watch_id: int) -> None:
        del self._watches[watch_id]
        if self._stream is None or self.task.done():
            return
        request = m.WatchRequest(cancel_request=m.WatchCancelRequest(watch_id=watch_id))
        self._send_soon(self._stream, request)

    def _send_soon(self, stream: Stream, request: Any) -> None:
        task = asyncio.create_task(self._send_quietly(stream, request))
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)

    async def _send_quietly(self, stream: Stream, request: Any) -> None:
        with contextlib.suppress(RpcError):  # the stream has ended, and its watches are told so
            await stream.send(request)

    async def _run(self) -> None:
        error = RpcError(UNAVAILABLE, "the stream was closed", "")
        try:
            async with self._cluster.watch_stream() as (client, stream):
                self._client, self._stream = client, stream
                self.token = self._cluster.token
                self._opened.set()
                await self._receive(client, stream)
        except RpcError as caught:
            error = caught
        except ConfigError as caught:  # a password file that has gone, say
            error = RpcError(UNAVAILABLE, str(caught), error.endpoint)
        finally:
            self._error = error
            self._opened.set()
            for watch in (*self._pending, *self._watches.values()):
                watch.fail(error.again())
            self._pending.clear()
            self._watches.clear()

    async def _receive(self, client: Client, stream: Stream) -> None:
        """Hand out what comes, until nothing does any more."""
        receiving = asyncio.ensure_future(stream.receive())
        try:
            while True:
                done, _ = await asyncio.wait({receiving}, timeout=PROBE_AFTER)
                if done:
                    response = receiving.result()
                    receiving = asyncio.ensure_future(stream.receive())
                    self._dispatch(response)
                elif self._watches or self._pending:
                    watch = next(iter(self._watches.values()), None) or self._pending[0]
                    await self._cluster.probe(client, watch.request.key, PROBE_TIMEOUT)
        finally:
            receiving.cancel()
            await asyncio.wait({receiving})
            if not receiving.cancelled():
                receiving.exception()  # seen: what came too late interests nobody

    def _dispatch(self, response: Any) -> None:
        if response.created and self._pending:
            watch = self._pending.popleft()
            if response.canceled:
                watch.fail(self._refusal(response))
                return
            self._watches[response.watch_id] = watch
            if watch.is_closed:
                self._cancel(response.watch_id)
                self._end_if_unused()
            elif not watch.created.done():
                watch.created.set_result(None)
            return
        known = self._watches.get(response.watch_id)
        if known is None:
            return  # it was given up
        if response.canceled:
            del self._watches[response.watch_id]
            known.fail(self._refusal(response))
        else:
            known.feed(response)

    def _refusal(self, response: Any) -> Exception:
        if response.compact_revision:
            return CompactedError()
        # Whatever the reason, this watch will not be had; only a right can be missing.
        said = response.cancel_reason or "the watch was cancelled"
        code = PERMISSION_DENIED if "denied" in said or "auth" in said else UNAVAILABLE
        return RpcError(code, said, self._endpoint)
