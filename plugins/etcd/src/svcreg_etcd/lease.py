"""One lease and the records that hang on it: written together, kept, restored and withdrawn."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from svcreg_etcd import messages as m
from svcreg_etcd.cluster import Cluster
from svcreg_etcd.errors import RpcError
from svcreg_etcd.requests import BATCH_BYTES, BATCH_RECORDS, Kind, Request, Requests

RECONCILE_PERIOD = 10.0
"""Seconds, at least, between two looks at what hangs on the lease: about 0.1 kB for each record."""

MIN_PATIENCE = 0.5
"""Seconds, at least, that a member gets to acknowledge a renewal; else a quarter of the TTL."""

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


class Lease:
    """The records of one TTL. Loop only.

    All writes go through one queue, so that a withdrawal can overtake nothing.

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
        self._requests = Requests(self._handle)
        self._keeping: asyncio.Task[None] | None = None

    async def put(self, values: Mapping[bytes, bytes]) -> None:
        """Write records, whoever has written them before; return when all are acknowledged.

        Raises:
            RpcError: At least one was not.
        """
        await self._requests.submit(
            [Request(Kind.PUT, key, value) for key, value in values.items()]
        )

    async def drop(self, keys: Iterable[bytes]) -> None:
        """Withdraw records of ours; what somebody else has written since stays.

        Raises:
            RpcError: Not acknowledged; `keep` tries again.
        """
        requests = [Request(Kind.DROP, key) for key in keys]
        for request in requests:
            if request.key in self.records:
                self.records[request.key].is_wanted = False
        await self._requests.submit(requests)

    async def keep(self) -> None:
        """Extend the lease. Now and then, and after a loss, put what is missing.

        Raises:
            RpcError: The cluster could not be asked.
        """
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.create_task(self._keep(), name="svcreg-etcd-keep")
            self._keeping.add_done_callback(_note_outcome)
        # It goes on although nobody waits any more: core may be less patient than it takes to
        # find a member that answers.
        await asyncio.wait({self._keeping})
        self._keeping.result()

    async def _keep(self) -> None:
        lease_id = self._id
        if lease_id is not None:
            patience = max(self._ttl / 4, MIN_PATIENCE)
            if not await self._cluster.keep_alive(lease_id, patience):
                self._lose(lease_id)
        is_due = time.monotonic() - self._looked_at >= RECONCILE_PERIOD
        if self._id is None or self._lost_at is not None or is_due:
            await self._requests.submit([Request(Kind.MEND)])

    async def close(self) -> None:
        """End the lease, and with it the records; a cluster that is away leaves it to the TTL."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        await self._requests.close()
        if self._id is not None:
            await self._cluster.revoke(self._id)

    # The worker.

    async def _handle(self, batch: Sequence[Request]) -> None:
        kind = batch[0].kind
        if kind is Kind.PUT:
            await self._put(batch)
        elif kind is Kind.DROP:
            await self._drop(batch)
        else:
            await self._mend()

    async def _put(self, batch: Sequence[Request]) -> None:
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
                        request.settle(own)
            else:
                raise

    async def _write(self, batch: Sequence[Request]) -> None:
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

    def _undo(self, known: Iterable[tuple[Request, Record | None]]) -> None:
        for request, record in known:
            if record is None:
                self.records.pop(request.key, None)
            else:
                self.records[request.key] = record

    async def _drop(self, batch: Sequence[Request]) -> None:
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

    async def _mend(self) -> None:
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


def _note_outcome(task: asyncio.Task[None]) -> None:
    """Take note of an error, which may interest nobody any more."""
    if not task.cancelled():
        task.exception()
