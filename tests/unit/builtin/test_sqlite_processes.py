"""Several processes on one sqlite file: what they see of each other, killed, stopped and forked."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from svcreg.hookspecs import Delta
from tests.unit.builtin.process import ROOT, Process, processes
from tests.unit.builtin.support import Hooks, asynchronous, ids, service

Open = Callable[[], Hooks]

GRACE = 1.5  # seconds by which a busy test machine may be late


def check(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("PRAGMA integrity_check")]


@asynchronous
async def test_change_is_seen_by_another_process_within_100_ms(
    open_sqlite: Open, sqlite_path: Path
) -> None:
    delays = []
    with Process(f"sqlite://{sqlite_path}") as other:
        async with open_sqlite().watch("greeter") as watch:
            await watch.snapshot()
            for count in range(20):
                await asyncio.to_thread(other.tell, f"stamp greeter n{count}")
                (found,) = (await watch.delta()).upserts
                delays.append(time.monotonic() - float(found.nodes[0].metadata["at"]))
                assert await asyncio.to_thread(other.answer) == "ok"
    assert statistics.median(delays) < 0.1


@asynchronous
async def test_node_of_a_killed_process_goes_within_its_ttl(
    open_sqlite: Open, sqlite_path: Path
) -> None:
    async with open_sqlite().watch("greeter") as watch:
        await watch.snapshot()
        with Process(f"sqlite://{sqlite_path}") as other:
            assert await asyncio.to_thread(other.ask, "register greeter 1 a") == "ok"
            start = time.monotonic()
            assert await watch.put() == ["a"]
            other.kill()
            assert await watch.deleted() == ["a"]
            assert time.monotonic() - start < 1.0 + GRACE


def test_many_processes_start_on_a_file_that_is_not_there(
    open_sqlite: Open, sqlite_path: Path
) -> None:
    with processes(f"sqlite://{sqlite_path}", 6) as started:
        for number, process in enumerate(started):
            process.tell(f"register-each greeter 40 p{number}")
        assert [process.answer() for process in started] == ["ok"] * 6
        assert len(ids(asyncio.run(open_sqlite().get("greeter")))) == 6 * 40
        assert [process.ask("close") for process in started] == ["ok"] * 6
    assert check(sqlite_path) == ["ok"]
    assert not list(sqlite_path.parent.glob("*-new"))


@asynchronous
async def test_killed_in_the_middle_of_writes_harms_nobody_else(
    open_sqlite: Open, sqlite_path: Path
) -> None:
    hooks = open_sqlite()
    moments = random.Random(7)
    mine = service("mine", "a")
    await hooks.register(mine)
    async with hooks.watch("churn") as watch:
        await watch.snapshot()
        for _ in range(4):
            with processes(f"sqlite://{sqlite_path}", 3) as started:
                for number, process in enumerate(started):
                    await asyncio.to_thread(process.ask, f"churn churn p{number}")
                seen: set[str] = set()
                while len(seen) < 3 * 10:  # they are all at work
                    seen.update(ids((await watch.delta()).upserts))
                for process in started:
                    await asyncio.sleep(moments.uniform(0, 0.02))  # anywhere in a write
                    await asyncio.to_thread(process.kill)
            begin = time.monotonic()
            assert list(await hooks.renew(mine)) == []
            assert time.monotonic() - begin < GRACE  # no lock was left behind
            listed = set(ids(await hooks.get("churn")))
            while listed:  # the killed ones' nodes go, and the watch tells of each
                delta = await watch.delta()
                listed.difference_update(ids(delta.deletes))
        assert ids(await hooks.get("churn")) == []
        assert ids(await hooks.get("mine")) == ["a"]
    hooks.close()
    assert await asyncio.to_thread(check, sqlite_path) == ["ok"]


@asynchronous
async def test_killed_while_making_the_file_leaves_one_that_works(
    open_sqlite: Open, sqlite_path: Path
) -> None:
    unfinished = sqlite_path.with_name("registry.db-new")
    await asyncio.to_thread(unfinished.write_bytes, b"half a file")
    hooks = open_sqlite()
    await hooks.register(service("greeter", "a"))
    assert ids(await hooks.get("greeter")) == ["a"]
    assert not await asyncio.to_thread(unfinished.exists)


@asynchronous
async def test_successor_in_another_process_survives_its_predecessor(
    open_sqlite: Open, sqlite_path: Path
) -> None:
    old = open_sqlite()
    node = service("greeter", "a")
    await old.register(node)
    with Process(f"sqlite://{sqlite_path}") as new:
        assert await asyncio.to_thread(new.ask, "register greeter 60 a") == "ok"
        await old.deregister(node)
        assert await asyncio.to_thread(new.ask, "get greeter") == "ok a"


@asynchronous
async def test_every_process_moves_to_the_new_file_when_the_old_is_deleted(
    open_sqlite: Open, sqlite_path: Path
) -> None:
    hooks = open_sqlite()
    with processes(f"sqlite://{sqlite_path}", 3) as others:
        for number, other in enumerate(others):
            await asyncio.to_thread(other.ask, f"register greeter 60 p{number}")
        await asyncio.to_thread(sqlite_path.unlink)
        for number, other in enumerate(others):
            await asyncio.to_thread(other.tell, f"register greeter 60 p{number}")
        for other in others:
            assert await asyncio.to_thread(other.answer) == "ok"
        for other in others:
            assert await asyncio.to_thread(other.ask, "get greeter") == "ok p0,p1,p2"
        assert ids(await hooks.get("greeter")) == ["p0", "p1", "p2"]
    assert await asyncio.to_thread(check, sqlite_path) == ["ok"]


@asynchronous
async def test_watches_of_several_processes_agree_in_the_end(
    open_sqlite: Open, sqlite_path: Path
) -> None:
    listed: set[str] = set()
    with processes(f"sqlite://{sqlite_path}", 3) as others:
        async with open_sqlite().watch("greeter") as watch:
            await watch.snapshot()
            for number, other in enumerate(others):
                other.tell(f"register-each greeter 50 p{number}")
            while len(listed) < 150:
                item = await watch.next()
                assert isinstance(item, Delta)
                listed |= set(ids(item.upserts))
        for other in others:
            assert await asyncio.to_thread(other.answer) == "ok"


FORKS = """
import asyncio, os, sys, threading
from pathlib import Path
from tests.unit.builtin.support import Hooks, ids, service

