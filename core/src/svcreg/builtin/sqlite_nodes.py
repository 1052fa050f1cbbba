"""The tables of a registry file, and every statement on them.

`node` holds a record per node, its rows in the order of their last change. `change` names, in
order, every node whose record came, changed or went; triggers see to that. So a reader that
remembers the last number it saw reads just what is new. A renewal touches neither record nor
`change`.

Times are those of `time.monotonic()`, which all processes share since the machine started, so
setting the clock expires nothing. A deadline further away than its TTL was written before the
last start, and its node is gone.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from svcreg.builtin.records import Key, split
from svcreg.codec import decode_service, encode_service
from svcreg.errors import ProtocolError, SvcregError
from svcreg.model import Service, check_name, check_service

CHANGES_KEPT = 10_000
"""Changes that a reader may fall behind before it has to read everything anew."""

SLACK = 1.0
"""Seconds that a deadline may exceed its TTL by: floats round, and a live node must not vanish."""

SCHEMA = """
CREATE TABLE node (
    service TEXT NOT NULL,
    id TEXT NOT NULL,
    owner TEXT NOT NULL,    -- the backend instance that registered it
    ttl REAL NOT NULL,      -- seconds
    expires REAL NOT NULL,  -- seconds of the monotonic clock
    record BLOB NOT NULL,   -- go-micro's JSON of the service with this one node
    PRIMARY KEY (service, id)
);
CREATE INDEX node_expires ON node (expires);
CREATE TABLE change (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    service TEXT NOT NULL,
    id TEXT NOT NULL
);
CREATE TRIGGER node_put AFTER INSERT ON node
    BEGIN INSERT INTO change (service, id) VALUES (new.service, new.id); END;
CREATE TRIGGER node_edited AFTER UPDATE OF service, id, record ON node
    BEGIN INSERT INTO change (service, id) VALUES (new.service, new.id); END;
CREATE TRIGGER node_removed AFTER DELETE ON node
    BEGIN INSERT INTO change (service, id) VALUES (old.service, old.id); END;
