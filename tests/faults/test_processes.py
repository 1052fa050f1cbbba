"""Processes that fork, are killed, or end: rows 10, 13 and 15 of the list of failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import svcreg
from svcreg import Registry
from tests.support.faulty_world import KINDS, eventually, stays
from tests.support.plugins import Distributions

ROOT = Path(__file__).resolve().parents[2]
TTL = 1.5
START = 20.0  # seconds in which an interpreter starts on a busy machine
EXIT = 8.0  # seconds in which a program must have ended: core's four, and a busy machine's


class Program:
    """A running program of `tests.support.process_programs`."""

    def __init__(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        env = dict(env or os.environ)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.process_programs", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            text=True,
            start_new_session=True,
        )

    def read(self) -> list[str]:
        """Return the words of its next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        return line.split()

    def end_input(self) -> None:
        """Let it end by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self) -> float:
        """Wait for its end; return the seconds that took."""
        started = time.monotonic()
        self.process.wait(EXIT)
        return time.monotonic() - started

    def close(self) -> None:
        """End it and its children."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(EXIT)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def run() -> Iterator[Callable[..., Program]]:
    """Run programs, and end them with the test."""
    programs: list[Program] = []

    def run(*arguments: str, env: Mapping[str, str] | None = None) -> Program:
        programs.append(Program(*arguments, env=env))
        return programs[-1]

    yield run
    for program in programs:
        program.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/registry.db"


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    with svcreg.open(url) as registry:
        yield registry


def ids(registry: Registry) -> set[str]:
    return {node.id for service in registry.get("greeter") for node in service.nodes}


def test_row_15_worker_that_is_killed_takes_nobody_with_it(
    run: Callable[..., Program], url: str, registry: Registry
) -> None:
    program = run("workers", url, str(TTL))
    pids = dict[str, int]()
    for _ in range(4):
        _, number, pid = program.read()
        pids[f"worker-{number}"] = int(pid)
    everybody = {"leader", *pids}
    eventually(lambda: ids(registry) == everybody)

    os.kill(pids["worker-2"], signal.SIGKILL)
    eventually(lambda: ids(registry) == everybody - {"worker-2"}, TTL + 1.5)

    os.kill(pids["worker-1"], signal.SIGTERM)  # handled: withdrawn at once, and alone
    rest = everybody - {"worker-1", "worker-2"}
    eventually(lambda: ids(registry) == rest, TTL * 0.6)
    stays(lambda: ids(registry) == rest, TTL)

    program.process.send_signal(signal.SIGKILL)  # the workers live on, and renew only themselves
    eventually(lambda: ids(registry) == rest - {"leader"}, TTL + 1.5)
    stays(lambda: ids(registry) == rest - {"leader"}, TTL)


def test_row_10_killed_process_is_gone_after_its_ttl_and_comes_back_as_itself(
    run: Callable[..., Program], url: str, registry: Registry
) -> None:
    for _ in range(2):
        program = run("workers", url, str(TTL))
        for _ in range(4):
            program.read()
        eventually(lambda: len(ids(registry)) == 5)
        os.killpg(program.process.pid, signal.SIGKILL)
    eventually(lambda: not ids(registry), TTL + 1.5)
    assert registry.get("greeter") == ()


ENDINGS = {
    "end": None,
    "exit": None,
    "raise": None,
    "wait": signal.SIGINT,
    "watch": signal.SIGINT,
    "handled": signal.SIGTERM,
    "async-end": None,
    "async-with": signal.SIGINT,
    "async-watch": signal.SIGINT,
    "async-wait": signal.SIGINT,
}


def finish(program: Program, number: signal.Signals | None) -> float:
    """Let a program end, with a signal or the end of its input; return the seconds that took."""
    if number is not None:
        program.process.send_signal(number)
    program.end_input()
    return program.wait()


@pytest.mark.parametrize("how", ENDINGS)
def test_row_13_program_that_ends_is_withdrawn(
    run: Callable[..., Program], url: str, registry: Registry, how: str
) -> None:
    program = run(how, url)
    assert program.read() == ["ready"]
    if how == "handled":
        assert program.read() == ["handling"]
    eventually(lambda: ids(registry) == {"node"})
    assert finish(program, ENDINGS[how]) < 4
    eventually(lambda: not ids(registry), 1.0)
    assert program.process.stderr is not None
    complaints = program.process.stderr.read()
    assert "Exception ignored" not in complaints
    assert "Task was destroyed" not in complaints


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("how", ["hang-end", "hang-exit", "hang-raise", "hang-wait", "hang-watch"])
def test_row_13_backend_that_hangs_keeps_no_program_from_ending(
    run: Callable[..., Program], distributions: Distributions, kind: str, how: str
) -> None:
    for name, backend in KINDS.items():
        distributions.install(f"svcreg-{name}", {}, {name: f"tests.support.faulty:{backend}"})
    program = run(how, f"{kind}://test", env=distributions.environment())
    assert program.read() == ["ready"]
    number = signal.SIGINT if how in ("hang-wait", "hang-watch") else None
    assert finish(program, number) < EXIT
