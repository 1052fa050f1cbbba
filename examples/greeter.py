"""A service and its client, in blocking code; they meet in whatever registry MICRO_REGISTRY names.

    python examples/greeter.py              serve and call, in one process
    python examples/greeter.py serve        serve until interrupted, and in another terminal:
    python examples/greeter.py call Ada     find the service and call it

With MICRO_REGISTRY=sqlite, =mdns or unset (mdns) the two may be two processes; with =memory they
are one. Nothing in this file knows which it is.
"""

from __future__ import annotations

import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote

import svcreg
from svcreg import Node, Service

NAME = "greeter-example"


class Greeter(BaseHTTPRequestHandler):
    """Answers `GET /Ada` with `Hello Ada!`."""

    def do_GET(self) -> None:
        """Greet whoever the path names."""
        body = f"Hello {unquote(self.path[1:])}!\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Leave the terminal to what the example has to say."""


@contextmanager
def serving(registry: svcreg.Registry) -> Iterator[Node]:
    """Serve on a free port, registered for exactly as long as the server listens."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Greeter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        node = Node(f"{NAME}-{port}", f"127.0.0.1:{port}", metadata={"protocol": "http"})
        with registry.register(Service(NAME, version="1.0.0", nodes=[node]), ttl=30):
            try:
                yield node
            finally:
                server.shutdown()


def call(registry: svcreg.Registry, who: str) -> str:
    """Ask one of the nodes, whichever the registry names, for a greeting."""
    node = registry.select(NAME)
    with urllib.request.urlopen(f"http://{node.address}/{quote(who)}", timeout=5) as answer:
        return f"{node.id}: {answer.read().decode().strip()}"


def main(role: str = "both", who: str = "World") -> None:
    with svcreg.open() as registry:
        if role == "call":
            print(call(registry, who))
            return
        with serving(registry) as node:
            print(f"serving at {node.address}, registered as {node.id}", flush=True)
            if role == "both":
                print(call(registry, who))
                return
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                print("withdrawing and ending")


if __name__ == "__main__":
    main(*sys.argv[1:])
