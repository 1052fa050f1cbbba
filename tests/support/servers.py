"""Find and run real servers and other programs for tests.

A server is looked for in `SVCREG_TEST_<NAME>` (a folder or an executable), then in the cache that
`tools/install-servers` fills, then in `PATH`. A test that lacks one is skipped with the command
that installs it, or fails under `SVCREG_REQUIRE_SERVERS=1`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import pytest

PROBE_SECONDS = 0.01
STOP_SECONDS = 10.0  # between SIGTERM and SIGKILL
LOG_TAIL = 3000  # characters of a log shown when something fails

_KEPT = ("PATH", "HOME", "LANG")
_ENVIRON = dict(os.environ)  # as it was when the tests began: they run without most of it
_CACHE = Path.home() / ".cache" / "svcreg" / "servers"
_FOLDERS = ("usr/sbin", "usr/bin", "sbin", "bin", "")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None)


def missing(reason: str, remedy: str) -> None:
    """Skip the test, or fail it where everything is required to be there."""
    message = f"{reason}; {remedy}"
    if _ENVIRON.get("SVCREG_REQUIRE_SERVERS") == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def find_root(name: str) -> Path | None:
    """Return the folder that a server was unpacked into, the newest version of those there."""
    chosen = _ENVIRON.get(f"SVCREG_TEST_{name.upper()}")
    if chosen:
        return Path(chosen)
    versions = [path for path in (_CACHE / name).glob("*") if (path / ".complete").exists()]
    return max(versions, key=lambda path: path.stat().st_mtime, default=None)


def find_program(server: str, program: str) -> str:
    """Return the path of a server's program; skips or fails the test when there is none."""
    root = find_root(server)
    if root is not None:
        if root.is_file() and root.name == program:
            return str(root)
        for folder in _FOLDERS:
            path = root / folder / program
            if os.access(path, os.X_OK) and path.is_file():
                return str(path)
    system_folders = os.pathsep.join([_ENVIRON.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = shutil.which(program, path=system_folders)
    if found is None:
        missing(f"{program} is not here", f"run: tools/install-servers {server}")
        raise AssertionError  # missing() raises
    return found


def library_path(server: str) -> dict[str, str]:
    """Return the environment that lets an unpacked program find its own libraries."""
    root = find_root(server)
    if root is None or not root.is_dir():
        return {}
    folders = sorted({str(path.parent) for path in root.glob("**/lib*.so.*")})
    return {"LD_LIBRARY_PATH": os.pathsep.join(folders)} if folders else {}


def eventually(
    condition: Callable[[], object], timeout: float = 10.0, what: str = "the condition"
) -> object:
    """Return the condition's value once it is true; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {timeout:g} s")
        time.sleep(PROBE_SECONDS)
    return value


def _die_with_parent() -> None:
    """Run in the child: die with the parent, so that nothing outlives a killed test run."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A child in a session of its own that writes to a log file and dies with this process."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
    ) -> None:
        self.command = list(command)
        self._log = log
        base = {name: value for name, value in _ENVIRON.items() if name in _KEPT}
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                self.command,
                env=base | dict(env or {}),
                cwd=cwd,
                stdin=stdin,
                stdout=output if stdout is None else stdout,
                stderr=output,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    @property
    def log(self) -> str:
        """The end of what the process has written."""
        return self._log.read_text(errors="replace")[-LOG_TAIL:]

    def wait_until(self, is_ready: Callable[[], object], timeout: float = 10.0) -> None:
        """Wait until a probe is true; fail, showing the log, if the process ends before."""
        deadline = time.monotonic() + timeout
        while not is_ready():
            if self.popen.poll() is not None:
                self._fail(f"ended with {self.popen.returncode} before it was ready")
            if time.monotonic() > deadline:
                self._fail(f"was not ready within {timeout:g} s")
            time.sleep(PROBE_SECONDS)

    def kill(self) -> None:
        """End the whole session at once, as a crash would."""
        self._signal(signal.SIGKILL)
        self.popen.wait()

    def stop(self) -> None:
        """Ask the process to end, and make it end."""
        if self.popen.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                self.popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass  # the next line does it
        self._signal(signal.SIGKILL)  # also whatever it started and left behind
        self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # unsent input of a process that has gone
                    stream.close()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.popen.pid, number)
        except ProcessLookupError:
            pass  # it has ended

    def _fail(self, what: str) -> None:
        self.stop()
        pytest.fail(f"{' '.join(self.command)} {what}:\n{self.log}", pytrace=False)


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    is_ready: Callable[[], object] = lambda: True,
    timeout: float = 10.0,
) -> Iterator[Process]:
    """Run a server from when it is ready until the block ends."""
    process = Process(command, log, env=env)
    try:
        process.wait_until(is_ready, timeout)
        yield process
    finally:
        process.stop()
