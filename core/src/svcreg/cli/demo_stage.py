"""The stage of `svcreg demo`: programs that come and go, a client, and a narrator."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO

from rich.text import Text

import svcreg
from svcreg import Node
from svcreg.cli.errors import FailedError
from svcreg.cli.output import clean, console

TTL = 3.0
"""Seconds; short, so that nobody waits long for a killed node to disappear."""

_PATIENCE = 12.0
"""Seconds after which something that should have happened counts as not happening."""

_GOODBYE = 8.0
"""Seconds that a program is given to withdraw itself; closing a registry that is away takes 7."""

_PACE = 0.2
"""Seconds between lines on a terminal, so that eyes can follow."""

_GLANCE = 0.01  # seconds between looks at the client's memory, which costs microseconds
_CALL_TIMEOUT = 2.0  # seconds for one call on this machine


@dataclass
class Actor:
    """One program of the cast; `start` may be called again after it ended."""

    service: str
    node_id: str
    phrase: str
    process: subprocess.Popen[str] | None = None
    stderr: IO[str] = field(
        default_factory=lambda: tempfile.TemporaryFile("w+")  # noqa: SIM115 - the stage closes it
    )

    def start(self, environ: Mapping[str, str]) -> None:
        """Start the program; it ends by itself when the pipe to it closes."""
        # -P: a folder named svcreg where the demo happens to be run is not meant.
        program = [sys.executable, "-P", "-m", "svcreg.cli.demo_node"]
        self.process = subprocess.Popen(  # noqa: S603 - our own program, no shell
            [*program, self.service, self.node_id, str(TTL), self.phrase],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self.stderr,
            env=environ,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the demo, which ends its programs in order
        )

    @property
    def has_ended(self) -> bool:
        """Whether the program was started and is no more."""
        return self.process is not None and self.process.poll() is not None

    def kill(self) -> None:
        """End the program with SIGKILL, which it cannot notice."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.ask_to_end()  # closes the pipe

    def ask_to_end(self) -> None:
        """Close the pipe to the program, upon which it withdraws itself and ends."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()

    def end(self) -> None:
        """Wait for the program's end, by force if need be."""
        if self.process is not None:
            try:
                self.process.wait(_GOODBYE)
            except subprocess.TimeoutExpired:
                self.kill()

    def complaint(self) -> str:
        """Return the last line that a program which ended wrote to standard error."""
        self.stderr.seek(0)
        return (self.stderr.read().strip().splitlines() or ["it said nothing"])[-1]


class Stage:
    """Runs the cast against one registry and tells what happens; leaves no process behind."""

    def __init__(self, registry: svcreg.Registry, environ: Mapping[str, str]) -> None:
        self._registry = registry
        self._environ = environ
        self._actors: list[Actor] = []
        self._selectors: dict[str, svcreg.Selector] = {}
        self._headings = 0

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            actor.ask_to_end()
        for actor in self._actors:
            actor.end()
            actor.stderr.close()

    def heading(self, text: str) -> None:
        """Begin a part of the story."""
        self._headings += 1
        console().print()
        console().print(Text(f"{self._headings}. {text}", style="bold cyan"), soft_wrap=True)

    def tell(self, who: str, text: str, style: str = "") -> None:
        """Tell one thing that happened, at a pace that eyes can follow."""
        line = Text.assemble("   ", (f"{clean(who):<11}", "bold"), (clean(text), style))
        console().print(line, soft_wrap=True)
        sys.stdout.flush()
        if console().is_terminal:
            time.sleep(_PACE)

    def start(self, *actors: Actor) -> None:
        """Start programs together and wait until the client sees them all."""
        started = time.monotonic()
        self._actors += [actor for actor in actors if actor not in self._actors]
        for actor in actors:
            actor.start(self._environ)
        seen = []
        for actor in actors:
            node = self._wait_until_listed(actor)
            seen.append((actor, node, time.monotonic() - started))
        for actor, node, seconds in seen:
            self.tell(
                actor.node_id, f"is listed at {node.address}, {seconds:.1f} s after its start"
            )

    def wait_until_gone(self, actor: Actor) -> float:
        """Wait until the client no longer sees a node and return how many seconds that took."""
        started = time.monotonic()
        while self._find(actor) is not None:
            if time.monotonic() - started > _PATIENCE:
                raise FailedError(f"demo: {actor.node_id} was still listed {_PATIENCE:g} s later")
            time.sleep(_GLANCE)
        return time.monotonic() - started

    def call(self, service: str, times: int) -> list[str]:
        """Let the client pick nodes in turn and call each; return the ids of who answered."""
        if service not in self._selectors:
            self._selectors[service] = self._registry.selector(service, strategy="round_robin")
        answered = []
        for _ in range(times):
            node = self._selectors[service].pick()
            try:
                who, text, process = _ask(node)
            except (OSError, ValueError) as error:  # ValueError: the answer broke off
                why = getattr(error, "strerror", None) or "no answer"
                self.tell(node.id, f"{why.lower()}; the client goes on to the next node", "red")
                continue
            if who != node.id:
                raise FailedError(f"demo: {who} answered where {node.id} was called")
            answered.append(who)
            self.tell(who, f'"{text}", says process {process}', "green")
        return answered

    def _wait_until_listed(self, actor: Actor) -> Node:
        deadline = time.monotonic() + _PATIENCE
        while (node := self._find(actor)) is None:
            if actor.has_ended:
                raise FailedError(f"demo: {actor.node_id} ended early: {actor.complaint()}")
            if time.monotonic() > deadline:
                raise FailedError(f"demo: {actor.node_id} was not listed within {_PATIENCE:g} s")
            time.sleep(_GLANCE)
        return node

    def _find(self, actor: Actor) -> Node | None:
        for service in self._registry.get(actor.service):
            for node in service.nodes:
                if node.id == actor.node_id:
                    return node
        return None


def _ask(node: Node) -> tuple[str, str, str]:
    """Call a node; return who answered, what, and from which process."""
    address = (node.host, node.port)
    with socket.create_connection(address, timeout=_CALL_TIMEOUT) as connection:
        connection.sendall(b"Ada\n")
        with connection.makefile(encoding="utf-8") as lines:
            who, text, process = lines.readline().rstrip("\n").split("\t")
            return who, text, process
