"""Checks look at a server as a client would, and are bounded in time."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import inspect
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from svcreg import ConfigError, health

LIMIT = 5.0


def passes(check: health.Check, timeout: float = LIMIT) -> bool:
    """Run a check as the engine does; one that raises has failed."""

    async def run() -> bool:
        try:
            return await health.as_check(check, timeout)()
        except Exception:
            return False

    return asyncio.run(run())


def error_of(check: health.Check, timeout: float = LIMIT) -> BaseException:
    with pytest.raises(Exception) as caught:
        asyncio.run(as_coroutine(check, timeout))
    return caught.value


async def as_coroutine(check: health.Check, timeout: float) -> bool:
    return await health.as_check(check, timeout)()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        yield server


def address_of(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


# Any callable.


@pytest.mark.parametrize(
    ("answer", "expected"), [(True, True), (None, True), (1, True), (False, False), (0, False)]
)
def test_check_passes_by_something_true_or_none(answer: object, expected: bool) -> None:
    async def check() -> object:
        return answer

    assert passes(lambda: answer) == expected
    assert passes(check) == expected
    assert passes(lambda: check()) == expected  # a def that gives an awaitable


class Checker:
    async def __call__(self) -> bool:
        return True

    def ask(self) -> bool:
        return True


def test_check_may_be_an_object_or_a_method() -> None:
    assert passes(Checker())
    assert passes(Checker().ask)


def test_error_of_a_check_comes_out_of_it() -> None:
    assert isinstance(error_of(lambda: 1 // 0), ZeroDivisionError)


def test_def_check_may_block_and_runs_on_a_thread_of_its_own() -> None:
    threads = []
    assert passes(lambda: threads.append(threading.current_thread()))
    assert threads != [threading.current_thread()]


def test_check_that_hangs_fails_after_the_timeout() -> None:
    release = threading.Event()
    started = time.monotonic()
    assert isinstance(error_of(lambda: release.wait(20), 0.05), TimeoutError)
    assert isinstance(error_of(lambda: asyncio.sleep(20), 0.05), TimeoutError)
    assert time.monotonic() - started < LIMIT
    release.set()


def test_what_cannot_be_called_is_no_check() -> None:
    with pytest.raises(ConfigError, match="a callable without arguments, not str"):
        health.as_check("tcp:127.0.0.1:80", LIMIT)  # type: ignore[arg-type] # that is the point


# TCP.


def test_tcp_passes_when_a_connection_is_accepted(listener: socket.socket) -> None:
    check = health.tcp(address_of(listener))
    assert not passes(check)  # bound, and not listening yet
    listener.listen()
    assert passes(check)
    with contextlib.closing(listener.accept()[0]) as connection:
        connection.settimeout(LIMIT)
        assert connection.recv(1) == b""  # the connection is not left open


def test_tcp_takes_an_ipv6_address() -> None:
    with socket.socket(socket.AF_INET6) as server:
        try:
            server.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
        server.listen()
        assert passes(health.tcp(f"[::1]:{server.getsockname()[1]}"))


@pytest.mark.parametrize("address", ["", "localhost", ":80", "localhost:0", "h:99999", "h:http"])
def test_address_of_a_check_is_host_and_port(address: str) -> None:
    for make in (health.tcp, health.grpc):
        with pytest.raises(ConfigError, match="a check needs host:port"):
            make(address)


# HTTP.


class Answering(http.server.BaseHTTPRequestHandler):
    status: ClassVar[int] = 200
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/health")
        else:
            self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[tuple[str, type[Answering]]]:
    """Serve HTTP on loopback; what it answers is set on the class."""

    class Handler(Answering):
        asked: ClassVar[list[str]] = []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", Handler
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "expected"), [(200, True), (204, True), (404, False), (500, False), (503, False)]
)
def test_http_passes_when_the_answer_is_2xx(
    web: tuple[str, type[Answering]], status: int, expected: bool
) -> None:
    url, handler = web
    handler.status = status
    assert passes(health.http(f"{url}/health?deep=1")) == expected
    assert handler.asked == ["/health?deep=1"]


def test_http_follows_redirects(web: tuple[str, type[Answering]]) -> None:
    url, handler = web
    assert passes(health.http(f"{url}/moved"))
    assert handler.asked == ["/moved", "/health"]


def test_http_asks_the_server_itself_whatever_proxy_the_environment_names(
    web: tuple[str, type[Answering]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert passes(health.http(web[0]))


def test_http_fails_when_nobody_answers_in_time(listener: socket.socket) -> None:
    listener.listen()
    started = time.monotonic()
    assert not passes(health.http(f"http://{address_of(listener)}", timeout=0.05))
    assert time.monotonic() - started < LIMIT


@pytest.mark.parametrize("url", ["localhost:80", "ftp://h/", "file:///etc/hostname", ""])
def test_http_takes_web_addresses_only(url: str) -> None:
    with pytest.raises(ConfigError, match="needs an http:// or https:// URL"):
        health.http(url)


# gRPC.

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"  # HealthCheckResponse.status


@pytest.fixture
def grpc_server() -> Iterator[tuple[str, dict[bytes, bytes]]]:
    """Serve grpc.health.v1 on loopback: an answer for each request, else NOT_FOUND."""
    grpc = pytest.importorskip("grpc", reason="pip install grpcio")
    answers: dict[bytes, bytes] = {}

    def check(request: bytes, context: Any) -> bytes:
        if request not in answers:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return answers[request]

    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        methods = {"Check": grpc.unary_unary_rpc_method_handler(check)}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("grpc.health.v1.Health", methods),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}", answers
        server.stop(None).wait(LIMIT)


def test_grpc_passes_when_the_server_says_serving(
    grpc_server: tuple[str, dict[bytes, bytes]],
) -> None:
    address, answers = grpc_server
    answers[b""] = SERVING
    answers[b"\x0a\x07greeter"] = NOT_SERVING
    assert passes(health.grpc(address))
    assert not passes(health.grpc(address, service="greeter"))
    assert not passes(health.grpc(address, service="unknown"))
    answers[b"\x0a\x07greeter"] = SERVING
    assert passes(health.grpc(address, service="greeter"))


def test_grpc_fails_when_nobody_listens(listener: socket.socket) -> None:
    pytest.importorskip("grpc", reason="pip install grpcio")
    assert not passes(health.grpc(address_of(listener), timeout=0.5))


def test_grpc_service_name_fits_its_one_byte_of_length() -> None:
    pytest.importorskip("grpc", reason="pip install grpcio")
    health.grpc("127.0.0.1:80", service="g" * 127)
    with pytest.raises(ConfigError, match="longer than 127 bytes"):
        health.grpc("127.0.0.1:80", service="g" * 126 + "ü")


def test_grpc_without_grpcio_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ConfigError, match="pip install grpcio"):
        health.grpc("127.0.0.1:80")


# As text, for the command line.


def test_text_names_each_kind_of_check(
    listener: socket.socket, web: tuple[str, type[Answering]]
) -> None:
    listener.listen()
    assert passes(health.parse(f"tcp:{address_of(listener)}"))
    assert passes(health.parse(web[0]))


def test_text_names_a_grpc_check(grpc_server: tuple[str, dict[bytes, bytes]]) -> None:
    address, answers = grpc_server
    answers[b""] = SERVING
    assert passes(health.parse(f"grpc:{address}"))


@pytest.mark.parametrize(
    "text",
    [
        *("", "ping", "ping:h:1", "tcp", "tcp:", "tcp:h", "tcp::80", "tcp:h:80/service"),
        *("grpc:h", "http", "http:", "http://", "http:h:80", "https:///path", "ftp://h"),
    ],
)
def test_text_that_is_no_check_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{text!r} is none of tcp:HOST:PORT")):
        health.parse(text)


@pytest.mark.parametrize(
    ("text", "maker", "target"),
    [
        ("tcp:h:80", "tcp", {"address": "h:80"}),
        ("tcp://h:80", "tcp", {"address": "h:80"}),
        ("tcp:[::1]:80", "tcp", {"address": "[::1]:80"}),
        ("http://h:80/health?a=b", "http", {"url": "http://h:80/health?a=b"}),
        ("https://h", "http", {"url": "https://h"}),
        ("grpc:h:80", "grpc", {"address": "h:80", "service": ""}),
        ("grpc://h:80/greeter.v1/x", "grpc", {"address": "h:80", "service": "greeter.v1/x"}),
    ],
)
def test_check_is_made_of_what_the_text_names(
    monkeypatch: pytest.MonkeyPatch, text: str, maker: str, target: dict[str, str]
) -> None:
    made = []
    signature = inspect.signature(getattr(health, maker))

    def make(*args: Any, **kwargs: Any) -> health.Check:
        made.append(signature.bind(*args, **kwargs).arguments)
        return lambda: True

    monkeypatch.setattr(health, maker, make)
    assert health.parse(text)()
    assert made == [target]


def test_check_of_a_web_server_is_a_real_one() -> None:
    assert not asyncio.iscoroutinefunction(health.parse("http://h:80"))
    assert asyncio.iscoroutinefunction(health.parse("tcp:h:80"))
