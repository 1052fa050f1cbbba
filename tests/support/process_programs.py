"""Programs that tests run as processes of their own: `python -m tests.support.process_programs`.

Each prints `ready` once it has registered, and its process id beside what it is where that matters.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import NoReturn

import svcreg
from svcreg import Node, Registry, Service
from svcreg.config import load_config


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def node(node_id: str) -> Service:
    return Service("greeter", nodes=(Node(node_id, "10.0.0.5:8080"),))


def wait() -> None:
    """Wait for a signal, or for the end of the input."""
    while os.read(0, 1024):
        pass


def workers(url: str, ttl: float) -> None:
    """Connect, then fork four workers of which each registers itself, as a web server does."""
    registry = svcreg.open(url)
    leader = registry.register(node("leader"), ttl=ttl)
    registry.get("greeter")
    children = []
    for number in range(4):
        if (pid := os.fork()) == 0:
            work(registry, number, ttl)
        children.append(pid)
    wait()
    for pid in children:
        os.waitpid(pid, 0)
    assert leader.state == "active"


def work(registry: Registry, number: int, ttl: float) -> NoReturn:
    """Serve until told to end."""
    svcreg.handle_signals()
    worker = registry.register(node(f"worker-{number}"), ttl=ttl)
    assert {n.id for n in registry.get("greeter")[0].nodes} >= {"leader", f"worker-{number}"}
    say("worker", number, os.getpid())
    while worker.state == "active":
        signal.pause()
    raise AssertionError("lost")


def end(url: str, how: str) -> None:
    """Register, and end in one of the ways in which programs end."""
    if how.startswith("async"):
        asyncio.run(end_async(url, how))
        return
    registry = svcreg.open(url, timeout=1.0)
    registry.register(node("node"), ttl=60)
    if how.startswith("hang"):
        hang(url)
    say("ready")
    if how.endswith("watch"):
        for _ in registry.watch("greeter"):
            pass
    elif how.endswith("exit"):
        os.read(0, 1)
        sys.exit(3)
    elif how.endswith("raise"):
        os.read(0, 1)
        raise RuntimeError("a program that fails")
    elif how.endswith("handled"):
        svcreg.handle_signals()
        say("handling")
        wait()
    else:
        wait()


async def end_async(url: str, how: str) -> None:
    """Register through the asyncio face, and end."""
    registry = svcreg.aio.open(url, timeout=1.0)
    await registry.register(node("node"), ttl=60)
    say("ready")
    if how == "async-with":
        async with registry:
            await asyncio.sleep(60)
    elif how == "async-watch":
        async for _ in registry.watch("greeter"):
            pass
    else:
        await asyncio.to_thread(wait)


def hang(url: str) -> None:
    """Let the backend neither answer nor fail any more."""
    from tests.support.faulty import faults_of

    faults_of(load_config(url)).hang()


if __name__ == "__main__":
    if sys.argv[1] == "workers":
        workers(sys.argv[2], float(sys.argv[3]))
    else:
        end(sys.argv[2], sys.argv[1])
