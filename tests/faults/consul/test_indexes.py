"""Row 16: indexes that go backwards, are zero or never wait, which no real agent does on demand.

The server here speaks HTTP and numbers, nothing more; what Consul is like the real agents show.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import pytest

from svcreg import Config, Delta, RegistryTimeoutError, Snapshot
from svcreg_consul import ConsulBackend, queries

Answer = tuple[int, str]
"""Index and address of the one node there is."""

ENTRY = (
    '[{"Node":{"Node":"n","Address":"127.0.0.1"},"Service":{"ID":"x-1","Service":"x",'
    '"Address":"%s","Port":80,"ModifyIndex":1},"Checks":[]}]'
)


class Server:
    """Answers from a script; the last answer is repeated.

    Attributes:
        asked: The index that each request named, None where it named none.
    """

    def __init__(self, script: list[Answer], address: str) -> None:
        self.asked: list[int | None] = []
        self.waits: list[str | None] = []
        self.address = address
        self.hangs = False
        self._script = script

    def answer(self, target: str) -> bytes:
        query = parse_qs(urlsplit(target).query)
        self.asked.append(int(query["index"][0]) if "index" in query else None)
        self.waits.append(query["wait"][0] if "wait" in query else None)
        index, host = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        body = (ENTRY % host).encode()
        head = f"HTTP/1.1 200 OK\r\nX-Consul-Index: {index}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


@asynccontextmanager
async def serving(*script: Answer) -> AsyncIterator[Server]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                answer = server.answer(head.split()[1].decode())
                if server.hangs and len(server.asked) > 1:
                    await asyncio.sleep(60)
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    server = Server(list(script), f"127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    try:
        yield server
    finally:
        listening.close()


@asynccontextmanager
async def watching(server: Server) -> AsyncIterator[AsyncIterator[Snapshot | Delta]]:
    config = Config(backend="consul", addresses=(server.address,), timeout=1.0)
    backend = ConsulBackend(config)
    items = backend.svcreg_watch("x")
    try:
        yield items
    finally:
        await items.aclose()  # type: ignore[attr-defined] # it is a generator
        await backend.svcreg_close()


def host(item: Snapshot | Delta) -> str:
    services = item.services if isinstance(item, Snapshot) else item.upserts
    return services[0].nodes[0].host


def test_index_that_goes_backwards_starts_anew_and_loses_nothing() -> None:
    async def main() -> None:
        script = [(100, "a"), (105, "b"), (7, "c"), (8, "d"), (9, "d")]
        async with serving(*script) as server, watching(server) as items:
            assert [host(await anext(items)) for _ in range(4)] == ["a", "b", "c", "d"]
            assert server.asked[:4] == [None, 100, 105, None]

    asyncio.run(main())


def test_index_zero_is_never_waited_for() -> None:
    async def main() -> None:
        script = [(0, "a"), (0, "b"), (5, "c"), (6, "d")]
        async with serving(*script) as server, watching(server) as items:
            assert [host(await anext(items)) for _ in range(4)] == ["a", "b", "c", "d"]
            assert server.asked[:4] == [None, None, None, 5]

    asyncio.run(main())


def test_server_that_never_waits_is_asked_at_a_bounded_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queries, "BURST", 3)

    async def main() -> None:
        async with serving((5, "a")) as server, watching(server) as items:
            await anext(items)
            following = asyncio.ensure_future(anext(items))
            await asyncio.sleep(1.0)
            assert 4 <= len(server.asked) <= 3 + 1.0 / queries.SPACING_SECONDS + 1
            assert not following.done()  # the same answer again is no news
            following.cancel()
            await asyncio.wait({following})

    asyncio.run(main())


def test_answer_that_does_not_come_ends_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "WAIT_SECONDS", 1.6)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with serving((5, "a")) as server, watching(server) as items:
            server.hangs = True
            await anext(items)
            started = loop.time()
            with pytest.raises(RegistryTimeoutError):
                await anext(items)
            # wait + wait / 16, which the server may take, and the timeout of an ordinary answer
            assert 2.6 <= loop.time() - started <= 4.0
            assert server.waits[1] == "1600ms"

    asyncio.run(main())
