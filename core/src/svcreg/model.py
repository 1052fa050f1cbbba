"""What is registered and found: services, their nodes and endpoints, and changes of them.

The structs are frozen and compare by value. Collections given as lists are kept as tuples, and
`metadata` is copied, so a caller's later changes reach nobody; treat it as read-only. Field names
are those of go-micro's wire format (go-micro v6, registry/registry.go).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address
from typing import Literal

import msgspec
from msgspec.structs import force_setattr, replace

from svcreg.errors import InvalidServiceError

NAME_LIMIT = 255
"""Characters in a service name or node id; a longer path segment or key fails somewhere."""

DEPTH_LIMIT = 32
"""Levels of nested values in a schema; go-micro's own generator stops at 3."""

_NAME = re.compile(r"[A-Za-z0-9._~:@+\-]+")
_HOST = re.compile(r"[A-Za-z0-9._\-]{1,253}")  # RFC 1035 section 2.3.4: 253 characters of text
_WILDCARD_HOSTS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - recognised, never bound


class Value(msgspec.Struct, frozen=True):
    """One field of a request or response schema, possibly with fields of its own."""

    name: str = ""
    type: str = ""
    values: Sequence[Value] = ()

    def __post_init__(self) -> None:
        _freeze_sequence(self, "values", self.values)


class Endpoint(msgspec.Struct, frozen=True):
    """One callable of a service, with the schema of what it takes and gives."""

    name: str
    request: Value | None = None
    response: Value | None = None
    metadata: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        _freeze_metadata(self, self.metadata)


class Node(msgspec.Struct, frozen=True):
    """One running copy of a service.

    `address` is `host:port`; an IPv6 host stands in brackets.
    """

    id: str
    address: str
    metadata: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        _freeze_metadata(self, self.metadata)

    def __hash__(self) -> int:  # metadata is a dict, so the generated hash would always fail
        return hash((self.id, self.address))

    @property
    def host(self) -> str:
        """The host of `address`, without brackets; empty where the address has none."""
        return split_address(self.address)[0]

    @property
    def port(self) -> int:
        """The port of `address`; 0 where the address has none."""
        return split_address(self.address)[1]


class Service(msgspec.Struct, frozen=True):
    """A logical name with a version, and the nodes that serve it."""

    name: str
    version: str = ""
    metadata: Mapping[str, str] = {}
    endpoints: Sequence[Endpoint] = ()
    nodes: Sequence[Node] = ()

    def __post_init__(self) -> None:
        _freeze_metadata(self, self.metadata)
        _freeze_sequence(self, "endpoints", self.endpoints)
        _freeze_sequence(self, "nodes", self.nodes)

    def __hash__(self) -> int:  # metadata is a dict, so the generated hash would always fail
        return hash((self.name, self.version, self.nodes))

    def with_nodes(self, nodes: Sequence[Node]) -> Service:
        """Return the same service with other nodes."""
        return replace(self, nodes=nodes)


class Event(msgspec.Struct, frozen=True):
    """One change: `action` is what go-micro writes, `timestamp` is in Unix seconds.

    `service` holds just the nodes concerned; after a `delete` they are as last known.
    """

    action: Literal["create", "update", "delete"]
    service: Service
    timestamp: float


def split_address(address: str) -> tuple[str, int]:
    """Split `host:port` into host, without brackets, and port; what is missing is `""` or 0."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        host, port = address, "0"
    elif ":" in host and not host.startswith("["):
        host, port = address, "0"  # an IPv6 address without a port
    return host.removeprefix("[").removesuffix("]"), int(port[:6])


def join_address(host: str, port: int) -> str:
    """Join host and port, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_wildcard(host: str) -> bool:
    """Tell whether a host means "every address of this machine" rather than one of them."""
    return host in _WILDCARD_HOSTS


def check_name(name: str, field: str = "service name") -> str:
    """Return a service name or node id that may stand in a URL path or a key.

    Raises:
        InvalidServiceError: It is not 1 to 255 letters, digits and `._~:@+-`, or is `.` or `..`.
    """
    if not isinstance(name, str):
        raise InvalidServiceError(f"{field} must be a string, not {type(name).__name__}")
    if not name:
        raise InvalidServiceError(f"{field} is empty; it needs 1 to {NAME_LIMIT} characters")
    if len(name) > NAME_LIMIT:
        raise InvalidServiceError(
            f"{field} {name[:20]!r}... has {len(name)} characters; at most {NAME_LIMIT} are allowed"
        )
    if name in {".", ".."} or not _NAME.fullmatch(name):
        raise InvalidServiceError(
            f"{field} {name!r} is not allowed; use letters, digits and ._~:@+- "
            "(neither '.' nor '..')"
        )
    return name


