"""`list`, `get` and `select`: what is there, for people and for programs."""

from __future__ import annotations

import json

from tests.integration.cli.conftest import Svcreg


def test_list_is_an_array_of_names(svcreg: Svcreg) -> None:
    assert svcreg.json("list") == []
    svcreg.register("beta", "10.0.0.5:1")
    svcreg.register("alpha", "10.0.0.5:2")
    assert svcreg.json("list") == ["alpha", "beta"]
    assert svcreg("list").stdout == "alpha\nbeta\n"


def test_get_is_services_as_on_the_wire(svcreg: Svcreg) -> None:
    svcreg.register("hello", "10.0.0.5:80", "--version", "1.2", "--metadata", "zone=z1")
    assert svcreg.json("get", "hello") == [
        {
            "name": "hello",
            "version": "1.2",
            "metadata": {},
            "endpoints": [],
            "nodes": [
                {
                    "metadata": {"zone": "z1"},
                    "id": "hello-10.0.0.5-80",
                    "address": "10.0.0.5:80",
                }
            ],
        }
    ]


def test_table_in_a_pipe_is_plain_and_never_folded(svcreg: Svcreg) -> None:
    note = "x" * 300
    svcreg.register("hello", "10.0.0.5:80", "--metadata", f"note={note}", "--metadata", "a=[red]b")
    lines = svcreg("get", "hello").stdout.splitlines()
    assert lines[0].split() == ["VERSION", "NODE", "ADDRESS", "METADATA"]
    assert lines[1].split() == [
        "-",
        "hello-10.0.0.5-80",
        "10.0.0.5:80",
        "a=[red]b,",
        f"note={note}",
    ]
    assert all(line == line.rstrip() and "\x1b" not in line for line in lines)


def test_control_characters_from_a_registry_are_made_visible(svcreg: Svcreg) -> None:
    svcreg.register("hello", "10.0.0.5:80", "--metadata", "note=\x1b[2J\u202e\nforged")
    output = svcreg("get", "hello").stdout
    assert r"note=\x1b[2J\u202e\nforged" in output
    assert "\x1b" not in output
    assert len(output.splitlines()) == 2


def test_get_of_an_unknown_service_is_not_found(svcreg: Svcreg) -> None:
    result = svcreg("get", "nobody", code=3)
    assert result.stderr == "error: no service 'nobody' is registered\n"
    assert result.stdout == ""
    assert svcreg("get", "nobody", "--output", "json", code=3).stdout == "[]\n"


def test_select_takes_turns_with_round_robin(svcreg: Svcreg) -> None:
    for port in ("81", "82"):
        svcreg.register("hello", f"10.0.0.5:{port}")
    result = svcreg("select", "hello", "--strategy", "round_robin", "-n", "4", "--output", "json")
    addresses = [json.loads(line)["address"] for line in result.stdout.splitlines()]
    assert sorted(addresses[:2]) == ["10.0.0.5:81", "10.0.0.5:82"]
    assert addresses[2:] == addresses[:2]


def test_select_prints_a_node(svcreg: Svcreg) -> None:
    svcreg.register("hello", "10.0.0.5:80", "--node-id", "h-1")
    assert svcreg.json("select", "hello") == {
        "metadata": {},
        "id": "h-1",
        "address": "10.0.0.5:80",
    }
    assert svcreg("select", "hello").stdout.splitlines()[1].split() == ["h-1", "10.0.0.5:80"]


def test_select_without_a_node_is_not_found(svcreg: Svcreg) -> None:
    assert svcreg("select", "nobody", code=3).stderr.startswith("error: ")


def test_select_with_an_unknown_strategy_is_a_usage_error(svcreg: Svcreg) -> None:
    assert "telepathy" in svcreg("select", "hello", "--strategy", "telepathy", code=2).stderr


def test_options_stand_before_or_after_the_command_and_the_later_wins(svcreg: Svcreg) -> None:
    svcreg.register("hello", "10.0.0.5:80")
    assert svcreg("--output", "json", "list").stdout == '["hello"]\n'
    assert svcreg("--output", "json", "list", "--output", "table").stdout == "hello\n"
    registry = svcreg.env["MICRO_REGISTRY"]
    svcreg.env["MICRO_REGISTRY"] = "nosuch"
    assert svcreg("--registry", registry, "list").stdout == "hello\n"
    assert svcreg("--registry", "nosuch", "list", "--registry", registry).stdout == "hello\n"
    svcreg("--registry", registry, "list", "--registry", "nosuch", code=2)


def test_module_runs_like_the_command(svcreg: Svcreg) -> None:
    import subprocess
    import sys

    result = subprocess.run(
        [sys.executable, "-m", "svcreg", "list", "--output", "json"],
        capture_output=True,
        text=True,
        env=svcreg.env,
        check=True,
    )
    assert result.stdout == "[]\n"
