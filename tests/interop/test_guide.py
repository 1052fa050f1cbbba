"""The programs of docs/guide/go-micro.md, run as they stand there."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.conftest import World
from tests.support.gomicro import ROOT, program
from tests.support.servers import Process, eventually

GUIDE = (ROOT / "docs" / "guide" / "go-micro.md").read_text()
CLIENT, SERVER = re.findall(r"```python\n(.*?)```", GUIDE, re.S)


@pytest.fixture
def environment(world: World) -> dict[str, str]:
    """What the guide exports, and the loopback as the only address to be reached at."""
    return {
        "MICRO_REGISTRY": world.registry,
        "MICRO_REGISTRY_ADDRESS": world.address,
        "MICRO_SERVER_ADDRESS": "127.0.0.1:0",
        "MICRO_TLS_SECURE": "true",
    }


@contextlib.contextmanager
def running(
    world: World, command: list[str], log: Path, environment: dict[str, str]
) -> Iterator[Process]:
    process = Process([*world.prefix, *command], log, env=environment)
    try:
        yield process
    finally:
        process.stop()


def test_client_in_python_calls_the_service_in_go(
    world: World, environment: dict[str, str], tmp_path: Path
) -> None:
    with running(world, [program("greeter")], tmp_path / "log", environment) as service:
        service.wait_until(lambda: world.python.nodes("greeter"))
        called = subprocess.run(
            [*world.prefix, sys.executable, "-c", CLIENT],
            env=environment,
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert called.stdout == "Hello Ada, says Go\n", called.stderr
        service.popen.send_signal(signal.SIGTERM)
        eventually(lambda: not world.python.nodes("greeter"))


def test_client_in_go_calls_the_service_in_python(
    world: World, environment: dict[str, str], tmp_path: Path
) -> None:
    with running(world, [sys.executable, "-c", SERVER], tmp_path / "log", environment) as service:
        service.wait_until(lambda: world.go.nodes("greeter"))
        request = {"name": "greeter", "endpoint": "Greeter.Hello", "text": "Ada"}
        said = world.go.call("request", **request, protocol="mucp")
        assert said == "Hello Ada, says Python"
        service.popen.send_signal(signal.SIGTERM)
        eventually(lambda: not world.go.nodes("greeter"))