path = Path(sys.argv[1])
url = f"sqlite://{path}"
files = lambda: sorted(one.name for one in path.parent.iterdir())

async def parent_begins(hooks, ready):
    async with hooks.watch("greeter") as watch:
        await watch.snapshot()
        ready.set()
        while ids((await watch.delta()).upserts) != ["child"]:
            pass

hooks, ready = Hooks(url), threading.Event()
asyncio.run(hooks.register(service("greeter", "parent")))
follower = threading.Thread(target=lambda: asyncio.run(parent_begins(hooks, ready)))
follower.start()
ready.wait()

def churn():
    for count in range(300):
        hooks.backend.svcreg_register(service("busy", "parent", count=str(count)), 60)
writer = threading.Thread(target=churn)
writer.start()  # so that the fork falls into a write

to_child, from_parent = os.pipe()
to_parent, from_child = os.pipe()
if os.fork() == 0:
    own = Hooks(url)
    own.backend.svcreg_register(service("greeter", "child"), 60)
    os.write(from_child, b".")
    os.read(to_child, 1)
    # The parent has closed everything, and another process has come and gone since.
    own.backend.svcreg_register(service("greeter", "child-later"), 60)
    print(",".join(ids(own.backend.svcreg_get("greeter"))), flush=True)
    os._exit(0)
writer.join()
follower.join()
os.read(to_parent, 1)
hooks.close()
assert "registry.db-wal" in files(), "the child's log was taken from it"
another = Hooks(url)
asyncio.run(another.register(service("greeter", "another")))
another.close()
os.write(from_parent, b".")
assert os.wait()[1] == 0
last = Hooks(url)
print(",".join(ids(asyncio.run(last.get("greeter")))))
last.close()
"""


@pytest.mark.parametrize("attempt", range(3))
def test_parent_and_forked_child_do_not_share_a_connection(attempt: int, sqlite_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS, str(sqlite_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["another,child,child-later,parent"] * 2
    assert check(sqlite_path) == ["ok"]


@asynchronous
async def test_opening_twice_in_a_process_gives_up_no_lock(
    open_sqlite: Open, sqlite_path: Path
) -> None:
    hooks = open_sqlite()
    await hooks.register(service("greeter", "a"))
    # Looking at the file on the way must not end the first connection's locks, or the next process
    # to leave takes itself for the last and removes the log.
    await open_sqlite().register(service("greeter", "b"))
    with Process(f"sqlite://{sqlite_path}") as other:
        assert await asyncio.to_thread(other.ask, "register greeter 60 c") == "ok"
        assert await asyncio.to_thread(other.ask, "close") == "ok"
    assert await asyncio.to_thread(sqlite_path.with_name("registry.db-wal").exists)
    await hooks.register(service("greeter", "d"))
    assert ids(await open_sqlite().get("greeter")) == ["a", "b", "c", "d"]