"""

Row = tuple[str, str, object]
"""Service name, node id and encoded record as they are in the file; None where there is none."""

_LIVE = "expires > :now AND expires <= :now + ttl + :slack"

_log = logging.getLogger("svcreg.sqlite")


class Nodes:
    """One transaction's view of the tables; `now` is not before the last write that it shows."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # A transaction's view is that of its first statement, not of its BEGIN.
        connection.execute("SELECT 1 FROM node LIMIT 1").fetchone()
        self.now = time.monotonic()
        self._at = {"now": self.now, "slack": SLACK}

    def rows(self, name: str | None) -> list[Row]:
        """Return the rows of a service, or with None of all, the last changed last."""
        of_service = "" if name is None else "service = :name AND "
        return self._connection.execute(
            f"SELECT service, id, record FROM node WHERE {of_service}{_LIVE} ORDER BY rowid",  # noqa: S608 - constants
            {**self._at, "name": name},
        ).fetchall()

    def names(self) -> list[str]:
        """Return the names of all services, sorted."""
        found = self._connection.execute(
            f"SELECT DISTINCT service FROM node WHERE {_LIVE} ORDER BY service",  # noqa: S608 - constants
            self._at,
        )
        return [name for (name,) in found]

    def change_range(self) -> tuple[int, int]:
        """Return the numbers of the oldest and the newest change that are kept; 0 without any."""
        first, last = self._connection.execute(
            "SELECT (SELECT MIN(seq) FROM change), (SELECT MAX(seq) FROM change)"
        ).fetchone()
        return first or 0, last or 0

    def changed(self, since: int) -> list[Row]:
        """Return what became of every node that changed after change number `since`."""
        return self._connection.execute(
            "SELECT service, id, record "  # noqa: S608 - constants
            "FROM (SELECT DISTINCT service, id FROM change WHERE seq > :since) "
            "LEFT JOIN (SELECT rowid AS position, service, id, record FROM node WHERE "
            + _LIVE
            + ") USING (service, id) ORDER BY position",
            {**self._at, "since": since},
        ).fetchall()

    def expired(self, since: float) -> list[Key]:
        """Return the nodes whose deadline passed after the time `since`."""
        return self._connection.execute(
            "SELECT service, id FROM node WHERE expires > ? AND expires <= ?", (since, self.now)
        ).fetchall()

    def next_deadline(self) -> float | None:
        """Return the time when the next node expires, unless it is renewed."""
        found: tuple[float | None] = self._connection.execute(
            "SELECT MIN(expires) FROM node WHERE expires > ?", (self.now,)
        ).fetchone()
        return found[0]

    def put(self, service: Service, ttl: float, owner: str) -> None:
        """Create or replace the service's nodes; a record that stays the same is no change."""
        self._purge()
        for (name, node_id), record in split(service):
            row = (owner, ttl, self.now + ttl, name, node_id, encode_service(record))
            updated = self._connection.execute(
                "UPDATE node SET owner = ?, ttl = ?, expires = ? "
                "WHERE service = ? AND id = ? AND record = ?",
                row,
            )
            if not updated.rowcount:
                self._connection.execute(  # a new row, so that its rowid is the highest
                    "INSERT OR REPLACE INTO node (owner, ttl, expires, service, id, record) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    row,
                )
        self._forget_old_changes()

    def remove(self, keys: Iterable[tuple[Key, str | None]]) -> None:
        """Remove nodes, each only from its owner where one is given; unknown is success."""
        self._purge()
        self._connection.executemany(
            "DELETE FROM node "
            "WHERE service = :name AND id = :id AND (:owner IS NULL OR owner = :owner)",
            [{"name": key[0], "id": key[1], "owner": owner} for key, owner in keys],
        )
        self._forget_old_changes()

    def renew(self, service: Service, ttl: float, owner: str) -> bool:
        """Extend the nodes that are still the owner's; tell whether all nodes are there."""
        is_complete = True
        for node in service.nodes:
            updated = self._connection.execute(
                "UPDATE node SET ttl = ?, expires = ? "
                "WHERE service = ? AND id = ? AND owner = ? AND expires > ?",
                (ttl, self.now + ttl, service.name, node.id, owner, self.now),
            )
            if not updated.rowcount:
                another = self._connection.execute(
                    "SELECT 1 FROM node WHERE service = :name AND id = :id AND " + _LIVE,  # noqa: S608 - constants
                    {**self._at, "name": service.name, "id": node.id},
                ).fetchone()
                is_complete = is_complete and another is not None
        return is_complete

    def has_rows_of_earlier_boots(self) -> bool:
        """Tell whether there are nodes of before this machine started."""
        query = "SELECT 1 FROM node WHERE expires > :now + ttl + :slack LIMIT 1"
        return self._connection.execute(query, self._at).fetchone() is not None

    def remove_rows_of_earlier_boots(self) -> None:
        """Remove them, or each would come back for a TTL when the clock gets to its deadline."""
        self._connection.execute("DELETE FROM node WHERE expires > :now + ttl + :slack", self._at)

    def _purge(self) -> None:
        self._connection.execute("DELETE FROM node WHERE expires <= ?", (self.now,))

    def _forget_old_changes(self) -> None:
        self._connection.execute(
            "DELETE FROM change WHERE seq <= (SELECT MAX(seq) FROM change) - ?", (CHANGES_KEPT,)
        )


class RecordReader:
    """Decodes records; one that is damaged is left out, counted, and named once in the log."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._damaged: set[tuple[object, object]] = set()

    def read(self, rows: Iterable[Row]) -> Iterator[Service]:
        """Yield the services of those rows that can be read."""
        for row in rows:
            record = self.read_one(row)
            if record is not None:
                yield record

    def read_one(self, row: Row) -> Service | None:
        """Return a row's service with its one node; None where there is none or it is damaged."""
        name, node_id, data = row
        if data is None:
            return None
        try:
            return _decode(name, node_id, data)
        except SvcregError as error:
            if (name, node_id) not in self._damaged:
                self._damaged.add((name, node_id))
                _log.warning(
                    "skipping the record of node %r of service %r in %s: %s (%d skipped so far)",
                    node_id,
                    name,
                    self._path,
                    error,
                    len(self._damaged),
                )
            return None

    def valid_names(self, names: Iterable[str]) -> list[str]:
        """Return the names that are service names."""
        return [name for name in names if _is_name(name)]


def _decode(name: str, node_id: str, data: object) -> Service:
    if not isinstance(data, (bytes, str)):
        raise ProtocolError(f"it is a {type(data).__name__}, not text")
    service = check_service(decode_service(data))
    if service.name != name or [node.id for node in service.nodes] != [node_id]:
        raise ProtocolError("it is that of another node")
    return service


def _is_name(name: object) -> bool:
    try:
        check_name(name)  # type: ignore[arg-type] # whatever it is, check_name says
    except SvcregError:
        return False
    return True
