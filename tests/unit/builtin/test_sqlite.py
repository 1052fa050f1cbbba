"""The sqlite backend's file: where it is, what may be wrong with it, and what watching it costs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from svcreg.builtin import sqlite_nodes
from svcreg.builtin.sqlite import SqliteBackend
from svcreg.builtin.sqlite_file import RegistryFile
from svcreg.codec import encode_service
from svcreg.config import load_config
from svcreg.errors import (
    ConfigError,
    PermissionDeniedError,
    RegistryClosedError,
    RegistryTimeoutError,
    RegistryUnavailableError,
)
from svcreg.hookspecs import Snapshot
from svcreg.model import Node, Service
from tests.unit.builtin.support import Hooks, asynchronous, eventually, ids, service

Open = Callable[[], Hooks]


def execute(path: Path, statement: str, *values: object) -> list[Any]:
    """Do what an operator might with the sqlite3 program."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement, values).fetchall()


# --- where the file is


def test_default_file_is_in_the_state_folder_of_this_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    hooks = Hooks("sqlite")
    asyncio.run(hooks.register(service("greeter", "a")))
    hooks.close()
    path = tmp_path / "state" / "svcreg" / "registry.db"
    assert path.is_file()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("state", [None, "", "relative/state"])
def test_default_file_is_under_home_without_a_state_folder(
    state: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if state is None:
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    else:
        monkeypatch.setenv("XDG_STATE_HOME", state)
    hooks = Hooks("sqlite")
    asyncio.run(hooks.register(service("greeter", "a")))
    hooks.close()
    assert (tmp_path / ".local/state/svcreg/registry.db").is_file()


def test_relative_path_means_the_folder_at_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hooks = Hooks("sqlite://here.db")
    monkeypatch.chdir("/")  # as a daemon does
    asyncio.run(hooks.register(service("greeter", "a")))
    hooks.close()
    assert (tmp_path / "here.db").is_file()


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    hooks = Hooks("sqlite://~/my registry#1?.db".replace("?", "%3F").replace("#", "%23"))
    asyncio.run(hooks.register(service("greeter", "a")))
    hooks.close()
    assert (tmp_path / "my registry#1?.db").is_file()


def test_building_the_backend_touches_no_file(tmp_path: Path) -> None:
    SqliteBackend(load_config(f"sqlite://{tmp_path}/sub/registry.db", environ={}))
    assert not list(tmp_path.iterdir())


def test_closing_releases_every_file_and_thread(sqlite_path: Path) -> None:
    hooks = Hooks(f"sqlite://{sqlite_path}")

    async def use() -> None:
        async with hooks.watch("greeter") as watch:
            await watch.snapshot()
            await hooks.register(service("greeter", "a"))
            await hooks.get("greeter")

    before = threading.active_count()
    asyncio.run(use())
    hooks.close()
    open_files = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert not [name for name in open_files if name.startswith(str(sqlite_path))]
    assert threading.active_count() == before
    assert [one.name for one in sqlite_path.parent.iterdir()] == ["registry.db"]


def test_use_after_closing_is_refused(sqlite_path: Path) -> None:
    hooks = Hooks(f"sqlite://{sqlite_path}")
    hooks.close()
    with pytest.raises(RegistryClosedError):
        asyncio.run(hooks.get("greeter"))


def test_closing_ends_a_running_watch(sqlite_path: Path) -> None:
    hooks = Hooks(f"sqlite://{sqlite_path}")

    async def follow() -> None:
        async with hooks.watch("greeter") as watch:
            await watch.snapshot()
            hooks.close()
            with pytest.raises(RegistryClosedError):
                await watch.next()

    asyncio.run(follow())


# --- what may be wrong with it


def test_database_of_another_program_is_refused_and_left_alone(sqlite_path: Path) -> None:
    with closing(sqlite3.connect(sqlite_path)) as connection:
        connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE theirs (a)")
    before = sqlite_path.read_bytes(), sqlite_path.stat().st_mtime_ns
    hooks = Hooks(f"sqlite://{sqlite_path}")
    for call in (
        hooks.get("greeter"),
        hooks.list(),
        hooks.register(service("greeter", "a")),
        hooks.renew(service("greeter", "a")),
    ):
        with pytest.raises(ConfigError, match=r"registry\.db is a database of another program"):
            asyncio.run(call)
    hooks.close()
    assert (sqlite_path.read_bytes(), sqlite_path.stat().st_mtime_ns) == before
    assert [one.name for one in sqlite_path.parent.iterdir()] == ["registry.db"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; delete it"),
        (b"[settings]\n", "not an SQLite database; name another file"),
        (b"\x00" * 8192, "not an SQLite database; name another file"),
        (b"SQLite format 3\x00", "not an SQLite database; name another file"),
    ],
)
def test_what_is_no_database_is_refused_and_left_alone(
    content: bytes, message: str, sqlite_path: Path
) -> None:
    sqlite_path.write_bytes(content)
    hooks = Hooks(f"sqlite://{sqlite_path}")
    with pytest.raises(ConfigError, match=message):
        asyncio.run(hooks.register(service("greeter", "a")))
    hooks.close()
    assert sqlite_path.read_bytes() == content


