"""A program that registers many nodes and says what that takes: one JSON object per step.

    python tests/support/etcd_scale.py URL COUNT TTL SECONDS

It goes on for a line of input at a time: registers, keeps for some seconds, withdraws.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import threading
import time
from pathlib import Path

import svcreg
from svcreg import Node, Service

SERVICES = 100
"""Names over which the nodes are spread."""


def memory() -> float:
    """Return this process's resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def say(step: str, **figures: float) -> None:
    """Print one step's figures."""
    rounded = {name: round(value, 4) for name, value in figures.items()}
    sys.stdout.write(json.dumps({"step": step, **rounded}) + "\n")
    sys.stdout.flush()


async def main(url: str, count: int, ttl: float, seconds: float) -> None:
    """Register, keep, withdraw."""
    async with svcreg.aio.open(url, timeout=20) as registry:
        await registry.list()  # connects, and imports what is imported late
        before, started, cpu = memory(), time.monotonic(), time.process_time()
        services = [
            Service(
                f"scale-{n % SERVICES}",
                "1.0.0",
                nodes=(Node(f"node-{n}", f"10.0.{n // 250}.{n % 250 + 1}:8080", {"zone": "z1"}),),
            )
            for n in range(count)
        ]
        held = await asyncio.gather(*(registry.register(one, ttl=ttl) for one in services))
        say(
            "registered",
            seconds=time.monotonic() - started,
            cpu=time.process_time() - cpu,
            mebibytes=memory() - before,
            threads=threading.active_count(),
        )
        await asyncio.to_thread(sys.stdin.readline)
        cpu, started = time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        spent, passed = time.process_time() - cpu, time.monotonic() - started
        active = sum(registration.state == "active" for registration in held)
        say("kept", share=spent / passed, active=active, mebibytes=memory() - before)
        await asyncio.to_thread(sys.stdin.readline)
        started = time.monotonic()
    say("closed", seconds=time.monotonic() - started)
    sys.stdin.readline()


if __name__ == "__main__":
    os.environ.pop("MICRO_REGISTRY", None)
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
