"""One lease and the records that hang on it: written together, kept, restored and withdrawn."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from svcreg_etcd import messages as m
from svcreg_etcd.cluster import Cluster
from svcreg_etcd.errors import RpcError

BATCH_RECORDS = 100
"""Records in one transaction; etcd's limit is 128 operations (`--max-txn-ops`)."""

BATCH_BYTES = 1_000_000
"""Bytes of values in one transaction; etcd's limit is 1.5 MiB (`--max-request-bytes`)."""

RECONCILE_PERIOD = 10.0
"""Seconds, at least, between two looks at what hangs on the lease: about 0.1 kB for each record."""

_log = logging.getLogger("svcreg.etcd")


class Record:
    """What is to stand under one key, and what is known to.

    Attributes:
        lease_id: The lease that it was last written under, 0 where it never was.
        is_settled: Whether the last write was acknowledged.
        is_wanted: False once it is to be withdrawn, until that is acknowledged.
    """

    __slots__ = ("is_settled", "is_wanted", "lease_id", "value")

    def __init__(self, value: bytes, lease_id: int) -> None:
        self.value = value
        self.lease_id = lease_id
        self.is_settled = False
        self.is_wanted = True


class _Kind(Enum):
    PUT = 1
    DROP = 2
    MEND = 3


class _Request:
    """One key to write or withdraw, or all to be looked after."""

    def __init__(self, kind: _Kind, key: bytes = b"", value: bytes = b"") -> None:
        self.kind = kind
        self.key = key
        self.value = value
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Lease:
    """The records of one TTL. Loop only.

    All requests go through one task, in their order: what comes while a transaction is under way
    shares the next one. A request whose caller has gone before it was sent is not sent.

    Attributes:
        records: By key.
    """

    def __init__(self, cluster: Cluster, ttl: int) -> None:
        self.records: dict[bytes, Record] = {}
        self._cluster = cluster
        self._ttl = ttl
        self._id: int | None = None
        self._lost_at: float | None = None
        self._looked_at = 0.0
        self._is_blind = False
        self._requests: deque[_Request] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._work_on: dict[_Kind, Callable[[Sequence[_Request]], Coroutine[Any, Any, None]]] = {
            _Kind.PUT: self._put,
            _Kind.DROP: self._drop,
            _Kind.MEND: self._mend,
        }

    async def put(self, values: Mapping[bytes, bytes]) -> None:
        """Write records, whoever has written them before; return when all are acknowledged.

        Raises:
            RpcError: At least one was not.
        """
        await self._submit([_Request(_Kind.PUT, key, value) for key, value in values.items()])

    async def drop(self, keys: Iterable[bytes]) -> None:
        """Withdraw records of ours; what somebody else has written since stays.

        Raises:
            RpcError: Not acknowledged; `keep` tries again.
        """
        requests = [_Request(_Kind.DROP, key) for key in keys]
        for request in requests:
            if request.key in self.records:
                self.records[request.key].is_wanted = False
        await self._submit(requests)

    async def keep(self) -> None:
        """Extend the lease. Now and then, and after a loss, put what is missing.

        Raises:
            RpcError: The cluster could not be asked.
        """
        lease_id = self._id
        if lease_id is not None and not await self._cluster.keep_alive(lease_id):
            self._lose(lease_id)
        is_due = time.monotonic() - self._looked_at >= RECONCILE_PERIOD
        if self._id is None or self._lost_at is not None or is_due:
            await self._submit([_Request(_Kind.MEND)])

    async def close(self) -> None:
        """End the lease, and with it the records; a cluster that is away leaves it to the TTL."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait({self._worker})
        if self._id is not None:
            await self._cluster.revoke(self._id)

    # The worker.

    async def _submit(self, requests: Sequence[_Request]) -> None:
        self._requests.extend(requests)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name="svcreg-etcd-lease")
        await asyncio.gather(*(request.done for request in requests))

    async def _work(self) -> None:
        while self._requests:
            await asyncio.sleep(0)  # requests of one turn of the loop share a transaction
            batch = self._take()
            if not batch:
                continue
            try:
                await self._work_on[batch[0].kind](batch)
            except Exception as error:  # whatever it is, those who wait are told
                _settle(batch, error)
            else:
                _settle(batch, None)

    def _take(self) -> list[_Request]:
        """Take requests of one kind that fit into one transaction, each key once."""
        batch: list[_Request] = []
        keys: set[bytes] = set()
        size = 0
        while self._requests and len(batch) < BATCH_RECORDS:
            request = self._requests[0]
            is_other = bool(batch) and request.kind is not batch[0].kind
            is_full = bool(batch) and size + len(request.value) > BATCH_BYTES
            if request.done.done():  # cancelled
                self._requests.popleft()
                continue
            if is_other or is_full or (request.key in keys and request.kind is not _Kind.MEND):
                break
            batch.append(self._requests.popleft())
            keys.add(request.key)
            size += len(request.value)
        return batch

    async def _put(self, batch: Sequence[_Request]) -> None:
        try:
            await self._write(batch)
        except RpcError as error:
            if error.is_lease_gone:
                if self._id is not None:
                    self._lose(self._id)
                await self._write(batch)
                await self._restore()
            elif error.is_lost and error.was_sent:
                await self._write(batch)  # which reads before it repeats anything
            elif len(batch) > 1 and (error.is_refused or error.is_too_large):
                for request in batch:  # one of them must not hide the others
                    try:
                        await self._write([request])
                    except RpcError as own:
                        _settle([request], own)
            else:
                raise

    async def _write(self, batch: Sequence[_Request]) -> None:
        lease_id = await self._granted()
        # What may be there already is read first: an unchanged record is not written again.
        known = [(request, self.records.get(request.key)) for request in batch]
        doubtful = [
            request.key
            for request, record in known
            if record and (not record.is_settled or record.value == request.value)
        ]
        there = await self._read(doubtful)
        puts = []
        for request in batch:
            found = there.get(request.key)
            if found is None or (found.value, found.lease) != (request.value, lease_id):
                puts.append(_put_op(request.key, request.value, lease_id))
            self.records[request.key] = Record(request.value, lease_id)
        if puts:
            try:
                await self._cluster.txn(m.TxnRequest(success=puts), is_repeatable=False)
            except RpcError as error:
                if not error.is_lost:  # certainly not written
                    self._undo(known)
                raise
        for request in batch:
            self.records[request.key].is_settled = True

    def _undo(self, known: Iterable[tuple[_Request, Record | None]]) -> None:
        for request, record in known:
            if record is None:
                self.records.pop(request.key, None)
            else:
                self.records[request.key] = record

    async def _drop(self, batch: Sequence[_Request]) -> None:
        keys = [request.key for request in batch if request.key in self.records]
        for key in keys:
            self.records[key].is_wanted = False
        await self._withdraw(keys)

    async def _withdraw(self, keys: Sequence[bytes]) -> None:
        if keys and len(keys) == len(self.records):
            if self._id is not None:
                await self._cluster.revoke(self._id)  # which leaves what hangs on another lease
            self._id = self._lost_at = None
        elif keys:
            answer = await self._cluster.txn(self._withdrawal(keys))
            if not answer.succeeded:  # one of them at least is somebody else's, or gone
                for key in keys:
                    await self._cluster.txn(self._withdrawal([key]))
        for key in keys:
            self.records.pop(key, None)

    def _withdrawal(self, keys: Iterable[bytes]) -> Any:
        return m.TxnRequest(
            compare=[
                m.Compare(
                    target=m.TARGET_LEASE,
                    result=m.COMPARE_EQUAL,
                    key=key,
                    lease=self.records[key].lease_id,
                )
                for key in keys
            ],
            success=[
                m.RequestOp(request_delete_range=m.DeleteRangeRequest(key=key)) for key in keys
            ],
        )

    async def _mend(self, _batch: Sequence[_Request]) -> None:
        unwanted = [key for key, record in self.records.items() if not record.is_wanted]
        for keys in _chunks(unwanted):
            await self._withdraw(keys)
        if self._id is not None and self._lost_at is None:
            await self._reconcile(self._id)
        if self.records and (self._id is None or self._lost_at is not None):
            await self._restore()

    async def _reconcile(self, lease_id: int) -> None:
        """Put what was deleted behind our back. Not being able to look is no reason to worry."""
        try:
            attached = await self._cluster.lease_keys(lease_id)
        except RpcError as error:
            if not error.is_lost:  # a password that has changed, say: the lease itself lives on
                self._looked_at = time.monotonic()
            if not self._is_blind:
                _log.warning("etcd: our records cannot be looked at, only renewed: %s", error)
            self._is_blind = True
            return
        self._is_blind = False
        if attached is None:
            self._lose(lease_id)
            return
        self._looked_at = time.monotonic()
        missing = [key for key in self.records if key not in attached]
        if missing:
            await self._put_absent(missing, lease_id)

    # The lease.

    async def _granted(self) -> int:
        if self._id is None:
            # Of our own choosing, so that repeating an unanswered grant makes no second lease.
            lease_id = secrets.randbits(62) + 1
            await self._cluster.grant(lease_id, self._ttl)
            self._id, self._looked_at = lease_id, time.monotonic()
        return self._id

    def _lose(self, lease_id: int) -> None:
        if self._id == lease_id:
            self._id = None
            if self._lost_at is None:
                self._lost_at = time.monotonic()
                _log.warning(
                    "etcd: the lease of %d registrations has ended; registering them anew",
                    len(self.records),
                )

    async def _restore(self) -> None:
        """Put everything that hung on a lease that is gone."""
        lease_id = await self._granted()
        left = [key for key, record in self.records.items() if record.lease_id != lease_id]
        for keys in self._chunks_by_size(left):
            await self._put_absent(keys, lease_id)
        if self._lost_at is not None:
            _log.info(
                "etcd: %d registrations restored after %.1f s",
                len(self.records),
                time.monotonic() - self._lost_at,
            )
            self._lost_at = None

    async def _put_absent(self, keys: Sequence[bytes], lease_id: int) -> None:
        """Put records that are missing, and leave alone what somebody else has put."""
        for chunk in self._chunks_by_size(keys):
            is_done = False
            while not is_done:
                is_done = await self._try_put_absent(chunk, lease_id)

    async def _try_put_absent(self, keys: Sequence[bytes], lease_id: int) -> bool:
        there = await self._read(keys)
        puts, compares = [], []
        for key in keys:
            found, record = there.get(key), self.records[key]
            if found is None or (found.lease == record.lease_id != lease_id):
                puts.append(_put_op(key, record.value, lease_id))
                compares.append(
                    m.Compare(
                        target=m.TARGET_MOD,
                        result=m.COMPARE_EQUAL,
                        key=key,
                        mod_revision=found.mod_revision if found is not None else 0,
                    )
                )
        if puts:
            answer = await self._cluster.txn(m.TxnRequest(compare=compares, success=puts))
            if not answer.succeeded:
                return False
        for key in keys:
            self.records[key].lease_id = lease_id
            self.records[key].is_settled = True
        return True

    async def _read(self, keys: Sequence[bytes]) -> dict[bytes, Any]:
        if not keys:
            return {}
        reads = [m.RequestOp(request_range=m.RangeRequest(key=key)) for key in keys]
        answer = await self._cluster.txn(m.TxnRequest(success=reads))
        return {kv.key: kv for response in answer.responses for kv in response.response_range.kvs}

    def _chunks_by_size(self, keys: Iterable[bytes]) -> Iterator[list[bytes]]:
        chunk: list[bytes] = []
        size = 0
        for key in keys:
            length = len(self.records[key].value)
            if chunk and (len(chunk) == BATCH_RECORDS or size + length > BATCH_BYTES):
                yield chunk
                chunk, size = [], 0
            chunk.append(key)
            size += length
        if chunk:
            yield chunk


def _put_op(key: bytes, value: bytes, lease_id: int) -> Any:
    return m.RequestOp(request_put=m.PutRequest(key=key, value=value, lease=lease_id))


def _chunks(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(keys), BATCH_RECORDS):
        yield keys[start : start + BATCH_RECORDS]


def _settle(batch: Iterable[_Request], error: Exception | None) -> None:
    for request in batch:
        if request.done.done():
            continue
        if error is None:
            request.done.set_result(None)
        else:
            request.done.set_exception(error.again() if isinstance(error, RpcError) else error)
