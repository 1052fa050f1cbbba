"""`demo`: the story really happens, ends by itself, and leaves nothing behind."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import svcreg as library
from tests.integration.cli.conftest import Svcreg, wait_until

MARK = "SVCREG_TEST_DEMO"


def processes(mark: str) -> list[str]:
    """Return the processes that inherited the mark."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in environ.read_bytes():
                found.append(environ.parent.name)
        except OSError:  # it ended meanwhile
            pass
    return found


@pytest.fixture
def mark(svcreg: Svcreg) -> Iterator[str]:
    """Every process of the demo carries the mark; none may be left when the test ends."""
    value = uuid.uuid4().hex
    svcreg.env[MARK] = value
    yield value
    if Path("/proc/self/environ").exists():
        wait_until(lambda: not processes(value), "the processes of the demo end", 5)


def nodes_left(svcreg: Svcreg) -> list[str]:
    """Return the ids of all nodes that are registered."""
    with library.open(svcreg.env["MICRO_REGISTRY"]) as registry:
        services = [service for name in registry.list() for service in registry.get(name)]
    return [node.id for service in services for node in service.nodes]


def assert_story(output: str) -> None:
    lines = output.splitlines()
    assert [line[0] for line in lines if line[:2] in {f"{n}." for n in range(9)}] == list("12345")
    assert any("SIGKILL" in line for line in lines)
    assert any("greeter-2" in line and "gone from the registry" in line for line in lines)
    assert any("clock-1" in line and "gone from the registry" in line for line in lines)
    assert any("All of it happened as told" in line for line in lines)
    assert "\x1b" not in output


@pytest.mark.usefixtures("mark")
def test_story_happens_over_sqlite(svcreg: Svcreg) -> None:
    started = time.monotonic()
    result = svcreg("demo")
    assert time.monotonic() - started < 30
    assert_story(result.stdout)
    assert result.stderr == ""
    assert svcreg.json("list") == []


@pytest.mark.usefixtures("mark")
@pytest.mark.skipif("mdns" not in library.backends(), reason="pip install svcreg-mdns")
def test_story_happens_over_mdns_by_default(svcreg: Svcreg) -> None:
    del svcreg.env["MICRO_REGISTRY"]
    result = svcreg("demo")
    assert_story(result.stdout)
    assert result.stderr == ""
    assert "mdns" in result.stdout.splitlines()[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_leaves_nothing_behind(
    svcreg: Svcreg, mark: str, number: signal.Signals
) -> None:
    running = svcreg.start("demo")
    running.wait_for(lambda line: "stays listed" in line)  # and that takes seconds
    assert len(processes(mark)) == 3 or not Path("/proc/self/environ").exists()
    assert running.stop(number) == 130
    assert running.errors().strip() == ""
    assert processes(mark) == []
    assert nodes_left(svcreg) in (["greeter-2"], []), (
        "only the killed one may be left, until its TTL runs out"
    )


@pytest.mark.usefixtures("mark")
def test_killed_demo_takes_its_programs_along(svcreg: Svcreg) -> None:
    running = svcreg.start("demo")
    running.wait_for(lambda line: "stays listed" in line)
    running.process.kill()
    running.wait()


def test_memory_is_refused_with_the_reason(svcreg: Svcreg) -> None:
    assert "--registry sqlite" in svcreg("demo", "--registry", "memory", code=2).stderr


def test_missing_plugin_is_named_with_what_to_install(svcreg: Svcreg) -> None:
    result = svcreg("demo", "--registry", "nosuch", code=2)
    assert "pip install svcreg-nosuch" in result.stderr
    assert "--registry sqlite" in result.stderr
