"""`list`, `get` and `select`: what is there, for people and for programs."""

from __future__ import annotations

import json
import re

import pytest

import svcreg as library
from svcreg import Endpoint, Node, Service
from tests.support.plugins import Distributions
from tests.unit.cli.support import Svcreg, add, install


def test_list_is_a_name_per_line_or_an_array(svcreg: Svcreg, registry: library.Registry) -> None:
    add(registry, "beta", "b-1")
    add(registry, "alpha", "a-1")
    assert svcreg("list").stdout == "alpha\nbeta\n"
    assert svcreg.json("list") == ["alpha", "beta"]


def test_empty_list_says_so_on_standard_error_only(svcreg: Svcreg) -> None:
    assert svcreg("list")[1:] == ("", "nothing is registered\n")
    assert svcreg("list", "--output", "json")[1:] == ("[]\n", "")


def test_get_is_services_as_on_the_wire(svcreg: Svcreg, registry: library.Registry) -> None:
    add(registry, "hello", "h-1", "1.2", zone="z1")
    assert svcreg.json("get", "hello") == [
        {
            "name": "hello",
            "version": "1.2",
            "metadata": {},
            "endpoints": [],
            "nodes": [{"metadata": {"zone": "z1"}, "id": "h-1", "address": "10.0.0.5:80"}],
        }
    ]


def test_get_is_a_row_per_node_of_every_version(svcreg: Svcreg, registry: library.Registry) -> None:
    add(registry, "hello", "h-1", "1.0", zone="z1", env="test")
    add(registry, "hello", "h-2")
    rows = [line.split() for line in svcreg("get", "hello").stdout.splitlines()]
    assert rows[0] == ["VERSION", "NODE", "ADDRESS", "METADATA"]
    assert sorted(rows[1:]) == [
        ["-", "h-2", "10.0.0.5:80"],
        ["1.0", "h-1", "10.0.0.5:80", "env=test,", "zone=z1"],
    ]


def test_get_says_what_a_version_has_as_a_whole(svcreg: Svcreg, registry: library.Registry) -> None:
    endpoints = [Endpoint("Greeter.Hello"), Endpoint("Greeter.Bye")]
    for version in ("", "1.0"):
        node = Node(f"h-{version}", "10.0.0.5:80")
        registry.register(Service("hello", version, {"team": "blue"}, endpoints, [node]))
    lines = svcreg("get", "hello").stdout.splitlines()
    assert "version 1.0 metadata: team=blue" in lines
    assert "version 1.0 endpoints: Greeter.Hello, Greeter.Bye" in lines
    assert "service metadata: team=blue" in lines


def test_get_of_an_unknown_service_is_not_found(svcreg: Svcreg) -> None:
    error = "error: no service 'nobody' is registered\n"
    assert svcreg("get", "nobody", code=3)[1:] == ("", error)
    assert svcreg("get", "nobody", "--output", "json", code=3)[1:] == ("[]\n", error)


def test_table_in_a_pipe_is_plain_and_never_folded(
    svcreg: Svcreg, registry: library.Registry
) -> None:
    add(registry, "hello", "h-1", note="x" * 3000, markup="[red]b :smile:")
    add(registry, "hello", "h-2")
    output = svcreg("get", "hello").stdout
    assert len(output.splitlines()) == 3
    assert f"markup=[red]b :smile:, note={'x' * 3000}\n" in output
    assert not re.search(r"\x1b| $", output, re.MULTILINE)


def test_table_on_a_terminal_fits_and_loses_no_text(
    svcreg: Svcreg, registry: library.Registry
) -> None:
    add(registry, "hello", "h-1", note="x" * 300)
    svcreg.is_terminal = True
    output = svcreg("get", "hello").stdout
    assert "\x1b[1m" in output  # the headers are bold
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    assert plain.count("x") == 300
    assert max(map(len, plain.splitlines())) <= 120


@pytest.mark.parametrize("is_terminal", [False, True])
def test_control_characters_from_a_registry_are_made_visible(
    svcreg: Svcreg, registry: library.Registry, is_terminal: bool
) -> None:
    add(registry, "hello", "h-1", "1\x1b[31m", note="\x1b[2J\u202e\nforged\x85\u2028end ü")
    svcreg.is_terminal = is_terminal
    output = svcreg("get", "hello").stdout
    assert r"note=\x1b[2J\u202e\nforged\x85\u2028end ü" in output
    assert r"1\x1b[31m" in output
    assert not {"\x1b[2J", "\x1b[31m", "\u202e", "\x85", "\u2028"} & set(output)
    assert len(output.splitlines()) == 2


def test_select_prints_a_node(svcreg: Svcreg, registry: library.Registry) -> None:
    add(registry, "hello", "h-1", zone="z1")
    assert svcreg("select", "hello").stdout.split() == [
        *("NODE", "ADDRESS", "METADATA"),
        *("h-1", "10.0.0.5:80", "zone=z1"),
    ]
    assert svcreg.json("select", "hello") == {
        "metadata": {"zone": "z1"},
        "id": "h-1",
        "address": "10.0.0.5:80",
    }


def test_select_picks_as_often_as_asked_by_the_strategy(
    svcreg: Svcreg, registry: library.Registry
) -> None:
    for number in range(3):
        add(registry, "hello", f"h-{number}")
    args = ("select", "hello", "--strategy", "round_robin", "-n", "6")
    lines = svcreg(*args, "--output", "json").stdout.splitlines()
    picked = [json.loads(line)["id"] for line in lines]
    assert sorted(picked[:3]) == ["h-0", "h-1", "h-2"]
    assert picked[3:] == picked[:3]
    assert len(svcreg(*args).stdout.splitlines()) == 7


def test_select_takes_the_strategy_of_the_environment(
    svcreg: Svcreg, registry: library.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(registry, "hello", "h-1")
    monkeypatch.setenv("MICRO_SELECTOR", "telepathy")
    assert "telepathy" in svcreg("select", "hello", code=2).stderr
    svcreg("select", "hello", "--strategy", "random")


def test_select_without_a_node_is_not_found(svcreg: Svcreg) -> None:
    result = svcreg("select", "nobody", "--output", "json", code=3)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")


def test_select_with_an_unknown_strategy_names_those_there_are(
    svcreg: Svcreg, registry: library.Registry
) -> None:
    add(registry, "hello", "h-1")
    error = svcreg("select", "hello", "--strategy", "telepathy", code=2).stderr
    assert "telepathy" in error
    assert "round_robin" in error


def test_select_picks_by_the_strategy_of_a_distribution(
    svcreg: Svcreg, registry: library.Registry, distributions: Distributions
) -> None:
    for number in range(3):
        add(registry, "hello", f"h-{number}")
    source = "class Last:\n    def pick(self, nodes, key):\n        return nodes[-1]\n"
    install(distributions, source, "Last", "strategies")
    assert svcreg.json("select", "hello", "--strategy", "acme")["id"] == "h-2"
