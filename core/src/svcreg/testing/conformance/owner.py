"""The program that `Owner` runs: registers, says so, and holds on until its input ends.

    python -m svcreg.testing.conformance.owner URL FACE SERVICE-JSON TTL MODE

With MODE `signals` it withdraws when it receives SIGTERM. With MODE `fork` it forks once it has
registered. The child uses the registry, says `child-used`, and ends as a program does when the
first byte of input comes; the parent goes on.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import svcreg
from svcreg.codec import decode_service


def hold(url: str, service: svcreg.Service, ttl: float) -> None:
    """Hold the registration through the blocking face; leaving it to the interpreter's exit."""
    registry = svcreg.open(url)
    registry.register(service, ttl=ttl)
    say("registered")
    sys.stdin.read()


def fork(url: str, service: svcreg.Service, ttl: float) -> None:
    """Register, then fork, and hold the registration in the parent."""
    registry = svcreg.open(url)
    registry.register(service, ttl=ttl)
    child = os.fork()
    if child == 0:
        registry.get(service.name)
        say("child-used")
        os.read(0, 1)
        return
    say("registered")
    os.waitpid(child, 0)
    say("child-ended")
    while os.read(0, 1024):
        pass


async def hold_async(url: str, service: svcreg.Service, ttl: float) -> None:
    """Hold the registration through the asyncio face."""
    async with svcreg.aio.open(url) as registry:
        await registry.register(service, ttl=ttl)
        say("registered")
        ended, loop = asyncio.Event(), asyncio.get_running_loop()

        def wait_for_end() -> None:
            sys.stdin.read()
            loop.call_soon_threadsafe(ended.set)

        # A daemon: asyncio's own threads would keep a process that got a signal from ending.
        threading.Thread(target=wait_for_end, daemon=True).start()
        await ended.wait()


def say(word: str) -> None:
    """Print one word, at once."""
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def main(url: str, face: str, service_json: str, ttl: str, mode: str) -> None:
    """Do what the arguments say."""
    service = decode_service(service_json)
    if mode == "signals":
        svcreg.handle_signals()
    if mode == "fork":
        fork(url, service, float(ttl))
    elif face == "asyncio":
        asyncio.run(hold_async(url, service, float(ttl)))
    else:
        hold(url, service, float(ttl))


if __name__ == "__main__":
    main(*sys.argv[1:])
