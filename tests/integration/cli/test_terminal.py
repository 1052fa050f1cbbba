"""On a terminal: a live view, colour unless it is unwanted, and a screen left in order."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from fcntl import ioctl
from struct import pack
from termios import TIOCSWINSZ

import pytest

from tests.integration.cli.conftest import COMMAND, PATIENCE, Install, Svcreg, backend_that

ROWS, COLUMNS = 24, 100

# Makes the terminal that of the command, so that Ctrl-C becomes SIGINT.
OWN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A command that believes that it runs on a terminal."""

    def __init__(self, env: dict[str, str], *args: str, lines: int = ROWS) -> None:
        self._ours, theirs = pty.openpty()
        ioctl(theirs, TIOCSWINSZ, pack("HHHH", lines, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, COMMAND, *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=env,
        )
        os.close(theirs)
        self.output = ""

    def read(self, timeout: float) -> bool:
        """Take in what was printed; False at the end."""
        if not select.select([self._ours], [], [], timeout)[0]:
            return True
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # Linux: EIO once the last process has closed the terminal
            return False
        self.output += data.decode()
        return bool(data)

    def wait_for(self, pattern: str) -> None:
        """Return once the pattern was printed, colours and movements of the cursor left out."""
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.plain):
            assert time.monotonic() < deadline, self.plain[-1000:]
            assert self.read(0.1), self.plain[-1000:]

    @property
    def plain(self) -> str:
        """All that was printed, without escape sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.output)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._ours, text.encode())

    def wait(self) -> int:
        """Read to the end and return the exit code."""
        deadline = time.monotonic() + PATIENCE
        while self.read(0.1):
            assert time.monotonic() < deadline, self.output
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal(svcreg: Svcreg, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    opened = Terminal(svcreg.env, *request.param)
    yield opened
    opened.close()


@pytest.mark.parametrize("terminal", [["watch"]], indirect=True)
def test_live_view_follows_the_registry_until_ctrl_c(svcreg: Svcreg, terminal: Terminal) -> None:
    terminal.wait_for("nothing is registered")
    running = svcreg.register("hello", "10.0.0.5:80", "--metadata", "zone=z1")
    terminal.wait_for("1 node of 1 service")
    terminal.wait_for("hello-10.0.0.5-80 .*10.0.0.5:80 .*zone=z1 .*here")
    assert running.stop() == 0
    terminal.wait_for("0 nodes of 0 services")
    terminal.wait_for("hello-10.0.0.5-80 .*gone")
    terminal.type("\x03")
    assert terminal.wait() == 0
    assert "Traceback" not in terminal.output
    assert "\x1b[?25h" in terminal.output, "the cursor stays hidden"


@pytest.mark.parametrize("lines", [24, 8])
def test_live_view_shows_those_that_are_there_first(svcreg: Svcreg, lines: int) -> None:
    for port in range(81, 85):
        svcreg.register("hello", f"10.0.0.5:{port}")
    terminal = Terminal(svcreg.env, "watch", lines=lines)
    terminal.wait_for("4 nodes of 1 service")
    terminal.wait_for(r"10\.0\.0\.5:84" if lines == 24 else "and 1 more")
    terminal.type("\x03")
    assert terminal.wait() == 0
    terminal.close()


GOES_AWAY = """
        if hasattr(self, "was_there"):
            raise ConnectionRefusedError(111, "nobody there")
        self.was_there = True
        yield svcreg.Snapshot([svcreg.Service("hello", nodes=[svcreg.Node("h-1", "h:1")])])
        stop.wait(0.5)
        raise ConnectionResetError(104, "gone away")
"""


def test_live_view_says_when_the_registry_is_away(svcreg: Svcreg, install: Install) -> None:
    install(backend_that("pass").replace("        yield svcreg.Snapshot()", GOES_AWAY.strip("\n")))
    terminal = Terminal(svcreg.env, "watch", "hello")
    terminal.wait_for("1 node of 1 service")
    terminal.wait_for("warning: watch of 'hello' lost")
    terminal.wait_for("1 node of 1 service.*the registry is away")
    terminal.type("\x03")
    assert terminal.wait() == 0
    terminal.close()
    assert "Traceback" not in terminal.output


@pytest.mark.parametrize("terminal", [["watch", "--output", "json"]], indirect=True)
def test_json_on_a_terminal_is_events(svcreg: Svcreg, terminal: Terminal) -> None:
    svcreg.register("hello", "10.0.0.5:80")
    terminal.wait_for(r'\{"action":"create"')
    terminal.type("\x03")
    assert terminal.wait() == 0


def test_colour_is_for_terminals_that_want_it(svcreg: Svcreg) -> None:
    svcreg.register("hello", "10.0.0.5:80")
    for unwanted in ({}, {"NO_COLOR": "1"}):
        terminal = Terminal({**svcreg.env, **unwanted}, "watch", "--output", "table")
        terminal.wait_for("1 node of 1 service")
        terminal.wait_for("here")
        terminal.type("\x03")
        terminal.wait()
        terminal.close()
        coloured = re.search(r"\x1b\[[0-9;]*3[0-7]m", terminal.output)
        assert bool(coloured) is not bool(unwanted)


def test_table_fits_a_narrow_terminal_without_losing_text(svcreg: Svcreg) -> None:
    svcreg.register("hello", "10.0.0.5:80", "--metadata", f"note={'x' * 200}")
    terminal = Terminal(svcreg.env, "get", "hello")
    assert terminal.wait() == 0
    terminal.close()
    assert terminal.output.count("x") == 200
    assert max(map(len, terminal.plain.splitlines())) <= COLUMNS
