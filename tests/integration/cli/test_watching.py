"""`watch` in a pipe: one event per line, at once, for as long as somebody reads."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest

from tests.integration.cli.conftest import COMMAND, PATIENCE, Svcreg


def test_pipe_gets_an_event_per_line(svcreg: Svcreg) -> None:
    before = time.time()
    svcreg.register("hello", "10.0.0.5:81")
    watching = svcreg.start("watch", "hello")
    first = watching.wait_for_json(action="create")
    assert set(first) == {"action", "service", "timestamp"}
    assert first["service"]["nodes"][0]["address"] == "10.0.0.5:81"
    assert before - 1 < first["timestamp"] < time.time() + 1
    other = svcreg.register("hello", "10.0.0.5:82")
    watching.wait_for(lambda line: "10.0.0.5:82" in line)
    other.stop()
    gone = watching.wait_for_json(action="delete")
    assert gone["service"]["nodes"][0]["address"] == "10.0.0.5:82"
    assert watching.stop() == 0
    assert [json.loads(line)["action"] for line in watching.lines] == ["create", "create", "delete"]
    assert watching.errors() == ""


def test_without_a_name_every_service_is_watched(svcreg: Svcreg) -> None:
    watching = svcreg.start("watch", "--output", "json")
    for name in ("alpha", "beta"):
        svcreg.register(name, "10.0.0.5:80")
        watching.wait_for(lambda line, name=name: json.loads(line)["service"]["name"] == name)  # type: ignore[misc]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_it_normally(svcreg: Svcreg, number: signal.Signals) -> None:
    svcreg.register("hello", "10.0.0.5:80")
    watching = svcreg.start("watch")
    watching.wait_for_json(action="create")
    assert watching.stop(number) == 0
    assert watching.errors() == ""


def test_table_in_a_pipe_is_a_line_of_text_per_node(svcreg: Svcreg) -> None:
    svcreg.register("hello", "10.0.0.5:80", "--version", "1.0", "--metadata", "zone=z1")
    watching = svcreg.start("watch", "--output", "table")
    line = watching.wait_for(lambda line: "create" in line)
    assert line.split()[1:] == [
        *("create", "hello", "1.0", "hello-10.0.0.5-80", "10.0.0.5:80", "zone=z1"),
    ]


def test_ends_when_its_reader_has_seen_enough(svcreg: Svcreg) -> None:
    svcreg.register("hello", "10.0.0.5:80")
    # No further event comes that could fail to be written.
    result = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$0" watch | head -n 1', COMMAND],
        capture_output=True,
        text=True,
        env=svcreg.env,
        timeout=PATIENCE,
        check=False,
    )
    assert json.loads(result.stdout)["action"] == "create"
    assert (result.returncode, result.stderr) == (0, "")
