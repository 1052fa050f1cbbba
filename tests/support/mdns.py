"""Drive `mdns_program.py`, and put packets of any kind on the link."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import Process

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("mdns_program.py")
Message = dict[str, Any]


def unique(name: str) -> str:
    """Return a service name that no other test uses: they all share the loopback's multicast."""
    return f"{name}-{uuid.uuid4().hex[:10]}"


def service(
    name: str, node_id: str = "n-1", address: str = "127.0.0.1:8080", **more: Any
) -> Message:
    """Return a service of one node, as JSON has it."""
    node = {"id": node_id, "address": address, "metadata": more.pop("node_metadata", {})}
    return {"name": name, "version": "1.0", "nodes": [node], **more}


class Program:
    """One child process with an mDNS backend of its own."""

    def __init__(
        self, log: Path, interfaces: str, prefix: Sequence[str], dialect: str = "both"
    ) -> None:
        self.process = Process(
            [*prefix, sys.executable, str(PROGRAM), interfaces, dialect],
            log,
            env={"PYTHONWARNINGS": "error", "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.seen: list[Message] = []
        self._answers: queue.Queue[Message | None] = queue.Queue()
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Program:
        self.expect(lambda event: event["event"] == "ready", timeout=20)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # it may have been killed
            self.leave()
        self.process.stop()
        self._reader.join()

    def call(self, operation: str, /, **arguments: Any) -> Any:
        """Call the backend, and return what it returns."""
        answer = self.ask(operation, **arguments)
        if "error" in answer:
            pytest.fail(f"{operation}: {answer['error']}\n{self.process.log}")
        return answer["result"]

    def ask(self, operation: str, /, **arguments: Any) -> Message:
        """Call the backend, and return the whole answer, be it an error."""
        stdin = self.process.popen.stdin
        assert stdin is not None
        stdin.write(json.dumps({"call": operation, **arguments}).encode() + b"\n")
        stdin.flush()
        answer = self._answers.get(timeout=20)
        if answer is None:
            pytest.fail(f"the program ended during {operation}:\n{self.process.log}")
        return answer

    def watch(self, name: str | None) -> Message:
        """Start to watch, and return the first snapshot."""
        self.call("watch", name=name)
        return self.expect(lambda event: event["event"] == "snapshot")

    def expect(
        self, condition: Callable[[Message], object], timeout: float = 10.0, since: float = 0.0
    ) -> Message:
        """Return the first event that meets a condition, waiting for it."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for event in self.seen:
                    if event.get("at", 0) >= since and condition(event):
                        return event
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    pytest.fail(f"not seen within {timeout} s: {self.seen}\n{self.process.log}")

    def expect_change(
        self, kind: str, node_id: str = "n-1", timeout: float = 10.0, since: float = 0.0
    ) -> Message:
        """Return the first `upsert` or `delete` of a node."""
        return self.expect(
            lambda event: event["event"] == kind and event["service"]["nodes"][0]["id"] == node_id,
            timeout,
            since,
        )

    def leave(self) -> None:
        """Have the program end as programs do: close its backend and exit."""
        stdin = self.process.popen.stdin
        assert stdin is not None
        stdin.close()
        self.process.popen.wait(10)

    def _read(self) -> None:
        stdout = self.process.popen.stdout
        assert stdout is not None
        for line in stdout:
            message = json.loads(line)
            if "event" in message:
                with self._changed:
                    self.seen.append(message)
                    self._changed.notify_all()
            else:
                self._answers.put(message)
        self._answers.put(None)


def node_ids(services: list[Message]) -> list[str]:
    """Return the ids of all nodes."""
    return sorted(node["id"] for one in services for node in one["nodes"])


# Packets, RFC 1035 section 4.

IN, UNIQUE = 1, 0x8001
A, PTR, TXT, SRV = 1, 12, 16, 33
TYPE = "_micro._tcp.local"


def labels(name: str) -> bytes:
    """Return an uncompressed domain name."""
    parts = [part.encode() for part in name.rstrip(".").split(".")]
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def record(name: str, kind: int, data: bytes, ttl: int = 120, class_: int = UNIQUE) -> bytes:
    """Return one resource record."""
    return labels(name) + struct.pack("!HHIH", kind, class_, ttl, len(data)) + data


def text(*strings: bytes) -> bytes:
    """Return the data of a TXT record."""
    return b"".join(bytes([len(string)]) + string for string in strings)


def response(*records: bytes) -> bytes:
    """Return a multicast DNS response."""
    return struct.pack("!6H", 0, 0x8400, 0, len(records), 0, 0) + b"".join(records)


def announcement(label: str, txt: bytes, *, host: str = "", ttl: int = 120) -> bytes:
    """Return the announcement of one instance, whatever its TXT record says."""
    host = host or f"{label}.local"
    instance = f"{label}.{TYPE}"
    return response(
        record(TYPE, PTR, labels(instance), ttl, IN),
        record(instance, SRV, struct.pack("!3H", 0, 0, 8080) + labels(host), ttl),
        record(instance, TXT, txt, ttl),
        record(host, A, socket.inet_aton("127.0.0.1"), ttl),
    )


@contextlib.contextmanager
def sender() -> Iterator[Callable[[bytes], None]]:
    """Give a function that multicasts a packet on the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        loopback = socket.inet_aton("127.0.0.1")
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        sock.bind(("127.0.0.1", 0))

        def send(packet: bytes) -> None:
            sock.sendto(packet, ("224.0.0.251", 5353))

        yield send
