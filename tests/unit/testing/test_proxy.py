"""The fault proxy does what its faults say, and stops doing it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from svcreg.testing.proxy import FaultProxy

QUIET = 0.15  # seconds without an answer that count as silence; an echo takes well under 1 ms


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                self.request.sendall(data)


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = False
    block_on_close = True
    allow_reuse_address = True


@pytest.fixture
def server() -> Iterator[str]:
    with EchoServer(("127.0.0.1", 0), Echo) as echo:
        thread = threading.Thread(target=echo.serve_forever, args=(0.02,))
        thread.start()
        yield f"127.0.0.1:{echo.server_address[1]}"
        echo.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: str) -> Iterator[FaultProxy]:
    with FaultProxy(server) as proxy:
        yield proxy


@contextlib.contextmanager
def connected(proxy: FaultProxy, timeout: float = 5.0) -> Iterator[socket.socket]:
    host, port = proxy.address.split(":")
    with socket.create_connection((host, int(port)), timeout) as client:
        yield client


def read(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := client.recv(size - len(data))):
        data += part
    return data


def echo(client: socket.socket, data: bytes = b"hello") -> bytes:
    client.sendall(data)
    return read(client, len(data))


def assert_silent(client: socket.socket) -> None:
    timeout = client.gettimeout()
    client.settimeout(QUIET)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(timeout)


def test_passes_bytes_both_ways_and_counts_them(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        data = bytes(range(256)) * 1000
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        assert read(client, len(data)) == data
        sender.join()
        assert (proxy.accepted, proxy.open_connections) == (1, 1)
        assert (proxy.sent, proxy.received) == (len(data), len(data))


def test_end_of_stream_is_passed_on(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"bye")
        client.shutdown(socket.SHUT_WR)
        assert read(client, 100) == b"bye"


def test_refuses_new_connections_and_keeps_open_ones(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        assert echo(client) == b"hello"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError), connected(proxy):
            pass
        assert echo(client) == b"hello"
    address = proxy.address
    proxy.heal()
    assert proxy.address == address
    with connected(proxy) as client:
        assert echo(client) == b"hello"


def test_refuses_for_as_long_as_it_is_told(proxy: FaultProxy) -> None:
    for _ in range(5):
        proxy.refuse()
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError), connected(proxy):
            pass
        proxy.heal()
        with connected(proxy) as client:
            assert echo(client) == b"hello"


def test_resets_open_and_new_connections(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        assert echo(client) == b"hello"
        proxy.reset()
        assert proxy.open_connections == 0
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionResetError), connected(proxy) as client:
        client.recv(1)
    proxy.heal()
    with connected(proxy) as client:
        assert echo(client) == b"hello"


def test_drops_connections_once(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        assert echo(client) == b"hello"
        proxy.drop()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connected(proxy) as client:
        assert echo(client) == b"hello"


def test_cut_resets_and_refuses(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        assert echo(client) == b"hello"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError), connected(proxy):
        pass


def test_black_hole_keeps_connections_open_and_delivers_after_healing(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        assert echo(client) == b"hello"
        proxy.black_hole()
        client.sendall(b"lost?")
        assert_silent(client)
        with connected(proxy) as other:
            other.sendall(b"new")
            assert_silent(other)
            proxy.heal()
            assert read(other, 3) == b"new"
        assert read(client, 5) == b"lost?"


def test_black_hole_may_swallow_one_direction_only(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        proxy.black_hole("to-client")
        client.sendall(b"heard")
        assert_silent(client)
        assert (proxy.sent, proxy.received) == (5, 5)  # the server heard it, and answered
        proxy.heal()
        assert read(client, 5) == b"heard"
        proxy.black_hole("to-server")
        client.sendall(b"unheard")
        assert_silent(client)
        assert proxy.received == 5


def test_latency_delays_each_way(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        proxy.latency(0.1)
        started = time.monotonic()
        assert echo(client) == b"hello"
        assert 0.2 <= time.monotonic() - started < 2
        proxy.heal()
        started = time.monotonic()
        assert echo(client) == b"hello"
        assert time.monotonic() - started < 0.1


def test_truncates_an_answer_and_closes(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        proxy.truncate(after=3)
        client.sendall(b"hello")
        assert read(client, 5) == b"hel"
        assert client.recv(1) == b""
    with connected(proxy) as client:
        client.sendall(b"hello")
        assert read(client, 5) == b""
    proxy.heal()
    with connected(proxy) as client:
        assert echo(client) == b"hello"


def test_rate_is_limited(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        proxy.rate_limit(100_000)
        started = time.monotonic()
        assert len(echo(client, bytes(20_000))) == 20_000
        assert 0.2 <= time.monotonic() - started < 3


def test_closes_everything_when_it_ends(server: str) -> None:
    with FaultProxy(server) as proxy, connected(proxy) as client:
        assert echo(client) == b"hello"
        proxy.black_hole()
        proxy.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        proxy.close()
    with pytest.raises(ConnectionRefusedError), connected(proxy):
        pass


def test_unreachable_server_resets_the_client() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nothing answers here
        with (
            FaultProxy(f"127.0.0.1:{closed.getsockname()[1]}") as proxy,
            pytest.raises(ConnectionResetError),
            connected(proxy) as client,
        ):
            client.recv(1)


def test_closing_ends_open_connections_and_may_be_repeated(server: str) -> None:
    with FaultProxy(server) as proxy, connected(proxy) as client:
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
        proxy.cut()
        proxy.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        proxy.close()


def test_serves_a_test_that_runs_on_a_loop(server: str) -> None:
    async def scenario(proxy: FaultProxy) -> None:
        host, port = proxy.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        proxy.black_hole()
        writer.write(b"hello")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), QUIET)
        proxy.heal()
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        await writer.wait_closed()

    with FaultProxy(server) as proxy:
        asyncio.run(scenario(proxy))


def test_half_open_keeps_open_connections_silent_for_good_and_serves_new_ones(
    proxy: FaultProxy,
) -> None:
    with connected(proxy) as old:
        old.sendall(b"before")
        assert read(old, 6) == b"before"
        proxy.half_open()
        old.sendall(b"lost")
        with connected(proxy) as new:
            new.sendall(b"new")
            assert read(new, 3) == b"new"
        proxy.heal()
        old.settimeout(QUIET)
        with pytest.raises(TimeoutError):
            old.recv(1)
        assert proxy.open_connections >= 1


def test_flood_stands_in_place_of_answers_and_ends(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        proxy.flood(100_000)
        client.sendall(b"request")
        assert read(client, 200_000) == b"x" * 100_000
    proxy.heal()
    with connected(proxy) as client:
        client.sendall(b"request")
        assert read(client, 7) == b"request"


def test_nobody_is_back_while_the_proxy_cuts(proxy: FaultProxy) -> None:
    """A client that connects again at once meets a server that has died."""
    outcomes: list[type[BaseException] | None] = []

    def come_back(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client.recv(1)
        try:
            with connected(proxy) as again:
                again.sendall(b"x")
                read(again, 1)
            outcomes.append(None)
        except OSError as error:
            outcomes.append(type(error))

    for _ in range(20):
        with connected(proxy) as client:
            client.sendall(b"x")
            read(client, 1)
            thread = threading.Thread(target=come_back, args=(client,))
            thread.start()
            proxy.cut()
            thread.join()
        proxy.heal()
    assert set(outcomes) == {ConnectionRefusedError}
