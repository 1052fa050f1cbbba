"""The installed `svcreg` command in processes of its own, on a registry for each test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

COMMAND = str(Path(sys.executable).with_name("svcreg"))
PATIENCE = 20.0  # seconds that anything may take on a busy machine

# A shell without job control starts background jobs with SIGINT ignored, which children inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Running:
    """A `svcreg` that goes on; what it prints is collected as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.read_at: list[float] = []  # monotonic time of each line
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.read_at.append(time.monotonic())
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_for(self, wanted: Callable[[str], bool], timeout: float = PATIENCE) -> str:
        """Return the first line that is wanted, printed already or soon."""
        found: list[str] = []

        def seen() -> bool:
            found[:] = [line for line in self.lines if wanted(line)]
            return bool(found) or not self._reader.is_alive()

        with self._news:
            self._news.wait_for(seen, timeout)
            assert found, f"never printed; stdout: {self.lines}"
            return found[0]

    def wait_for_json(self, **wanted: object) -> Any:
        """Return the first object printed that has these members."""

        def matches(line: str) -> bool:
            return all(json.loads(line).get(name) == value for name, value in wanted.items())

        return json.loads(self.wait_for(matches))

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Return the exit code once it ended and all its output was read."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def errors(self) -> str:
        """Return what it wrote to standard error; call it after the end."""
        assert self.process.stderr is not None
        return self.process.stderr.read()


class Svcreg:
    """Runs `svcreg` with a clean environment; `registry` is what MICRO_REGISTRY says."""

    def __init__(self, registry: str) -> None:
        self.env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MICRO_", "PYTHON"))
            and name not in {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"}
        }
        self.env |= {"MICRO_REGISTRY": registry, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        self.started: list[Running] = []

    def __call__(
        self, *args: str, code: int | None = 0, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; the exit code must be `code` and nothing may look like a traceback."""
        result = subprocess.run(
            [COMMAND, *args],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**self.env, **(env or {})},
            timeout=PATIENCE,
            check=False,
        )
        assert "Traceback" not in result.stderr, result.stderr
        assert code is None or result.returncode == code, (result.returncode, result.stderr)
        return result

    def json(self, *args: str) -> Any:
        """Run with `--output json` and return what was printed, decoded."""
        return json.loads(self(*args, "--output", "json").stdout)

    def start(self, *args: str, env: Mapping[str, str] | None = None) -> Running:
        """Start one that goes on until it is stopped; the test's end kills it."""
        process = subprocess.Popen(
            [COMMAND, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.env, **(env or {})},
        )
        running = Running(process)
        self.started.append(running)
        return running

    def register(self, name: str, address: str, *args: str) -> Running:
        """Start `svcreg register` and wait until it is active."""
        running = self.start("register", name, "--address", address, "--output", "json", *args)
        running.wait_for_json(state="active")
        return running


@pytest.fixture
def svcreg(tmp_path: Path) -> Iterator[Svcreg]:
    """`svcreg` on a sqlite registry of this test."""
    command = Svcreg(f"sqlite://{tmp_path}/registry.db")
    yield command
    for running in command.started:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait()
        for stream in (running.process.stdout, running.process.stderr):
            if stream is not None:
                stream.close()


BACKEND = """
import time
import svcreg
from svcreg import hookimpl

class Backend:
    default_address = "acme.invalid:1"
    capabilities = frozenset({"push"})
    def __init__(self, config): pass
    def answer(self):
        ACTION
    @hookimpl
    def svcreg_register(self, service, ttl): self.answer()
    @hookimpl
    def svcreg_deregister(self, service): self.answer()
    @hookimpl
    def svcreg_get(self, name): return self.answer() or ()
    @hookimpl
    def svcreg_list(self): return self.answer() or ()
    @hookimpl
    def svcreg_watch(self, name, stop):
        self.answer()
        yield svcreg.Snapshot()
        stop.wait()
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, svcreg: Svcreg) -> Install:
    """Give `svcreg` a distribution `acme 1.2` with a backend or command of this source."""
    folder = tmp_path / "site"

    def install(source: str, group: str = "svcreg.backends", attribute: str = "Backend") -> None:
        info = folder / "acme-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[{group}]\nacme = acme_plugin:{attribute}\n")
        (folder / "acme_plugin.py").write_text(source)
        svcreg.env["PYTHONPATH"] = str(folder)
        if group == "svcreg.backends":
            svcreg.env["MICRO_REGISTRY"] = "acme"

    return install


def backend_that(action: str) -> str:
    """Return the source of a backend whose every hook does this."""
    return BACKEND.replace("ACTION", action)


def wait_until(condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
    """Return once the condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)
