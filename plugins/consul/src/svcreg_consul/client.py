"""One method per call of Consul's HTTP API: no cache, no retry, errors of svcreg's kind.

py-consul knows paths, parameters and bodies. Its answers we read ourselves: it would parse every
entry of a service for one that changed, and its asyncio client knows neither failover nor the wait
of a blocking query. This is the only module that touches it.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, NamedTuple, NoReturn

import msgspec
from consul.base import Consul, HTTPClient  # type: ignore[import-untyped] # it carries no types

from svcreg.errors import (
    InvalidServiceError,
    PermissionDeniedError,
    ProtocolError,
    RegistryUnavailableError,
)
from svcreg_consul.calls import Answer, Call
from svcreg_consul.options import Address, Options, Settings
from svcreg_consul.records import Registration, duration
from svcreg_consul.transport import Transport

_RIGHTS = {
    "register": "service:write",
    "deregister": "service:write",
    "renew": "service:write",
    "get": "service:read and node:read",
    "watch": "service:read and node:read",
    "list": "service:read",
}

_GONE = ("unknown check", "unknown service", "does not have associated ttl")
"""What agents say, in lower case and with 404 or 500, of a check or service they do not have."""


class Reply(NamedTuple):
    """The answer to a read.

    Attributes:
        body: JSON.
        revision: `X-Consul-Index`; 0 where the server gave none.
        has_leader: Whether the server that answered knew a leader.
    """

    body: bytes
    revision: int
    has_leader: bool


class Query(NamedTuple):
    """How a read is to be answered.

    Attributes:
        after: Wait until the server's index is higher than this; None answers at once.
        wait: Seconds to wait at most.
        is_stale: Any server may answer, even one without a leader.
        dc: Datacentre; empty is the agent's own.
    """

    after: int | None = None
    wait: float | None = None
    is_stale: bool = False
    dc: str = ""


class Client:
    """Talks to the agents of one registry. Loop only; connects on first use."""

    def __init__(self, settings: Settings) -> None:
        self._options = settings.options
        self._transport = Transport(settings)

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.close()

    def is_down(self, address: Address) -> bool:
        """Tell whether an agent could not be reached the last time."""
        return self._transport.is_down(address)

    async def entries(self, call: Call, name: str, query: Query = Query()) -> Reply:  # noqa: B008 - immutable
        """Read every instance of a service with its checks: `/v1/health/service/NAME`.

        Raises:
            PermissionDeniedError: There are some, and the token may see none (Consul 1.11 and
                later say so).
        """
        lane = self._lane(call, query)
        near = self._options.near or None
        answer: Answer = await lane.health.service(name, near=near, **_read(query))
        reply = self._reply(call, answer)
        is_filtered = answer.headers.get("X-Consul-Results-Filtered-By-ACLs") == "true"
        if is_filtered and reply.body.strip() in (b"[]", b"null"):
            raise PermissionDeniedError(
                f"consul: {call} at {answer.address.label}: the token may see no node of it; "
                f"it needs {_RIGHTS['get']}",
                backend="consul",
                operation=call.operation,
                service=call.service,
            )
        return reply

    async def checks(self, call: Call, query: Query) -> Reply:
        """Read every check there is: `/v1/health/state/any`."""
        lane = self._lane(call, query)
        return self._reply(call, await lane.health.state("any", **_read(query)))

    async def names(self, call: Call, query: Query = Query()) -> Reply:  # noqa: B008 - immutable
        """Read the names of all services with their tags: `/v1/catalog/services`."""
        lane = self._lane(call, query)
        return self._reply(call, await lane.catalog.services(**_read(query)))

    async def register(
        self, call: Call, registration: Registration, only: Address | None = None
    ) -> Address:
        """Create or replace a service on an agent; return which agent that was."""
        lane = self._lane(call, only=only)
        answer: Answer = await lane.agent.service.register(
            registration.name,
            service_id=registration.id,
            address=registration.host,
            port=registration.port,
            tags=registration.tags,
            meta=registration.meta,
            check=registration.check,
            weights=registration.weights,
            tagged_addresses=registration.tagged_addresses,
            connect=registration.connect,
        )
        if answer.status == 400:
            raise InvalidServiceError(
                f"consul: {call} at {answer.address.label} refused (400): {self._said(answer)}"
            )
        self._check(call, answer)
        return answer.address

    async def shown(
        self, call: Call, service_id: str, only: Address | None = None
    ) -> Mapping[str, Any] | None:
        """Return what the agent itself has under a service ID; None where there is nothing.

        A service that the token may not read is shown as an empty mapping.
        """
        lane = self._lane(call, only=only)
        answer = await lane.agent.service_definition(service_id)
        if answer.status == 403 and not _is_token_unknown(answer):
            return {}
        if _is_gone(answer):
            return None
        self._check(call, answer)
        return _parse(call, answer)

    async def pass_check(self, call: Call, check_id: str, only: Address | None = None) -> bool:
        """Extend a TTL check; tell whether the agent knows it."""
        answer = await self._lane(call, only=only).agent.check.ttl_pass(check_id)
        if _is_gone(answer):
            return False
        self._check(call, answer)
        return True

    async def maintain(self, call: Call, service_id: str, reason: str, only: Address) -> None:
        """Put a service into maintenance, which makes it critical; an unknown one is success."""
        lane = self._lane(call, only=only)
        answer = await lane.agent.service.maintenance(service_id, "true", reason)
        if not _is_gone(answer):
            self._check(call, answer)

    async def deregister(self, call: Call, service_id: str, only: Address | None = None) -> None:
        """Remove a service from an agent; an unknown one is success."""
        answer = await self._lane(call, only=only).agent.service.deregister(service_id)
        if not _is_gone(answer):
            self._check(call, answer)

    async def deregister_elsewhere(self, call: Call, consul_node: str, service_id: str) -> None:
        """Remove from the catalogue what another agent has registered."""
        lane = self._lane(call)
        self._check(call, await lane.catalog.deregister(consul_node, service_id=service_id))

    def _lane(self, call: Call, query: Query | None = None, only: Address | None = None) -> Any:
        return _Lane(_Carrier(self._transport, call, self._options, query, only))

    def _reply(self, call: Call, answer: Answer) -> Reply:
        self._check(call, answer)
        index = answer.headers.get("X-Consul-Index", "")
        return Reply(
            answer.body,
            int(index) if index.isascii() and index.isdigit() else 0,
            answer.headers.get("X-Consul-KnownLeader") != "false",
        )

    def _check(self, call: Call, answer: Answer) -> None:
        if answer.status != 200:
            self._refuse(call, answer)

    def _refuse(self, call: Call, answer: Answer) -> NoReturn:
        where = f"consul: {call} at {answer.address.label}"
        said = self._said(answer)
        context: dict[str, Any] = {
            "backend": "consul",
            "operation": call.operation,
            "service": call.service,
        }
        if answer.status in (401, 403):
            right = _RIGHTS.get(call.operation, "service:write")
            remedy = f"the token needs {right}"
            if _is_token_unknown(answer):
                remedy = "the agent does not know the token; it may have been deleted"
            raise PermissionDeniedError(f"{where} refused ({answer.status}); {remedy}", **context)
        if answer.status >= 500 or answer.status == 429:  # 429: request limits of the agent
            raise RegistryUnavailableError(f"{where} failed ({answer.status}): {said}", **context)
        raise ProtocolError(f"{where} failed ({answer.status}): {said}", **context)

    def _said(self, answer: Answer) -> str:
        return self._transport.token.hide(answer.text)


def _read(query: Query) -> dict[str, Any]:
    return {
        "index": None if query.after is None else str(query.after),
        "wait": None if query.wait is None else duration(query.wait),
        "dc": query.dc or None,
    }


def _is_gone(answer: Answer) -> bool:
    return answer.status in (404, 500) and any(word in answer.text.lower() for word in _GONE)


def _is_token_unknown(answer: Answer) -> bool:
    return "acl not found" in answer.text.lower()


def _parse(call: Call, answer: Answer) -> Mapping[str, Any]:
    try:
        return msgspec.json.decode(answer.body, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError) as error:
        raise ProtocolError(
            f"consul: {call} at {answer.address.label}: the answer makes no sense: {error}"
        ) from None


class _Lane(Consul):  # type: ignore[misc] # py-consul carries no types
    """py-consul's endpoints over a carrier; made for one call, which costs some microseconds."""

    def __init__(self, carrier: _Carrier) -> None:
        self._carrier = carrier
        # All of these are given, or it would read them from the environment.
        super().__init__(host="", port=0, scheme="http", verify=True)
        self.token = None  # it was read from the environment, and would go into request bodies

    def http_connect(self, *_: object, **__: object) -> _Carrier:
        return self._carrier

    def prepare_headers(self, token: str | None = None) -> dict[str, str]:
        return {}  # the transport has the token, as it is at that moment


