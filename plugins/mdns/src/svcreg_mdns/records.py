"""A node as DNS-SD records and back; pure, and suspicious of whatever it reads.

One node is one DNS-SD service instance (RFC 6763) of the type `_micro._tcp.local.`:

    _micro._tcp.local.                PTR  <label>._micro._tcp.local.
    <label>._micro._tcp.local.        SRV  0 0 <port> m-<hash>.local.
    <label>._micro._tcp.local.        TXT  txtvers=1 s=<service> v=<version> id=<node id>
                                           g=<stamp> d0=<...> d1=<...>
    m-<hash>.local.                   A or AAAA

`d0`, `d1`, ... together are zlib-compressed JSON: `metadata` and `endpoints` of the service and the
metadata of the `node`. Only `s`, `v` and `id` are needed, so a record can be published by hand:

    avahi-publish -s any-label _micro._tcp 8080 s=greeter v=1.0 id=greeter-1

`g` says which registration a record belongs to and how new it is; see `Stamp`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

import msgspec

from svcreg import Node, Service, codec
from svcreg.errors import InvalidServiceError, ProtocolError
from svcreg.model import Endpoint, check_name, join_address

SERVICE_TYPE = "_micro._tcp.local."
"""One type for every service: as a type of its own a name could have 15 characters at most
(RFC 6763 section 7.2)."""

LABEL_ID_LIMIT = 48
"""Characters of the node id in an instance label; with `-` and the hash that makes 61 of 63
(RFC 1035 section 2.3.4)."""

HASH_CHARACTERS = 12
"""Base32 characters that tell equal-looking labels apart: 60 bits, collisions are not expected."""

VALUE_LIMIT = 252
"""Bytes of a service name, version or node id: what `id=` leaves of 255 (RFC 6763 section 6.1)."""

CHUNK_BYTES = 240
"""Bytes of one `d` string's value; leaves room for its key."""

RECORD_LIMIT = 8000
"""Bytes of one announcement. zeroconf drops packets above 8966 bytes without saying so, and RFC
6762 section 17 allows 9000 with all headers."""

FRAME_BYTES = 1300
"""Bytes of one announcement that pass any Ethernet in one frame (RFC 6763 section 6.2)."""

INFLATE_LIMIT = 256 * 1024
"""Bytes that the JSON of one record may have; 9 kB of zlib can unfold to 4.6 MB."""

COST_LIMIT = 1024 * 1024
"""Bytes of memory, roughly, that one record may come to once it is decoded; see `check_cost`."""

_OVERHEAD = 230
"""Bytes of an announcement besides the TXT data: header 12, PTR 94, SRV 36, address 42, NSEC 36."""

_STAMP = re.compile(rb"[0-9a-f]{12}-[0-9a-f]{8}")
_LABEL_OUT = re.compile(r"[^A-Za-z0-9_-]")

_encoder = msgspec.json.Encoder(order="deterministic")


class Stamp(NamedTuple):
    """Which registration announced a record, and when: later content compares greater.

    Multicast DNS alone cannot tell a late answer from a new announcement, nor the goodbye of a
    predecessor from one's own: zeroconf still sends answers up to 1.3 seconds after a record was
    withdrawn or replaced. With a stamp the receiver can.

    Attributes:
        time: Milliseconds since 1970 when this content was announced first.
        owner: Random, the same for all content of one registration.
    """

    time: int
    owner: int

    def encode(self) -> bytes:
        """Return the value of the TXT key `g`."""
        return b"%012x-%08x" % self

    @classmethod
    def decode(cls, value: bytes) -> Stamp | None:
        """Return the stamp, or None where there is none or it is not one of ours."""
        if not _STAMP.fullmatch(value):
            return None
        time, _, owner = value.partition(b"-")
        return cls(int(time, 16), int(owner, 16))


class Claim(msgspec.Struct, frozen=True):
    """What a TXT record says: the node without its address.

    `cost` is roughly how many bytes of memory it takes.
    """

    service: Service
    node: Node
    stamp: Stamp | None
    cost: int


class Announcement(msgspec.Struct, frozen=True):
    """The records of one node, ready for the wire; names end with a dot."""

    instance: str
    host: str
    address: str
    port: int
    text: bytes

    @property
    def size(self) -> int:
        """About how many bytes all records have in a packet; never less than the real size."""
        return len(self.text) + _OVERHEAD


