"""The greeter in asyncio: a service, a watcher and a client on one event loop.

    python examples/greeter_async.py

The registry is whatever MICRO_REGISTRY names. Renewals run on a thread of their own, so code that
blocks this loop for a while does not lose the registration.
"""

from __future__ import annotations

import asyncio

import svcreg
from svcreg import Node, Service

NAME = "greeter-async-example"


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    who = (await reader.readline()).decode().strip()
    writer.write(f"Hello {who}!\n".encode())
    await writer.drain()
    writer.close()


async def call(node: Node, who: str) -> str:
    reader, writer = await asyncio.open_connection(node.host, node.port)
    writer.write(f"{who}\n".encode())
    answer = (await reader.readline()).decode().strip()
    writer.close()
    return f"{node.id}: {answer}"


async def tell_changes(registry: svcreg.AsyncRegistry) -> None:
    """Print what happens to the service until its node leaves."""
    async with registry.watch(NAME) as events:
        async for event in events:
            for node in event.service.nodes:
                print(f"{event.action} {node.id}", flush=True)
            if event.action == "delete":
                return


async def main() -> None:
    async with svcreg.aio.open() as registry:
        watcher = asyncio.create_task(tell_changes(registry))
        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            node = Node(f"{NAME}-{port}", f"127.0.0.1:{port}")
            async with await registry.register(Service(NAME, nodes=[node]), ttl=30):
                print(await call(await registry.select(NAME), "World"))
        async with asyncio.timeout(5):
            await watcher


if __name__ == "__main__":
    asyncio.run(main())
