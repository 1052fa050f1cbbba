"""One connection to one member: calls and streams over HTTP/2. The only module that knows grpclib.

No retry, no failover, no login: those are `cluster`'s. Whatever goes wrong is an `RpcError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from grpclib.client import Channel, Handler
from grpclib.client import Stream as GrpcStream
from grpclib.config import Configuration
from grpclib.const import Cardinality
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol

from svcreg import TLS
from svcreg.errors import ConfigError
from svcreg.model import split_address
from svcreg_etcd.errors import DEADLINE_EXCEEDED, UNAVAILABLE, RpcError

WINDOW = 16 * 1024 * 1024
"""Bytes that the server may send ahead: when a lease with 10,000 keys ends, that is one message."""

LOST = "the connection was lost"

_TLS_HINTS = {
    False: "does it want TLS (https:// or ca)?",
    True: "does it use TLS, and does it want a certificate of ours (cert, key)?",
}

Metadata = dict[str, str]


class Client:
    """One member. To be used on one event loop; connects on first use, and never again once lost.

    Attributes:
        endpoint: `host:port`.
        heard_at: Monotonic time of the last sign of life.
        is_lost: Whether the connection was there and has gone, or was closed.
    """

    def __init__(self, endpoint: str, context: ssl.SSLContext | None) -> None:
        self.endpoint = endpoint
        self.heard_at = time.monotonic()
        self.is_lost = False
        host, port = split_address(endpoint)
        self._is_tls = context is not None
        self._channel = _Channel(
            host,
            port,
            ssl=context,
            codec=ProtoCodec(),
            config=Configuration(
                http2_connection_window_size=WINDOW, http2_stream_window_size=WINDOW
            ),
        )

    async def call(
        self, path: str, request: Any, reply: Any, *, timeout: float, metadata: Metadata
    ) -> Any:
        """Return the member's answer, waiting at most `timeout` seconds.

        Raises:
            RpcError: It refused, or did not answer in time.
        """
        method = self._channel.request(
            path, Cardinality.UNARY_UNARY, type(request), reply, timeout=timeout, metadata=metadata
        )
        with self._translated(f"no answer within {timeout:.3g} s"):
            async with method as stream:
                await stream.send_message(request, end=True)
                answer = await stream.recv_message()
            if answer is None:
                raise RpcError(UNAVAILABLE, "ended without an answer", self.endpoint)
            self.heard_at = time.monotonic()
            return answer

    async def exchange(
        self, path: str, request: Any, reply: Any, *, timeout: float, metadata: Metadata
    ) -> Any:
        """As `call`, for a method that is a stream: send one message, take one, and leave."""
        method = self._channel.request(
            path,
            Cardinality.STREAM_STREAM,
            type(request),
            reply,
            timeout=timeout,
            metadata=metadata,
        )
        with self._translated(f"no answer within {timeout:.3g} s"):
            async with method as stream:
                await stream.send_message(request)
                answer = await stream.recv_message()
                if answer is None:  # the status that ended it says why
                    await stream.recv_trailing_metadata()
                    raise RpcError(UNAVAILABLE, "ended without an answer", self.endpoint)
                self.heard_at = time.monotonic()
                await stream.cancel()
            return answer

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, request: Any, reply: Any, *, timeout: float, metadata: Metadata
    ) -> AsyncIterator[Stream]:
        """Open a stream both ways, within `timeout` seconds, for as long as the block runs.

        Raises:
            RpcError: It could not be opened, or ended.
        """
        method = self._channel.request(
            path, Cardinality.STREAM_STREAM, request, reply, metadata=metadata
        )
        with self._translated(f"no connection within {timeout:.3g} s"):
            async with method as stream:
                async with asyncio.timeout(timeout):
                    await stream.send_request()
                opened = Stream(self, stream)
                try:
                    yield opened
                finally:
                    with contextlib.suppress(Exception):  # it may have ended by itself
                        await stream.cancel()

    def close(self) -> None:
        """Drop the connection at once; what is under way fails with an `RpcError`."""
        self.is_lost = True
        self._channel.abort()

    @contextlib.contextmanager
    def _translated(self, silence: str) -> Iterator[None]:
        task = asyncio.current_task()
        cancellations = task.cancelling() if task else 0
        try:
            yield
        except (RpcError, asyncio.CancelledError):
            raise
        except Exception as error:
            # grpclib wakes a waiting task by cancelling it, and leaves that request counted: a
            # timeout around this task would take it for its own.
            if task is not None and task.cancelling() > cancellations:
                task.uncancel()
            raise self._translate(error, silence) from error

    def _translate(self, error: Exception, silence: str) -> RpcError:
        if isinstance(error, GRPCError):
            self.heard_at = time.monotonic()
            return RpcError(error.status.name, error.message or "no reason given", self.endpoint)
        code, said = DEADLINE_EXCEEDED, silence
        if not isinstance(error, TimeoutError) and self._channel.is_up:
            code, said = UNAVAILABLE, f"the call was cut off: {error}"
        elif not isinstance(error, TimeoutError):
            self.is_lost = True
            code, said = UNAVAILABLE, _describe(self._channel.end_error or error)
            if not self._channel.has_heard and said == LOST:
                said += f" before anything was received; {_TLS_HINTS[self._is_tls]}"
        return RpcError(
            code,
            said,
            self.endpoint,
            was_there=self._channel.has_heard,
            was_sent=self._channel.has_connected,
        )


def _describe(error: BaseException) -> str:
    """Return why a connection failed, as something that can be acted upon."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}; check ca"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS failed: {error.reason}"
    if isinstance(error, socket.gaierror):  # whose numbers are not the system's
        return error.strerror or str(error)
    is_cut = isinstance(error, (BrokenPipeError, ConnectionResetError))
    if isinstance(error, OSError) and error.errno and not is_cut:
        return os.strerror(error.errno)
    return LOST


