"""`backends` and added commands: what is installed, what is chosen, and why."""

from __future__ import annotations

from typing import Any

from tests.integration.cli.conftest import Install, Svcreg, backend_that


def by_name(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {backend["name"]: backend for backend in found}


def test_backends_say_what_they_are_and_which_is_selected(svcreg: Svcreg) -> None:
    found = by_name(svcreg.json("backends"))
    assert found["sqlite"]["distribution"] == "svcreg"
    assert found["sqlite"]["entry_point"].endswith(":SqliteBackend")
    assert "cross-process" in found["sqlite"]["capabilities"]
    assert found["sqlite"]["selected"]
    assert found["sqlite"]["reason"] == "MICRO_REGISTRY"
    assert not found["memory"]["selected"]
    assert found["memory"]["reason"] is None


def test_argument_wins_over_the_environment(svcreg: Svcreg) -> None:
    found = by_name(svcreg.json("backends", "--registry", "memory"))
    assert found["memory"]["reason"] == "argument"
    assert not found["sqlite"]["selected"]


def test_table_marks_the_selected_one(svcreg: Svcreg) -> None:
    lines = svcreg("backends").stdout.splitlines()
    [marked] = [line for line in lines if line.startswith("*")]
    assert marked.split()[1] == "sqlite"
    assert "selected: sqlite (MICRO_REGISTRY)" in lines


def test_other_distribution_is_shown_with_its_version(svcreg: Svcreg, install: Install) -> None:
    install(backend_that("pass"))
    acme = by_name(svcreg.json("backends"))["acme"]
    assert (acme["distribution"], acme["version"]) == ("acme", "1.2")
    assert acme["default_address"] == "acme.invalid:1"
    assert acme["capabilities"] == ["push"]
    assert acme["error"] is None


def test_backend_that_fails_to_import_is_shown_with_its_error(
    svcreg: Svcreg, install: Install
) -> None:
    install("import nosuch_module")
    found = by_name(svcreg.json("backends"))
    assert "nosuch_module" in found["acme"]["error"]
    assert found["sqlite"]["error"] is None
    assert "acme cannot be imported" in svcreg("backends").stdout


def test_selected_backend_that_is_not_installed_says_what_to_install(svcreg: Svcreg) -> None:
    result = svcreg("backends", "--registry", "nosuch")
    assert "selected: nosuch (argument)" in result.stderr
    assert "pip install svcreg-nosuch" in result.stderr


def test_distribution_adds_a_command_that_gets_the_options(
    svcreg: Svcreg, install: Install
) -> None:
    install(
        "import click\n@click.command()\n@click.pass_obj\ndef command(settings):\n"
        "    'Do as acme does.'\n    print(settings.registry, settings.open().list())",
        "svcreg.commands",
        "command",
    )
    registry = svcreg.env["MICRO_REGISTRY"]
    assert svcreg("--registry", registry, "acme").stdout == f"{registry} ()\n"
    assert "Do as acme does." in svcreg("--help").stdout


def test_broken_command_of_a_distribution_hurts_only_itself(
    svcreg: Svcreg, install: Install
) -> None:
    install("import nosuch_module", "svcreg.commands", "command")
    assert "nosuch_module" in svcreg("acme", code=1).stderr
    assert "acme        Cannot be loaded: " in svcreg("--help").stdout
    assert svcreg.json("list") == []


def test_help_and_version(svcreg: Svcreg) -> None:
    assert svcreg("--version").stdout.startswith("svcreg ")
    overview = svcreg().stdout
    for command in ("list", "get", "watch", "select", "register", "deregister", "backends", "demo"):
        assert f"\n  {command} " in overview
        assert "--registry " in svcreg(command, "--help").stdout
