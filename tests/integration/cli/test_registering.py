"""`register` and `deregister`: a node is listed for exactly as long as the command runs."""

from __future__ import annotations

import json
import signal
import socket

import pytest

from tests.integration.cli.conftest import Install, Svcreg, backend_that, wait_until


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_withdraws_the_node_and_ends_normally(
    svcreg: Svcreg, number: signal.Signals
) -> None:
    running = svcreg.register("hello", "10.0.0.5:80")
    assert svcreg.json("list") == ["hello"]
    assert running.stop(number) == 0
    assert svcreg.json("list") == []
    assert json.loads(running.lines[-1])["state"] == "closed"
    assert running.errors() == ""


def test_json_is_a_line_per_change_of_state(svcreg: Svcreg) -> None:
    running = svcreg.register("hello", "10.0.0.5:80", "--metadata", "a=1", "--metadata", "b=x=y")
    line = running.wait_for_json(state="active")
    assert set(line) == {"state", "service", "timestamp", "error"}
    assert line["error"] is None
    assert line["service"]["nodes"] == [
        {"metadata": {"a": "1", "b": "x=y"}, "id": "hello-10.0.0.5-80", "address": "10.0.0.5:80"}
    ]


def test_table_is_a_line_of_text_per_change_of_state(svcreg: Svcreg) -> None:
    running = svcreg.start("register", "hello", "--address", "10.0.0.5:80")
    line = running.wait_for(lambda line: "active" in line)
    assert line.split()[1:] == ["active", "hello", "hello-10.0.0.5-80", "10.0.0.5:80"]
    assert running.stop() == 0


def test_default_id_is_stable_and_fits_every_registry(svcreg: Svcreg) -> None:
    running = svcreg.register("hello", "[2001:db8::1]:80")
    node = running.wait_for_json(state="active")["service"]["nodes"][0]
    assert node["id"] == "hello-2001-db8-1-80"


def test_wildcard_address_is_named_after_this_machine(svcreg: Svcreg) -> None:
    running = svcreg.register("hello", ":80")
    node = running.wait_for_json(state="active")["service"]["nodes"][0]
    assert node["id"].startswith("hello-")
    assert "0.0.0.0" not in node["id"]
    assert not node["address"].startswith((":", "0.0.0.0"))


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
        (["hello", "--address", "10.0.0.5:80", "--metadata", "novalue"], "KEY=VALUE"),
        (["hello", "--address", "10.0.0.5:80", "--ttl", "0"], "ttl"),
        (["hello", "--address", "10.0.0.5:80", "--ttl", "nan"], "ttl"),
        (["hello", "--address", "10.0.0.5:80", "--ttl", "10", "--interval", "9"], "interval"),
        (["hello", "--address", "10.0.0.5:80", "--check", "ping:10.0.0.5"], "'ping:10.0.0.5'"),
        (["hello", "--address", "10.0.0.5:80", "--check", "tcp:10.0.0.5"], "'tcp:10.0.0.5'"),
    ],
)
def test_bad_value_is_a_usage_error_that_names_it(
    svcreg: Svcreg, args: list[str], complaint: str
) -> None:
    result = svcreg("register", *args, code=2)
    assert result.stderr.startswith("error: ")
    assert complaint in result.stderr.splitlines()[0]


def test_node_is_unlisted_until_its_check_passes(svcreg: Svcreg) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        running = svcreg.start(
            *("register", "hello", "--address", address, "--check", f"tcp:{address}"),
            *("--ttl", "3", "--output", "json"),
        )
        running.wait_for_json(state="pending")
        assert svcreg.json("list") == []
        server.listen()
        running.wait_for_json(state="active")
        assert svcreg.json("list") == ["hello"]


def test_optional_keeps_trying_while_the_registry_is_away(svcreg: Svcreg, install: Install) -> None:
    install(backend_that("raise svcreg.RegistryUnavailableError('acme: nobody answers')"))
    running = svcreg.start(
        "register", "hello", "--address", "10.0.0.5:80", "--optional", "--output", "json"
    )
    running.wait_for(lambda line: "nobody answers" in line)
    assert json.loads(running.lines[-1])["state"] == "pending"
    assert running.stop(signal.SIGTERM) == 0


def test_killed_registration_is_gone_after_its_ttl(svcreg: Svcreg) -> None:
    running = svcreg.register("hello", "10.0.0.5:80", "--ttl", "1")
    running.process.kill()
    wait_until(lambda: svcreg.json("list") == [], "the killed node left")


def test_deregister_withdraws_one_node_of_several(svcreg: Svcreg) -> None:
    first = svcreg.register("hello", "10.0.0.5:81")
    first.process.kill()  # it cannot say goodbye, so that is left to us
    svcreg.register("hello", "10.0.0.5:82")
    withdrawn = svcreg.json("deregister", "hello", "hello-10.0.0.5-81")
    assert [node["id"] for node in withdrawn[0]["nodes"]] == ["hello-10.0.0.5-81"]
    [service] = svcreg.json("get", "hello")
    assert [node["id"] for node in service["nodes"]] == ["hello-10.0.0.5-82"]


def test_deregister_of_an_unknown_node_is_not_found(svcreg: Svcreg) -> None:
    assert "no node 'x'" in svcreg("deregister", "hello", "x", code=3).stderr
