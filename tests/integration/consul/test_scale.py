"""Many services and many nodes on one agent with its default limits.

`pytest -s tests/integration/consul/test_scale.py` prints the figures.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import svcreg
from svcreg import AsyncRegistry, Config, Delta, Node, Service, Snapshot
from svcreg_consul import ConsulBackend
from tests.support.consul import Agent, running_agent, unique

pytestmark = [
    pytest.mark.server("consul"),
    pytest.mark.slow,
    pytest.mark.xdist_group("consul-scale"),
    pytest.mark.timeout(180),
]

SERVICES = 1000
NODES = 200
CHANGES = 40
CONNECTIONS = 100


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    with running_agent(tmp_path / "consul") as agent:
        yield agent


def one(name: str, round_: int = 0) -> Service:
    return Service(name, "1", nodes=(Node(f"{name}-1", "10.0.0.5:8080", {"round": str(round_)}),))


async def until(condition: object, timeout: float = 30.0) -> float:
    """Wait until a condition holds; return the seconds that took."""
    assert callable(condition)
    started = time.perf_counter()
    while not condition():
        assert time.perf_counter() - started < timeout
        await asyncio.sleep(0.002)
    return time.perf_counter() - started


def test_thousand_nodes_are_renewed_and_their_services_watched_over_few_connections(
    agent: Agent,
) -> None:
    names = [unique() for _ in range(SERVICES)]
    seen: dict[str, str] = {}

    async def watch(registry: AsyncRegistry, name: str) -> None:
        async with registry.watch(name) as events:
            async for event in events:
                seen[name] = event.service.nodes[0].metadata["round"]

    async def register_one(registry: AsyncRegistry) -> float:
        started = time.perf_counter()
        async with await registry.register(one(unique()), ttl=60):
            return time.perf_counter() - started

    async def main() -> None:
        async with (
            svcreg.aio.open("consul", address=agent.address, timeout=60) as writer,
            svcreg.aio.open("consul", address=agent.address) as reader,
        ):
            idle = statistics.median([await register_one(writer) for _ in range(10)])
            started = time.perf_counter()
            held = await asyncio.gather(*(writer.register(one(name), ttl=30) for name in names))
            registered = time.perf_counter() - started
            started = time.perf_counter()
            watches = [asyncio.create_task(watch(reader, name)) for name in names]
            await until(lambda: len(seen) == SERVICES, 60)
            watched = time.perf_counter() - started
            connections = agent.connections()
            delays = []
            for round_ in range(1, CHANGES + 1):
                place = random.randrange(SERVICES)
                updating = asyncio.create_task(held[place].update(metadata={"round": str(round_)}))
                delays.append(
                    await until(
                        lambda place=place, round_=round_: seen[names[place]] == str(round_)
                    )
                )
                await updating
            busy = statistics.median([await register_one(writer) for _ in range(10)])
            connections = max(connections, agent.connections())
            since = time.time()
            await until(lambda: all((one.last_renewal or 0) > since for one in held), 40)
            assert {one.state for one in held} == {"active"}
            for task in watches:
                task.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
        print(
            f"\n{SERVICES} services: registered in {registered:.1f} s, all watched after "
            f"{watched:.1f} s, {connections} connections; change seen after "
            f"{statistics.median(delays) * 1000:.0f} ms (median), {max(delays) * 1000:.0f} ms "
            f"(worst of {CHANGES}); registering takes {idle * 1000:.1f} ms idle, "
            f"{busy * 1000:.1f} ms with the watches"
        )
        assert connections < CONNECTIONS
        assert statistics.median(delays) < 1
        assert busy < max(20 * idle, 0.5)

    asyncio.run(main())


def test_one_change_among_many_nodes_is_one_decode(agent: Agent) -> None:
    name = unique()
    config = Config(backend="consul", addresses=(agent.address,), timeout=60.0)
    nodes = [
        Node(f"{name}-{n}", f"10.0.{n // 250}.{n % 250}:80", {"n": str(n)}) for n in range(NODES)
    ]

    async def main() -> None:
        backend = ConsulBackend(config)
        await backend.svcreg_register(Service(name, "1", nodes=nodes), 600)
        items = backend.svcreg_watch(name)
        first = await anext(items)
        assert isinstance(first, Snapshot)
        assert len(first.services[0].nodes) == NODES
        before = backend._reader.decoded
        started = time.perf_counter()
        changed = Node(nodes[7].id, "10.9.9.9:80", {"n": "changed"})
        await backend.svcreg_register(Service(name, "1", nodes=(changed,)), 600)
        delta = await anext(items)
        seconds = time.perf_counter() - started
        assert isinstance(delta, Delta)
        assert delta.upserts == (Service(name, "1", nodes=(changed,)),)
        assert delta.deletes == ()
        decoded = backend._reader.decoded - before
        print(f"\nchange of 1 in {NODES} nodes: {decoded} decoded, {seconds * 1000:.0f} ms in all")
        assert 1 <= decoded <= 3  # its record, and perhaps its check, are two changes
        await backend.svcreg_get(name)
        assert backend._reader.decoded - before <= 3
        await items.aclose()  # type: ignore[attr-defined]
        await backend.svcreg_close()

    asyncio.run(main())


def test_everything_is_watched_without_a_name(agent: Agent) -> None:
    names = [unique() for _ in range(300)]
    seen: set[str] = set()

    async def main() -> None:
        async with (
            svcreg.aio.open("consul", address=agent.address, timeout=60) as writer,
            svcreg.aio.open("consul", address=agent.address) as reader,
        ):

            async def watch() -> None:
                async with reader.watch() as events:
                    async for event in events:
                        (seen.add if event.action != "delete" else seen.discard)(event.service.name)

            watching = asyncio.create_task(watch())
            await until(lambda: "consul" in seen)  # the servers' own service
            held = await asyncio.gather(*(writer.register(one(name), ttl=60) for name in names))
            seconds = await until(lambda: seen >= set(names), 20)
            await asyncio.gather(*(one.aclose() for one in held))
            await until(lambda: not seen & set(names), 20)
            print(f"\n{len(names)} services came within {seconds:.2f} s of the last registration")
            assert agent.connections() < CONNECTIONS
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(main())
