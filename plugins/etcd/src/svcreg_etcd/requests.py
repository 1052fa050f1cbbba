"""A queue of writes: one at a time, in order, and what comes meanwhile shares the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import Enum

from svcreg_etcd.errors import RpcError

BATCH_RECORDS = 100
"""Records in one transaction; etcd's limit is 128 operations (`--max-txn-ops`)."""

BATCH_BYTES = 1_000_000
"""Bytes of values in one transaction; etcd's limit is 1.5 MiB (`--max-request-bytes`)."""


class Kind(Enum):
    """What is wanted."""

    PUT = 1
    DROP = 2
    MEND = 3


class Request:
    """One key to write or withdraw, or all to be looked after."""

    def __init__(self, kind: Kind, key: bytes = b"", value: bytes = b"") -> None:
        self.kind = kind
        self.key = key
        self.value = value
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, error: Exception | None) -> None:
        """Tell whoever waits how it went, unless they have been told, or have gone."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error.again() if isinstance(error, RpcError) else error)


Handler = Callable[[Sequence[Request]], Awaitable[None]]
"""Does what requests of one kind ask for. What it raises is for those that it has not settled."""


class Requests:
    """Hands requests of one kind at a time to `handle`, in their order. Loop only.

    A request whose caller has gone before its turn is left out; one that is under way goes on.
    """

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self._queue: deque[Request] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, requests: Sequence[Request]) -> None:
        """Return when all of these are done.

        Raises:
            RpcError: One at least was not.
        """
        self._queue.extend(requests)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name="svcreg-etcd-lease")
        await asyncio.gather(*(request.done for request in requests))

    async def close(self) -> None:
        """Stop at once, whatever is under way."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait({self._worker})

    async def _work(self) -> None:
        while self._queue:
            await asyncio.sleep(0)  # requests of one turn of the loop share a transaction
            batch = self._take()
            if not batch:
                continue
            try:
                await self._handle(batch)
            except Exception as error:  # whatever it is, those who wait are told
                _settle(batch, error)
            else:
                _settle(batch, None)

    def _take(self) -> list[Request]:
        """Take requests of one kind that fit into one transaction, each key once."""
        batch: list[Request] = []
        keys: set[bytes] = set()
        size = 0
        while self._queue and len(batch) < BATCH_RECORDS:
            request = self._queue[0]
            if request.done.done():  # cancelled
                self._queue.popleft()
                continue
            size += len(request.value)
            if batch and (
                request.kind is not batch[0].kind or request.key in keys or size > BATCH_BYTES
            ):
                break
            batch.append(self._queue.popleft())
            keys.add(request.key)
        return batch


def _settle(batch: Iterable[Request], error: Exception | None) -> None:
    for request in batch:
        request.settle(error)
