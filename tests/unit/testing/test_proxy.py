"""The proxy's faults, each with one echo through it; tests/faults has the finer points."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from svcreg.testing.proxy import FaultProxy

PATIENCE = 5.0
QUIET = 0.05  # seconds without an answer that count as silence; an echo takes well under 1 ms


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                self.request.sendall(data)


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = False
    allow_reuse_address = True


@pytest.fixture
def server() -> Iterator[str]:
    with EchoServer(("127.0.0.1", 0), Echo) as echo:
        thread = threading.Thread(target=echo.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{echo.server_address[1]}"
        echo.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: str) -> Iterator[FaultProxy]:
    with FaultProxy(server) as proxy:
        yield proxy


@contextlib.contextmanager
def connected(proxy: FaultProxy) -> Iterator[socket.socket]:
    host, _, port = proxy.address.partition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as client:
        yield client


def answered(client: socket.socket, data: bytes = b"hello") -> bytes:
    """Send, and return what comes back until it is all there or the connection ends."""
    client.sendall(data)
    return received(client, len(data))


def received(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := client.recv(size - len(data))):
        data += part
    return data


def is_silent(client: socket.socket) -> bool:
    client.settimeout(QUIET)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    else:
        return False
    finally:
        client.settimeout(PATIENCE)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_forwards_faithfully_and_counts(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        assert answered(client) == b"hello"
        assert (proxy.accepted, proxy.open_connections) == (1, 1)
        assert (proxy.sent, proxy.received) == (5, 5)
    until(lambda: proxy.open_connections == 0)


def test_end_of_one_direction_is_forwarded(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"bye")
        client.shutdown(socket.SHUT_WR)
        assert received(client, 100) == b"bye"


def test_refuses_new_connections_only_and_heals(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        assert answered(client) == b"hello"
        proxy.refuse()
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError), connected(proxy):
            pass
        assert answered(client) == b"hello"
    address = proxy.address
    proxy.heal()
    assert proxy.address == address
    with connected(proxy) as client:
        assert answered(client) == b"hello"


def test_drops_once_and_resets_for_good(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        assert answered(client) == b"hello"
        proxy.drop()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connected(proxy) as client:
        assert answered(client) == b"hello"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionResetError), connected(proxy) as client:
        client.recv(1)


def test_black_hole_swallows_until_it_heals(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        assert answered(client) == b"hello"
        proxy.black_hole("to-client")
        client.sendall(b"held!")
        assert is_silent(client)
        assert proxy.received == 10
        proxy.black_hole()
        client.sendall(b"back?")
        assert is_silent(client)
        assert proxy.received == 10
        proxy.heal()
        assert received(client, 10) == b"held!back?"


def test_latency_and_rate_take_their_time(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        proxy.latency(0.03)
        started = time.monotonic()
        assert answered(client) == b"hello"
        assert time.monotonic() - started >= 0.06  # each way
        proxy.heal()
        proxy.rate_limit(100_000)
        started = time.monotonic()
        assert len(answered(client, bytes(3000))) == 3000
        assert time.monotonic() - started >= 0.06


def test_truncates_an_answer(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        proxy.truncate(after=3)
        assert answered(client) == b"hel"
        assert client.recv(1) == b""


def test_server_that_is_away_resets_the_client() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nothing answers here
        target = f"127.0.0.1:{closed.getsockname()[1]}"
        with (
            FaultProxy(target) as proxy,
            pytest.raises(ConnectionResetError),  # at once, or when the client reads
            connected(proxy) as client,
        ):
            client.recv(1)


def test_closing_ends_open_connections_and_may_be_repeated(server: str) -> None:
    with FaultProxy(server) as proxy, connected(proxy) as client:
        assert answered(client) == b"hello"
        proxy.cut()
        proxy.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        proxy.close()
