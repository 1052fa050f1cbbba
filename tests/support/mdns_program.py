"""A program with one mDNS backend, driven by JSON lines: for tests that need more processes.

Reads `{"call": ..., ...}` from standard input, and writes one `{"result": ...}` or `{"error": ...}`
per call, and an `{"event": ..., "at": ...}` per item of a watch. Times are of the monotonic clock,
which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from typing import Any

import msgspec

from svcreg import Config, Delta, Service, Snapshot
from svcreg_mdns import MdnsBackend


def say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


class Program:
    def __init__(self, interfaces: str, dialect: str) -> None:
        options = {"interfaces": interfaces, "dialect": dialect}
        self.backend = MdnsBackend(Config(backend="mdns", options=options))
        self.tasks: list[asyncio.Task[None]] = []
        self.held: list[tuple[Service, float]] = []

    async def register(self, service: Any, ttl: float) -> None:
        made = msgspec.convert(service, Service)
        await self.backend.svcreg_register(made, ttl)
        self.held.append((made, ttl))
        self.tasks.append(asyncio.create_task(self._renew(made, ttl)))

    async def update(self, service: Any, ttl: float) -> None:
        await self.backend.svcreg_register(msgspec.convert(service, Service), ttl)

    async def deregister(self, service: Any) -> None:
        await self.backend.svcreg_deregister(msgspec.convert(service, Service))

    async def get(self, name: str) -> object:
        return msgspec.to_builtins(await self.backend.svcreg_get(name))

    async def list(self) -> object:
        return await self.backend.svcreg_list()

    async def watch(self, name: str | None) -> None:
        self.tasks.append(asyncio.create_task(self._watch(name)))

    async def memory(self) -> int:
        """Return the resident memory in bytes."""
        with open("/proc/self/statm") as statm:  # noqa: ASYNC230
            return int(statm.read().split()[1]) * 4096

    async def _renew(self, service: Service, ttl: float) -> None:
        while True:
            await asyncio.sleep(ttl / 3)
            lost = await self.backend.svcreg_renew([service], ttl)
            say(event="renewed", lost=msgspec.to_builtins(lost), at=time.monotonic())

    async def _watch(self, name: str | None) -> None:
        try:
            async for item in self.backend.svcreg_watch(name):
                at = time.monotonic()
                if isinstance(item, Snapshot):
                    say(event="snapshot", services=msgspec.to_builtins(item.services), at=at)
                elif isinstance(item, Delta):
                    for service in item.upserts:
                        say(event="upsert", service=msgspec.to_builtins(service), at=at)
                    for service in item.deletes:
                        say(event="delete", service=msgspec.to_builtins(service), at=at)
        except Exception as error:
            say(event="ended", error=f"{type(error).__name__}: {error}", at=time.monotonic())


async def main(interfaces: str, dialect: str) -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    program = Program(interfaces, dialect)
    say(event="ready")
    while line := await reader.readline():
        request = json.loads(line)
        try:
            say(result=await getattr(program, request.pop("call"))(**request), at=time.monotonic())
        except Exception as error:
            say(error=f"{type(error).__name__}: {error}")
    for task in program.tasks:
        task.cancel()
    await asyncio.gather(*program.tasks, return_exceptions=True)
    await program.backend.svcreg_close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
