"""What a program with asyncio writes: the same calls, awaited where they wait."""

from __future__ import annotations

from typing import assert_type

import svcreg
from svcreg import AsyncRegistry, Node, Service


async def main() -> None:
    async with svcreg.aio.open("mdns", timeout=2.0) as registry:
        assert_type(registry, AsyncRegistry)
        greeter = Service("greeter", nodes=[Node("greeter-1", "10.0.0.5:8080")])
        registration = await registry.register(greeter, ttl=90)
        async with registration:
            await registration.update(metadata={"weight": "2"})
            assert_type(await registry.get("greeter"), tuple[Service, ...])
            assert_type(await registry.list(), tuple[str, ...])
            assert_type(await registry.select("greeter"), Node)
            assert_type(await registry.call("greeter", address_length), int)
            async with registry.watch() as events:
                async for event in events:
                    assert_type(event.service, Service)
        await registry.deregister(greeter)


async def address_length(node: Node) -> int:
    return len(node.address)
