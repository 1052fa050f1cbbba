"""What a registry file's errors tell its user, who may make it, and what a fork leaves open."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from svcreg.builtin import sqlite_file
from svcreg.builtin.sqlite import SqliteBackend
from svcreg.builtin.sqlite_file import RegistryFile, explain
from svcreg.config import load_config
from svcreg.errors import (
    ConfigError,
    PermissionDeniedError,
    RegistryTimeoutError,
    RegistryUnavailableError,
    SvcregError,
)

PATIENCE = 5.0


@pytest.fixture
def file(sqlite_path: Path) -> Iterator[RegistryFile]:
    file = RegistryFile(sqlite_path, PATIENCE)
    yield file
    file.close()


def failed(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [
        (PermissionError(errno.EACCES, "denied"), PermissionDeniedError, "readable and writable"),
        (IsADirectoryError(errno.EISDIR, "Is a directory"), ConfigError, "cannot be a file"),
        (OSError(errno.EIO, "broken"), RegistryUnavailableError, "cannot be used: .*broken"),
        (failed(sqlite3.SQLITE_BUSY), RegistryTimeoutError, "for more than 5 s"),
        (failed(sqlite3.SQLITE_BUSY_SNAPSHOT), RegistryTimeoutError, "for more than 5 s"),
        (failed(sqlite3.SQLITE_LOCKED), RegistryTimeoutError, "for more than 5 s"),
        (failed(sqlite3.SQLITE_PERM), PermissionDeniedError, "readable and writable"),
        (failed(sqlite3.SQLITE_READONLY), PermissionDeniedError, "readable and writable"),
        (failed(sqlite3.SQLITE_READONLY_DBMOVED), RegistryUnavailableError, "removed or replaced"),
        (failed(sqlite3.SQLITE_CANTOPEN), RegistryUnavailableError, "cannot be used now"),
        (failed(sqlite3.SQLITE_NOTADB), ConfigError, "is not a registry"),
        (failed(sqlite3.SQLITE_CORRUPT), RegistryUnavailableError, "is damaged .* delete it"),
        (failed(sqlite3.SQLITE_FULL), RegistryUnavailableError, "cannot be used now"),
        (sqlite3.ProgrammingError("no code at all"), RegistryUnavailableError, "used now: no code"),
    ],
)
def test_error_names_the_file_and_what_is_wrong_with_it(
    sqlite_path: Path, error: sqlite3.Error | OSError, expected: type[SvcregError], said: str
) -> None:
    explained = explain(error, sqlite_path, PATIENCE)
    assert type(explained) is expected
    assert f"sqlite: {sqlite_path} " in str(explained)
    with pytest.raises(expected, match=said):
        raise explained


def test_file_is_not_made_while_another_process_makes_one(sqlite_path: Path) -> None:
    folder = os.open(sqlite_path.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    file = RegistryFile(sqlite_path, timeout=0.05)
    try:
        with pytest.raises(RegistryTimeoutError, match=r"was locked .* for more than 0\.05 s"):
            file.version()
        assert not sqlite_path.exists()
    finally:
        os.close(folder)
    assert file.version()
    file.close()


def test_maker_waits_for_the_other_one(file: RegistryFile, sqlite_path: Path) -> None:
    folder = os.open(sqlite_path.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    release = threading.Timer(0.05, os.close, (folder,))
    release.start()
    assert file.version()
    release.join()


def test_no_connection_is_open_during_a_fork_and_a_new_one_is_opened_after(
    file: RegistryFile,
) -> None:
    before = file.version()
    assert file.identity is not None
    in_use = sqlite_file._in_use[file.identity]
    sqlite_file._before_fork()
    try:
        assert file._connection is None
        assert sqlite_file._in_use[file.identity] == in_use - 1
        assert file._lock.locked()  # nobody opens another one meanwhile
    finally:
        sqlite_file._after_fork()
    after = file.version()
    assert after != before  # another connection: what was known is to be read again
    assert sqlite_file._in_use[file.identity] == in_use


def test_writer_that_fails_leaves_nothing_half_done(file: RegistryFile) -> None:
    before = file.version()
    with pytest.raises(ZeroDivisionError), file.writing():
        raise ZeroDivisionError
    assert file.version() == before
    with file.writing():
        pass


@pytest.mark.parametrize("address", ["~nobody-of-that-name/registry.db", "/tmp/a\0b"])
def test_path_that_leads_nowhere_is_refused(address: str) -> None:
    config = load_config("sqlite", environ={})
    with pytest.raises(ConfigError, match="leads nowhere"):
        SqliteBackend(type(config)(backend="sqlite", addresses=(address,)))