def check_service(service: Service) -> Service:
    """Return a service that every backend may be given to store.

    Raises:
        InvalidServiceError: Some field is not what a registry can hold; says which field and why.
    """
    check_read_header(service)
    where = f"service {service.name!r}"
    if not service.nodes:
        raise InvalidServiceError(f"{where} has no nodes; give it at least one Node(id, address)")
    seen: set[str] = set()
    for node in service.nodes:
        check_read_node(node, service.name)
        if node.id in seen:
            raise InvalidServiceError(f"{where}: node id {node.id!r} occurs twice")
        seen.add(node.id)
        _check_address(node.address, f"{where}: node {node.id!r}")
    return service


def check_read_header(service: Service) -> None:
    """Check everything of a service but its nodes, as `check_service` does."""
    if not isinstance(service, Service):
        raise InvalidServiceError(f"expected a svcreg.Service, not {type(service).__name__}")
    check_name(service.name)
    where = f"service {service.name!r}"
    _check_text(service.version, f"{where}: version")
    _check_metadata(service.metadata, where)
    for endpoint in service.endpoints:
        if not isinstance(endpoint, Endpoint):
            raise InvalidServiceError(
                f"{where}: endpoints must hold svcreg.Endpoint, not {type(endpoint).__name__}"
            )
        _check_text(endpoint.name, f"{where}: endpoint name")
        _check_metadata(endpoint.metadata, f"{where}: endpoint {endpoint.name!r}")
        for part in ("request", "response"):
            if (schema := getattr(endpoint, part)) is not None:
                _check_schema(schema, f"{where}: {part} of endpoint {endpoint.name!r}")


def check_read_node(node: Node, service: str) -> None:
    """Check a node that somebody else registered, whose address may be of another kind."""
    where = f"service {service!r}"
    if not isinstance(node, Node):
        raise InvalidServiceError(
            f"{where}: nodes must hold svcreg.Node, not {type(node).__name__}"
        )
    check_name(node.id, f"{where}: node id")
    _check_text(node.address, f"{where}: node {node.id!r}: address")
    _check_metadata(node.metadata, f"{where}: node {node.id!r}")


def _check_address(address: str, where: str) -> None:
    host, port = split_address(address)
    if not 1 <= port <= 65535:
        raise InvalidServiceError(
            f"{where}: address {address!r} needs a port from 1 to 65535, "
            "as in '10.0.0.5:8080' or '[::1]:8080'"
        )
    if not _is_host(host) or join_address(host, port) != address:  # "[::1:80", "[h]:80", "h:080"
        raise InvalidServiceError(
            f"{where}: address {address!r} is not host:port; use an IP address or a host name, "
            "and brackets around an IPv6 address only"
        )


def _is_host(host: str) -> bool:
    if is_wildcard(host) or _HOST.fullmatch(host):
        return True
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return host.isascii() and host.isprintable()  # a scope may hold anything else: fe80::1%\n


def _check_schema(value: object, where: str, depth: int = 0) -> None:
    if not isinstance(value, Value):
        raise InvalidServiceError(f"{where} must be a svcreg.Value, not {type(value).__name__}")
    if depth >= DEPTH_LIMIT:
        raise InvalidServiceError(f"{where} is nested more than {DEPTH_LIMIT} levels deep")
    _check_text(value.name, f"{where}: name")
    _check_text(value.type, f"{where}: type")
    for inner in value.values:
        _check_schema(inner, where, depth + 1)


def _check_text(value: str, where: str) -> None:
    if not isinstance(value, str):
        raise InvalidServiceError(f"{where} must be a string, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidServiceError(f"{where} {value!r} cannot be written as UTF-8") from None


def _check_metadata(metadata: Mapping[str, str], where: str) -> None:
    if not isinstance(metadata, Mapping):
        raise InvalidServiceError(
            f"{where}: metadata must be a mapping, not {type(metadata).__name__}"
        )
    for key, value in metadata.items():
        _check_text(key, f"{where}: metadata key")
        _check_text(value, f"{where}: metadata {key!r}")


def _freeze_sequence(struct: msgspec.Struct, field: str, value: Sequence[object]) -> None:
    if type(value) is list:
        force_setattr(struct, field, tuple(value))


def _freeze_metadata(struct: msgspec.Struct, value: Mapping[str, str]) -> None:
    if value and isinstance(value, Mapping):
        force_setattr(struct, "metadata", dict(value))
