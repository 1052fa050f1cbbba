"""Checks that gate a registration: a node is listed while its check passes, and only then.

A check is any callable without arguments, `def` or `async def`. It passes by returning something
true, or None, and fails by returning anything else or by raising. A `def` runs on a thread of its
own and may block. The makers here look at a server as a client would.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from svcreg.engine.loop import start_thread
from svcreg.errors import ConfigError
from svcreg.model import split_address

CHECK_TIMEOUT = 2.0
"""Seconds that one check may take before it counts as failed."""

Check = Callable[[], object]


def tcp(address: str, *, timeout: float = CHECK_TIMEOUT) -> Check:
    """Return a check that passes when `host:port` accepts a connection within `timeout` seconds."""
    host, port = _host_port(address)

    async def check() -> bool:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
        return True

    return check


def http(url: str, *, timeout: float = CHECK_TIMEOUT) -> Check:
    """Return a check that passes when a GET of `url` answers 2xx within `timeout` seconds.

    Redirects are followed; proxies that the environment names are not used.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(f"an HTTP check needs an http:// or https:// URL, not {url!r}")
    import urllib.error
    import urllib.request  # takes 30 ms, which programs without such a check need not pay

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def check() -> bool:
        try:
            with opener.open(url, timeout=timeout) as response:
                return bool(200 <= response.status < 300)
        except urllib.error.HTTPError as error:
            error.close()  # or its connection stays open for as long as somebody holds the error
            raise

    return check


def grpc(address: str, *, service: str = "", timeout: float = CHECK_TIMEOUT) -> Check:
    """Return a check that asks the gRPC health service about `service` (empty: the whole server).

    Without TLS. Needs the package grpcio, which is imported here.

    Raises:
        ConfigError: grpcio is not installed.
    """
    _host_port(address)
    try:
        from grpc import aio
    except ImportError:
        raise ConfigError("a gRPC check needs grpcio: pip install grpcio") from None
    name = service.encode()
    # grpc.health.v1.HealthCheckRequest: field 1, length-delimited; the length fits one byte
    # below 128, which no real service name exceeds.
    if len(name) > 127:
        raise ConfigError(f"gRPC service name {service[:20]!r}... is longer than 127 bytes")
    request = b"\x0a" + bytes([len(name)]) + name if name else b""

    async def check() -> bool:
        async with aio.insecure_channel(address) as channel:
            ask: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
            answer: bytes = await ask(request, timeout=timeout)
        return answer.startswith(b"\x08\x01")  # HealthCheckResponse: field 1 is 1, SERVING

    return check


def parse(text: str) -> Check:
    """Return the check that a text names, as the command line takes it.

    Args:
        text: `tcp:HOST:PORT`, an `http://` or `https://` URL, or `grpc:HOST:PORT[/SERVICE]`.

    Raises:
        ConfigError: It is none of these.
    """
    kind, _, target = text.partition(":")
    target = target.removeprefix("//")
    if kind in ("http", "https") and urlsplit(text).hostname:
        return http(text)
    address, _, service = target.partition("/")
    host, port = split_address(address)
    if kind not in ("tcp", "grpc") or not host or not port or (kind == "tcp" and service):
        raise ConfigError(
            f"check {text!r} is none of tcp:HOST:PORT, http://..., https://... and "
            "grpc:HOST:PORT[/SERVICE]"
        )
    return tcp(address) if kind == "tcp" else grpc(address, service=service)


def as_check(check: Check, timeout: float) -> Callable[[], Awaitable[bool]]:
    """Return a check in the form that the engine runs: awaited, bounded to `timeout` seconds."""
    if not callable(check):
        raise ConfigError(
            f"a check is a callable without arguments, not {type(check).__name__} (svcreg.health)"
        )
    is_async = any(map(inspect.iscoroutinefunction, (check, type(check).__call__)))

    async def run() -> bool:
        async with asyncio.timeout(timeout):
            result = check() if is_async else await start_thread(check)
            # A def, such as a lambda around an async def, may give something to await, too.
            outcome = await result if inspect.isawaitable(result) else result
        return outcome is None or bool(outcome)

    return run


def _host_port(address: str) -> tuple[str, int]:
    host, port = split_address(address)
    if not host or not 1 <= port <= 65535:
        raise ConfigError(f"a check needs host:port, not {address!r}")
    return host, port
