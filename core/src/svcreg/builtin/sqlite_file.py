"""One registry file: finding it, making it, connecting to it, and what its errors mean."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from svcreg.builtin.sqlite_nodes import SCHEMA, Nodes
from svcreg.errors import (
    ConfigError,
    PermissionDeniedError,
    RegistryClosedError,
    RegistryTimeoutError,
    RegistryUnavailableError,
    SvcregError,
)

APPLICATION_ID = 0x53564352  # "SVCR"; https://www.sqlite.org/fileformat.html section 1.3.17
SCHEMA_VERSION = 1

MAGIC = b"SQLite format 3\x00"
HEADER_BYTES = 100
_VERSION_AT, _APPLICATION_AT = 60, 68  # 4 bytes each, big-endian; fileformat.html section 1.3

FOLDER_LOCK_RETRY = 0.01
"""Seconds between attempts while another process makes the file, which takes it about as long."""


Identity = tuple[int, int]
"""Device and inode of a file."""


class RegistryFile:
    """A registry file and one connection to it, opened on first use.

    Any thread may call it; one at a time is let in. A file that was removed or replaced is noticed
    at the next call, which opens the new one. A process that forks has no connection open
    while it does: SQLite's locks do not survive in a child, nor its parent's in the face of one.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self.path = path
        self.identity: Identity | None = None
        """Which file the last call used; after `version` or inside a transaction, which it is."""
        self._timeout = timeout
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._connections = 0
        self._is_closed = False
        with _files_lock:
            _files.add(self)

    @contextmanager
    def reading(self) -> Iterator[Nodes]:
        """Give a consistent view of the file; writers do not wait for it, nor it for them.

        Raises:
            SvcregError: What `explain` says.
        """
        with self._transaction("DEFERRED") as nodes:
            yield nodes

    @contextmanager
    def writing(self) -> Iterator[Nodes]:
        """Give a view that may be changed; all of it is kept, or after an error nothing.

        Raises:
            SvcregError: What `explain` says.
        """
        with self._transaction("IMMEDIATE") as nodes:
            yield nodes

    def version(self) -> tuple[int, int]:
        """Return what differs from last time if anything in the file does; takes microseconds."""
        with self._connected() as connection:
            version: tuple[int] = connection.execute("PRAGMA data_version").fetchone()
            return self._connections, version[0]

    def close(self) -> None:
        """Close the connection for good."""
        with self._lock:
            self._is_closed = True
            self._disconnect()

    @contextmanager
    def _transaction(self, mode: str) -> Iterator[Nodes]:
        with self._connected() as connection:
            connection.execute(f"BEGIN {mode}")
            try:
                yield Nodes(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._is_closed:
                raise RegistryClosedError(f"sqlite: the registry {self.path} has been closed")
            try:
                if self._connection is not None and _identify(self.path) != self.identity:
                    self._disconnect()
                connection = self._connection or self._connect()
                yield connection
            except SvcregError:
                raise  # it says what is wrong already; a timeout is an OSError, too
            except (sqlite3.Error, OSError) as error:
                explained = explain(error, self.path, self._timeout)
                if not isinstance(explained, RegistryTimeoutError):
                    self._disconnect()  # a new connection may find things better
                raise explained from error

    def _connect(self) -> sqlite3.Connection:
        with _opening:
            self.identity = _prepare(self.path, self._timeout)
            self._connection = connection = _open(self.path, self._timeout)
            _in_use[self.identity] += 1
        self._connections += 1
        connection.execute("PRAGMA synchronous = NORMAL")  # only checkpoints wait for the disk
        if Nodes(connection).has_rows_of_earlier_boots():
            connection.execute("BEGIN IMMEDIATE")
            Nodes(connection).remove_rows_of_earlier_boots()
            connection.execute("COMMIT")
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()
            assert self.identity is not None  # noqa: S101 - set with the connection
            with _opening:
                _in_use[self.identity] -= 1


def explain(error: sqlite3.Error | OSError, path: Path, timeout: float) -> SvcregError:
    """Return the error that tells the user of a registry file what is wrong with it."""
    if isinstance(error, PermissionError):
        return PermissionDeniedError(_rights_needed(path, error))
    if isinstance(error, (IsADirectoryError, NotADirectoryError, FileExistsError)):
        return ConfigError(f"sqlite: {path} cannot be a file: {error.strerror}; name another one")
    if isinstance(error, OSError):
        return RegistryUnavailableError(f"sqlite: {path} cannot be used: {error}")
    extended = getattr(error, "sqlite_errorcode", None) or 0
    code = extended & 0xFF  # https://www.sqlite.org/rescode.html: the primary code
    if extended == sqlite3.SQLITE_READONLY_DBMOVED:
        return RegistryUnavailableError(f"sqlite: {path} was removed or replaced")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RegistryTimeoutError(
            f"sqlite: {path} was locked by another process for more than {timeout:g} s"
        )
    if code in (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY) or (
        # Out of file descriptors, or just removed: that passes, unlike missing rights.
        code == sqlite3.SQLITE_CANTOPEN and not _may_be_written(path)
    ):
        return PermissionDeniedError(_rights_needed(path, error))
    if code == sqlite3.SQLITE_NOTADB:
        return ConfigError(f"sqlite: {path} is not a registry; name another file")
    if code == sqlite3.SQLITE_CORRUPT:
        return RegistryUnavailableError(
            f"sqlite: {path} is damaged ({error}); delete it, and everybody registers in a new one"
        )
    return RegistryUnavailableError(f"sqlite: {path} cannot be used now: {error}")


def _rights_needed(path: Path, error: Exception) -> str:
    return f"sqlite: {path} and its folder must be readable and writable by this user: {error}"


def _may_be_written(path: Path) -> bool:
    return all(
        os.access(place, os.R_OK | os.W_OK) for place in (path, path.parent) if place.exists()
    )


def _identify(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _prepare(path: Path, timeout: float) -> Identity:
    """Make the file where there is none; return its identity once it is known to be a registry."""
    while (identity := _identify(path)) is None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _create(path, timeout)
    # Closing a file ends every lock of this process on it, SQLite's own included, so one in use is
    # not looked at again: https://www.sqlite.org/howtocorrupt.html section 2.2
    if not _in_use[identity]:
        with path.open("rb") as file:
            _check_header(file.read(HEADER_BYTES), path)
    return identity


def _check_header(header: bytes, path: Path) -> None:
    """Look at a file before SQLite does, which may change even one that is only looked at."""
    if not header:
        raise ConfigError(f"sqlite: {path} is empty; delete it and a registry is made in its place")
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        raise ConfigError(f"sqlite: {path} is not an SQLite database; name another file")
    application = int.from_bytes(header[_APPLICATION_AT : _APPLICATION_AT + 4])
    if application != APPLICATION_ID:
        raise ConfigError(
            f"sqlite: {path} is a database of another program and is left alone; name another file"
        )
    version = int.from_bytes(header[_VERSION_AT : _VERSION_AT + 4])
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"sqlite: {path} has format {version} and this svcreg writes {SCHEMA_VERSION}; use one "
            "version of svcreg on this machine, or name another file"
        )


def _create(path: Path, timeout: float) -> None:
    """Make a registry file that is complete from the moment it is there."""
    with _folder_locked(path.parent, timeout):
        if path.exists():
            return
        # What a removed file left behind would be taken for the new one's:
        # https://www.sqlite.org/howtocorrupt.html section 4.4
        for suffix in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        unfinished = path.with_name(path.name + "-new")
        unfinished.unlink(missing_ok=True)  # of a process that was killed here
        with closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
            connection.executescript(
                f"BEGIN; PRAGMA application_id = {APPLICATION_ID}; "
                f"PRAGMA user_version = {SCHEMA_VERSION}; {SCHEMA} COMMIT; "
                "PRAGMA journal_mode = WAL;"
            )
        unfinished.rename(path)


@contextmanager
def _folder_locked(folder: Path, timeout: float) -> Iterator[None]:
    """Let one process at a time make files in a folder; the lock goes with its process."""
    give_up = time.monotonic() + timeout
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise RegistryTimeoutError(
                        f"sqlite: {folder} was locked by another process for more than "
                        f"{timeout:g} s"
                    ) from None
                time.sleep(FOLDER_LOCK_RETRY)
        yield
    finally:
        os.close(descriptor)


def _open(path: Path, timeout: float) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.as_uri()}?mode=rw",  # never made by SQLite, see _create
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
        uri=True,
    )


_opening = threading.Lock()  # taken inside a file's own lock
_in_use: Counter[Identity] = Counter()
"""Connections of this process per file; behind `_opening`."""

_files: weakref.WeakSet[RegistryFile] = weakref.WeakSet()
_files_lock = threading.Lock()
_held_for_fork: list[threading.Lock] = []


def _before_fork() -> None:
    """Close every connection: https://www.sqlite.org/howtocorrupt.html section 2.6.

    A child's new connection would trust locks that only its parent holds, and lose the file
    to others once the parent is gone.
    """
    _files_lock.acquire()  # held until after the fork, so that there is no new file meanwhile
    _held_for_fork.append(_files_lock)
    for file in list(_files):
        file._lock.acquire()
        _held_for_fork.append(file._lock)
        file._disconnect()


def _after_fork() -> None:
    while _held_for_fork:
        _held_for_fork.pop().release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
