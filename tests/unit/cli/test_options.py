"""The options of every command, where they may stand, and what they come to."""

from __future__ import annotations

import pytest

import svcreg as library
from svcreg.cli.app import BUILT_IN
from tests.support.plugins import Distributions
from tests.unit.cli.support import Svcreg, add, backend_that, install


def test_options_stand_before_or_after_the_command_and_the_later_wins(
    svcreg: Svcreg, registry: library.Registry
) -> None:
    add(registry, "hello", "h-1")
    assert svcreg("--output", "json", "list").stdout == '["hello"]\n'
    assert svcreg("list", "--output", "json").stdout == '["hello"]\n'
    assert svcreg("--output", "json", "list", "--output", "table").stdout == "hello\n"
    assert svcreg("--output", "table", "list", "--output", "json").stdout == '["hello"]\n'


def test_registry_option_wins_over_the_environment(
    svcreg: Svcreg, registry: library.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(registry, "hello", "h-1")
    monkeypatch.setenv("MICRO_REGISTRY", "nosuch")
    svcreg("list", code=2)
    assert svcreg("--registry", svcreg.url, "list").stdout == "hello\n"
    assert svcreg("--registry", "nosuch", "list", "--registry", svcreg.url).stdout == "hello\n"
    svcreg("--registry", svcreg.url, "list", "--registry", "nosuch", code=2)


def test_address_may_be_given_apart_and_the_later_wins(
    svcreg: Svcreg, registry: library.Registry
) -> None:
    add(registry, "hello", "h-1")
    name = svcreg.url.removeprefix("memory://")
    args = ("--registry", "memory", "--registry-address")
    assert svcreg(*args, name, "list").stdout == "hello\n"
    assert svcreg("list", *args, name).stdout == "hello\n"
    assert svcreg(*args, f"{name}x", "list", "--registry-address", name).stdout == "hello\n"
    assert svcreg(*args, f"{name}x", "list").stdout == ""


def test_several_addresses_reach_the_backend(svcreg: Svcreg) -> None:
    args = ("--registry", "memory", "--registry-address")
    for two in (("a,b",), ("a", "--registry-address", "b")):
        assert "not 2" in svcreg("list", *args, *two, code=2).stderr


@pytest.mark.parametrize(
    ("args", "seconds"),
    [
        (["--registry", "acme://?timeout=0.15"], "0.15 s"),
        (["--registry", "acme://?timeout=60", "--timeout", "0.2"], "0.2 s"),
    ],
    ids=["of the URL", "of the option, which wins"],
)
def test_timeout_bounds_the_wait(
    svcreg: Svcreg, distributions: Distributions, args: list[str], seconds: str
) -> None:
    install(distributions, backend_that("await asyncio.sleep(60)"))
    result = svcreg("list", *args, code=4)
    assert seconds in result.stderr
    assert "hint: `svcreg backends` shows" in result.stderr


@pytest.mark.parametrize("help_option", ["--help", "-h"])
@pytest.mark.parametrize("command", BUILT_IN)
def test_every_command_explains_itself_and_takes_the_options(
    svcreg: Svcreg, command: str, help_option: str
) -> None:
    text = svcreg(command, help_option).stdout
    assert text.startswith(f"Usage: svcreg {command} [OPTIONS]")
    for option in ("--registry ", "--registry-address ", "--timeout ", "--output "):
        assert f"  {option}" in text


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_overview_lists_the_commands_and_exit_codes(svcreg: Svcreg, args: list[str]) -> None:
    text = svcreg(*args).stdout
    positions = [text.index(f"\n  {command} ") for command in BUILT_IN]
    assert positions == sorted(positions)
    assert "3 not found" in text


def test_version(svcreg: Svcreg) -> None:
    assert svcreg("--version").stdout == f"svcreg {library.backends()['memory'].version}\n"
