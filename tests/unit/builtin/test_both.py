"""What the memory and sqlite backends promise alike, called without an engine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from svcreg.config import load_config
from svcreg.errors import ConfigError
from svcreg.hookspecs import CAPABILITIES, Delta, Snapshot
from svcreg.model import Endpoint, Node, Service, Value
from svcreg.plugins import build_backend
from tests.unit.builtin.support import (
    CLASSES,
    PATIENCE,
    Hooks,
    Watch,
    asynchronous,
    eventually,
    ids,
    service,
)

Open = Callable[[], Hooks]

GRACE = 1.0  # seconds by which a busy test machine may be late


@asynchronous
async def test_registered_service_is_got_and_listed_by_another_instance(open_hooks: Open) -> None:
    full = Service(
        "greeter",
        "1.2.0",
        {"team": "hello"},
        [Endpoint("Say", Value("Req", "Req", [Value("name", "string")]), Value("Rsp"), {"a": "b"})],
        [Node("g-1", "10.0.0.5:80", {"zone": "z1"}), Node("g-2", "[::1]:80")],
    )
    writer, reader = open_hooks(), open_hooks()
    await writer.register(full)
    assert await reader.get("greeter") == (full,)
    assert list(await reader.list()) == ["greeter"]


@asynchronous
async def test_unknown_service_is_empty(open_hooks: Open) -> None:
    hooks = open_hooks()
    assert list(await hooks.get("nobody")) == []
    assert list(await hooks.list()) == []


@asynchronous
async def test_names_are_compared_whole(open_hooks: Open) -> None:
    hooks = open_hooks()
    for name in ("user", "user-admin", "users", "User", "user%", "us_r"):
        if "%" not in name:
            await hooks.register(service(name, f"{name}-1"))
    assert ids(await hooks.get("user")) == ["user-1"]
    assert ids(await hooks.get("us_r")) == ["us_r-1"]
    assert list(await hooks.list()) == ["User", "us_r", "user", "user-admin", "users"]


@asynchronous
async def test_each_version_is_a_service_sorted_with_its_nodes(open_hooks: Open) -> None:
    hooks = open_hooks()
    await hooks.register(service("greeter", "c", "a", version="2"))
    await hooks.register(service("greeter", "b", version="1"))
    await hooks.register(service("greeter", "d", version="2"))
    assert [(one.version, ids([one])) for one in await hooks.get("greeter")] == [
        ("1", ["b"]),
        ("2", ["a", "c", "d"]),
    ]


@asynchronous
async def test_last_registration_says_what_a_version_is(open_hooks: Open) -> None:
    hooks = open_hooks()
    old, new = ({"build": "old"}, {"build": "new"})
    await hooks.register(Service("greeter", "1", new, nodes=[Node("a", "10.0.0.1:80")]))
    await hooks.register(Service("greeter", "1", old, nodes=[Node("b", "10.0.0.2:80")]))
    await hooks.register(Service("greeter", "1", old, nodes=[Node("a", "10.0.0.1:80")]))
    await hooks.register(Service("greeter", "1", new, nodes=[Node("a", "10.0.0.1:80")]))
    (found,) = await hooks.get("greeter")
    assert found.metadata == new
    assert ids([found]) == ["a", "b"]


@asynchronous
async def test_another_version_of_a_node_replaces_it(open_hooks: Open) -> None:
    hooks = open_hooks()
    async with hooks.watch("greeter") as watch:
        await watch.snapshot()
        await hooks.register(service("greeter", "a", "b", version="1"))
        await watch.delta()
        await hooks.register(service("greeter", "a", version="2"))
        assert await watch.delta() == Delta((service("greeter", "a", version="2"),))
    assert [(one.version, ids([one])) for one in await hooks.get("greeter")] == [
        ("1", ["b"]),
        ("2", ["a"]),
    ]


@asynchronous
async def test_watch_begins_with_a_snapshot_even_an_empty_one(open_hooks: Open) -> None:
    hooks = open_hooks()
    async with hooks.watch("greeter") as watch:
        assert await watch.next() == Snapshot()
    await hooks.register(service("greeter", "a"))
    async with hooks.watch("greeter") as watch:
        assert await watch.next() == Snapshot((service("greeter", "a"),))


@asynchronous
async def test_watch_tells_create_update_and_delete(open_hooks: Open) -> None:
    writer, reader = open_hooks(), open_hooks()
    async with reader.watch("greeter") as watch:
        await watch.snapshot()
        await writer.register(service("other", "x"))
        await writer.register(service("greeter", "a", "b"))
        assert await watch.delta() == Delta((service("greeter", "a", "b"),))
        await writer.register(service("greeter", "b", zone="z1"))
        assert await watch.delta() == Delta((service("greeter", "b", zone="z1"),))
        await writer.deregister(service("greeter", "a"))
        assert await watch.deleted() == ["a"]


@asynchronous
async def test_watch_of_everything_tells_every_service(open_hooks: Open) -> None:
    hooks = open_hooks()
    await hooks.register(service("one", "a"))
    async with hooks.watch(None) as watch:
        assert await watch.snapshot() == Snapshot((service("one", "a"),))
        await hooks.register(service("two", "b"))
        assert (await watch.delta()).upserts == (service("two", "b"),)
        await hooks.deregister(service("one", "a"))
        (gone,) = (await watch.delta()).deletes
        assert (gone.name, ids([gone])) == ("one", ["a"])


@asynchronous
async def test_registering_the_same_again_tells_nobody(open_hooks: Open) -> None:
    hooks = open_hooks()
    async with hooks.watch("greeter") as watch:
        await watch.snapshot()
        await hooks.register(service("greeter", "a"))
        await watch.delta()
        await hooks.register(service("greeter", "a"))
        await hooks.renew(service("greeter", "a"))
        await hooks.deregister(service("greeter", "unknown"))
        await hooks.register(service("greeter", "b"))
        assert await watch.put() == ["b"]


@asynchronous
async def test_changes_that_nobody_reads_coalesce_per_node(open_hooks: Open) -> None:
    hooks = open_hooks()
    async with hooks.watch("greeter") as watch:
        await watch.snapshot()
        for count in range(300):
            await hooks.register(service("greeter", "a", count=str(count)))
            await hooks.register(service("greeter", f"passing-{count}"))
            await hooks.deregister(service("greeter", f"passing-{count}"))
        final = Node("a", "10.0.0.1:80", {"count": "299"})
        told = 1
        while all(final not in one.nodes for one in (await watch.delta()).upserts):
            told += 1
        assert told < 100


@asynchronous
async def test_node_goes_when_its_ttl_ends_without_renewal(open_hooks: Open) -> None:
    hooks = open_hooks()
    await hooks.register(service("greeter", "stays"))
    async with hooks.watch("greeter") as watch, hooks.watch(None) as watch_all:
        await watch.snapshot()
        await watch_all.snapshot()
        start = time.monotonic()
        await hooks.register(service("greeter", "goes"), ttl=0.3)
        assert await watch.put() == ["goes"]
        assert await watch_all.put() == ["goes"]
        assert await watch.deleted() == ["goes"]
        assert 0.3 <= time.monotonic() - start < 0.3 + GRACE
        assert await watch_all.deleted() == ["goes"]
    assert ids(await hooks.get("greeter")) == ["stays"]


@asynchronous
async def test_expired_service_is_neither_got_nor_listed_nor_in_a_snapshot(
    open_hooks: Open,
) -> None:
    hooks = open_hooks()
    await hooks.register(service("greeter", "a"), ttl=0.1)

    async def is_gone() -> bool:
        return not await hooks.get("greeter")

    await eventually(is_gone)
    assert list(await hooks.list()) == []
    async with hooks.watch("greeter") as watch:
        assert await watch.next() == Snapshot()
        await hooks.register(service("greeter", "a"))
        assert await watch.put() == ["a"]


@asynchronous
async def test_renewal_keeps_a_node_beyond_its_first_ttl(open_hooks: Open) -> None:
    hooks = open_hooks()
    kept, left = service("greeter", "kept"), service("greeter", "left")
    async with hooks.watch("greeter") as watch:
        await watch.snapshot()
        await hooks.register(kept, ttl=0.4)
        await hooks.register(left, ttl=0.4)
        assert list(await hooks.renew(kept, ttl=60)) == []
        while await watch.next() != Delta(deletes=(Service("greeter", nodes=(Node("left", ""),)),)):
            pass
    assert ids(await hooks.get("greeter")) == ["kept"]


@asynchronous
async def test_shorter_ttl_is_noticed_on_time(open_hooks: Open) -> None:
    hooks = open_hooks()
    async with hooks.watch("greeter") as watch:
        await hooks.register(service("greeter", "a"), ttl=PATIENCE * 3)
        await watch.next()
        waiting = asyncio.ensure_future(watch.deleted())
        await asyncio.sleep(0)  # let it wait for the long TTL before that becomes short
        await hooks.register(service("greeter", "a"), ttl=0.2)
        while True:
            try:
                assert await waiting == ["a"]
                break
            except AssertionError:  # the first item may still be the registration
                waiting = asyncio.ensure_future(watch.deleted())


@asynchronous
async def test_renewal_reports_what_is_no_longer_known(open_hooks: Open) -> None:
    hooks, stranger = open_hooks(), open_hooks()
    whole, partly, never = service("a", "1"), service("b", "1", "2"), service("c", "1")
    await hooks.register(whole)
    await hooks.register(partly)
    await stranger.deregister(service("b", "2"))
    assert list(await hooks.renew(whole, partly, never)) == [partly, never]
    await hooks.register(partly)
    assert list(await hooks.renew(whole, partly)) == []


@asynchronous
async def test_renewal_leaves_a_successor_alone(open_hooks: Open) -> None:
    old, new = open_hooks(), open_hooks()
    node = service("greeter", "a")
    async with old.watch("greeter") as watch:
        await watch.snapshot()
        await old.register(node, ttl=60)
        await new.register(node, ttl=0.4)
        assert list(await old.renew(node, ttl=60)) == []
        assert await watch.put() == ["a"]
        assert await watch.deleted() == ["a"]  # its own TTL ended, which nobody extended


@asynchronous
async def test_predecessor_cannot_withdraw_its_successor(open_hooks: Open) -> None:
    old, new = open_hooks(), open_hooks()
    node = service("greeter", "a")
    await old.register(node)
    await new.register(node)
    await old.deregister(node)
    assert ids(await old.get("greeter")) == ["a"]
    await new.deregister(node)
    assert ids(await old.get("greeter")) == []


@asynchronous
async def test_anybody_withdraws_what_somebody_else_registered(open_hooks: Open) -> None:
    owner, stranger = open_hooks(), open_hooks()
    await owner.register(service("greeter", "a", "b"))
    await stranger.deregister(service("greeter", "a"))
    await stranger.deregister(service("greeter", "never"))
    assert ids(await owner.get("greeter")) == ["b"]


@asynchronous
async def test_withdrawing_again_is_withdrawing_what_is_another_s(open_hooks: Open) -> None:
    old, new = open_hooks(), open_hooks()
    node = service("greeter", "a")
    await old.register(node)
    await new.register(node)
    await old.deregister(node)
    await old.deregister(node)
    assert ids(await new.get("greeter")) == []


@asynchronous
async def test_cancelled_watch_leaves_the_others_working(open_hooks: Open) -> None:
    hooks = open_hooks()

    async def follow() -> None:
        async with hooks.watch("greeter") as watch:
            while True:
                await watch.next()

    async with hooks.watch("greeter") as watch:
        await watch.snapshot()
        task = asyncio.ensure_future(follow())
        await hooks.register(service("greeter", "a"))
        assert await watch.put() == ["a"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await hooks.register(service("greeter", "b"))
        assert await watch.put() == ["b"]


def test_instances_on_loops_of_different_threads_see_each_other(open_hooks: Open) -> None:
    watching, seen = threading.Event(), threading.Event()

    async def follow() -> None:
        async with open_hooks().watch("greeter") as watch:
            await watch.snapshot()
            watching.set()
            assert await watch.put() == ["a"]
            seen.set()

    thread = threading.Thread(target=asyncio.run, args=(follow(),))
    thread.start()
    assert watching.wait(PATIENCE)
    asyncio.run(open_hooks().register(service("greeter", "a")))
    assert seen.wait(PATIENCE)
    thread.join()


def test_watch_on_a_loop_that_is_gone_harms_nobody(open_hooks: Open) -> None:
    hooks = open_hooks()
    loop = asyncio.new_event_loop()
    items = hooks.backend.svcreg_watch("greeter")
    loop.run_until_complete(Watch(items).next())
    loop.close()  # without ending the watch

    async def others() -> None:
        async with hooks.watch("greeter") as watch:
            await watch.snapshot()
            await hooks.register(service("greeter", "a"))
            assert await watch.put() == ["a"]

    asyncio.run(others())
    with pytest.raises(StopIteration):  # ends it, as nothing in it waits any more
        items.aclose().send(None)


@asynchronous
async def test_many_threads_register_at_once(open_hooks: Open) -> None:
    instances = [open_hooks() for _ in range(8)]

    def work(number: int) -> None:
        for count in range(20):
            asyncio.run(instances[number].register(service("greeter", f"n{number}-{count}")))

    await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(8)))
    assert len(ids(await instances[0].get("greeter"))) == 160


@pytest.mark.parametrize("name", CLASSES)
def test_backend_fulfils_the_contract(name: str, tmp_path: object) -> None:
    config = load_config(f"{name}://{tmp_path}/registry.db", environ={})
    manager = build_backend(CLASSES[name], config)
    (backend,) = manager.get_plugins()
    expected = set(CAPABILITIES) - (set() if name == "sqlite" else {"cross-process"})
    assert getattr(backend, "capabilities", None) == expected


@pytest.mark.parametrize("name", CLASSES)
def test_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} has no option 'colour'; it knows none"):
        CLASSES[name](load_config(f"{name}://x?colour=red", environ={}))


@pytest.mark.parametrize("name", CLASSES)
def test_second_address_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} takes one .* not 2"):
        CLASSES[name](load_config(name, address=["a", "b"], environ={}))
