"""HTTP to one of several agents: connections, credentials, deadlines and failover.

Everything runs on the registry's event loop and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
import weakref
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import aiohttp
import yarl
from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver

from svcreg.errors import ConfigError, RegistryError, RegistryTimeoutError, RegistryUnavailableError
from svcreg_consul.calls import Call
from svcreg_consul.credentials import Certificates, Token
from svcreg_consul.options import Address, Settings

PROBE_SECONDS = 1.0
"""How long after an agent could not be reached it is asked whether it is back; doubles up to ..."""

MAX_PROBE_SECONDS = 16.0
"""... this, so one that is back gets its turn again within so long."""

SLOW_SECONDS = 0.5
"""An agent that has kept a caller waiting so long, until he gave up, is tried last."""

IDLE_SECONDS = 60.0
"""How long an unused connection is kept; renewals come every 30 s by default."""

KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds, seconds and probes: a machine that has vanished is noticed within half a minute."""

GOODBYE_TURNS = 10
"""Turns of the loop that closing waits for sockets to be closed; each takes one or two."""

TRUSTED_BODY = 300
"""Characters of an answer that an error message repeats."""

_TROUBLE = ("no cluster leader", "no known consul servers", "rpc error", "leadership lost")
"""What an agent says, in lower case, when it is up but cut off from its servers."""


class Answer(NamedTuple):
    """What an agent answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    address: Address

    @property
    def text(self) -> str:
        """The beginning of the body, for messages."""
        return self.body[:TRUSTED_BODY].decode("utf-8", "replace").strip()

    @property
    def is_cut_off(self) -> bool:
        """Whether the agent cannot reach its servers, or they have no leader."""
        return self.status >= 500 and any(word in self.text.lower() for word in _TROUBLE)


class Transport:
    """Sends requests to the first agent that can be reached, in the order of the settings.

    Attributes:
        token: Where the token comes from.
    """

    def __init__(self, settings: Settings) -> None:
        self.token = Token(settings.token, settings.token_file)
        self._settings = settings
        self._certificates = Certificates(settings.tls) if settings.tls is not None else None
        self._agents = [_Agent(address) for address in settings.addresses]
        self._probes: dict[Address, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Close every connection."""
        for probe in self._probes.values():
            probe.cancel()
        await asyncio.gather(*self._probes.values(), return_exceptions=True)
        for agent in self._agents:
            await agent.close()

    def is_down(self, address: Address) -> bool:
        """Tell whether an agent could not be reached the last time."""
        return any(agent.is_down for agent in self._agents if agent.address == address)

    async def send(
        self,
        call: Call,
        method: str,
        path: str,
        params: Sequence[tuple[str, str]] = (),
        data: str | bytes | None = None,
        *,
        wait: float | None = None,
        only: Address | None = None,
    ) -> Answer:
        """Return what the first agent that can be reached answers, whatever its status.

        Args:
            call: What this is for.
            method: `GET` or `PUT`.
            path: Begins with a slash; is quoted here.
            params: The query.
            data: The body.
            wait: Seconds that the server may hold a blocking query.
            only: Ask this agent and no other.

        Raises:
            RegistryTimeoutError: No agent answered in time.
            RegistryUnavailableError: No agent can be reached.
            ConfigError: Token or certificates cannot be read.
        """
        agents = [agent for agent in self._agents if only in (None, agent.address)]
        is_poll = wait is not None and len(agents) > 1
        agents.sort(key=lambda agent: agent.is_down)  # stable: in the order given
        # Consul adds up to a sixteenth to the wait, at random:
        # https://developer.hashicorp.com/consul/api-docs/features/blocking
        limit = self._settings.timeout / len(agents) + (wait * 17 / 16 if wait else 0.0)
        failure: RegistryError | None = None
        cut_off: Answer | None = None
        for agent in agents:
            started = time.monotonic()
            try:
                asking = self._ask(agent, method, path, params, data, limit)
                answer = await (agent.until_down(asking) if is_poll else asking)
            except (TimeoutError, OSError, aiohttp.ClientError) as error:
                self._note_failure(agent)
                failure = _failure(call, agent.address, error, limit)
            except asyncio.CancelledError:
                # The caller's patience ended before ours: the next call is to try another agent.
                if wait is None and time.monotonic() - started > SLOW_SECONDS:
                    self._note_failure(agent)
                raise
            else:
                if not answer.is_cut_off:
                    agent.note_success()
                    return answer
                cut_off = cut_off or answer
        if cut_off is not None:
            return cut_off
        assert failure is not None  # noqa: S101 - there is at least one agent
        raise failure

    def _note_failure(self, agent: _Agent) -> None:
        """Try an agent last until it has answered a probe; a single one is tried all the same."""
        if len(self._agents) > 1 and not agent.is_down:
            agent.note_failure()
            self._probes[agent.address] = asyncio.create_task(self._probe(agent))

    async def _probe(self, agent: _Agent) -> None:
        """Ask an agent that is down, off everybody's way, until it answers."""
        delay = PROBE_SECONDS
        while agent.is_down:
            await asyncio.sleep(delay)
            delay = min(delay * 2, MAX_PROBE_SECONDS)
            with contextlib.suppress(TimeoutError, OSError, aiohttp.ClientError, ConfigError):
                answer = await self._ask(
                    agent, "GET", "/v1/status/leader", (), None, self._settings.timeout
                )
                if answer.status < 500 and answer.body.strip(b'" \n'):
                    agent.note_success()

    async def _ask(
        self,
        agent: _Agent,
        method: str,
        path: str,
        params: Sequence[tuple[str, str]],
        data: str | bytes | None,
        limit: float,
    ) -> Answer:
        url = agent.address.base_url + quote(path, safe="/:~@+")
        if params:
            url += "?" + urlencode(params)
        headers = {"Accept-Encoding": "identity"}
        if token := self.token.read():
            headers["X-Consul-Token"] = token
        if self._settings.user:
            headers["Authorization"] = aiohttp.BasicAuth(*self._settings.user).encode()
        async with (
            agent.session(self._certificates) as session,
            session.request(
                method,
                yarl.URL(url, encoded=True),
                headers=headers,
                data=data,
                timeout=aiohttp.ClientTimeout(total=limit, sock_connect=self._settings.timeout),
                allow_redirects=False,  # the token goes where it was meant to go
            ) as response,
        ):
            return Answer(response.status, response.headers, await response.read(), agent.address)


