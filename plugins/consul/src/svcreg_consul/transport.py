"""HTTP to one of several agents: connections, credentials, deadlines and failover.

Everything runs on the registry's event loop and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import yarl

from svcreg.errors import ConfigError, RegistryError, RegistryTimeoutError, RegistryUnavailableError
from svcreg_consul.calls import Answer, Call
from svcreg_consul.connections import Agent
from svcreg_consul.credentials import Certificates, Token
from svcreg_consul.options import Address, Settings

PROBE_SECONDS = 1.0
"""How long after an agent could not be reached it is asked whether it is back; doubles up to ..."""

MAX_PROBE_SECONDS = 16.0
"""... this, so one that is back gets its turn again within so long."""

SLOW_SECONDS = 0.5
"""An agent that has kept a caller waiting so long, until he gave up, is tried last."""


class Transport:
    """Sends requests to the first agent that can be reached, in the order of the settings.

    Attributes:
        token: Where the token comes from.
    """

    def __init__(self, settings: Settings) -> None:
        self.token = Token(settings.token, settings.token_file)
        self._settings = settings
        self._certificates = Certificates(settings.tls) if settings.tls is not None else None
        self._agents = [Agent(address) for address in settings.addresses]
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

    def _note_failure(self, agent: Agent) -> None:
        """Try an agent last until it has answered a probe; a single one is tried all the same."""
        if len(self._agents) > 1 and not agent.is_down:
            agent.note_failure()
            self._probes[agent.address] = asyncio.create_task(self._probe(agent))

    async def _probe(self, agent: Agent) -> None:
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
        agent: Agent,
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
