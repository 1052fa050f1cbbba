"""A TCP proxy that misbehaves on demand, to stand between a backend and its server.

    with FaultProxy("127.0.0.1:2379") as proxy:
        registry = svcreg.open(f"etcd://{proxy.address}")
        proxy.black_hole()      # connections stay open, nothing arrives any more
        ...
        proxy.heal()

It runs on a thread of its own, so it serves blocking and asyncio tests alike, and goes on while the
test itself is blocked. Every method returns once the change is in effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Literal, Self, TypeVar

CHUNK = 16 * 1024
"""Bytes read at once; small, so that latency and rate apply to the parts of a long answer."""

CALL_TIMEOUT = 10.0
"""Seconds that a change of mode may take; far more than it needs, so that a test never hangs."""

Direction = Literal["to-server", "to-client", "both"]
T = TypeVar("T")


class FaultProxy:
    """Forwards to `target` (`host:port`) from a loopback port of its own, until told otherwise.

    A fault applies to open and to new connections, and faults add up; `heal` ends them all.

    Attributes:
        accepted: Connections accepted so far.
        received: Bytes that arrived from the server so far, also those held back.
        sent: Bytes that arrived from clients so far, also those held back.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host.removeprefix("[").removesuffix("]"), int(port))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        # Bound and never listening: it keeps the port ours while connections are refused.
        self._reserve = _bound(("127.0.0.1", 0))
        self._port: int = self._reserve.getsockname()[1]
        self.accepted = self.received = self.sent = 0
        self.is_resetting = False
        self.delay = 0.0
        self.rate: float | None = None
        self.remaining: int | None = None
        self.flood_left: int | None = None
        self.flows = {"to-server": asyncio.Event(), "to-client": asyncio.Event()}

    @property
    def address(self) -> str:
        """`host:port` to connect to; stays the same while connections are refused."""
        return f"127.0.0.1:{self._port}"

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        return len(self._connections)

    def __enter__(self) -> Self:
        self._thread.start()
        self.heal()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def heal(self) -> None:
        """Forward faithfully again; what a black hole held back arrives now."""
        self._call(self._heal())

    def refuse(self) -> None:
        """Refuse new connections; open ones go on."""
        self._call(self._refuse())

    def reset(self) -> None:
        """Reset every open connection, and each new one as soon as it is accepted."""
        self._call(self._reset())

    def cut(self) -> None:
        """Reset every open connection and refuse new ones: a server that has died."""
        self.refuse()  # first, or a client that is quick would be back in between
        self.drop()

    def drop(self) -> None:
        """Reset every open connection, once; new ones are served."""
        self._call(self._drop())

    def black_hole(self, direction: Direction = "both") -> None:
        """Let nothing through and close nothing, as when packets are dropped on the way.

        New connections are accepted and hear nothing. TCP would repeat what was lost, so what is
        held back arrives after `heal`.
        """
        for name in _names(direction):
            self._do(self.flows[name].clear)

    def latency(self, seconds: float) -> None:
        """Hold each chunk back for so long, in both directions."""
        self._do(lambda: setattr(self, "delay", seconds))

    def truncate(self, after: int) -> None:
        """Close each connection after `after` more bytes of answers altogether."""
        self._do(lambda: setattr(self, "remaining", after))

    def flood(self, total: int) -> None:
        """Send `total` bytes, without a line break, in place of the answers, and then close."""
        self._do(lambda: setattr(self, "flood_left", total))

    def half_open(self) -> None:
        """Let open connections stay open for good while nothing passes; serve new ones.

        So it is when the other end has gone without a word, and its address was taken over. `heal`
        does not mend these connections.
        """

        def lose() -> None:
            for connection in self._connections:
                connection.is_lost = True

        self._do(lose)

    def rate_limit(self, bytes_per_second: float) -> None:
        """Let at most so much through, per connection and direction."""
        self._do(lambda: setattr(self, "rate", bytes_per_second))

    def close(self) -> None:
        """Close every connection and the port. Safe to repeat."""
        if self._thread.is_alive():
            self.cut()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CALL_TIMEOUT)
        self._loop.close()
        self._reserve.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_TIMEOUT)

    def _do(self, change: Callable[[], object]) -> None:
        async def apply() -> None:
            change()

        self._call(apply())

    async def _heal(self) -> None:
        self.is_resetting, self.delay, self.rate = False, 0.0, None
        self.remaining = self.flood_left = None
        for flow in self.flows.values():
            flow.set()
        if self._server is None:
            listening = _bound(("127.0.0.1", self._port))
            self._server = await asyncio.start_server(self._accept, sock=listening)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _reset(self) -> None:
        self.is_resetting = True
        await self._drop()

    async def _drop(self) -> None:
        connections = list(self._connections)
        for connection in connections:
            connection.abort()
        await asyncio.gather(*(connection.ended.wait() for connection in connections))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = _Connection(self, writer)
        self._connections.add(connection)
        try:
            if self.is_resetting:
                connection.abort()
            else:
                await connection.forward(reader, self._target)
        finally:
            self._connections.discard(connection)
            connection.ended.set()


