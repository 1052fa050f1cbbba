"""Backends inside the test's process, and a node that announces itself as go-micro's do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from svcreg import Config, Delta, Node, Service, Snapshot
from svcreg_mdns import MdnsBackend
from tests.support.mdns import PTR, labels, record, sender
from tests.support.mdns_gomicro import (
    gomicro_announcement,
    gomicro_text,
    message,
    node_records,
    overhearing,
)

PATIENCE = 10.0
"""Seconds that anything may take on a busy machine."""


def run(test: Callable[..., Awaitable[None]], *dialects: str, **options: str) -> None:
    """Run a test with one backend on the loopback per dialect; nothing may be left running."""

    async def main() -> None:
        backends = [
            MdnsBackend(
                Config(backend="mdns", options={"interfaces": "lo", "dialect": dialect, **options})
            )
            for dialect in dialects
        ]
        try:
            await test(*backends)
        finally:
            for backend in backends:
                await backend.svcreg_close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def one(name: str, node_id: str = "n-1", address: str = "127.0.0.1:80", **metadata: str) -> Service:
    """Return a service with one node, which go-micro sees."""
    return Service(name, "1.0", nodes=[Node(node_id, address, metadata)])


async def eventually(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - it may have to ask
            await asyncio.sleep(0.02)


class Changes:
    """What a watch says, one word for each node and change."""

    def __init__(self, backend: MdnsBackend, name: str | None) -> None:
        self.said: list[str] = []
        self._stream = backend.svcreg_watch(name)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Changes:
        first = await anext(self._stream)
        assert isinstance(first, Snapshot)
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        await self._stream.aclose()  # type: ignore[attr-defined] # the hook is a generator

    async def until(self, *said: str) -> None:
        """Wait until exactly this was said."""
        try:
            async with asyncio.timeout(PATIENCE):
                while self.said != list(said):  # noqa: ASYNC110 - said by a task of our own
                    await asyncio.sleep(0.01)
        except TimeoutError:
            assert self.said == list(said)

    async def _read(self) -> None:
        async for item in self._stream:
            assert isinstance(item, Delta)
            for word, services in (("upsert", item.upserts), ("delete", item.deletes)):
                self.said += [f"{word} {node.id}" for s in services for node in s.nodes]


class GoNode:
    """A node that announces itself once and then answers questions, as go-micro's do.

    Answers come by unicast, with the question, whoever asks; from a thread, until `silence`.
    """

    def __init__(self, service: str, node_id: str = "go-1", **more: Any) -> None:
        self.service, self.node_id, self.more = service, node_id, more
        self.text = gomicro_text(service, metadata={"by": "go"})
        self.questions = 0
        self._is_listening = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._answer, daemon=True)

    def __enter__(self) -> GoNode:
        self._thread.start()
        assert self._is_listening.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self.silence()

    def announce(self, **more: Any) -> None:
        """Announce the node, or with `ttl=0` say goodbye."""
        with sender() as send:
            given = {**self.more, **more}
            send(gomicro_announcement(self.service, self.node_id, self.text, **given))

    def silence(self) -> None:
        """Die without a word."""
        self._ended.set()
        self._thread.join()

    def _answer(self) -> None:
        asked_for = labels(f"{self.service}.micro")
        listed = labels("_services.micro")
        with overhearing() as ears, sender_socket() as mouth:
            ears.settimeout(0.05)
            self._is_listening.set()
            while not self._ended.is_set():
                with contextlib.suppress(TimeoutError):
                    packet, source = ears.recvfrom(65535)
                    if packet[2] & 0x80:
                        continue
                    if packet[12:].startswith(asked_for):
                        self.questions += 1
                        mouth.sendto(self._answer_to(packet), source)
                    elif packet[12:].startswith(listed):
                        mouth.sendto(self._listing(packet), source)

    def _answer_to(self, packet: bytes) -> bytes:
        instance = labels(f"{self.node_id}.{self.service}.micro")
        pointer = record(f"{self.service}.micro", PTR, instance)
        records = [pointer, *node_records(self.service, self.node_id, self.text, **self.more)]
        return message(records, asked=packet[12:])

    def _listing(self, packet: bytes) -> bytes:
        name = f"{self.service}._services.micro"
        records = node_records("_services", self.service, b"", port=9999)
        return message([record("_services.micro", PTR, labels(name)), *records], asked=packet[12:])


@contextlib.contextmanager
def sender_socket() -> Iterator[socket.socket]:
    """Give a socket that sends on the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


@contextlib.asynccontextmanager
async def recording(about: str) -> AsyncIterator[list[tuple[float, int, bytes]]]:
    """Record the group's packets that hold some text: when, from which port, and what."""
    heard: list[tuple[float, int, bytes]] = []
    with overhearing() as sock:
        sock.setblocking(False)

        def receive() -> None:
            with contextlib.suppress(BlockingIOError):
                packet, source = sock.recvfrom(65535)
                if about.encode() in packet:
                    heard.append((time.monotonic(), source[1], packet))

        loop = asyncio.get_running_loop()
        loop.add_reader(sock, receive)
        try:
            yield heard
        finally:
            loop.remove_reader(sock)
