"""Mistakes, broken plugins and absent registries: one line, the right exit code, no traceback."""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import svcreg as library
from svcreg.cli import main
from svcreg.cli.app import run
from svcreg.cli.errors import configure_logging, explain, report
from tests.support.plugins import Distributions
from tests.unit.cli.support import Result, Running, Svcreg, add, backend_that, install

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
    ("svcreg.ProtocolError('acme: non\\n sense\\x1b[2J')", 1, r"acme: non sense\x1b[2J"),
    ("KeyError('oops')", 1, "oops"),
    ("svcreg.ConfigError('acme: wrong')", 2, "acme: wrong"),
    ("svcreg.InvalidServiceError('acme: wrong')", 2, "acme: wrong"),
    ("svcreg.NoNodeError('acme: none')", 3, "acme: none"),
]


def hints(result: Result) -> list[str]:
    """Return the hints under the one line of error; nothing else may be there."""
    first, *rest = result.stderr.splitlines()
    assert first.startswith("error: ")
    assert len(rest) < 2
    assert all(line.startswith("hint: ") for line in rest)
    return [line.removeprefix("hint: ") for line in rest]


@pytest.mark.parametrize(("error", "code", "message"), FAILURES)
def test_failure_of_the_registry_has_its_exit_code(
    svcreg: Svcreg, distributions: Distributions, error: str, code: int, message: str
) -> None:
    install(distributions, backend_that(f"raise {error}"))
    result = svcreg("list", "--registry", "acme", code=code)
    assert message in result.stderr
    assert result.stdout == ""
    where = "`svcreg backends` shows which registry is selected, and why"
    assert hints(result) == ([where] if code == 4 else [])


@pytest.mark.parametrize("args", EVERY_COMMAND, ids=" ".join)
def test_unreachable_registry_in_every_command(
    svcreg: Svcreg, distributions: Distributions, args: list[str]
) -> None:
    install(distributions, backend_that("raise svcreg.RegistryUnavailableError('nobody there')"))
    result = svcreg(*args, "--registry", "acme", code=4)
    assert len(hints(result)) == 1
    assert "nobody there" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("args", EVERY_COMMAND, ids=" ".join)
def test_ctrl_c_ends_every_command_that_waits(
    svcreg: Svcreg, distributions: Distributions, args: list[str]
) -> None:
    install(distributions, backend_that("print('asked', flush=True); await asyncio.sleep(60)"))
    code = 0 if args[0] in ("watch", "register") else 130

    def wait(running: Running) -> None:
        running.wait_for("asked")

    result = svcreg.meanwhile(wait, *args, "--registry", "acme", "--timeout", "60", code=code)
    assert result.stderr.strip() == ""  # click ends the line that shows ^C


GOOD = backend_that("pass")


@pytest.mark.parametrize(
    ("source", "explanation"),
    [
        ("import nosuch_module", "nosuch_module"),
        ("1/0", "ZeroDivisionError"),
        ("class Backend: pass", "takes no arguments"),
        ("Backend = 3", "int"),
        (GOOD.replace("svcreg_list(self)", "svcreg_lisst(self)"), "did you mean svcreg_list"),
        (GOOD.replace("svcreg_list(self)", "svcreg_list(self, nmae)"), "nmae"),
    ],
    ids=["missing import", "error at import", "no hooks", "no class", "misspelt", "bad argument"],
)
def test_broken_plugin_is_explained(
    svcreg: Svcreg, distributions: Distributions, source: str, explanation: str
) -> None:
    install(distributions, source)
    result = svcreg("list", "--registry", "acme", code=2)
    assert hints(result) == []
    assert "acme" in result.stderr
    assert explanation in result.stderr


def test_unknown_backend_lists_what_is_installed_and_what_to_install(svcreg: Svcreg) -> None:
    error = svcreg("list", "--registry", "nosuch", code=2).stderr
    assert "sqlite" in error
    assert "pip install svcreg-nosuch" in error