class _Connection:
    """One client connection and its counterpart to the server. Loop only."""

    def __init__(self, proxy: FaultProxy, client: asyncio.StreamWriter) -> None:
        self.ended = asyncio.Event()
        self.is_lost = False
        self._proxy = proxy
        self._writers = [client]
        self._task: asyncio.Task[None] | None = None

    async def forward(self, reader: asyncio.StreamReader, target: tuple[str, int]) -> None:
        self._task = asyncio.create_task(self._forward(reader, target))
        await asyncio.wait({self._task})

    def abort(self) -> None:
        """Reset both sides, discarding what is under way."""
        if self._task is not None:
            self._task.cancel()
        for writer in self._writers:
            raw = writer.get_extra_info("socket")
            with contextlib.suppress(OSError, AttributeError):
                # Lingering for zero seconds makes closing send RST instead of FIN.
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, target: tuple[str, int]) -> None:
        client = self._writers[0]
        try:
            answers, server = await asyncio.open_connection(*target)
            self._writers.append(server)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, server, "to-server"))
                pumps.create_task(self._pump(answers, client, "to-client"))
        except* _TruncatedError:
            pass
        except* OSError:
            self.abort()
        finally:
            for writer in self._writers:
                writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str
    ) -> None:
        proxy = self._proxy
        while data := await reader.read(CHUNK):
            if direction == "to-client":
                proxy.received += len(data)
            else:
                proxy.sent += len(data)
            await asyncio.sleep(proxy.delay + (len(data) / proxy.rate if proxy.rate else 0))
            await proxy.flows[direction].wait()
            if self.is_lost:
                continue
            if direction == "to-client" and proxy.flood_left is not None:
                await self._flood(writer)
            if direction == "to-client" and proxy.remaining is not None:
                data = data[: proxy.remaining]
                proxy.remaining -= len(data)
            writer.write(data)
            await writer.drain()
            if direction == "to-client" and proxy.remaining == 0:
                raise _TruncatedError
        await proxy.flows[direction].wait()
        # Of a lost connection the client hears nothing; its own end is the end of both sides.
        if writer.can_write_eof() and not (self.is_lost and direction == "to-client"):
            writer.write_eof()

    async def _flood(self, writer: asyncio.StreamWriter) -> None:
        proxy = self._proxy
        while proxy.flood_left:
            size = min(proxy.flood_left, CHUNK)
            proxy.flood_left -= size
            writer.write(b"x" * size)
            await writer.drain()
        raise _TruncatedError


class _TruncatedError(Exception):
    """The answer ends where it was to end; what came before that is still delivered."""


def _bound(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(address)
    return sock


def _names(direction: Direction) -> tuple[str, ...]:
    return ("to-server", "to-client") if direction == "both" else (direction,)
