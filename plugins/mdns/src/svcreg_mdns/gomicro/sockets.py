"""The UDP sockets of go-micro's dialect: one pair to listen and answer with, one to ask with."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from ipaddress import ip_address
from typing import NamedTuple

from svcreg_mdns.interfaces import Interface, join_names, port_taken, restrict_to_interfaces

PORT = 5353
GROUP_V4, GROUP_V6 = "224.0.0.251", "ff02::fb"  # RFC 6762 section 3

HOPS = 255
"""TTL of packets (RFC 6762 section 11)."""

RECEIVE_BUFFER = 1 << 20
"""Bytes of packets that may wait; Linux grants 208 kB by default, which is about 200 packets."""

PACKETS_PER_TURN = 64
"""Packets read before the loop's other work has a turn."""

DATAGRAM_BYTES = 65535

BURST_PACKETS = 64
"""Packets sent without a pause: a receiver's socket buffer holds about 200."""

BURST_PAUSE_SECONDS = 0.002
"""The pause, in which a receiver takes in most of a burst. go-micro waits for 100 ms, in which
all nodes of this program should have been sent, over IPv4 and IPv6."""

_log = logging.getLogger("svcreg.mdns")


class Source(NamedTuple):
    """Where a packet came from.

    Attributes:
        host: IP address.
        port: UDP port; 5353 means a full multicast DNS program, which must not be sent questions.
        zone: Number of the interface, for link-local IPv6 addresses; else empty.
        address: As the socket wants it, to send to.
        is_answer: It came to the socket that asks, so somebody answers us.
    """

    host: str
    port: int
    zone: str
    address: tuple[str, int] | tuple[str, int, int, int]
    is_answer: bool


