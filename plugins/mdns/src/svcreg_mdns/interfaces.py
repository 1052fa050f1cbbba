"""Which network interfaces to use: names or addresses to what zeroconf wants to be told."""

from __future__ import annotations

import ipaddress
import logging
import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network

import ifaddr
import msgspec

from svcreg.errors import RegistryUnavailableError

_IP_MULTICAST_ALL = 49  # linux/in.h; Python has no name for them
_IPV6_MULTICAST_ALL = 29  # linux/in6.h
_SIOCGIFFLAGS = 0x8913  # linux/sockios.h
_IFF_UP = 1  # linux/if.h

_log = logging.getLogger("svcreg.mdns")


class Interface(msgspec.Struct, frozen=True):
    """One usable interface of this machine; at least one of the two addresses is there.

    Attributes:
        name: As the system calls it.
        ipv4: An IPv4 address, or None.
        ipv6_index: The interface's number where it has an IPv6 address that multicasts, or None.
        link_local: Its link-local IPv6 address, or None.
        networks: The networks of all its addresses.
    """

    name: str
    ipv4: str | None = None
    ipv6_index: int | None = None
    link_local: str | None = None
    networks: tuple[IPv4Network | IPv6Network, ...] = ()


def find_interfaces(chosen: Sequence[str] = ()) -> tuple[Interface, ...]:
    """Return the interfaces that are there now, of those chosen; none chosen means all.

    Loopback counts: it is how programs of one machine without a network find each other. It is
    used over IPv4 only, since systems do not multicast to `::1`.

    Raises:
        RegistryUnavailableError: None is there; says which there are. It may appear later.
    """
    adapters = list(ifaddr.get_adapters())
    found = [
        interface
        for adapter in adapters
        if (not chosen or _is_chosen(adapter, chosen)) and _is_up(str(adapter.name))
        if (interface := _interface(adapter, chosen))
    ]
    if not found:
        there = ", ".join(sorted(str(adapter.name) for adapter in adapters)) or "none at all"
        wanted = ", ".join(chosen) or "any"
        raise RegistryUnavailableError(
            f"mdns: no usable network interface (wanted: {wanted}; there are: {there}); "
            "check the option 'interfaces' or MICRO_MDNS_INTERFACES, and that the interface is up "
            "and has an IP address",
            backend="mdns",
        )
    return tuple(sorted(found, key=lambda interface: interface.name))


def join_names(interfaces: Iterable[Interface]) -> str:
    """Return the names of interfaces, for messages."""
    return ", ".join(interface.name for interface in interfaces)


def port_taken(interfaces: Iterable[Interface], error: Exception) -> RegistryUnavailableError:
    """Return the error to raise when the sockets cannot be opened."""
    return RegistryUnavailableError(
        f"mdns: cannot use UDP port 5353 on {join_names(interfaces)}: {error}; another "
        "program may hold it for itself (avahi: disallow-other-stacks=no)",
        backend="mdns",
    )


def restrict_to_interfaces(sock: socket.socket) -> None:
    """Keep out multicast of interfaces on which this very socket has not joined the group.

    Linux gives a socket every packet to a group that any program of the machine has joined, on any
    interface, unless told otherwise.
    """
    if sys.platform != "linux":
        return
    try:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
    except OSError as error:
        _log.debug("cannot restrict a socket to its interfaces: %s", error)


def for_multicast(interfaces: Iterable[Interface]) -> list[str | int]:
    """Return the interfaces as zeroconf takes them: IPv4 addresses, and numbers for IPv6."""
    choice: list[str | int] = []
    for interface in interfaces:
        if interface.ipv4:
            choice.append(interface.ipv4)
        if interface.ipv6_index is not None:
            choice.append(interface.ipv6_index)
    return choice


def for_asking(interfaces: Iterable[Interface]) -> list[str | int]:
    """Return one address per interface for questions from a port of their own.

    zeroconf does not tell such sockets which interface to multicast on; an IPv4 address or a
    link-local IPv6 address decides it, any other IPv6 address would leave it to the system.
    """
    addresses = (interface.ipv4 or interface.link_local for interface in interfaces)
    return [address for address in addresses if address]


def _is_chosen(adapter: ifaddr.Adapter, chosen: Sequence[str]) -> bool:
    names = {str(adapter.name), str(adapter.nice_name), *_addresses(adapter)}
    return any(choice.partition("%")[0] in names for choice in chosen)


def _interface(adapter: ifaddr.Adapter, chosen: Sequence[str]) -> Interface | None:
    addresses = _addresses(adapter)
    v4 = [address for address in addresses if ":" not in address]
    v6 = [a for a in addresses if ":" in a and not ipaddress.ip_address(a).is_loopback]
    ipv4 = next((address for address in v4 if address in chosen), v4[0] if v4 else None)
    if ipv4 is None and not v6:
        return None
    return Interface(
        name=str(adapter.name),
        ipv4=ipv4,
        ipv6_index=adapter.index if v6 else None,
        link_local=next((a for a in v6 if ipaddress.ip_address(a).is_link_local), None),
        networks=tuple(
            ipaddress.ip_interface(f"{address}/{ip.network_prefix}").network
            for address, ip in zip(addresses, adapter.ips, strict=True)
        ),
    )


def _is_up(name: str) -> bool:
    """Tell whether an interface is switched on; Linux lists the addresses of others too."""
    if sys.platform != "linux":
        return True
    import fcntl  # only Unix has it

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, struct.pack("16sH14x", name.encode(), 0))
        except (OSError, struct.error):
            return False  # it has gone meanwhile
    flags: int = struct.unpack_from("16xH", answer)[0]
    return bool(flags & _IFF_UP)


def _addresses(adapter: ifaddr.Adapter) -> list[str]:
    """Return the adapter's addresses as text, without zones."""
    return [ip.ip if isinstance(ip.ip, str) else ip.ip[0].partition("%")[0] for ip in adapter.ips]
