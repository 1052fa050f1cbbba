"""`watch`: events for programs, lines and a live view for people."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import Any

import pytest

import svcreg as library
from svcreg.cli import live
from tests.support.plugins import Distributions
from tests.unit.cli.support import (
    STOPPING,
    Running,
    Svcreg,
    add,
    backend_that,
    install,
    wait_until,
)


def events(output: str) -> list[Any]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("number", STOPPING)
def test_pipe_gets_an_event_per_line(
    svcreg: Svcreg, registry: library.Registry, number: Any
) -> None:
    before = time.time()
    add(registry, "hello", "h-1")

    def change(running: Running) -> None:
        running.wait_for("h-1")
        second = add(registry, "hello", "h-2")
        running.wait_for("h-2")
        second.update(metadata={"zone": "z1"})
        running.wait_for("update")
        add(registry, "other", "o-1")
        second.close()
        running.wait_for("delete")

    result = svcreg.meanwhile(change, "watch", "hello", number=number)
    found = events(result.stdout)
    told = [(event["action"], event["service"]["nodes"][0]["id"]) for event in found]
    assert told == [("create", "h-1"), ("create", "h-2"), ("update", "h-2"), ("delete", "h-2")]
    assert found[2]["service"]["nodes"][0]["metadata"] == {"zone": "z1"}
    assert all(set(event) == {"action", "service", "timestamp"} for event in found)
    assert all(before - 1 < event["timestamp"] < time.time() + 1 for event in found)
    assert result.stderr == ""


def test_without_a_name_every_service_is_watched(
    svcreg: Svcreg, registry: library.Registry
) -> None:
    def change(running: Running) -> None:
        for name in ("alpha", "beta"):
            add(registry, name, f"{name}-1")
            running.wait_for(f"{name}-1")

    result = svcreg.meanwhile(change, "watch", "--output", "json")
    assert [event["service"]["name"] for event in events(result.stdout)] == ["alpha", "beta"]


def test_table_in_a_pipe_is_a_line_of_text_per_node(
    svcreg: Svcreg, registry: library.Registry
) -> None:
    add(registry, "hello", "h-1", "1.0", zone="z1")
    add(registry, "hello", "h-2", note="\x1b[2J[red]")
    result = svcreg.meanwhile(
        lambda running: running.wait_for("h-1", "h-2"), "watch", "--output", "table"
    )
    lines = sorted(line.split()[1:] for line in result.stdout.splitlines())
    assert lines == [
        ["create", "hello", "-", "h-2", "10.0.0.5:80", r"note=\x1b[2J[red]"],
        ["create", "hello", "1.0", "h-1", "10.0.0.5:80", "zone=z1"],
    ]


def test_json_on_a_terminal_is_events(svcreg: Svcreg, registry: library.Registry) -> None:
    add(registry, "hello", "h-1")
    svcreg.is_terminal = True
    result = svcreg.meanwhile(lambda running: running.wait_for("h-1"), "watch", "--output", "json")
    assert [event["action"] for event in events(result.stdout)] == ["create"]


def test_dumb_terminal_gets_lines(
    svcreg: Svcreg, registry: library.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(registry, "hello", "h-1")
    monkeypatch.setenv("TERM", "dumb")
    svcreg.is_terminal = True
    result = svcreg.meanwhile(lambda running: running.wait_for("h-1"), "watch")
    assert result.stdout.split()[1:] == ["create", "hello", "-", "h-1", "10.0.0.5:80"]


def plain(output: str) -> str:
    """Return output without escape sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output)


@pytest.mark.parametrize("name", ["hello", None])
def test_terminal_gets_a_live_view_that_follows(
    svcreg: Svcreg,
    registry: library.Registry,
    monkeypatch: pytest.MonkeyPatch,
    name: str | None,
) -> None:
    monkeypatch.setattr(live, "_REFRESHES", 0.01)  # a change is shown without waiting for one

    def change(running: Running) -> None:
        running.wait_for("nothing is registered")
        registration = add(registry, "hello", "h-1", zone="z1")
        running.wait_for("1 node of 1 service", "h-1")
        registration.close()
        running.wait_for("0 nodes of 0 services", "gone")

    svcreg.is_terminal = True
    result = svcreg.meanwhile(change, "watch", *filter(None, [name]))
    assert f"{name or 'every service'} on memory" in plain(result.stdout)
    assert re.search(r"hello +- +h-1 +10.0.0.5:80 +zone=z1 +here \d+ s", plain(result.stdout))
    assert result.stdout.rindex("\x1b[?25h") > result.stdout.rindex("\x1b[?25l"), "cursor hidden"
    assert re.search(r"\x1b\[[0-9;]*3[0-7]m", result.stdout), "no colour"


def test_colour_is_for_those_that_want_it(
    svcreg: Svcreg, registry: library.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(registry, "hello", "h-1")
    monkeypatch.setenv("NO_COLOR", "1")
    svcreg.is_terminal = True
    result = svcreg.meanwhile(lambda running: running.wait_for("here"), "watch")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", result.stdout)


GOES_AWAY = """
        if hasattr(self, "was_there"):
            raise ConnectionRefusedError(111, "nobody there")
        self.was_there = True
        yield svcreg.Snapshot([svcreg.Service("hello", nodes=[svcreg.Node("h-1", "h:1")])])
        while not LOST:
            await asyncio.sleep(0.005)
        raise ConnectionResetError(104, "gone away")
LOST = []
"""


@pytest.mark.parametrize("args", [["hello"], []], ids=["one service", "every service"])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_registry_that_goes_away_is_told_and_what_was_there_stays(
    svcreg: Svcreg, distributions: Distributions, args: list[str], is_terminal: bool
) -> None:
    source = backend_that("pass")
    install(distributions, source[: source.index("        yield")] + GOES_AWAY)
    svcreg.is_terminal = is_terminal

    def look(running: Running) -> None:
        def told() -> bool:
            return "warning: watch of " in plain(running.output + running.errors)

        running.wait_for("h-1")
        sys.modules["acme_plugin"].LOST.append(True)
        wait_until(told, "warned")
        if is_terminal:
            running.wait_for("the registry is away; this is what it said ")

    result = svcreg.meanwhile(look, "watch", *args, "--registry", "acme")
    assert "delete" not in result.stdout
    assert "gone" not in result.stdout.replace("gone away", "")


def test_ends_when_its_reader_has_seen_enough(svcreg: Svcreg, registry: library.Registry) -> None:
    add(registry, "hello", "h-1")
    reading, svcreg.descriptor = os.pipe()

    def read(running: Running) -> None:
        with os.fdopen(reading) as lines:
            assert json.loads(lines.readline())["action"] == "create"
        running.wait_for_end()

    assert svcreg.meanwhile(read, "watch").stderr == ""
