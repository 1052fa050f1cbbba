"""Mistakes, broken plugins and absent registries: one line, the right exit code, no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cli.conftest import COMMAND, PATIENCE, Install, Svcreg, backend_that

EVERY_COMMAND = [
    ["list"],
    ["get", "hello"],
    ["watch"],
    ["watch", "hello"],
    ["select", "hello"],
    ["register", "hello", "--address", "10.0.0.5:80"],
    ["deregister", "hello", "h-1"],
]
FAILURES = [
    ("svcreg.RegistryUnavailableError('acme: nobody answers')", 4, "nobody answers"),
    ("svcreg.RegistryTimeoutError('acme: no answer in time')", 4, "no answer in time"),
    ("ConnectionRefusedError(111, 'Connection refused')", 4, "refused"),
    ("svcreg.PermissionDeniedError('acme: needs service:read')", 5, "needs service:read"),
    ("svcreg.ProtocolError('acme: nonsense\\x1b[2J')", 1, r"nonsense\x1b[2J"),
    ("KeyError('oops')", 1, "oops"),
]


def is_one_line_and_perhaps_a_hint(stderr: str) -> bool:
    first, *rest = stderr.splitlines()
    return first.startswith("error: ") and [line[:6] for line in rest] in ([], ["hint: "])


@pytest.mark.parametrize(("error", "code", "message"), FAILURES)
def test_failure_of_the_registry_has_its_exit_code(
    svcreg: Svcreg, install: Install, error: str, code: int, message: str
) -> None:
    install(backend_that(f"raise {error}"))
    result = svcreg("list", code=code)
    assert is_one_line_and_perhaps_a_hint(result.stderr)
    assert message in result.stderr


@pytest.mark.parametrize("args", EVERY_COMMAND, ids=" ".join)
def test_unreachable_registry_in_every_command(
    svcreg: Svcreg, install: Install, args: list[str]
) -> None:
    install(backend_that("raise svcreg.RegistryUnavailableError('acme: nobody answers')"))
    result = svcreg(*args, code=4)
    assert is_one_line_and_perhaps_a_hint(result.stderr)


@pytest.mark.parametrize(
    "source",
    [
        "import nosuch_module",
        "1/0",
        "class Backend: pass",
        "Backend = 3",
        BAD := backend_that("pass").replace("svcreg_list(self)", "svcreg_lisst(self)"),
        BAD.replace("svcreg_lisst(self)", "svcreg_list(self, nmae)"),
    ],
    ids=["missing import", "error at import", "no hooks", "no class", "misspelt", "bad argument"],
)
def test_broken_plugin_is_explained(svcreg: Svcreg, install: Install, source: str) -> None:
    install(source)
    result = svcreg("list", code=2)
    assert is_one_line_and_perhaps_a_hint(result.stderr)
    assert "acme" in result.stderr


def test_unknown_backend_lists_what_is_installed_and_what_to_install(svcreg: Svcreg) -> None:
    result = svcreg("list", "--registry", "nosuch", code=2)
    assert "sqlite" in result.stderr
    assert "pip install svcreg-nosuch" in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["frobnicate"],
        ["get"],
        ["list", "--frobnicate"],
        ["list", "--output", "xml"],
        ["list", "--timeout", "soon"],
        ["list", "--timeout", "-1"],
        ["list", "--registry", "sqlite://?frobnicate=1"],
        ["list", "--registry", "Not A Name"],
        ["get", "a/b"],
        ["select", "hello", "-n", "0"],
    ],
    ids=" ".join,
)
def test_mistake_is_a_usage_error(svcreg: Svcreg, args: list[str]) -> None:
    assert is_one_line_and_perhaps_a_hint(svcreg(*args, code=2).stderr)


@pytest.mark.parametrize("args", EVERY_COMMAND, ids=" ".join)
def test_ctrl_c_is_clean_in_every_command(
    svcreg: Svcreg, install: Install, args: list[str]
) -> None:
    install(backend_that("print('asked', flush=True); time.sleep(60)"))
    running = svcreg.start(*args, "--timeout", "60")
    running.wait_for(lambda line: line == "asked")
    code = running.stop(signal.SIGINT)
    assert code == (0 if args[0] in ("watch", "register") else 130)
    assert "Traceback" not in running.errors()


def test_closed_pipe_is_no_failure(svcreg: Svcreg) -> None:
    result = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$0" backends --output json | true', COMMAND],
        capture_output=True,
        text=True,
        env=svcreg.env,
        timeout=PATIENCE,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_full_disk_is_a_failure(svcreg: Svcreg) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [COMMAND, "backends"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=svcreg.env,
            timeout=PATIENCE,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")


def test_defect_shows_where_it_is_when_asked(svcreg: Svcreg, install: Install) -> None:
    install(
        "import click\n@click.command()\ndef command():\n    raise KeyError('oops')",
        "svcreg.commands",
        "command",
    )
    assert "python -X dev" in svcreg("acme", code=1).stderr
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-m", "svcreg", "acme"],
        capture_output=True,
        text=True,
        env=svcreg.env,
        check=False,
    )
    assert "acme_plugin.py" in result.stderr
