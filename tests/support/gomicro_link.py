"""See every packet on a link where go-micro speaks mDNS, and ask questions there.

`Link` drives this file as a program in a network namespace. It reads `{"name": ..., "port": ...}`
and sends a PTR question for the name, from port 5353 where `port` says so, else from one of its
own; it writes `{"packet": <hexadecimal>, "to": "group" | "asker", "from": <port>, "at": ...}`.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support.servers import Process, eventually

GROUP, PORT = "224.0.0.251", 5353
IS_RESPONSE = 0x8000  # RFC 1035 section 4.1.1, QR
Packet = dict[str, Any]


def question(name: str) -> bytes:
    """Return a PTR question."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.rstrip(".").split("."))
    return struct.pack("!6H", 0, 0, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 12, 1)


class Link:
    """The program, and what it has seen."""

    def __init__(self, log: Path, prefix: Sequence[str]) -> None:
        self.packets: list[Packet] = []
        self._process = Process(
            [*prefix, sys.executable, "-m", "tests.support.gomicro_link"],
            log,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Link:
        self.ask("ready.invalid.")
        self.wait(lambda packet: "ready" in bytes.fromhex(packet["packet"]).decode("latin-1"))
        self.packets.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._reader.join()
        self._process.stop()  # closes the pipes

    def ask(self, name: str, port: int = 0) -> None:
        """Send a question to the group."""
        stdin = self._process.popen.stdin
        assert stdin is not None
        stdin.write(json.dumps({"name": name, "port": port}).encode() + b"\n")
        stdin.flush()

    def wait(self, condition: Callable[[Packet], object]) -> Packet:
        """Return the first packet that meets a condition."""

        def find() -> Packet | None:
            return next((packet for packet in self.packets if condition(packet)), None)

        found = eventually(find, 20, "a packet")
        assert isinstance(found, dict)
        return found

    def _read(self) -> None:
        stdout = self._process.popen.stdout
        assert stdout is not None
        for line in stdout:
            self.packets.append(json.loads(line))


def is_question(packet: Packet) -> bool:
    """Tell a question from everything else; go-micro's probes carry what they are about."""
    raw = bytes.fromhex(packet["packet"])
    return not is_response(packet) and raw[8:10] == bytes(2)


def is_response(packet: Packet) -> bool:
    """Tell an answer, an announcement or a goodbye from a question or a probe."""
    flags: int = struct.unpack_from("!H", bytes.fromhex(packet["packet"]), 2)[0]
    return bool(flags & IS_RESPONSE)


def _socket(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    sock.bind((host, port))
    return sock


def _ask_from_port(packet: bytes) -> None:
    # Connected, so that it takes nothing away from those that listen on the port.
    with _socket("", PORT) as sock:
        sock.connect((GROUP, PORT))
        sock.send(packet)


def main() -> None:
    # Bound to the group, it hears what is sent there and nothing that is sent to this host alone.
    group, asker = _socket(GROUP, PORT), _socket("", 0)
    for index, _ in socket.if_nameindex():
        member = struct.pack("=4s4si", socket.inet_aton(GROUP), bytes(4), index)
        group.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    sockets = {"group": group, "asker": asker}
    while True:
        readable = select.select([group, asker, sys.stdin], [], [])[0]
        if sys.stdin in readable:
            line = sys.stdin.readline()
            if not line:
                return
            request = json.loads(line)
            if request["port"] == PORT:
                _ask_from_port(question(request["name"]))
            else:
                asker.sendto(question(request["name"]), (GROUP, PORT))
        for to, sock in sockets.items():
            if sock in readable:
                packet, sender = sock.recvfrom(65536)
                seen = {"packet": packet.hex(), "to": to, "from": sender[1], "at": time.time()}
                sys.stdout.write(json.dumps(seen) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
