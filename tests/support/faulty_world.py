"""Registries on a faulty backend, closed at the end of their test, and ways to wait for things."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from typing import Any

import svcreg
from svcreg import Config, Node, Registry, Service
from svcreg.testing.conformance.base import describe
from svcreg.testing.conformance.faces import BlockingClient, Watching
from tests.support.faulty import Faults, faults_of

KINDS = {"faulty": "FaultyBackend", "faulty-def": "FaultyDefBackend"}


class World:
    """A faulty registry and what a test opens on it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.has_renew = kind == "faulty"
        self.url = f"{kind}://{uuid.uuid4().hex}"
        config = Config(backend=kind, addresses=(self.url.partition("://")[2],))
        self.faults: Faults = faults_of(config)
        self._open = contextlib.ExitStack()

    def open(self, **options: Any) -> Registry:
        """Open a registry."""
        options.setdefault("timeout", 1.0)
        return self._open.enter_context(svcreg.open(self.url, **options))

    def watch(self, name: str | None, **options: Any) -> Watching:
        """Watch through a registry of its own."""
        options.setdefault("timeout", 1.0)
        client = BlockingClient(self.url, **options)
        self._open.callback(client.end)
        return client.watch(name)

    def put(self, *services: Service, ttl: float = 60.0) -> None:
        """Let somebody else register."""
        for service in services:
            self.faults.store.put(service, ttl, "somebody else")

    def close(self) -> None:
        """Close every registry, with the faults healed."""
        self.faults.heal()
        self._open.close()


def one(name: str, node_id: str = "node", **metadata: str) -> Service:
    """Return a service with one node."""
    return Service(name, nodes=(Node(node_id, "10.0.0.5:8080", metadata),))


def eventually(condition: Callable[[], object], within: float = 5.0) -> float:
    """Wait until a condition holds, at most so many seconds; return those it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < within, f"not within {within} s: {describe(condition)}"
        time.sleep(0.005)
    return time.monotonic() - started


def stays(condition: Callable[[], object], seconds: float) -> None:
    """Assert that a condition holds all the time."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        assert condition(), f"no longer holds: {describe(condition)}"
        time.sleep(0.005)