class Sockets:
    """Sends to the group on every interface, and hears what others send. Loop only.

    Questions leave from a port of their own, never from 5353: go-micro's servers answer answers, so
    that one question from 5353 sets them sending to each other for ever.

    Args:
        on_packet: Given every packet from a directly connected network.
    """

    def __init__(self, on_packet: Callable[[bytes, Source], None]) -> None:
        self._on_packet = on_packet
        self._interfaces: tuple[Interface, ...] = ()
        self._listening: dict[int, socket.socket] = {}  # by address family
        self._asking: dict[int, socket.socket] = {}

    @property
    def interface_names(self) -> str:
        """The interfaces in use, for messages."""
        return join_names(self._interfaces)

    def open(self, interfaces: tuple[Interface, ...]) -> None:
        """Open the sockets.

        Raises:
            RegistryUnavailableError: Port 5353 cannot be shared.
        """
        problem: OSError | None = None
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                self._listening[family] = _open(family, PORT)
                self._asking[family] = _open(family, 0)
            except OSError as error:  # a system without IPv6 is none without multicast DNS
                problem = error
                self._drop(family)
        if not self._listening:
            raise port_taken(interfaces, problem or OSError("no address family"))
        self.use(interfaces)
        loop = asyncio.get_running_loop()
        for sockets, is_answer in ((self._listening, False), (self._asking, True)):
            for sock in sockets.values():
                loop.add_reader(sock, partial(self._receive, sock, is_answer))

    def close(self) -> None:
        """Release the sockets."""
        for family in list(self._listening):
            self._drop(family)

    def use(self, interfaces: tuple[Interface, ...]) -> None:
        """Hear and send on these interfaces from now on."""
        for interface in set(self._interfaces) - set(interfaces):
            self._join(interface, leave=True)
        for interface in interfaces:  # those known too: one may have gone and come back since
            self._join(interface)
        self._interfaces = interfaces

    def announce(self, packet: bytes) -> None:
        """Send to the group from port 5353. Never a question."""
        self._multicast(self._listening, packet)

    def ask(self, packet: bytes) -> None:
        """Send a question to the group; answers come to this socket alone."""
        self._multicast(self._asking, packet)

    def answer(self, packet: bytes, to: Source) -> None:
        """Send to one program."""
        family = socket.AF_INET6 if ":" in to.host else socket.AF_INET
        if family in self._listening:
            _send(self._listening[family], packet, to.address)

    def _multicast(self, sockets: dict[int, socket.socket], packet: bytes) -> None:
        for interface in self._interfaces:
            if interface.ipv4 and (sock := sockets.get(socket.AF_INET)):
                with contextlib.suppress(OSError):  # the interface has gone; the rescan notices
                    chosen = socket.inet_aton(interface.ipv4)
                    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, chosen)
                    _send(sock, packet, (GROUP_V4, PORT))
            if interface.ipv6_index is not None and (sock := sockets.get(socket.AF_INET6)):
                _send(sock, packet, (GROUP_V6, PORT, 0, interface.ipv6_index))

    def _join(self, interface: Interface, *, leave: bool = False) -> None:
        for level, option, group in self._memberships(interface, leave=leave):
            family = socket.AF_INET if level == socket.IPPROTO_IP else socket.AF_INET6
            with contextlib.suppress(OSError):  # joined before, or the interface has gone
                self._listening[family].setsockopt(level, option, group)

    def _memberships(
        self, interface: Interface, *, leave: bool
    ) -> Iterator[tuple[int, int, bytes]]:
        if interface.ipv4 and socket.AF_INET in self._listening:
            option = socket.IP_DROP_MEMBERSHIP if leave else socket.IP_ADD_MEMBERSHIP
            group = socket.inet_aton(GROUP_V4) + socket.inet_aton(interface.ipv4)
            yield socket.IPPROTO_IP, option, group
        if interface.ipv6_index is not None and socket.AF_INET6 in self._listening:
            option = socket.IPV6_LEAVE_GROUP if leave else socket.IPV6_JOIN_GROUP
            group = socket.inet_pton(socket.AF_INET6, GROUP_V6)
            yield socket.IPPROTO_IPV6, option, group + struct.pack("@I", interface.ipv6_index)

    def _receive(self, sock: socket.socket, is_answer: bool) -> None:
        for _ in range(PACKETS_PER_TURN):
            try:
                packet, address = sock.recvfrom(DATAGRAM_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                _log.debug("cannot receive: %s", error)
                return
            host = address[0].partition("%")[0]
            zone = str(address[3]) if len(address) == 4 and address[3] else ""
            if self._is_near(host):
                self._on_packet(packet, Source(host, address[1], zone, address, is_answer))

    def _is_near(self, host: str) -> bool:
        """Tell whether an address is on a directly connected network (RFC 6762 section 11).

        On a host with no network but a multicast route to its loopback, Linux gives packets the
        source 0.0.0.0, and takes what is sent there for the host itself.
        """
        address = ip_address(host)
        return (
            address.is_link_local
            or address.is_unspecified
            or any(
                address in network
                for interface in self._interfaces
                for network in interface.networks
                if network.version == address.version
            )
        )

    def _drop(self, family: int) -> None:
        for sockets in (self._listening, self._asking):
            if sock := sockets.pop(family, None):
                asyncio.get_running_loop().remove_reader(sock)
                sock.close()


async def send_paced(packets: Iterable[bytes], send: Callable[[bytes], None]) -> None:
    """Send any number of packets at a pace that receivers keep up with."""
    for number, packet in enumerate(packets, start=1):
        send(packet)
        if number % BURST_PACKETS == 0:
            await asyncio.sleep(BURST_PAUSE_SECONDS)


def _open(family: int, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # the system may grant less
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        restrict_to_interfaces(sock)
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, HOPS)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, HOPS)
        sock.bind(("" if family == socket.AF_INET else "::", port))
    except OSError:
        sock.close()
        raise
    return sock


def _send(
    sock: socket.socket, packet: bytes, to: tuple[str, int] | tuple[str, int, int, int]
) -> None:
    """Send if that is possible at once; like any packet of multicast DNS it may be lost."""
    try:
        sock.sendto(packet, to)
    except OSError as error:
        _log.debug("cannot send to %s: %s", to[0], error)