class _Details(msgspec.Struct, omit_defaults=True):
    metadata: msgspec.Raw = msgspec.Raw()
    endpoints: msgspec.Raw = msgspec.Raw()
    node: msgspec.Raw = msgspec.Raw()


_details_decoder = msgspec.json.Decoder(_Details)


def instance_name(service: str, node_id: str) -> str:
    """Return the full name of the DNS-SD instance for a node.

    Dots would be taken for label separators, hence the replacement; the hash keeps names apart
    that look equal after it.
    """
    label = _LABEL_OUT.sub("_", node_id)[:LABEL_ID_LIMIT]
    return f"{label}-{node_hash(service, node_id)}.{SERVICE_TYPE}"


def host_name(service: str, node_id: str) -> str:
    """Return the host name that the SRV record points to.

    Every node has its own: the goodbye of one node would otherwise take the address of all.
    """
    return f"m-{node_hash(service, node_id)}.local."


def node_hash(service: str, node_id: str) -> str:
    """Return letters and digits that tell nodes apart."""
    digest = hashlib.sha256(f"{service}\0{node_id}".encode()).digest()
    return base64.b32encode(digest)[:HASH_CHARACTERS].decode().lower()


def encode(service: Service, node: Node, stamp: Stamp) -> Announcement:
    """Return the records of one node of a service.

    Raises:
        InvalidServiceError: A field does not fit into DNS records; says which and why.
    """
    where = describe(service, node)
    address = check_address(node, where)
    strings = [b"txtvers=1"]  # RFC 6763 section 6.7: version tag first
    for key, value, field in (
        ("s", service.name, "service name"),
        ("v", service.version, "version"),
        ("id", node.id, "node id"),
    ):
        data = value.encode()
        if len(data) > VALUE_LIMIT:
            raise InvalidServiceError(
                f"{where}: {field} takes {len(data)} bytes; mDNS has room for {VALUE_LIMIT}"
            )
        strings.append(key.encode() + b"=" + data)
    strings.append(b"g=" + stamp.encode())
    details = _encode_details(service, node)
    strings += [
        b"d%d=" % number + details[start : start + CHUNK_BYTES]
        for number, start in enumerate(range(0, len(details), CHUNK_BYTES))
    ]
    announcement = Announcement(
        instance=instance_name(service.name, node.id),
        host=host_name(service.name, node.id),
        address=str(address),
        port=node.port,
        text=b"".join(bytes([len(string)]) + string for string in strings),
    )
    if announcement.size > RECORD_LIMIT:
        raise InvalidServiceError(
            f"{where}: metadata and endpoints make a record of {announcement.size} bytes, "
            f"compressed; mDNS takes {RECORD_LIMIT}. Shorten them, or use a registry with a server"
        )
    try:
        decode(announcement.text)
    except ProtocolError as error:
        raise InvalidServiceError(
            f"{where}: other programs would refuse to read this record: {error}"
        ) from None
    return announcement


def describe(service: Service, node: Node) -> str:
    """Return how messages call a node."""
    return f"mdns: service {service.name!r}, node {node.id!r}"


def check_address(node: Node, where: str) -> IPv4Address | IPv6Address:
    """Return the IP address of a node, which has a port too.

    Raises:
        InvalidServiceError: It has a host name instead, or no port.
    """
    host = node.host.partition("%")[0]  # a zone means something on this machine only
    try:
        address = ip_address(host)
    except ValueError:
        raise InvalidServiceError(
            f"{where}: address {node.address!r} is not an IP address, and mDNS carries only those; "
            "register the address that the name stands for"
        ) from None
    if not 1 <= node.port <= 65535:
        raise InvalidServiceError(
            f"{where}: address {node.address!r} has no port from 1 to 65535, and nobody could "
            "connect to it"
        )
    return address


def decode(text: bytes) -> Claim:
    """Return what a TXT record says.

    Raises:
        ProtocolError: It is not one of ours, is damaged, or is larger than can be meant well.
    """
    if len(text) > RECORD_LIMIT:
        raise ProtocolError(f"TXT record has {len(text)} bytes; at most {RECORD_LIMIT} are read")
    strings = _parse_strings(text)
    try:
        name = check_name(strings[b"s"].decode())
        node_id = check_name(strings[b"id"].decode(), "node id")
        version = strings.get(b"v", b"").decode()
    except KeyError as error:
        raise ProtocolError(f"TXT record lacks {error.args[0].decode()!r}") from None
    except UnicodeDecodeError:
        raise ProtocolError("TXT record is not UTF-8") from None
    except InvalidServiceError as error:
        raise ProtocolError(str(error)) from None
    chunks: list[bytes] = []
    while (chunk := strings.get(b"d%d" % len(chunks))) is not None:
        chunks.append(chunk)
    details = _decode_details(b"".join(chunks))
    return Claim(
        service=Service(name, version, details.metadata, details.endpoints),
        node=Node(node_id, "", details.node_metadata),
        stamp=Stamp.decode(strings.get(b"g", b"")),
        cost=len(text) + details.cost,
    )