def test_file_of_a_newer_version_is_refused(open_sqlite: Open, sqlite_path: Path) -> None:
    hooks = Hooks(f"sqlite://{sqlite_path}")
    asyncio.run(hooks.register(service("greeter", "a")))
    hooks.close()
    execute(sqlite_path, "PRAGMA user_version = 7")
    with pytest.raises(
        ConfigError, match=r"has format 7 and this svcreg writes 1; use one version"
    ):
        asyncio.run(open_sqlite().get("greeter"))


@pytest.mark.parametrize("place", ["folder", "file/registry.db"])
def test_path_that_cannot_be_a_file_is_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    hooks = Hooks(f"sqlite://{tmp_path}/{place}")
    with pytest.raises(ConfigError, match=f"{place} cannot be a file"):
        asyncio.run(hooks.get("greeter"))
    hooks.close()


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Give up root's rights to every file for a while, where the tests run as root."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are for one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o700)


@pytest.mark.parametrize("mode", [0o444, 0o000])
def test_missing_rights_are_named_with_the_path(mode: int, public_folder: Path) -> None:
    path = public_folder / "registry.db"
    hooks = Hooks(f"sqlite://{path}")
    asyncio.run(hooks.register(service("greeter", "a")))
    hooks.close()
    path.chmod(mode)
    public_folder.chmod(0o555)
    denied = Hooks(f"sqlite://{path}")
    with as_nobody(), pytest.raises(PermissionDeniedError, match=f"{path} .*readable and writable"):
        denied.backend.svcreg_register(service("greeter", "b"), 60)
    denied.close()


def test_folder_that_may_not_be_made_is_named(public_folder: Path) -> None:
    public_folder.chmod(0o555)
    hooks = Hooks(f"sqlite://{public_folder}/sub/registry.db")
    with as_nobody(), pytest.raises(PermissionDeniedError, match=r"sub/registry\.db"):
        hooks.backend.svcreg_get("greeter")
    hooks.close()


def test_writer_that_waits_too_long_times_out_while_readers_go_on(
    open_sqlite: Open, sqlite_path: Path
) -> None:
    hooks = Hooks(f"sqlite://{sqlite_path}", timeout=0.2)
    asyncio.run(hooks.register(service("greeter", "a")))
    with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryTimeoutError, match=r"was locked .* more than 0\.2 s"):
            asyncio.run(hooks.register(service("greeter", "b")))
        assert ids(asyncio.run(hooks.get("greeter"))) == ["a"]
        other.execute("ROLLBACK")
    asyncio.run(hooks.register(service("greeter", "b")))
    hooks.close()
    assert ids(asyncio.run(open_sqlite().get("greeter"))) == ["a", "b"]