class _Carrier(HTTPClient):  # type: ignore[misc] # py-consul carries no types
    """What py-consul calls its HTTP client: hands its requests to the transport, as one call."""

    def __init__(
        self,
        transport: Transport,
        call: Call,
        options: Options,
        query: Query | None,
        only: Address | None,
    ) -> None:
        self._extra: list[tuple[str, str]] = []
        if options.namespace:
            self._extra.append(("ns", options.namespace))
        if options.partition:
            self._extra.append(("partition", options.partition))
        if query is not None and query.is_stale:
            self._extra.append(("stale", "1"))  # py-consul's health endpoints have no such argument
        self._transport = transport
        self._call = call
        self._wait = query.wait if query is not None and query.after is not None else None
        self._only = only

    def get(
        self, callback: object, path: str, params: Any = None, **_: Any
    ) -> Coroutine[Any, Any, Answer]:
        return self._send("GET", path, params, None)

    def put(
        self, callback: object, path: str, params: Any = None, data: str | bytes = "", **_: Any
    ) -> Coroutine[Any, Any, Answer]:
        return self._send("PUT", path, params, data)

    def post(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError

    delete = post

    def close(self) -> None:
        """The transport is closed by its owner."""

    def _send(
        self, method: str, path: str, params: Any, data: str | bytes | None
    ) -> Coroutine[Any, Any, Answer]:
        return self._transport.send(
            self._call,
            method,
            path,
            [*(params or ()), *self._extra],
            data,
            wait=self._wait,
            only=self._only,
        )
