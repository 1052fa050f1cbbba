"""A process with one sqlite backend, told by lines on its standard input what to do.

Run as `python -m tests.unit.builtin.process URL`; answers every line with `ok ...` or `error ...`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from svcreg.errors import SvcregError
from tests.unit.builtin.support import Hooks, ids, service

ROOT = Path(__file__).resolve().parents[3]


class Process:
    """Starts the program below and talks to it; killed at the end if it still runs."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, url],
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "error"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, line: str) -> str:
        self.tell(line)
        return self.answer()

    def kill(self) -> None:
        """As `kill -9` does."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def processes(url: str, count: int) -> Iterator[list[Process]]:
    started = [Process(url) for _ in range(count)]
    try:
        yield started
    finally:
        for process in started:
            process.__exit__(None, None, None)


async def obey(hooks: Hooks, line: str) -> str:
    command, *words = line.split()
    if command == "register":  # NAME TTL ID...
        await hooks.register(service(words[0], *words[2:]), float(words[1]))
    elif command == "register-each":  # NAME COUNT PREFIX
        for number in range(int(words[1])):
            await hooks.register(service(words[0], f"{words[2]}-{number}"))
    elif command == "churn":  # NAME ID, for ever
        print("ok", flush=True)
        for count in range(sys.maxsize):
            nodes = [f"{words[1]}-{number}" for number in range(20)]
            await hooks.register(service(words[0], *nodes, count=str(count)), ttl=1.0)
            await hooks.renew(service(words[0], *nodes), ttl=1.0)
            await hooks.deregister(service(words[0], *nodes[:10]))
    elif command == "stamp":  # NAME ID: the time of registering is in the record
        await hooks.register(service(words[0], words[1], at=repr(time.monotonic())))
    elif command == "get":
        return ",".join(ids(await hooks.get(words[0])))
    elif command == "close":
        hooks.close()
    return ""


def main() -> None:
    hooks = Hooks(sys.argv[1])
    for line in sys.stdin:
        try:
            print("ok", asyncio.run(obey(hooks, line)), flush=True)
        except SvcregError as error:
            print("error", type(error).__name__, error, flush=True)


if __name__ == "__main__":
    main()
