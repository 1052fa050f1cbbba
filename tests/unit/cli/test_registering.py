"""`register`: a node is listed for exactly as long as the command runs."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from typing import Any

import pytest

import svcreg as library
from svcreg import health
from svcreg.cli.register import default_node_id, parse_metadata
from tests.support.plugins import Distributions
from tests.unit.cli.support import STOPPING, Running, Svcreg, backend_that, install, wait_until

HELLO = ("register", "hello", "--address", "10.0.0.5:80")


def states(output: str) -> list[str]:
    """Return the states that were printed, in order."""
    return re.findall(r'^{"state":"(\w+)"', output, re.MULTILINE)


@pytest.mark.parametrize("number", STOPPING)
def test_node_is_listed_until_a_signal_comes(
    svcreg: Svcreg, registry: library.Registry, number: signal.Signals
) -> None:
    def look(running: Running) -> None:
        running.wait_for_json(state="active")
        [service] = registry.get("hello")
        assert [node.id for node in service.nodes] == ["hello-10.0.0.5-80"]

    result = svcreg.meanwhile(look, *HELLO, "--output", "json", number=number)
    assert states(result.stdout) == ["active", "closed"]
    assert result.stderr == ""
    wait_until(lambda: registry.get("hello") == (), "the node left")


def test_json_is_an_object_per_change_of_state(svcreg: Svcreg) -> None:
    lines: list[Any] = []
    args = ("--metadata", "a=1", "--metadata", "b=x=y", "--version", "1.2", "--node-id", "h-1")
    before = time.time()
    svcreg.meanwhile(
        lambda running: lines.append(running.wait_for_json(state="active")),
        *(*HELLO, *args, "--output", "json"),
    )
    [line] = lines
    assert before <= line.pop("timestamp") <= time.time()
    node = {"metadata": {"a": "1", "b": "x=y"}, "id": "h-1", "address": "10.0.0.5:80"}
    assert line == {
        "state": "active",
        "service": {
            "name": "hello",
            "version": "1.2",
            "metadata": {},
            "endpoints": [],
            "nodes": [node],
        },
        "error": None,
    }


def test_table_is_a_line_of_text_per_change_of_state(svcreg: Svcreg) -> None:
    result = svcreg.meanwhile(lambda running: running.wait_for("active"), *HELLO)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[1:] for line in lines] == [
        ["active", "hello", "hello-10.0.0.5-80", "10.0.0.5:80"],
        ["closed", "hello", "hello-10.0.0.5-80", "10.0.0.5:80"],
    ]
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d", line[0]) for line in lines)


FORGETS = """
    @hookimpl
    async def svcreg_renew(self, services, ttl):
        self.answer = self.refuse
        return services
    async def refuse(self):
        raise svcreg.RegistryUnavailableError("acme: nobody\\x1b answers")
