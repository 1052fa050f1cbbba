"""The memory backend's own: names, and what its queue of deadlines costs."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from svcreg.builtin import memory
from tests.unit.builtin.support import Hooks, asynchronous, eventually, ids, service


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"memory://{request.node.name}"


@asynchronous
async def test_registries_share_by_name(name: str) -> None:
    here, too, elsewhere = Hooks(name), Hooks(name), Hooks(f"{name}-other")
    await here.register(service("greeter", "a"))
    assert ids(await too.get("greeter")) == ["a"]
    assert ids(await elsewhere.get("greeter")) == []
    assert ids(await Hooks("memory").get("greeter")) == []


@asynchronous
async def test_nodes_outlive_the_instance_until_their_ttl(name: str) -> None:
    await Hooks(name).register(service("greeter", "a"), ttl=0.3)
    later = Hooks(name)
    assert ids(await later.get("greeter")) == ["a"]

    async def is_gone() -> bool:
        return not await later.get("greeter")

    await eventually(is_gone)


@asynchronous
async def test_another_process_starts_with_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Hooks(name).register(service("greeter", "a"))
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    assert ids(await Hooks(name).get("greeter")) == []


@asynchronous
async def test_renewing_for_long_leaves_one_deadline_per_node(name: str) -> None:
    hooks = Hooks(name)
    for _ in range(1000):
        await hooks.register(service("greeter", "a"), ttl=60)
        await hooks.renew(service("greeter", "a"), ttl=60)
    store = memory._stores[os.getpid(), name.removeprefix("memory://")]
    assert len(store._deadlines) == 1


@asynchronous
async def test_closed_watches_are_forgotten(name: str) -> None:
    hooks = Hooks(name)
    store = memory._stores[os.getpid(), name.removeprefix("memory://")]
    async with hooks.watch("greeter") as one, hooks.watch(None) as every:
        await one.snapshot()
        await every.snapshot()
        assert len(store._watchers) == 2
    assert store._watchers == {}


@asynchronous
async def test_change_costs_the_same_in_a_large_registry(name: str) -> None:
    async def seconds_per_change(hooks: Hooks, stored: int) -> float:
        await hooks.register(service("large", *(f"n{count}" for count in range(stored))))
        best = float("inf")
        async with hooks.watch("large") as watch:
            await watch.snapshot()
            for count in range(50):
                start = time.perf_counter()
                await hooks.register(service("large", "n0", count=str(count)))
                await watch.delta()
                best = min(best, time.perf_counter() - start)
        return best

    small = await seconds_per_change(Hooks(f"{name}-small"), 10)
    large = await seconds_per_change(Hooks(f"{name}-large"), 10_000)
    assert large < small * 10  # a thousand times the nodes


@asynchronous
async def test_waiting_watch_costs_nothing(name: str) -> None:
    hooks = Hooks(name)
    await hooks.register(service("greeter", "a"), ttl=60)
    async with hooks.watch("greeter") as watch:
        await watch.snapshot()
        waiting = asyncio.ensure_future(watch.next())
        await asyncio.sleep(0)
        before = time.process_time()
        await asyncio.wait([waiting], timeout=0.2)
        assert time.process_time() - before < 0.1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
