"""A process of its own that registers something, to be ended in every way a process can end."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Literal

from svcreg.codec import encode_service
from svcreg.model import Service

Mode = Literal["hold", "fork", "signals"]
"""What the process does besides holding its registration; see `owner.py`."""

END_TIMEOUT = 10.0
"""Seconds that a process may take to end once it was told to."""


class Owner:
    """Runs `svcreg.testing.conformance.owner`, which holds one registration."""

    def __init__(
        self,
        url: str,
        face: str,
        service: Service,
        ttl: float,
        mode: Mode,
        environment: Mapping[str, str],
    ) -> None:
        module = "svcreg.testing.conformance.owner"
        arguments = [url, face, encode_service(service).decode(), str(ttl), mode]
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            text=True,
            start_new_session=True,  # so that its children can be ended with it
        )
        self.said: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="conformance-owner", daemon=True)
        self._reader.start()

    def wait_for(self, word: str, timeout: float = END_TIMEOUT) -> None:
        """Wait until it prints `word`.

        Raises:
            AssertionError: It ended before, or did not within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while word not in self.said:
            try:
                line = self._lines.get(timeout=max(deadline - time.monotonic(), 0.001))
            except queue.Empty:
                raise AssertionError(f"no {word!r} within {timeout:g} s: {self.said}") from None
            assert line is not None, f"ended before {word!r}: {self.said}"
            self.said.append(line)

    def leave(self) -> None:
        """Let it end as a program does that comes to its end."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait(END_TIMEOUT)

    def nudge(self) -> None:
        """Send it one byte of input, which ends the child of one that has forked."""
        assert self._process.stdin is not None
        self._process.stdin.write("x")
        self._process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, and not to its children; wait until it has ended."""
        self._process.send_signal(number)
        self._process.wait(END_TIMEOUT)

    def kill(self) -> None:
        """End the process and its children, whatever they do. Safe to repeat."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(END_TIMEOUT)
        self._reader.join(END_TIMEOUT)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())
        self._lines.put(None)
