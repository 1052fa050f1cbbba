"""Whole round trips: find a node of the other side, and call it in the protocol that it names."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest

import svcreg
from svcreg import Node, Service
from svcreg.selection import protocol
from tests.interop.conftest import World, on
from tests.support.consul import Agent, unique
from tests.support.gomicro import GoMicro, Peer
from tests.support.servers import eventually

TTL = 5.0  # seconds


def serve(go: Peer, name: str, protocol: str) -> object:
    """Have go-micro serve its endpoints; returns the address."""
    return go.call(
        "serve", name=name, id="1", version="2.0", protocol=protocol, ttl=TTL, interval=TTL / 3
    )


def ask(go: Peer, name: str, endpoint: str, protocol: str) -> object:
    """Have go-micro find a service and call it."""
    return go.call("request", name=name, endpoint=endpoint, protocol=protocol, text="Ada")


def call_mucp(node: Node, service: str, endpoint: str, body: object) -> Any:
    """Call an endpoint as a client of go-micro does: a POST, all the rest of it in headers."""
    connection = http.client.HTTPConnection(node.address, timeout=5)
    headers = {
        "Content-Type": "application/json",
        "Micro-Id": "1",
        "Micro-Service": service,
        "Micro-Endpoint": endpoint,
    }
    with contextlib.closing(connection):
        connection.request("POST", "/", json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
    assert answer.status == 200
    assert "Micro-Error" not in answer.headers, answer.headers["Micro-Error"]
    return json.loads(text)


@on("etcd", "consul")
def test_python_calls_a_server_of_go_micro(world: World) -> None:
    name = unique("greeter")
    address = serve(world.go, name, "mucp")
    with svcreg.open(world.registry, address=world.address) as registry:
        node = registry.select(name, filters=[protocol("mucp")])
        assert (node.id, node.address) == (f"{name}-1", address)
        hello = call_mucp(node, name, "Greeter.Hello", {"name": "Ada"})
        assert hello == {"greeting": "Hello Ada"}
        assert call_mucp(node, name, "Debug.Health", {}) == {"status": "ok"}
        (service,) = registry.get(name)
        (endpoint,) = service.endpoints  # Debug is internal
        assert endpoint.name == "Greeter.Hello"
        assert endpoint.request is not None
        assert [value.name for value in endpoint.request.values] == ["name"]
        world.go.call("stop", name=name)
        eventually(lambda: registry.get(name) == ())


@on("etcd", "consul")
def test_client_of_go_micro_calls_a_python_server(world: World) -> None:
    name = unique("greeter")

    def hello(headers: Message[str, str], body: Any) -> object:
        assert headers["Micro-Service"] == name
        return {"greeting": f"{headers['Micro-Endpoint']} of Python: {body['name']}"}

    with (
        mucp_server(hello) as address,
        svcreg.open(world.registry, address=world.address) as registry,
    ):
        node = Node(f"{name}-1", address, {"protocol": "mucp"})
        with registry.register(Service(name, "1.0", nodes=(node,)), ttl=TTL):
            said = ask(world.go, name, "Greeter.Hello", "mucp")
    assert said == "Greeter.Hello of Python: Ada"


@contextlib.contextmanager
def mucp_server(answer: Callable[[Message[str, str], Any], object]) -> Iterator[str]:
    """Serve go-micro's protocol over HTTP; give the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            text = json.dumps(answer(self.headers, json.loads(body))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.send_header("Connection", "close")  # go-micro would keep it for the next call
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


# Messages of go-micro's Debug.Health: field 1 is a text.


def encode(text: str) -> bytes:
    return bytes([1 << 3 | 2, len(text)]) + text.encode() if text else b""


def decode(message: bytes) -> str:
    assert not message or (message[0], message[1]) == (1 << 3 | 2, len(message) - 2)
    return message[2:].decode()


@contextlib.contextmanager
def grpc_server(service: str) -> Iterator[str]:
    """Serve go-micro's Debug.Health; give the address."""
    health = grpc.unary_unary_rpc_method_handler(
        lambda text, _: f"well, {text}", request_deserializer=decode, response_serializer=encode
    )
    handler = grpc.method_handlers_generic_handler(f"{service}.Debug", {"Health": health})
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads, handlers=[handler])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.fixture
def go_grpc(consul: Agent, tmp_path: Path) -> Iterator[GoMicro]:
    """go-micro's program that has its gRPC packages, which cannot speak to etcd."""
    with GoMicro(tmp_path / "go.log", "consul", consul.address, grpc=True) as go:
        yield go


@pytest.mark.server("consul")
@pytest.mark.xdist_group("interop-consul")
def test_python_calls_a_grpc_server_of_go_micro(consul: Agent, go_grpc: GoMicro) -> None:
    name = unique("greeter")
    address = serve(go_grpc, name, "grpc")
    with svcreg.open("consul", address=consul.address) as registry:
        node = registry.select(name, filters=[protocol("grpc")])
    assert (node.id, node.address) == (f"{name}-1", address)
    with grpc.insecure_channel(node.address) as channel:
        health = channel.unary_unary("/debug.Debug/Health", encode, decode)
        assert health("", timeout=5) == "ok"


@pytest.mark.server("consul")
@pytest.mark.xdist_group("interop-consul")
def test_grpc_client_of_go_micro_calls_a_python_server(consul: Agent, go_grpc: GoMicro) -> None:
    name = unique("greeter")
    with grpc_server(name) as address, svcreg.open("consul", address=consul.address) as registry:
        node = Node(f"{name}-1", address, {"protocol": "grpc"})
        with registry.register(Service(name, "1.0", nodes=(node,)), ttl=TTL):
            assert ask(go_grpc, name, "Debug.Health", "grpc") == "well, Ada"
