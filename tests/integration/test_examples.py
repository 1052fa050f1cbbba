"""The examples run unchanged on every registry that needs no server."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import svcreg

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NEEDS_MDNS = pytest.mark.skipif("mdns" not in svcreg.backends(), reason="pip install svcreg-mdns")
PATIENCE = 30  # seconds on a busy machine

REGISTRIES = [
    pytest.param("memory", id="memory"),
    pytest.param("sqlite", id="sqlite"),
    pytest.param("mdns", id="mdns", marks=NEEDS_MDNS),
    pytest.param(None, id="unset", marks=NEEDS_MDNS),
]


@pytest.fixture
def mdns_alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Wait for our turn on the loopback interface: the examples of all tests have one name."""
    if request.getfixturevalue("registry") not in ("mdns", None):
        yield
        return
    with (Path(tempfile.gettempdir()) / "svcreg-examples.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def environment(registry: str | None, home: Path) -> dict[str, str]:
    """Return the environment that chooses a registry, kept to this machine and this test."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MICRO_")}
    env |= {"MICRO_MDNS_INTERFACES": "lo", "HOME": str(home), "XDG_STATE_HOME": str(home)}
    if registry is not None:
        env["MICRO_REGISTRY"] = registry
    return env


def complaints(stderr: str) -> list[str]:
    """Return what a program said, but for bad records of other tests, which share the link."""
    return [line for line in stderr.splitlines() if "skipping record" not in line]


@pytest.mark.usefixtures("mdns_alone")
@pytest.mark.parametrize("registry", REGISTRIES)
@pytest.mark.parametrize("example", ["greeter.py", "greeter_async.py"])
def test_example_finds_and_calls_its_service(
    example: str, registry: str | None, tmp_path: Path
) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / example)],
        env=environment(registry, tmp_path),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (result.returncode, complaints(result.stderr)) == (0, [])
    assert "Hello World!" in result.stdout


@pytest.mark.usefixtures("mdns_alone")
@pytest.mark.parametrize("registry", REGISTRIES[1:])
def test_server_and_client_meet_in_two_processes(registry: str | None, tmp_path: Path) -> None:
    env = environment(registry, tmp_path)
    program = [sys.executable, str(EXAMPLES / "greeter.py")]
    with subprocess.Popen(
        [*program, "serve"], env=env, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            assert "serving at" in server.stdout.readline()
            client = subprocess.run(
                [*program, "call", "Ada Lovelace"],
                env=env,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            assert (client.returncode, complaints(client.stderr)) == (0, [])
            assert "Hello Ada Lovelace!" in client.stdout
        finally:
            server.terminate()