@pytest.mark.parametrize(
    ("args", "complaint", "hint"),
    [
        (["frobnicate"], "frobnicate", "see svcreg --help"),
        (["get"], "NAME", "see svcreg get --help"),
        (["get", "a", "b"], "b", "see svcreg get --help"),
        (["list", "--frobnicate"], "--frobnicate", "see svcreg list --help"),
        (["--frobnicate", "list"], "--frobnicate", "see svcreg --help"),
        (["list", "--output", "xml"], "xml", "see svcreg list --help"),
        (["list", "--timeout", "soon"], "soon", "see svcreg list --help"),
        (["select", "hello", "-n", "0"], "'-n'", "see svcreg select --help"),
        (["list", "--timeout", "-1"], "timeout", ""),
        (["list", "--timeout", "nan"], "timeout", ""),
        (["list", "--registry", "memory://?frobnicate=1"], "frobnicate", ""),
        (["list", "--registry", "Not A Name"], "Not A Name", ""),
        (["get", "a/b"], "a/b", ""),
        (["get", "a\x1b[2J"], r"a\x1b[2J", ""),
        (["watch", "a/b"], "a/b", ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistake_is_a_usage_error_that_names_it(
    svcreg: Svcreg, args: list[str], complaint: str, hint: str
) -> None:
    result = svcreg(*args, code=2)
    assert hints(result) == ([hint] if hint else [])
    assert complaint in result.stderr.splitlines()[0]
    assert result.stdout == ""


def test_password_in_a_registry_url_is_never_shown(svcreg: Svcreg) -> None:
    result = svcreg("list", "--registry", "nosuch://ada:s3cret@host:1", code=2)
    assert "s3cret" not in result.stderr


def test_defect_shows_where_it_is_when_asked(
    svcreg: Svcreg, distributions: Distributions, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "import click\n@click.command()\ndef command():\n    raise KeyError('oops')"
    install(distributions, source, "command", "commands")
    result = svcreg("acme", code=1)
    assert "python -X dev -m svcreg" in hints(result)[0]
    assert "KeyError: 'oops'" in result.stderr
    monkeypatch.setattr(sys, "flags", SimpleNamespace(dev_mode=True))
    with svcreg.streams() as running:
        try:
            int("oops")
        except ValueError as error:
            report(error)
    assert "test_trouble.py" in running.errors


def test_failing_output_is_told_as_the_system_tells_it() -> None:
    code, message, hint = explain(OSError(28, "No space left on device"))
    assert (code, hint) == (1, "")
    assert "No space left on device" in message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("output", ["table", "json"])
def test_full_disk_is_a_failure(svcreg: Svcreg, registry: library.Registry, output: str) -> None:
    add(registry, "hello", "h-1")
    svcreg.descriptor = os.open("/dev/full", os.O_WRONLY)
    result = svcreg("list", "--output", output, code=1)
    assert hints(result) == []
    assert "No space left" in result.stderr


@pytest.mark.parametrize("output", ["table", "json"])
def test_reader_that_has_seen_enough_is_no_failure(
    svcreg: Svcreg, registry: library.Registry, output: str
) -> None:
    add(registry, "hello", "h-1")
    reading, svcreg.descriptor = os.pipe()
    os.close(reading)
    assert svcreg("list", "--output", output).stderr == ""


def test_registry_that_times_out_leaves_the_output_alone(
    svcreg: Svcreg, distributions: Distributions
) -> None:
    install(distributions, backend_that("raise svcreg.RegistryTimeoutError('acme: late')"))
    with svcreg.streams() as running:
        assert run(["list", "--registry", "acme"]) == 4
        print("still there")
    assert running.output == "still there\n"


def test_closed_output_is_no_failure(svcreg: Svcreg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    code = run(["backends", "--output", "json"])
    opened = sys.stdout, sys.stderr
    monkeypatch.undo()
    for stream in opened:
        assert stream is not None
        stream.close()
    assert code == 0


def test_text_that_the_terminal_cannot_show_is_escaped(
    svcreg: Svcreg, registry: library.Registry
) -> None:
    add(registry, "hello", "h-1", note="→")
    svcreg.encoding = "latin-1"
    assert r"note=\u2192" in svcreg("get", "hello").stdout
    assert svcreg("get", "→", code=2).stderr.startswith(r"error: service name '\u2192' is")


def test_command_line_without_arguments_is_that_of_the_process(
    svcreg: Svcreg, registry: library.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(registry, "hello", "h-1")
    monkeypatch.setattr(sys, "argv", ["svcreg", "get", "nobody"])
    with svcreg.streams() as running, pytest.raises(SystemExit) as exited:
        main()
    assert exited.value.code == 3
    assert "'nobody'" in running.errors


def test_interrupt_while_starting_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("svcreg.cli.app.run", interrupt)
    with pytest.raises(SystemExit) as exited:
        main()
    assert exited.value.code == 130


def test_log_is_lines_like_those_of_errors(svcreg: Svcreg) -> None:
    with svcreg.streams() as running:
        configure_logging()
        logging.getLogger("svcreg.test").warning("not yet")
        logging.getLogger("svcreg.test").error("two\nlines of %s", "\x1b[2J")
    assert running.errors == "error: two lines of \\x1b[2J\n"


def test_log_shows_where_an_error_was_when_asked(
    svcreg: Svcreg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "flags", SimpleNamespace(dev_mode=True))
    with svcreg.streams() as running:
        configure_logging()
        try:
            raise KeyError("oops")
        except KeyError:
            logging.getLogger("svcreg.test").exception("it failed")
    assert "test_trouble.py" in running.errors
    assert running.errors.endswith("error: it failed\n")


def test_nothing_is_left_running(svcreg: Svcreg) -> None:
    before = set(threading.enumerate())
    svcreg("list")
    assert set(threading.enumerate()) == before
