"""Drive the programs of the interop tests: go-micro's, and svcreg's that takes the same calls."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support import servers
from tests.support.servers import Process, missing

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "tests" / "interop" / "peer"
PATIENCE = 20.0  # seconds that an answer or an event may take on a busy machine
Message = dict[str, Any]


def version() -> str:
    """Return the release of go-micro that the program is built with."""
    found = re.search(r"^require go-micro\.dev\S* v(\S+)", (SOURCES / "go.mod").read_text(), re.M)
    assert found
    return found[1]


def program(name: str) -> str:
    """Return the path of a program as built from these very sources; skips without it."""
    found = [*sorted(SOURCES.glob("*.go")), *sorted(SOURCES.glob("*/*.go"))]
    files = [*found, SOURCES / "go.mod", SOURCES / "go.sum"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
    built = servers._CACHE / "go-micro" / f"{version()}-{digest}" / "bin" / name
    if not os.access(built, os.X_OK):
        missing(
            "the go-micro program is not built from its present sources",
            "install Go and run: tools/install-servers go-micro",
        )
    return str(built)


class Peer:
    """One process that does what it is told with one registry, and says what it sees."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self.events: list[Message] = []
        self.process = Process(command, log, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._answers: queue.Queue[Message | None] = queue.Queue()
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        self.expect(lambda event: event["event"] == "ready")
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._reader.join()
        self.process.stop()  # closes the pipes

    def call(self, operation: str, /, **arguments: Any) -> Any:
        """Have it do something, and return the result."""
        answer = self.ask(operation, **arguments)
        if "error" in answer:
            pytest.fail(f"{operation}: {answer['error']}\n{self.process.log}")
        return answer["result"]

    def ask(self, operation: str, /, **arguments: Any) -> Message:
        """Have it do something, and return the whole answer, be it an error."""
        stdin = self.process.popen.stdin
        assert stdin is not None
        stdin.write(json.dumps({"call": operation, **arguments}).encode() + b"\n")
        stdin.flush()
        answer = self._answers.get(timeout=PATIENCE)
        if answer is None:
            pytest.fail(f"it ended during {operation}:\n{self.process.log}")
        return answer

    def expect(self, condition: Callable[[Message], object], timeout: float = PATIENCE) -> Message:
        """Return the first event that meets a condition, waiting for it."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for event in self.events:
                    if condition(event):
                        return event
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    pytest.fail(f"not seen within {timeout:g} s: {self.events}\n{self.process.log}")

    def nodes(self, name: str) -> dict[str, Message]:
        """Return the nodes that it finds, by id, each with the version of its service."""
        found = self.call("get", name=name) or []
        return {
            node["id"]: {**node, "version": service["version"]}
            for service in found
            for node in service["nodes"] or []
        }

    def names(self) -> set[str]:
        """Return the services that it lists, which svcreg may know from up to a second ago."""
        return {service["name"] for service in self.call("list") or ()}

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()

    def _read(self) -> None:
        stdout = self.process.popen.stdout
        assert stdout is not None
        for line in stdout:
            message = json.loads(line)
            if "event" in message:
                with self._changed:
                    self.events.append(message)
                    self._changed.notify_all()
            else:
                self._answers.put(message)
        self._answers.put(None)


class GoMicro(Peer):
    """go-micro's; with `grpc` the one that speaks it, which cannot speak to etcd."""

    def __init__(
        self,
        log: Path,
        registry: str,
        address: str = "",
        *,
        prefix: Sequence[str] = (),
        grpc: bool = False,
    ) -> None:
        path = program("peer-grpc" if grpc else "peer")
        command = [*prefix, path, registry, *([address] if address else [])]
        # It comments on its default for TLS otherwise.
        super().__init__(command, log, {"MICRO_TLS_SECURE": "true"})


class Python(Peer):
    """svcreg's."""

    def __init__(
        self, log: Path, registry: str, address: str = "", *, prefix: Sequence[str] = ()
    ) -> None:
        command = [*prefix, sys.executable, "-m", "tests.support.gomicro_python"]
        env = {"MICRO_REGISTRY": registry, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
        if address:
            env["MICRO_REGISTRY_ADDRESS"] = address
        super().__init__(command, log, env)
