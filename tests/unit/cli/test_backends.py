"""`backends` and added commands: what is installed, what is chosen, and why."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.plugins import Distributions
from tests.unit.cli.support import Svcreg, backend_that, install

GOOD = backend_that("pass")


def by_name(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {backend["name"]: backend for backend in found}


def test_backends_say_what_they_are_and_which_is_selected(svcreg: Svcreg) -> None:
    found = by_name(svcreg.json("backends"))
    assert list(found) == sorted(found)
    assert found["sqlite"]["distribution"] == "svcreg"
    assert found["sqlite"]["entry_point"].endswith(":SqliteBackend")
    assert "cross-process" in found["sqlite"]["capabilities"]
    assert (found["memory"]["selected"], found["memory"]["reason"]) == (True, "MICRO_REGISTRY")
    assert (found["sqlite"]["selected"], found["sqlite"]["reason"]) == (False, None)


@pytest.mark.parametrize(
    ("args", "environment", "selected", "reason"),
    [
        (["--registry", "sqlite"], "memory", "sqlite", "argument"),
        (["--registry", "memory://x"], "memory", "memory", "argument"),
        ([], "memory", "memory", "MICRO_REGISTRY"),
        ([], "acme", "acme", "MICRO_REGISTRY"),
        ([], "", "mdns", "default"),
    ],
)
def test_reason_is_what_decided(
    svcreg: Svcreg,
    distributions: Distributions,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    environment: str,
    selected: str,
    reason: str,
) -> None:
    install(distributions, GOOD)
    monkeypatch.setenv("MICRO_REGISTRY", environment)
    result = svcreg("backends", *args)
    said = result.stdout + result.stderr  # the default need not be installed
    assert f"selected: {selected} ({reason})" in said
    found = [backend for backend in svcreg.json("backends", *args) if backend["selected"]]
    assert [(one["name"], one["reason"]) for one in found] in ([(selected, reason)], [])


def test_table_marks_the_selected_one(svcreg: Svcreg) -> None:
    lines = svcreg("backends").stdout.splitlines()
    assert lines[0].split()[:3] == ["BACKEND", "DISTRIBUTION", "VERSION"]
    [marked] = [line for line in lines if line.startswith("*")]
    assert marked.split()[1:3] == ["memory", "svcreg"]
    assert "selected: memory (MICRO_REGISTRY)" in lines


def test_other_distribution_is_shown_with_what_it_says_of_itself(
    svcreg: Svcreg, distributions: Distributions
) -> None:
    install(distributions, GOOD)
    assert by_name(svcreg.json("backends"))["acme"] == {
        "name": "acme",
        "distribution": "acme",
        "version": "1.2",
        "entry_point": "acme_plugin:Backend",
        "default_address": "acme.invalid:1",
        "capabilities": ["push", "watch-all"],
        "error": None,
        "selected": False,
        "reason": None,
    }
    [row] = [
        line for line in svcreg("backends").stdout.splitlines() if line[1:].split()[0] == "acme"
    ]
    assert row.split() == ["acme", "acme", "1.2", "acme.invalid:1", "push,", "watch-all"]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import nosuch_module", "nosuch_module"),
        ("raise SystemExit('not\\nhere\\x1b[2J')", "SystemExit: not"),
        ("", "Backend"),
        (GOOD.replace('frozenset({"push", "watch-all"})', "3"), "'int' object is not iterable"),
    ],
    ids=["missing import", "exit", "missing attribute", "capabilities are none"],
)
def test_broken_backend_is_shown_with_its_error_and_hides_no_other(
    svcreg: Svcreg, distributions: Distributions, source: str, error: str
) -> None:
    install(distributions, source)
    found = by_name(svcreg.json("backends"))
    assert error in found["acme"]["error"]
    assert found["sqlite"]["error"] is None
    lines = svcreg("backends").stdout.splitlines()
    [line] = [line for line in lines if line.startswith("acme cannot be imported: ")]
    assert error in line
    assert "\x1b" not in line


def test_backend_with_odd_particulars_is_shown_all_the_same(
    svcreg: Svcreg, distributions: Distributions
) -> None:
    odd = GOOD.replace('"acme.invalid:1"', "8500").replace('{"push", "watch-all"}', "{1, 'push'}")
    install(distributions, odd)
    acme = by_name(svcreg.json("backends"))["acme"]
    assert (acme["default_address"], acme["capabilities"]) == (None, ["1", "push"])
    assert acme["error"] is None
    svcreg("backends")


def test_damaged_installation_is_shown_all_the_same(
    svcreg: Svcreg, distributions: Distributions
) -> None:
    distributions.install("bad", {}, {"bad": "bad:Backend"}, metadata=False)
    distributions.install("worse", {}, {"worse": "not an entry point"})
    folder = distributions.install("worst", {}, {"worst": "worst:Backend"}, version="2")
    (folder / "worst-2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: worst\n")
    found = by_name(svcreg.json("backends"))
    assert all(found[name]["error"] for name in ("bad", "worse", "worst"))
    assert "worse cannot be imported" in svcreg("backends").stdout


def test_selected_backend_that_is_not_installed_says_what_to_install(svcreg: Svcreg) -> None:
    result = svcreg("backends", "--registry", "nosuch")
    assert result.stderr.startswith("selected: nosuch (argument), but ")
    assert "pip install svcreg-nosuch" in result.stderr
    assert "sqlite" in result.stdout


COMMAND = """
import click

@click.command()
@click.pass_obj
def command(settings):
    'Do as acme does.'
    with settings.open() as registry:
        print(settings.registry, registry.list())
"""


def test_distribution_adds_a_command_that_gets_the_options(
    svcreg: Svcreg, distributions: Distributions
) -> None:
    install(distributions, COMMAND, "command", "commands")
    assert svcreg("--registry", svcreg.url, "acme").stdout == f"{svcreg.url} ()\n"
    assert "acme        Do as acme does." in svcreg("--help").stdout


def test_no_distribution_replaces_a_built_in_command(
    svcreg: Svcreg, distributions: Distributions
) -> None:
    points = {"list": "acme_plugin:command"}
    distributions.install("acme", {"acme_plugin": COMMAND}, points, group="svcreg.commands")
    assert svcreg("list", "--output", "json").stdout == "[]\n"
    assert svcreg("--help").stdout.count("\n  list ") == 1


def test_command_that_two_distributions_have_is_refused(
    svcreg: Svcreg, distributions: Distributions
) -> None:
    for owner in ("one", "one", "two"):  # the first is found twice, as in an editable installation
        points = {"acme": f"{owner}_plugin:command"}
        distributions.install(owner, {f"{owner}_plugin": COMMAND}, points, group="svcreg.commands")
    error = svcreg("acme", code=1).stderr
    assert "it is one_plugin:command and two_plugin:command; uninstall all but one" in error


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import nosuch_module", "nosuch_module"),
        ("raise SystemExit('not here')", "not here"),
        ("command = 3", "acme_plugin:command is a int, not a click command"),
    ],
)
@pytest.mark.parametrize("args", [[], ["--its-own-option", "x"]], ids=["", "with arguments"])
def test_broken_command_of_a_distribution_hurts_only_itself(
    svcreg: Svcreg, distributions: Distributions, source: str, problem: str, args: list[str]
) -> None:
    install(distributions, source, "command", "commands")
    result = svcreg("acme", *args, code=1)
    assert result.stderr.startswith("error: command 'acme' cannot be loaded: ")
    assert problem in result.stderr
    assert "acme        Cannot be loaded: " in svcreg("--help").stdout
    assert svcreg.json("list") == []
