"""The `svcreg` command run inside the test's process: its output in files, its end by signals."""

from __future__ import annotations

import io
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TextIO

import svcreg as library
from svcreg import Node, Service
from svcreg.cli.app import run
from svcreg.cli.output import console
from tests.support.plugins import Distributions

PATIENCE = 20.0  # seconds that anything may take on a busy machine
_GLANCE = 0.005  # seconds between two looks at what is waited for
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

BACKEND = """
import asyncio
import svcreg
from svcreg import hookimpl

class Backend:
    default_address = "acme.invalid:1"
    capabilities = frozenset({"push", "watch-all"})
    def __init__(self, config): pass
    async def answer(self):
        ACTION
    @hookimpl
    async def svcreg_register(self, service, ttl): await self.answer()
    @hookimpl
    async def svcreg_deregister(self, service): await self.answer()
    @hookimpl
    async def svcreg_get(self, name): return await self.answer() or ()
    @hookimpl
    async def svcreg_list(self): return await self.answer() or ()
    @hookimpl
    async def svcreg_watch(self, name):
        await self.answer()
        yield svcreg.Snapshot()
        await asyncio.sleep(60)
"""


def backend_that(action: str) -> str:
    """Return the source of a backend whose every hook does this."""
    return BACKEND.replace("ACTION", action)


def install(
    distributions: Distributions, source: str, attribute: str = "Backend", group: str = "backends"
) -> None:
    """Install a distribution `acme 1.2` with a backend, or something else, of this source."""
    distributions.install(
        "acme",
        {"acme_plugin": source},
        {"acme": f"acme_plugin:{attribute}"},
        version="1.2",
        group=f"svcreg.{group}",
    )


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return once the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(_GLANCE)


class Terminal(io.TextIOWrapper):
    """A file that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


class Result(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """What was printed, decoded."""
        return json.loads(self.stdout)


class Running:
    """A command while it runs, as another thread sees it."""

    def __init__(self, stdout: Path, stderr: Path) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self.has_ended = False

    @property
    def output(self) -> str:
        """What was written to standard output."""
        return self._stdout.read_text(encoding="utf-8")

    @property
    def errors(self) -> str:
        """What was written to standard error."""
        return self._stderr.read_text(encoding="utf-8")

    def wait_for(self, *texts: str) -> None:
        """Return once all of these were printed."""
        self._wait(lambda: all(text in self.output for text in texts), texts)

    def wait_for_json(self, **wanted: object) -> Any:
        """Return the first object printed that has these members."""
        found: list[Any] = []

        def is_there() -> bool:
            complete = self.output.splitlines(keepends=True)
            lines = [json.loads(line) for line in complete if line.endswith("\n")]
            found[:] = [one for one in lines if wanted.items() <= one.items()]
            return bool(found)

        self._wait(is_there, wanted)
        return found[0]

    def wait_for_end(self) -> None:
        """Return once the command has ended by itself."""
        wait_until(lambda: self.has_ended, "ended by itself")

    def _wait(self, condition: Callable[[], bool], what: object) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition() and not self.has_ended and time.monotonic() < deadline:
            time.sleep(_GLANCE)
        assert condition(), f"never printed {what}: {self.output[-2000:]}{self.errors}"


class Svcreg:
    """Runs command lines on the registry that MICRO_REGISTRY names, which is `url`."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self.url = url
        self.is_terminal = False
        self.encoding = "utf-8"
        self.descriptor: int | None = None  # what standard output is instead of a file

    def __call__(self, *args: str, code: int | None = 0) -> Result:
        """Run a command to its end; the exit code must be `code`."""
        with self.streams() as running:
            actual = run(args)
        result = Result(actual, running.output, running.errors)
        assert "Traceback" not in result.stderr, result.stderr
        assert code is None or actual == code, result
        return result

    def json(self, *args: str) -> Any:
        """Run with `--output json` and return what was printed, decoded."""
        return self(*args, "--output", "json").json

    def meanwhile(
        self,
        script: Callable[[Running], object],
        *args: str,
        number: signal.Signals = signal.SIGINT,
        code: int = 0,
    ) -> Result:
        """Run a command while `script` runs in a thread; when that ends, so does the command.

        It is ended by a signal, as a user ends it, unless it has ended by itself.
        """
        problems: list[BaseException] = []
        main = threading.get_ident()

        def play() -> None:
            try:
                script(running)
            except BaseException as problem:
                problems.append(problem)
            finally:
                signal.pthread_kill(main, number)

        def interrupt(_number: int, _frame: FrameType | None) -> None:
            if not running.has_ended:
                raise KeyboardInterrupt

        previous = {each: signal.signal(each, interrupt) for each in STOPPING}
        try:
            with self.streams() as running:
                thread = threading.Thread(target=play)
                thread.start()
                actual = run(args)
                running.has_ended = True
                handlers = {signal.getsignal(each) for each in STOPPING}
                thread.join()
        finally:
            for each, handler in previous.items():
                signal.signal(each, handler)
        for problem in problems:
            raise problem
        result = Result(actual, running.output, running.errors)
        assert handlers == {interrupt}, "the command left its signal handlers behind"
        assert "Traceback" not in result.stderr, result.stderr
        assert actual == code, result
        return result

    @contextmanager
    def streams(self) -> Iterator[Running]:
        """Give the process other standard streams, and undo what a command does to it."""
        files = self._folder / "stdout", self._folder / "stderr"
        for file in files:
            file.write_bytes(b"")
        running = Running(*files)
        stdout = files[0] if self.descriptor is None else self.descriptor
        streams = sys.stdout, sys.stderr
        root = logging.getLogger()
        logged = root.handlers[:], root.level
        root.handlers[:] = []
        console.cache_clear()  # it has measured the streams of the run before
        try:
            # Like those of an interpreter: standard output is buffered, standard error is not.
            with self._open(stdout) as sys.stdout, self._open(files[1], 0) as sys.stderr:
                yield running
        finally:
            sys.stdout, sys.stderr = streams
            root.handlers[:] = logged[0]
            root.setLevel(logged[1])
            console.cache_clear()

    def _open(self, file: Path | int, buffering: int = -1) -> TextIO:
        kind = Terminal if self.is_terminal else io.TextIOWrapper
        binary = open(file, "wb", buffering)  # noqa: SIM115 - closed with the text stream
        return kind(binary, encoding=self.encoding, write_through=not buffering)


def add(
    registry: library.Registry, name: str, node_id: str, version: str = "", **metadata: str
) -> library.Registration:
    """Register a node at 10.0.0.5:80."""
    node = Node(node_id, "10.0.0.5:80", metadata)
    return registry.register(Service(name, version, nodes=[node]))
