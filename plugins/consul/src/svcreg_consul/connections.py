"""Connections to one agent: made, lent, replaced with the certificates, and closed. Loop only."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import weakref
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import aiohttp
from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver

from svcreg_consul.calls import Answer
from svcreg_consul.credentials import Certificates
from svcreg_consul.options import Address

IDLE_SECONDS = 60.0
"""How long an unused connection is kept; renewals come every 30 s by default."""

KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds, seconds and probes: a machine that has vanished is noticed within half a minute."""

GOODBYE_TURNS = 10
"""Turns of the loop that closing waits for sockets to be closed; each takes one or two."""


class Agent:
    """One agent: its connections, and whether others are to be tried before it (`is_down`)."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.is_down = False
        self._pool: _Pool | None = None
        self._polls: set[asyncio.Task[Answer]] = set()

    def note_failure(self) -> None:
        """Have it tried last, and end what still waits for it: others may answer."""
        self.is_down = True
        for poll in self._polls:
            poll.cancel()

    def note_success(self) -> None:
        """Have it tried in its turn again."""
        self.is_down = False

    async def until_down(self, asking: Coroutine[Any, Any, Answer]) -> Answer:
        """Return the answer to a long poll, unless another request finds the agent dead first.

        Raises:
            ConnectionError: It did.
        """
        poll = asyncio.create_task(asking)
        self._polls.add(poll)
        try:
            await asyncio.wait({poll})
            if poll.cancelled():
                raise ConnectionError("another request got no answer from it")
            return poll.result()
        finally:
            self._polls.discard(poll)
            poll.cancel()

    @contextlib.asynccontextmanager
    async def session(
        self, certificates: Certificates | None
    ) -> AsyncIterator[aiohttp.ClientSession]:
        """Lend connections that were made with the certificates of now."""
        context = None
        if certificates is not None and self.address.socket_path is None:
            context = certificates.context()
        generation = certificates.generation if certificates is not None else 0
        if self._pool is None or self._pool.generation != generation:
            outdated, self._pool = self._pool, _Pool(self.address, context, generation)
            if outdated is not None:
                await outdated.retire()
        pool = self._pool
        pool.users += 1
        try:
            yield pool.session
        finally:
            pool.users -= 1
            if pool.is_retired and not pool.users:
                await pool.close()

    async def close(self) -> None:
        """Close every connection."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()


class _Pool:
    """Connections to one agent with one set of certificates."""

    def __init__(self, address: Address, context: Any, generation: int) -> None:
        self.generation = generation
        self.users = 0
        self.is_retired = False
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        connector: aiohttp.BaseConnector
        if address.socket_path is not None:
            connector = aiohttp.UnixConnector(
                address.socket_path, limit=0, keepalive_timeout=IDLE_SECONDS
            )
        else:
            connector = aiohttp.TCPConnector(
                ssl=context if context is not None else True,
                limit=0,  # who asks bounds what is under way
                keepalive_timeout=IDLE_SECONDS,
                resolver=_Resolver(),
                socket_factory=self._make_socket,
            )
        self.session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=_Response,
        )

    async def retire(self) -> None:
        """Close once nobody uses it."""
        self.is_retired = True
        if not self.users:
            await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self.session.close()
        for _ in range(GOODBYE_TURNS):
            if not any(one.fileno() >= 0 for one in self._sockets):
                break
            await asyncio.sleep(0)

    def _make_socket(self, info: Any) -> socket.socket:
        family, kind, protocol, _, _ = info
        made = socket.socket(family, kind, protocol)
        self._sockets.add(made)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return made


class _Response(aiohttp.ClientResponse):
    """Drops the connection of a request that is given up while its answer is awaited.

    Over TLS it would otherwise stay for up to 30 s, waiting for the agent's goodbye, which does not
    come before the long poll ends.
    """

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        try:
            return await super().start(connection)
        except BaseException:
            if connection.transport is not None:
                connection.transport.abort()
            raise


class _Resolver(ThreadedResolver):
    """Resolves on this very thread while the interpreter exits, when no other can be started."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            return await super().resolve(host, port, family)
        except RuntimeError:
            found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
            return [
                ResolveResult(
                    hostname=host,
                    host=str(address[0]),
                    port=int(address[1]),
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST,
                )
                for kind, _, protocol, _, address in found
            ]