def check_cost(plain: bytes) -> int:
    """Estimate the bytes of memory that JSON takes, before it is decoded.

    An object costs about 200 bytes as struct and dictionary, a string about 60; each needs a brace
    or two quotes, so `[{},{},...]` cannot hide that it becomes sixty times as large.

    Raises:
        ProtocolError: It is more than one record may take.
    """
    cost = len(plain) + 200 * plain.count(b"{") + 30 * plain.count(b'"')
    if cost > COST_LIMIT:
        raise ProtocolError(
            f"record would take {cost} bytes of memory; at most {COST_LIMIT} are spent"
        )
    return cost


def locate(claim: Claim, addresses: Iterable[str], port: int) -> Service:
    """Return the service with its one node at the address best suited of those known.

    IPv4 comes before IPv6, and what is valid beyond the link before what is not; otherwise the
    smallest, so that everybody chooses alike.
    """
    host = min(addresses, key=_preference)
    node = Node(claim.node.id, join_address(host, port), claim.node.metadata)
    return claim.service.with_nodes((node,))


def group(services: Iterable[Service]) -> tuple[Service, ...]:
    """Merge services of one node each into one per name and version, nodes sorted by id.

    Where nodes of one version disagree about the service's metadata or endpoints, as during an
    upgrade, each opinion stays a service of its own.
    """
    groups: dict[tuple[str, str], list[tuple[Service, list[Node]]]] = {}
    for service in sorted(services, key=lambda service: service.nodes[0].id):
        header = service.with_nodes(())
        opinions = groups.setdefault((service.name, service.version), [])
        for opinion, nodes in opinions:
            if opinion == header:
                nodes.append(service.nodes[0])
                break
        else:
            opinions.append((header, [service.nodes[0]]))
    return tuple(
        header.with_nodes(tuple(nodes))
        for _, opinions in sorted(groups.items())
        for header, nodes in opinions
    )


class _Decoded(NamedTuple):
    metadata: dict[str, str]
    endpoints: tuple[Endpoint, ...]
    node_metadata: dict[str, str]
    cost: int


def _encode_details(service: Service, node: Node) -> bytes:
    details = _Details()
    if service.metadata:
        details.metadata = msgspec.Raw(codec.encode_metadata(service.metadata))
    if service.endpoints:
        encoded = (codec.encode_endpoint(endpoint) for endpoint in service.endpoints)
        details.endpoints = msgspec.Raw(b"[" + b",".join(encoded) + b"]")
    if node.metadata:
        details.node = msgspec.Raw(codec.encode_metadata(node.metadata))
    plain = _encoder.encode(details)
    return b"" if plain == b"{}" else codec.deflate(plain)


def _decode_details(data: bytes) -> _Decoded:
    if not data:
        return _Decoded({}, (), {}, 0)
    plain = codec.inflate(data, INFLATE_LIMIT)
    cost = check_cost(plain)
    try:
        details = _details_decoder.decode(plain)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"record JSON cannot be read: {error}") from None
    return _Decoded(
        codec.decode_metadata(details.metadata) if details.metadata else {},
        codec.decode_endpoints(details.endpoints) if details.endpoints else (),
        codec.decode_metadata(details.node) if details.node else {},
        cost,
    )


def _parse_strings(text: bytes) -> dict[bytes, bytes]:
    """Return the pairs of a TXT record; the first of equal keys counts (RFC 6763 section 6.4)."""
    pairs: dict[bytes, bytes] = {}
    position = 0
    while position < len(text):
        end = position + 1 + text[position]
        if end > len(text):
            raise ProtocolError("TXT record is cut short")
        key, separator, value = text[position + 1 : end].partition(b"=")
        if separator:
            pairs.setdefault(key.lower(), value)  # RFC 6763 section 6.4: case does not matter
        position = end
    return pairs


def _preference(host: str) -> tuple[int, bool, str]:
    address: IPv4Address | IPv6Address = ip_address(host)
    return address.version, address.is_link_local, host