class Stream:
    """An open stream; one task receives, any task sends."""

    def __init__(self, client: Client, stream: GrpcStream[Any, Any]) -> None:
        self._client = client
        self._stream = stream
        self._sending = asyncio.Lock()  # the frames of two messages must not mix

    async def send(self, message: Any) -> None:
        """Send one message.

        Raises:
            RpcError: The stream has ended.
        """
        with self._client._translated("timed out"):
            async with self._sending:
                await self._stream.send_message(message)

    async def receive(self) -> Any:
        """Return the next message.

        Raises:
            RpcError: The stream has ended; says why.
        """
        with self._client._translated("timed out"):
            message = await self._stream.recv_message()
            if message is None:
                await self._stream.recv_trailing_metadata()  # raises what the status says
                raise RpcError(UNAVAILABLE, "the stream ended", self._client.endpoint)
            self._client.heard_at = time.monotonic()
            return message


class _Protocol(H2Protocol):
    """Keeps hold of the transport, and of why it ended."""

    transport: asyncio.BaseTransport | None = None
    error: BaseException | None = None
    has_heard = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.has_heard = True
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.error = exc
        super().connection_lost(exc)


class _Channel(Channel):
    """Connects once: who comes back to a connection that has gone is told so."""

    _made: _Protocol | None = None
    _is_aborted = False

    @property
    def has_connected(self) -> bool:
        return self._made is not None and self._made.transport is not None

    @property
    def is_up(self) -> bool:
        transport = self._made.transport if self._made is not None else None
        return transport is not None and not transport.is_closing()

    @property
    def has_heard(self) -> bool:
        return self._made is not None and self._made.has_heard

    @property
    def end_error(self) -> BaseException | None:
        return self._made.error if self._made is not None else None

    def abort(self) -> None:
        """Close without waiting for the other side, which may be out of reach."""
        self._is_aborted = True
        self.close()
        transport = self._made.transport if self._made is not None else None
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()

    async def _create_connection(self) -> H2Protocol:
        if self.has_connected:
            raise ConnectionError("the connection was lost")
        protocol = await super()._create_connection()
        if self._is_aborted:  # while it was being made
            self.abort()
            raise ConnectionError("the connection was closed")
        return protocol

    def _protocol_factory(self) -> H2Protocol:
        self._made = _Protocol(Handler(), self._config, self._h2_config)
        return self._made

    def __del__(self) -> None:
        # The base class would close here. A forked child must not: the connection is its parent's.
        pass


def make_context(tls: TLS | None) -> ssl.SSLContext | None:
    """Return what TLS needs, read from its files as they are now; None for plain text.

    Raises:
        ConfigError: A file is missing or holds something else.
    """
    if tls is None:
        return None
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:  # ssl's message does not name the file
        files = ", ".join(filter(None, (tls.ca, tls.cert, tls.key)))
        raise ConfigError(f"etcd: TLS cannot be set up with {files}: {error}") from None
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])  # RFC 9113 section 3.2
    return context
