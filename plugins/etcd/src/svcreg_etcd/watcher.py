"""etcd's ranges and watch events -> `Snapshot` and `Delta`."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Any

from svcreg import Delta, Service, Snapshot
from svcreg.errors import ProtocolError
from svcreg.model import Node
from svcreg_etcd.cluster import Cluster
from svcreg_etcd.errors import RpcError
from svcreg_etcd.messages import EVENT_DELETE
from svcreg_etcd.records import Keyspace
from svcreg_etcd.watches import CompactedError, Watches

PAGE = 2000
"""Records read at once, so that no single answer keeps the loop, or its deadline, for long."""

NAMED_LIMIT = 100
"""Bad records that are named, so that a prefix full of them cannot fill memory and log."""

_log = logging.getLogger("svcreg.etcd")


class Reader:
    """Reads records; what others keep below the prefix is skipped, counted and named once.

    Attributes:
        skipped: Values so far that were no record.
    """

    def __init__(self, cluster: Cluster, keyspace: Keyspace) -> None:
        self.skipped = 0
        self._cluster = cluster
        self._keyspace = keyspace
        self._named: set[bytes] = set()

    async def read(self, name: str | None) -> tuple[int, dict[bytes, Service]]:
        """Return the revision, and the records of one service, or of all, as of that revision."""
        while True:
            try:
                return await self._read(name)
            except RpcError as error:
                if not error.is_compacted:  # between two pages: read again
                    raise

    async def _read(self, name: str | None) -> tuple[int, dict[bytes, Service]]:
        key, end = self._keyspace.range(name)
        answer = await self._cluster.range(key, end, limit=PAGE)
        revision = answer.header.revision
        records = self._decode_all(answer.kvs, name)
        while answer.more:
            key = answer.kvs[-1].key + b"\0"
            answer = await self._cluster.range(key, end, limit=PAGE, revision=revision)
            records |= self._decode_all(answer.kvs, name)
        return revision, records

    def _decode_all(self, kvs: Iterable[Any], name: str | None) -> dict[bytes, Service]:
        decoded = ((kv.key, self.decode(kv.key, kv.value, name)) for kv in kvs)
        return {key: record for key, record in decoded if record is not None}

    def decode(self, key: bytes, value: bytes, name: str | None) -> Service | None:
        """Return a record; None where it is none, or is another service's than `name`."""
        try:
            record = self._keyspace.decode(key, value)
        except ProtocolError as error:
            self.skipped += 1
            if key not in self._named and len(self._named) < NAMED_LIMIT:
                self._named.add(key)
                _log.warning(
                    "etcd: %s is no service and is skipped (%d so far): %s",
                    ascii(key.decode(errors="replace")),
                    self.skipped,
                    error,
                )
            return None
        # `a/b` and `a-b` share a folder in go-micro's layout.
        return record if name is None or record.name == name else None


async def watch(
    reader: Reader, watches: Watches, keyspace: Keyspace, name: str | None
) -> AsyncGenerator[Snapshot | Delta, None]:
    """Yield everything, then each change, until the stream is lost.

    Raises:
        RpcError: It was lost, or refused.
    """
    while True:
        revision, records = await reader.read(name)
        view = View(reader, name, records)
        yield Snapshot(merge(records.values()), str(revision))
        changes = await watches.open(*keyspace.range(name), revision + 1)
        try:
            while True:
                for delta in view.apply(await changes.next()):
                    yield delta
        except CompactedError:
            _log.info("etcd: revision %d has been compacted; reading everything anew", revision)
        finally:
            changes.close()


class View:
    """The records of one watch by key, so that a delete is understood from its key alone."""

    def __init__(self, reader: Reader, name: str | None, records: dict[bytes, Service]) -> None:
        self._reader = reader
        self._name = name
        self._records = records

    def apply(self, events: Iterable[Any]) -> Iterator[Delta]:
        """Yield what these events change; a key that changes twice is in two deltas."""
        upserts: dict[bytes, Service] = {}
        deletes: dict[bytes, Service] = {}
        revision = ""
        for event in events:
            key = event.kv.key
            if key in upserts or key in deletes:
                yield Delta(merge(upserts.values()), merge(deletes.values()), revision)
                upserts, deletes = {}, {}
            revision = str(event.kv.mod_revision)
            before = self._records.pop(key, None)
            after = None
            if event.type != EVENT_DELETE:
                after = self._reader.decode(key, event.kv.value, self._name)
            if after is not None:
                self._records[key] = after
            if before == after:  # also a transaction that ran twice
                continue
            if after is not None:
                upserts[key] = after
            if before is not None and (gone := _missing(before, after)):
                deletes[key] = gone
        if upserts or deletes:
            yield Delta(merge(upserts.values()), merge(deletes.values()), revision)


def merge(records: Iterable[Service]) -> tuple[Service, ...]:
    """Return services that differ in something else than their nodes."""
    nodes: dict[Service, list[Node]] = {}
    for record in records:
        nodes.setdefault(record.with_nodes(()), []).extend(record.nodes)
    return tuple(header.with_nodes(tuple(found)) for header, found in nodes.items())


def _missing(before: Service, after: Service | None) -> Service | None:
    """Return the nodes of `before` that `after` lacks, or None when it has them all."""
    kept = {node.id for node in after.nodes} if after and after.name == before.name else set()
    gone = tuple(node for node in before.nodes if node.id not in kept)
    return before.with_nodes(gone) if gone else None
