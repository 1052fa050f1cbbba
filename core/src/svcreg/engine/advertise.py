"""Which address to announce for a node that listens on every address."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket

from msgspec.structs import replace

from svcreg.errors import ConfigError
from svcreg.model import Service, is_wildcard, join_address, split_address

LOOPBACK = "127.0.0.1"

_log = logging.getLogger("svcreg.advertise")


async def advertised(service: Service, registry: str, override: str | None) -> Service:
    """Return the service with every wildcard host replaced by one that others can reach.

    A node that names its host is left alone.

    Args:
        service: What is to be registered.
        registry: `host:port` of the registry: the local address of the route to it is taken. A
            registry without a port is a file or the like, whose readers are on this machine.
        override: A host or `host:port` that wins over the route (`MICRO_ADVERTISE`).

    Raises:
        ConfigError: `override` is neither.
    """
    if not any(is_wildcard(node.host) for node in service.nodes):
        return service
    host, port = _parse(override) if override else (await _route(registry), 0)
    nodes = []
    for node in service.nodes:
        if is_wildcard(node.host):
            address = join_address(host, port or node.port)
            _log.info(
                "node %s of %s listens on %s and is advertised as %s",
                node.id,
                service.name,
                node.address,
                address,
            )
            node = replace(node, address=address)
        nodes.append(node)
    return service.with_nodes(nodes)


def _parse(text: str) -> tuple[str, int]:
    try:
        host, port = str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))), 0
        is_malformed = False
    except ValueError:
        host, port = split_address(text)
        is_malformed = ":" in text and not 1 <= port <= 65535
    if not host or is_wildcard(host) or is_malformed:
        raise ConfigError(
            f"MICRO_ADVERTISE (option advertise) must be a host or host:port, not {text!r}"
        )
    return host, port


async def _route(registry: str) -> str:
    """Return the local address from which packets to the registry leave; loopback if none do."""
    host, port = split_address(registry)
    if not port:
        return LOOPBACK
    try:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0])
    except OSError as error:
        _log.warning("there is no route to %s (%s); advertising loopback", registry, error)
    return LOOPBACK