"""


@pytest.mark.parametrize("output", ["json", "table"])
def test_lost_registration_is_told_with_the_reason(
    svcreg: Svcreg, distributions: Distributions, output: str
) -> None:
    install(distributions, backend_that("pass") + FORGETS)
    args = ("--registry", "acme", "--ttl", "1", "--interval", "0.1", "--output", output)
    result = svcreg.meanwhile(lambda running: running.wait_for("lost"), *HELLO, *args)
    assert "lost" in result.stdout
    assert result.stderr.startswith("warning: registration of 'hello' lost: ")
    assert "\x1b" not in result.stdout + result.stderr
    assert result.stdout.splitlines()[-1].count("closed") == 1
    assert "registering anew" not in result.stdout.splitlines()[-1]
    if output == "json":
        assert states(result.stdout)[0] == "active"


def test_optional_keeps_trying_while_the_registry_is_away(
    svcreg: Svcreg, distributions: Distributions
) -> None:
    install(distributions, backend_that("raise svcreg.RegistryUnavailableError('nobody answers')"))
    args = ("--registry", "acme", "--optional", "--output", "json")
    result = svcreg.meanwhile(lambda running: running.wait_for("nobody answers"), *HELLO, *args)
    assert set(states(result.stdout)) == {"pending", "closed"}
    assert json.loads(result.stdout.splitlines()[-1])["error"] is None  # the end is as it should be


def test_node_is_unlisted_until_its_check_passes(
    svcreg: Svcreg, registry: library.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_ready = False
    asked = []

    def tcp(address: str) -> health.Check:
        asked.append(address)
        return lambda: is_ready

    def look(running: Running) -> None:
        nonlocal is_ready
        running.wait_for_json(state="pending")
        assert registry.get("hello") == ()
        is_ready = True
        running.wait_for_json(state="active")
        wait_until(lambda: registry.get("hello"), "the node is listed")

    monkeypatch.setattr(health, "tcp", tcp)
    args = ("--check", "tcp:10.0.0.5:80", "--ttl", "1", "--interval", "0.1", "--output", "json")
    result = svcreg.meanwhile(look, *HELLO, *args)
    assert asked == ["10.0.0.5:80"]
    assert states(result.stdout) == ["pending", "active", "closed"]


def test_registration_that_is_closed_by_something_else_is_a_failure(
    svcreg: Svcreg, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[library.Registration] = []
    register = library.Registry.register

    def keep(*args: Any, **kwargs: Any) -> library.Registration:
        made.append(register(*args, **kwargs))
        return made[0]

    def close(running: Running) -> None:
        running.wait_for("active")
        made[0].close()
        running.wait_for_end()

    monkeypatch.setattr(library.Registry, "register", keep)
    result = svcreg.meanwhile(close, *HELLO, code=1)
    assert result.stderr == "error: the registration was closed\n"
    assert [line.split()[1] for line in result.stdout.splitlines()] == ["active", "closed"]


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["a/b", "--address", "10.0.0.5:80"], "a/b"),
        (["..", "--address", "10.0.0.5:80"], ".."),
        (["x" * 300, "--address", "10.0.0.5:80"], "255"),
        (["hello"], "--address"),
        (["hello", "--address", "10.0.0.5"], "port"),
        (["hello", "--address", "10.0.0.5:99999"], "port"),
        (["hello", "--address", "10.0.0.5:80", "--node-id", "a b"], "node id"),
        (["hello", "--address", "10.0.0.5:80", "--node-id", ""], "node id"),
        (["hello", "--address", "10.0.0.5:80", "--metadata", "novalue"], "KEY=VALUE"),
        (["hello", "--address", "10.0.0.5:80", "--metadata", "=value"], "KEY=VALUE"),
        (["hello", "--address", "10.0.0.5:80", "--ttl", "0"], "ttl"),
        (["hello", "--address", "10.0.0.5:80", "--ttl", "nan"], "ttl"),
        (["hello", "--address", "10.0.0.5:80", "--ttl", "long"], "--ttl"),
        (["hello", "--address", "10.0.0.5:80", "--ttl", "10", "--interval", "9"], "interval"),
        (["hello", "--address", "10.0.0.5:80", "--check", "ping:10.0.0.5"], "'ping:10.0.0.5'"),
        (["hello", "--address", "10.0.0.5:80", "--check", "tcp:10.0.0.5:99999"], "10.0.0.5:99999"),
    ],
)
def test_bad_value_is_a_usage_error_that_names_it(
    svcreg: Svcreg, args: list[str], complaint: str
) -> None:
    result = svcreg("register", *args, code=2)
    assert complaint in result.stderr.splitlines()[0]
    assert result.stdout == ""
    assert svcreg.json("list") == []


def test_times_of_the_environment_apply(svcreg: Svcreg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICRO_REGISTER_TTL", "0.1")
    assert "MICRO_REGISTER_TTL" in svcreg(*HELLO, code=2).stderr


@pytest.mark.parametrize(
    ("address", "node_id"),
    [
        ("10.0.0.5:80", "hello-10.0.0.5-80"),
        ("web.example:80", "hello-web.example-80"),
        ("[2001:db8::1]:80", "hello-2001-db8-1-80"),
        (":80", f"hello-{socket.gethostname()}-80"),
        ("0.0.0.0:80", f"hello-{socket.gethostname()}-80"),
        ("[::]:80", f"hello-{socket.gethostname()}-80"),
    ],
)
def test_default_id_is_stable_and_names_service_host_and_port(address: str, node_id: str) -> None:
    assert default_node_id("hello", address) == node_id


def test_default_ids_of_a_service_with_a_long_name_differ() -> None:
    ids = {default_node_id("x" * 255, f"10.0.0.5:{port}") for port in (80, 81)}
    assert len(ids) == 2
    assert {len(one) for one in ids} == {255}


def test_metadata_is_split_at_the_first_equals_sign() -> None:
    assert parse_metadata(["a=1", "b=x=y", "c=", "a=2"]) == {"a": "2", "b": "x=y", "c": ""}
