"""Speak go-micro's mDNS dialect from a test, with sockets and packets of its own."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.support.mdns import IN, PTR, SRV, TXT, A, labels, record

GROUP = ("224.0.0.251", 5353)
WINDOW = 0.1
"""Seconds that go-micro waits for answers."""

VECTORS = Path(__file__).resolve().parents[1] / "unit" / "mdns" / "go_micro_packets.json"


def captured() -> list[bytes]:
    """Return packets that go-micro itself sent; what each is, `test_gomicro_packets.py` says."""
    packets = json.loads(VECTORS.read_text())["packets"]
    return [bytes.fromhex(packet) for packet in packets]


def gomicro_text(service: str, version: str = "1.0", metadata: Any = None) -> bytes:
    """Return the data of a TXT record as go-micro writes it."""
    fields = {"Metadata": metadata, "Service": service, "Version": version, "Endpoints": None}
    data = zlib.compress(json.dumps(fields).encode()).hex().encode()
    strings = [data[start : start + 255] for start in range(0, len(data), 255)]
    return b"".join(bytes([len(string)]) + string for string in strings)


def node_records(
    service: str,
    node_id: str,
    text: bytes,
    *,
    port: int = 8080,
    ttl: int = 120,
    host: str = "vm",
    domain: str = "micro",
) -> list[bytes]:
    """Return the SRV, A and TXT record of a node at 127.0.0.1."""
    name = f"{node_id}.{service}.{domain}"
    return [
        record(name, SRV, struct.pack("!3H", 10, 1, port) + labels(host), ttl, IN),
        record(host, A, socket.inet_aton("127.0.0.1"), ttl, IN),
        record(name, TXT, text, ttl, IN),
    ]


def message(records: Iterable[bytes], *, asked: bytes = b"", number: int = 0) -> bytes:
    """Return a response; `asked` is the question that it answers."""
    records = list(records)
    flags = 0x8400 if asked else 0x8000
    header = struct.pack("!6H", number, flags, bool(asked), len(records), 0, 0)
    return header + asked + b"".join(records)


def gomicro_announcement(service: str, node_id: str, text: bytes, **more: Any) -> bytes:
    """Return the announcement of a node; with `ttl=0` its goodbye."""
    return message(node_records(service, node_id, text, **more))


def question(name: str, kind: int = PTR, class_: int = IN) -> bytes:
    """Return one question."""
    return labels(name) + struct.pack("!HH", kind, class_)


def query(name: str, kind: int = PTR, number: int = 0, class_: int = IN) -> bytes:
    """Return a packet with one question."""
    return struct.pack("!6H", number, 0, 1, 0, 0, 0) + question(name, kind, class_)


def count_records(packet: bytes) -> dict[int, int]:
    """Return how many records of each kind an answer has; for answers with compressed names."""
    _, _, questions, answers, _, _ = struct.unpack_from("!6H", packet)
    position = 12
    for _ in range(questions):
        position = _skip_name(packet, position) + 4
    kinds: dict[int, int] = {}
    for _ in range(answers):
        position = _skip_name(packet, position)
        kind, _, _, length = struct.unpack_from("!HHIH", packet, position)
        kinds[kind] = kinds.get(kind, 0) + 1
        position += 10 + length
    assert position == len(packet)
    return kinds


@contextlib.contextmanager
def asker() -> Iterator[socket.socket]:
    """Give a socket that asks as go-micro does: on the loopback, from a port of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        loopback = socket.inet_aton("127.0.0.1")
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
        sock.bind(("", 0))
        yield sock


def ask(sock: socket.socket, packet: bytes, window: float = WINDOW) -> list[bytes]:
    """Send a question to the group, and return the answers of the time that go-micro waits."""
    sock.sendto(packet, GROUP)
    deadline = time.monotonic() + window
    answers = []
    while (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        with contextlib.suppress(TimeoutError):
            answers.append(sock.recv(65535))
    return answers


@contextlib.contextmanager
def overhearing() -> Iterator[socket.socket]:
    """Give a socket that hears the group's packets on the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(GROUP)  # the group's packets alone, so that it takes nobody's unicast
        group = socket.inet_aton(GROUP[0]) + socket.inet_aton("127.0.0.1")
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        yield sock


def _skip_name(packet: bytes, position: int) -> int:
    while length := packet[position]:
        if length >= 0xC0:
            return position + 2
        position += 1 + length
    return position + 1