def test_full_disk_is_an_outage_that_passes(tmp_path: Path) -> None:
    # In a process of its own: the limit is one on every file of the process.
    program = f"""
import asyncio, resource
from svcreg.errors import RegistryUnavailableError
from tests.unit.builtin.support import Hooks, ids, service
hooks = Hooks("sqlite://{tmp_path}/registry.db")
asyncio.run(hooks.register(service("greeter", "a")))
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, unlimited[1]))
try:
    for count in range(100):
        asyncio.run(hooks.register(service("greeter", "large", text=str(count) * 20_000)))
except RegistryUnavailableError as error:
    print(error)
else:
    raise AssertionError("the disk was never full")
assert ids(asyncio.run(hooks.get("greeter")))[0] == "a"
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
asyncio.run(hooks.register(service("greeter", "b")))
assert "b" in ids(asyncio.run(hooks.get("greeter")))
hooks.close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "registry.db" in done.stdout


def test_damaged_pages_are_an_outage_until_the_file_is_deleted(
    open_sqlite: Open, sqlite_path: Path
) -> None:
    first = Hooks(f"sqlite://{sqlite_path}")
    asyncio.run(first.register(service("greeter", "a")))
    first.close()
    content = sqlite_path.read_bytes()
    sqlite_path.write_bytes(content[:100] + b"\xff" * (len(content) - 100))
    hooks = open_sqlite()
    with pytest.raises(RegistryUnavailableError, match=r"is damaged .*; delete it"):
        asyncio.run(hooks.get("greeter"))
    sqlite_path.unlink()
    asyncio.run(hooks.register(service("greeter", "a")))
    assert ids(asyncio.run(hooks.get("greeter"))) == ["a"]


# --- a file that goes away


@pytest.mark.parametrize("left", [(), ("-wal", "-shm")], ids=["all", "only the database"])
@asynchronous
async def test_deleted_file_is_noticed_and_made_anew(
    left: tuple[str, ...], open_sqlite: Open, sqlite_path: Path
) -> None:
    hooks, other = open_sqlite(), open_sqlite()
    node = service("greeter", "a")
    async with other.watch("greeter") as watch:
        await watch.snapshot()
        await hooks.register(node)
        assert await watch.put() == ["a"]
        for path in sqlite_path.parent.iterdir():
            if not path.name.endswith(left or ("none",)):
                path.unlink()
        assert list(await hooks.renew(node)) == [node]
        with pytest.raises(RegistryUnavailableError, match="was removed or replaced"):
            await watch.next()
    async with other.watch("greeter") as watch:
        assert (await watch.snapshot()).services == ()
        await hooks.register(node)
        assert await watch.put() == ["a"]
    assert ids(await other.get("greeter")) == ["a"]
    assert execute(sqlite_path, "PRAGMA integrity_check") == [("ok",)]


@asynchronous
async def test_deleted_folder_is_made_anew(tmp_path: Path) -> None:
    hooks = Hooks(f"sqlite://{tmp_path}/sub/registry.db")
    await hooks.register(service("greeter", "a"))
    for path in (tmp_path / "sub").iterdir():
        path.unlink()
    (tmp_path / "sub").rmdir()
    assert list(await hooks.renew(service("greeter", "a"))) == [service("greeter", "a")]
    hooks.close()


@asynchronous
async def test_every_watch_gets_an_error_of_its_own(open_sqlite: Open, sqlite_path: Path) -> None:
    hooks = open_sqlite()
    async with hooks.watch("one") as one, hooks.watch("two") as two:
        await one.snapshot()
        await two.snapshot()
        os.rename(sqlite_path, f"{sqlite_path}-elsewhere")  # noqa: PTH104 - ASYNC240 wants no Path here
        with pytest.raises(RegistryUnavailableError) as first:
            await one.next()
        with pytest.raises(RegistryUnavailableError) as second:
            await two.next()
    assert first.value is not second.value
    assert str(first.value) == str(second.value)


# --- damaged and outdated records


@asynchronous
async def test_damaged_record_is_named_once_and_hides_nobody(
    open_sqlite: Open, sqlite_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hooks = open_sqlite()
    await hooks.register(service("greeter", "good"))
    await hooks.register(service("broken", "x"))
    damaged = {
        "json": b"{",
        "binary": b"\xff\x00",
        "number": 7,
        "other": encode_service(service("greeter", "somebody")),
        "address": encode_service(Service("greeter", nodes=[Node("address", "nowhere")])),
        "deep": b"[" * 100_000,
    }
    insert = "INSERT INTO node VALUES (?, ?, 'them', 60, ?, ?)"
    async with hooks.watch("greeter") as watch, hooks.watch(None) as watch_all:
        await watch.snapshot()
        await watch_all.snapshot()
        for node_id, record in damaged.items():
            execute(sqlite_path, insert, "greeter", node_id, time.monotonic() + 59, record)
        execute(sqlite_path, insert, "bad name", "x", time.monotonic() + 59, b"{")
        execute(sqlite_path, "UPDATE node SET record = '' WHERE service = 'broken'")
        await hooks.register(service("greeter", "neighbour"))
        assert await watch.put() == ["neighbour"]
        delta = await watch_all.delta()
        while not delta.deletes:
            delta = await watch_all.delta()
        assert ids(delta.deletes) == ["x"]  # which could be read before, and cannot any more
    for _ in range(2):
        assert ids(await hooks.get("greeter")) == ["good", "neighbour"]
    assert list(await hooks.list()) == ["broken", "greeter"]
    async with hooks.watch(None) as watch_all:
        assert ids((await watch_all.snapshot()).services) == ["good", "neighbour"]
    logged = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    for name, node_id in [*(("greeter", node_id) for node_id in damaged), ("bad name", "x")]:
        assert len([one for one in logged if f"{node_id!r} of service {name!r}" in one]) == 1
    assert logged[-1].endswith(f"({len(damaged) + 2} skipped so far)")


@asynchronous
async def test_nodes_of_before_the_machine_started_are_gone(
    open_sqlite: Open, sqlite_path: Path
) -> None:
    await open_sqlite().register(service("greeter", "now"))
    long_up = time.monotonic() + 1_000_000
    execute(
        sqlite_path,
        "INSERT INTO node VALUES ('greeter', 'before', 'them', 90, ?, ?)",
        long_up,
        encode_service(service("greeter", "before")),
    )
    opened_before = open_sqlite()
    assert ids(await opened_before.get("greeter")) == ["now"]
    assert execute(sqlite_path, "SELECT id FROM node") == [("now",)]


def test_view_of_the_file_is_not_older_than_its_clock(open_sqlite: Open, sqlite_path: Path) -> None:
    writer = open_sqlite()
    writer.backend.svcreg_register(service("greeter", "a"), 60)
    file = RegistryFile(sqlite_path, 5.0)
    with file.reading() as nodes:
        # Shown with a clock of before its registration, it would seem to be of an earlier start.
        writer.backend.svcreg_register(service("greeter", "b"), 60)
        assert [node_id for _, node_id, _ in nodes.rows("greeter")] == ["a"]
    file.close()


@asynchronous
async def test_setting_the_clock_expires_nothing(
    open_sqlite: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = open_sqlite()
    await hooks.register(service("greeter", "a"))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert ids(await hooks.get("greeter")) == ["a"]
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert ids(await hooks.get("greeter")) == ["a"]
    assert list(await hooks.renew(service("greeter", "a"))) == []


@asynchronous
async def test_writers_remove_what_has_expired(open_sqlite: Open, sqlite_path: Path) -> None:
    hooks = open_sqlite()
    await hooks.register(service("greeter", "a"), ttl=0.05)

    async def is_gone() -> bool:
        await hooks.register(service("other", "b"))
        return execute(sqlite_path, "SELECT id FROM node") == [("b",)]

    await eventually(is_gone)


# --- watching


@asynchronous
async def test_expiry_is_told_although_nobody_writes(open_sqlite: Open, sqlite_path: Path) -> None:
    hooks = open_sqlite()
    async with hooks.watch("greeter") as watch:
        await watch.snapshot()
        await hooks.register(service("greeter", "a"), ttl=0.3)
        assert await watch.put() == ["a"]
        with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # so that nobody can
            assert await watch.deleted() == ["a"]
            other.execute("ROLLBACK")
        await hooks.register(service("greeter", "b"))  # which removes the row of "a"
        assert await watch.put() == ["b"]


@asynchronous
async def test_change_by_hand_is_told(open_sqlite: Open, sqlite_path: Path) -> None:
    hooks = open_sqlite()
    async with hooks.watch("greeter") as watch:
        await watch.snapshot()
        await hooks.register(service("greeter", "a", "b"))
        await watch.delta()
        execute(sqlite_path, "DELETE FROM node WHERE id = 'a'")
        assert await watch.deleted() == ["a"]


@asynchronous
async def test_renewals_are_not_read(open_sqlite: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = sqlite_nodes.RecordReader.read_one

    def read_one(self: sqlite_nodes.RecordReader, row: sqlite_nodes.Row) -> Service | None:
        read.append(row[1])
        return original(self, row)

    writer, reader = open_sqlite(), open_sqlite()
    nodes = service("greeter", *(f"n{count}" for count in range(50)))
    await writer.register(nodes)
    async with reader.watch("greeter") as watch:
        await watch.snapshot()
        monkeypatch.setattr(sqlite_nodes.RecordReader, "read_one", read_one)
        for _ in range(5):
            await writer.renew(nodes)
        await writer.register(service("greeter", "new"))
        assert await watch.put() == ["new"]
    assert read == ["new"]


@asynchronous
async def test_watch_that_fell_far_behind_gets_a_snapshot(
    open_sqlite: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_nodes, "CHANGES_KEPT", 10)
    hooks = open_sqlite()
    async with hooks.watch("greeter") as watch:
        await watch.snapshot()
        names = [f"n{count:02}" for count in range(30)]
        await hooks.register(service("greeter", *names))  # at once: more than are kept
        item = await watch.next()
        assert isinstance(item, Snapshot)
        assert ids(item.services) == names
        await hooks.register(service("greeter", "after"))
        assert await watch.put() == ["after"]


@asynchronous
async def test_thread_runs_only_while_there_are_watches(open_sqlite: Open) -> None:
    def threads() -> list[str]:
        return [one.name for one in threading.enumerate() if one.name == "svcreg-sqlite-poll"]

    async def has_ended() -> bool:
        return not threads()

    hooks = open_sqlite()
    for _ in range(3):
        async with hooks.watch("one") as one, hooks.watch("two") as two:
            await one.snapshot()
            await two.snapshot()
            assert len(threads()) == 1
        await eventually(has_ended)


def test_limit_of_open_files_is_an_outage_that_passes(open_sqlite: Open) -> None:
    hooks = open_sqlite()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = max(int(link.name) for link in Path("/proc/self/fd").iterdir())
    with contextlib.ExitStack() as files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, limits[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    files.enter_context(Path(os.devnull).open("rb"))
            with pytest.raises(RegistryUnavailableError):
                hooks.backend.svcreg_register(service("greeter", "a"), 60)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    hooks.backend.svcreg_register(service("greeter", "a"), 60)
