"""The backend inside one process: several of them, and what they refuse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from svcreg import Config, Delta, Endpoint, InvalidServiceError, Node, Service, Snapshot
from svcreg_mdns import MdnsBackend
from tests.support.mdns import unique

TTL = 30.0


@contextlib.asynccontextmanager
async def backends(count: int) -> AsyncIterator[list[MdnsBackend]]:
    config = Config(backend="mdns", options={"interfaces": "lo"})
    made = [MdnsBackend(config) for _ in range(count)]
    try:
        yield made
    finally:
        for backend in made:
            await backend.svcreg_close()


def run(count: int, test: Callable[..., Awaitable[None]]) -> None:
    async def main() -> None:
        async with backends(count) as made:
            await test(*made)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def one(name: str, address: str = "127.0.0.1:80", **metadata: str) -> Service:
    return Service(name, "1", nodes=[Node("n-1", address, metadata)])


def test_two_registries_of_one_process_find_each_other() -> None:
    async def test(owner: MdnsBackend, reader: MdnsBackend) -> None:
        service = one(unique("pair"))
        await owner.svcreg_register(service, TTL)
        assert await reader.svcreg_get(service.name) == (service,)
        assert await owner.svcreg_get(service.name) == (service,)
        assert service.name in await reader.svcreg_list()
        await owner.svcreg_deregister(service)
        assert await owner.svcreg_get(service.name) == ()

    run(2, test)


def test_a_watch_begins_with_a_snapshot_and_continues_with_deltas() -> None:
    async def test(owner: MdnsBackend, reader: MdnsBackend) -> None:
        name = unique("stream")
        changes = aiter(reader.svcreg_watch(name))
        assert await anext(changes) == Snapshot()
        await owner.svcreg_register(one(name), TTL)
        assert await anext(changes) == Delta(upserts=[one(name)])
        await owner.svcreg_register(one(name, zone="z1"), TTL)
        assert await anext(changes) == Delta(upserts=[one(name, zone="z1")])
        await owner.svcreg_register(one(name, zone="z1"), TTL)  # nothing new, so nothing to tell
        await owner.svcreg_deregister(one(name))
        assert await anext(changes) == Delta(deletes=[one(name, zone="z1")])
        await changes.aclose()  # type: ignore[attr-defined] # the hook is a generator

    run(2, test)


def test_renewing_what_is_not_held_returns_it() -> None:
    async def test(owner: MdnsBackend) -> None:
        held, unknown = one(unique("held")), one(unique("unknown"))
        await owner.svcreg_register(held, TTL)
        assert list(await owner.svcreg_renew([held, unknown], TTL)) == [unknown]

    run(1, test)


@pytest.mark.parametrize(
    ("service", "message"),
    [
        (one("x", "host.example:80"), "address 'host.example:80' is not an IP address"),
        (one("x", "127.0.0.1"), "no port"),
        (one("x", "127.0.0.1:0"), "no port"),
        (Service("x" * 253, nodes=[Node("n", "127.0.0.1:1")]), "service name takes 253 bytes"),
        (Service("x", "v" * 300, nodes=[Node("n", "127.0.0.1:1")]), "version takes 300 bytes"),
    ],
)
def test_a_service_that_dns_cannot_carry_is_refused(service: Service, message: str) -> None:
    async def test(owner: MdnsBackend) -> None:
        with pytest.raises(InvalidServiceError, match=message):
            await owner.svcreg_register(service, TTL)

    run(1, test)


def test_nothing_is_announced_if_one_of_several_nodes_is_refused() -> None:
    async def test(owner: MdnsBackend) -> None:
        name = unique("half")
        nodes = [Node("good", "127.0.0.1:1"), Node("bad", "nowhere:1")]
        with pytest.raises(InvalidServiceError):
            await owner.svcreg_register(Service(name, nodes=nodes), TTL)
        assert await owner.svcreg_get(name) == ()

    run(1, test)


def test_a_record_larger_than_a_frame_travels_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(owner: MdnsBackend, reader: MdnsBackend) -> None:
        name = unique("large")
        noise = [Endpoint(unique("e")) for _ in range(150)]
        service = Service(name, "1", endpoints=noise, nodes=[Node("n-1", "127.0.0.1:1")])
        with caplog.at_level(logging.WARNING, "svcreg.mdns"):
            await owner.svcreg_register(service, TTL)
        assert await reader.svcreg_get(name) == (service,)
        assert "travels in several frames" in caplog.text

    run(2, test)


def test_a_closed_backend_opens_again_when_it_is_used() -> None:
    async def test(backend: MdnsBackend) -> None:
        service = one(unique("again"))
        await backend.svcreg_register(service, TTL)
        await backend.svcreg_close()
        await backend.svcreg_register(service, TTL)
        assert await backend.svcreg_get(service.name) == (service,)

    run(1, test)
