"""One node of `svcreg demo`: a program that greets over TCP and registers itself.

It is run as `python -m svcreg.cli.demo_node SERVICE NODE TTL PHRASE`, with the registry in the
environment like any program that uses svcreg. It ends when its standard input closes, so it
cannot outlive the demo, however that ends.
"""

from __future__ import annotations

import os
import signal
import socketserver
import sys
import threading
from datetime import datetime

import svcreg
from svcreg import Node, Service

HOST = "127.0.0.1"  # the demo stays on this machine


class Greeter(socketserver.ThreadingTCPServer):
    """Answers one line, a name, with one line: its node id, a greeting, its process id."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, node_id: str, phrase: str) -> None:
        super().__init__((HOST, 0), _Greeting)  # port 0: whichever is free
        self.node_id = node_id
        self.phrase = phrase


class _Greeting(socketserver.StreamRequestHandler):
    timeout = 5.0  # seconds for a client to say its name

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, Greeter)  # noqa: S101 - tells the type checker
        name = self.rfile.readline(200).decode(errors="replace").strip()
        now = datetime.now().astimezone().strftime("%H:%M:%S")
        text = server.phrase.format(name=name, time=now)
        self.wfile.write(f"{server.node_id}\t{text}\t{os.getpid()}\n".encode())


def main(service: str, node_id: str, ttl: str, phrase: str) -> None:
    """Serve and stay registered until standard input closes, then say goodbye."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the demo, which then ends us
    with Greeter(node_id, phrase) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        node = Node(node_id, f"{HOST}:{server.server_address[1]}")
        with (
            svcreg.open() as registry,
            registry.register(Service(service, "1.0.0", nodes=(node,)), ttl=float(ttl)),
        ):
            sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
