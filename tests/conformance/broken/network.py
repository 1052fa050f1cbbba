"""A small registry behind TCP, and backends for it of which all but one are wrong in one way.

The server answers each line, which is a request, with one record a line and a line that ends them.
The entry point is `build`, and the first part of the user name names the class:
`broken-tcp://KeepsTrying@127.0.0.1:7000`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socketserver
import threading
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from svcreg import Config, ProtocolError, Service, Snapshot, hookimpl
from svcreg.codec import decode_service, encode_service
from svcreg.model import split_address
from tests.support.small_backends import Store

END = b".\n"
BEAT = 0.2  # seconds between two signs of life of a watch
LIMIT = 64 * 1024  # bytes in a line


class Registry:
    """The server: may be stopped, and started with or without what it knew."""

    def __init__(self) -> None:
        self.store = Store()
        self._server = _Server(("127.0.0.1", 0), self)
        self._port = self._server.server_address[1]
        self._thread = self._serve()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def stop(self) -> None:
        self._server.is_stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def start(self, *, keep_data: bool) -> None:
        if not keep_data:
            self.store = Store()
        self._server = _Server(("127.0.0.1", self._port), self)
        self._thread = self._serve()

    def answer(self, request: dict[str, Any]) -> list[bytes]:
        """Do what a request says; return the lines of the answer."""
        service = decode_service(request["service"]) if "service" in request else None
        if request["do"] == "put" and service is not None:
            self.store.put(service, request["ttl"], request["owner"])
        elif request["do"] == "remove" and service is not None:
            for node in service.nodes:
                is_mine = self.store.owner(service.name, node) == request["owner"]
                if is_mine or not request["mine"]:
                    self.store.remove(service.with_nodes((node,)))
        return [
            encode_service(record) + b"\n" for record in self.store.read(request["name"]).values()
        ]

    def _serve(self) -> threading.Thread:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        thread.start()
        return thread


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    allow_reuse_port = True
    daemon_threads = False
    block_on_close = True

    def __init__(self, address: tuple[str, int], registry: Registry) -> None:
        super().__init__(address, _Connection)
        self.registry = registry
        self.is_stopping = threading.Event()

    def handle_error(self, *_: object) -> None:
        """Say nothing: the tests break connections all the time."""


class _Connection(socketserver.StreamRequestHandler):
    server: _Server
    timeout = 5.0

    def handle(self) -> None:
        request = json.loads(self.rfile.readline())
        registry = self.server.registry
        last, beat_at = registry.answer(request), time.monotonic()
        self.wfile.write(b"".join(last) + END)
        while request["do"] == "watch" and not self.server.is_stopping.wait(0.01):
            now = registry.answer(request)
            if now != last or time.monotonic() - beat_at > BEAT:
                last, beat_at = now, time.monotonic()
                self.wfile.write(b"".join(last) + END)


def build(config: Config) -> Right:
    """Return the backend that the URL names."""
    backend = globals()[config.username or ""](config)
    assert isinstance(backend, Right)
    return backend


class Right:
    """Wrong in no way."""

    capabilities = frozenset({"ttl", "push", "watch-all", "endpoints", "fencing"})
    limit = LIMIT

    def __init__(self, config: Config) -> None:
        self._address = split_address(config.addresses[0])
        self._owner = str(id(self))
        self._mine: set[tuple[str, str]] = set()

    @hookimpl
    async def svcreg_register(self, service: Service, ttl: float) -> None:
        await self.ask(do="put", name="", service=_text(service), ttl=ttl, owner=self._owner)
        self._mine.update((service.name, node.id) for node in service.nodes)

    @hookimpl
    async def svcreg_deregister(self, service: Service) -> None:
        for node in service.nodes:
            is_mine = (service.name, node.id) in self._mine
            one = _text(service.with_nodes((node,)))
            await self.ask(do="remove", name="", service=one, owner=self._owner, mine=is_mine)
            self._mine.discard((service.name, node.id))

    @hookimpl
    async def svcreg_get(self, name: str) -> Sequence[Service]:
        return await self.ask(do="read", name=name)

    @hookimpl
    async def svcreg_list(self) -> Sequence[str]:
        return [record.name for record in await self.ask(do="read", name=None)]

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> AsyncIterator[Snapshot]:
        async with self.connection(do="watch", name=name) as reader:
            last: Sequence[Service] | None = None
            while True:
                async with asyncio.timeout(5 * BEAT):
                    now = await self.read(reader)
                if now != last:
                    last = now
                    yield Snapshot(now)

    async def ask(self, **request: Any) -> Sequence[Service]:
        """Send one request and return the records of its answer."""
        async with self.connection(**request) as reader:
            return await self.read(reader)

    @contextlib.asynccontextmanager
    async def connection(self, **request: Any) -> AsyncIterator[asyncio.StreamReader]:
        """Send one request over a connection of its own."""
        reader, writer = await asyncio.open_connection(*self._address, limit=self.limit)
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            yield reader
        finally:
            writer.transport.abort()

    async def read(self, reader: asyncio.StreamReader) -> Sequence[Service]:
        """Return one answer, which is complete."""
        records = []
        while (line := await self.line(reader)) != END:
            records.append(decode_service(line))
        return records

    async def line(self, reader: asyncio.StreamReader) -> bytes:
        try:
            line = await reader.readline()
        except ValueError as error:
            raise ProtocolError(f"a line of more than {self.limit} bytes") from error
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the answer was cut off")
        return line


class KeepsTrying(Right):
    """Tries again by itself, and at once."""

    async def ask(self, **request: Any) -> Sequence[Service]:
        while True:
            try:
                return await super().ask(**request)
            except OSError:
                await asyncio.sleep(0.002)


class SwallowsErrors(Right):
    """Takes a registry that cannot be reached for an empty one that takes everything."""

    async def ask(self, **request: Any) -> Sequence[Service]:
        with contextlib.suppress(OSError):
            return await super().ask(**request)
        return ()


class TakesPartForTheWhole(Right):
    """Takes the end of the connection for the end of the answer."""

    async def ask(self, **request: Any) -> Sequence[Service]:
        async with self.connection(**request) as reader:
            lines = (await reader.read()).splitlines(keepends=True)
            return [decode_service(line) for line in lines if line.endswith(b"}\n")]


class ReadsWithoutLimit(Right):
    """Has no limit for what it reads before it can be understood."""

    limit = 2**40


class LeaksWhenItFails(Right):
    """Leaves something open with each failure."""

    @contextlib.asynccontextmanager
    async def connection(self, **request: Any) -> AsyncIterator[asyncio.StreamReader]:
        try:
            async with super().connection(**request) as reader:
                yield reader
        except OSError:
            os.dup(0)
            raise


class RemembersTheFirstFailure(Right):
    """Is useless for good once it could not connect."""

    _error: OSError | None = None

    async def ask(self, **request: Any) -> Sequence[Service]:
        if self._error is not None:
            raise ConnectionRefusedError(str(self._error))
        try:
            return await super().ask(**request)
        except ConnectionRefusedError as error:
            self._error = error
            raise


def _text(service: Service) -> str:
    return encode_service(service).decode()