class _Agent:
    """One agent: its connections, and whether others are to be tried before it (`is_down`)."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.is_down = False
        self._pool: _Pool | None = None
        self._polls: set[asyncio.Task[Answer]] = set()

    def note_failure(self) -> None:
        """Have it tried last, and end what still waits for it: others may answer."""
        self.is_down = True
        for poll in self._polls:
            poll.cancel()

    def note_success(self) -> None:
        """Have it tried in its turn again."""
        self.is_down = False

    async def until_down(self, asking: Coroutine[Any, Any, Answer]) -> Answer:
        """Return the answer to a long poll, unless another request finds the agent dead first.

        Raises:
            ConnectionError: It did.
        """
        poll = asyncio.create_task(asking)
        self._polls.add(poll)
        try:
            await asyncio.wait({poll})
            if poll.cancelled():
                raise ConnectionError("another request got no answer from it")
            return poll.result()
        finally:
            self._polls.discard(poll)
            poll.cancel()

    @contextlib.asynccontextmanager
    async def session(
        self, certificates: Certificates | None
    ) -> AsyncIterator[aiohttp.ClientSession]:
        """Lend connections that were made with the certificates of now."""
        context = None
        if certificates is not None and self.address.socket_path is None:
            context = certificates.context()
        generation = certificates.generation if certificates is not None else 0
        if self._pool is None or self._pool.generation != generation:
            outdated, self._pool = self._pool, _Pool(self.address, context, generation)
            if outdated is not None:
                await outdated.retire()
        pool = self._pool
        pool.users += 1
        try:
            yield pool.session
        finally:
            pool.users -= 1
            if pool.is_retired and not pool.users:
                await pool.close()

    async def close(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()


class _Pool:
    """Connections to one agent with one set of certificates."""

    def __init__(self, address: Address, context: Any, generation: int) -> None:
        self.generation = generation
        self.users = 0
        self.is_retired = False
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        connector: aiohttp.BaseConnector
        if address.socket_path is not None:
            connector = aiohttp.UnixConnector(
                address.socket_path, limit=0, keepalive_timeout=IDLE_SECONDS
            )
        else:
            connector = aiohttp.TCPConnector(
                ssl=context if context is not None else True,
                limit=0,  # who asks bounds what is under way
                keepalive_timeout=IDLE_SECONDS,
                resolver=_Resolver(),
                socket_factory=self._make_socket,
            )
        self.session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=_Response,
        )

    async def retire(self) -> None:
        """Close once nobody uses it."""
        self.is_retired = True
        if not self.users:
            await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self.session.close()
        for _ in range(GOODBYE_TURNS):
            if not any(one.fileno() >= 0 for one in self._sockets):
                break
            await asyncio.sleep(0)

    def _make_socket(self, info: Any) -> socket.socket:
        family, kind, protocol, _, _ = info
        made = socket.socket(family, kind, protocol)
        self._sockets.add(made)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return made


class _Response(aiohttp.ClientResponse):
    """Drops the connection of a request that is given up while its answer is awaited.

    Over TLS it would otherwise stay for up to 30 s, waiting for the agent's goodbye, which does not
    come before the long poll ends.
    """

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        try:
            return await super().start(connection)
        except BaseException:
            if connection.transport is not None:
                connection.transport.abort()
            raise


class _Resolver(ThreadedResolver):
    """Resolves on this very thread while the interpreter exits, when no other can be started."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            return await super().resolve(host, port, family)
        except RuntimeError:
            found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
            return [
                ResolveResult(
                    hostname=host,
                    host=str(address[0]),
                    port=int(address[1]),
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST,
                )
                for kind, _, protocol, _, address in found
            ]


def _failure(call: Call, address: Address, error: Exception, limit: float) -> RegistryError:
    where = f"consul: {call} at {address.label}"
    context: dict[str, Any] = {
        "backend": "consul",
        "operation": call.operation,
        "service": call.service,
    }
    failure: RegistryError
    if isinstance(error, TimeoutError):
        failure = RegistryTimeoutError(f"{where}: no answer within {limit:g} s", **context)
    elif isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
        failure = RegistryUnavailableError(
            f"{where}: TLS failed: {error}; check the CA (CONSUL_CACERT) and the agent's name",
            **context,
        )
    else:
        said = str(error) or type(error).__name__
        hint = "; does the agent ask for a client certificate?" if "alert" in said else ""
        failure = RegistryUnavailableError(
            f"{where}: the agent cannot be reached: {said}{hint}", **context
        )
    failure.__cause__ = error
    return failure
