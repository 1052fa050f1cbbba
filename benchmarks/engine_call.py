"""What crossing into the engine's thread costs, against answers that need no crossing.

A plain asyncio loop in a thread, called from another thread and from another loop, stands for cold
operations; a loop that hands a `def` to a worker thread stands for a blocking hook. `get` of a warm
service through each face is what a program pays per call.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import svcreg
from svcreg import Node, Service

CALLS = 5_000


async def nothing() -> None:
    """Stand for an operation whose own work is free."""


def microseconds(call: Callable[[], object], calls: int = CALLS) -> float:
    call()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls * 1e6


async def microseconds_awaiting(loop: asyncio.AbstractEventLoop) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(nothing(), loop))
    return (time.perf_counter() - start) / CALLS * 1e6


async def microseconds_in_worker() -> float:
    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    for _ in range(CALLS):
        await loop.run_in_executor(None, int)
    return (time.perf_counter() - start) / CALLS * 1e6


async def microseconds_warm_async() -> float:
    async with svcreg.aio.open("memory://engine-call") as registry:
        await registry.get("greeter")
        start = time.perf_counter()
        for _ in range(CALLS):
            await registry.get("greeter")
        return (time.perf_counter() - start) / CALLS * 1e6


def main() -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        crossing = microseconds(
            lambda: asyncio.run_coroutine_threadsafe(nothing(), loop).result(timeout=5)
        )
        awaiting = asyncio.run(microseconds_awaiting(loop))
        worker = asyncio.run(microseconds_in_worker())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    service = Service("greeter", nodes=[Node("greeter-1", "10.0.0.5:8080")])
    with svcreg.open("memory://engine-call") as registry, registry.register(service):
        registry.get("greeter")
        warm = microseconds(lambda: registry.get("greeter"))
        warm_async = asyncio.run(microseconds_warm_async())

    print(f"call into a loop's thread and wait     {crossing:7.1f} us")
    print(f"the same from another asyncio loop     {awaiting:7.1f} us")
    print(f"call of a `def` on a worker thread     {worker:7.1f} us ({worker / crossing:.2f} x)")
    print(
        f"warm get, blocking face                {warm:7.1f} us ({crossing / warm:.0f} x cheaper)"
    )
    print(
        f"warm get, asyncio face                 {warm_async:7.1f} us"
        f" ({awaiting / warm_async:.0f} x cheaper)"
    )


if __name__ == "__main__":
    main()
