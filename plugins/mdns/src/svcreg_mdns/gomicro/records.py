"""A node as go-micro's multicast DNS records and back; pure, and suspicious of whatever it reads.

A node `greeter-1` of the service `greeter` in the domain `micro` is (go-micro
registry/mdns_registry.go and internal/util/mdns/zone.go):

    greeter.micro.              PTR  greeter-1.greeter.micro.
    greeter-1.greeter.micro.    SRV  10 1 <port> <host>
    <host>                      A or AAAA
    greeter-1.greeter.micro.    TXT  hex(zlib({"Metadata", "Service", "Version", "Endpoints"}))

and the service itself, in the list of all:

    _services.micro.            PTR  greeter._services.micro.
    greeter._services.micro.    SRV  10 1 9999 <host>
    <host>                      A    0.0.0.0
    greeter._services.micro.    TXT  (empty)

Names are text with dots in Go, and so they are here: node `a.b` of `c` and node `a` of `b.c` have
the same name, and only the TXT record tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

import msgspec

from svcreg import Node, Service, codec
from svcreg.errors import InvalidServiceError, ProtocolError
from svcreg.model import check_name, join_address
from svcreg_mdns.gomicro.packets import (
    AAAA,
    LABEL_LIMIT,
    NAME_LIMIT,
    PTR,
    SRV,
    TXT,
    A,
    Message,
    Question,
    Record,
    encode_response,
)
from svcreg_mdns.records import (
    INFLATE_LIMIT,
    Claim,
    check_address,
    check_cost,
    describe,
    node_hash,
)

PACKET_LIMIT = 8952
"""Bytes of one packet: 9000 with its IPv6 and UDP headers (RFC 6762 section 17)."""

STRING_BYTES = 255
"""Bytes of one TXT string (RFC 6763 section 6.1); go-micro cuts its text there."""

LIST_LABEL = "_services"
LIST_PORT, LIST_ADDRESS, LIST_TTL = 9999, bytes(4), 120  # what go-micro puts into the list

_encoder = msgspec.json.Encoder(order="deterministic")


class Text(msgspec.Struct, rename="pascal"):
    """The JSON of a TXT record; Go writes `null` for what is empty."""

    metadata: msgspec.Raw = msgspec.Raw(b"null")
    service: str | None = None
    version: str | None = None
    endpoints: msgspec.Raw = msgspec.Raw(b"null")


_text_decoder = msgspec.json.Decoder(Text)


class Written(NamedTuple):
    """One node of ours, ready for the wire."""

    instance: str
    host: str
    address: bytes
    port: int
    text: bytes

    def announcement(self, ttl: int, *, pointer_from: str = "") -> bytes:
        """Return the packet that tells of the node, or with a TTL of 0 takes it back.

        With `pointer_from`, the name of the service, it begins with a PTR record.
        """
        return encode_response([*self._pointers(pointer_from, ttl), *self._records(ttl)])

    def answer(self, question: Question, ttl: int) -> bytes:
        """Return the answer to a question; one for a service begins with a PTR record.

        Everything is in one packet, the address after the SRV record that needs it: go-micro keeps
        the last node of a packet only, and loses an address that comes first.
        """
        pointers = self._pointers(question.name, ttl)
        return encode_response([*pointers, *self._records(ttl)], question=question)

    def _pointers(self, name: str, ttl: int) -> list[Record]:
        if name in ("", self.instance):
            return []
        return [Record(name, PTR, ttl, target=self.instance)]

    def _records(self, ttl: int) -> list[Record]:
        return [
            Record(self.instance, SRV, ttl, target=self.host, port=self.port),
            Record(self.host, A if len(self.address) == 4 else AAAA, ttl, self.address),
            Record(self.instance, TXT, ttl, self.text),
        ]


class Seen(NamedTuple):
    """One node as a packet shows it; a TTL of 0 means goodbye."""

    instance: str
    host: str
    address: str
    port: int
    text: bytes
    ttl: int


class Names:
    """The names of one domain."""

    def __init__(self, domain: str) -> None:
        self.list = f"{LIST_LABEL}.{domain}."
        self.marker = bytes([len(label := domain.rpartition(".")[2])]) + label.encode() + b"\0"
        """Bytes that every packet holds which has a name of this domain in it."""
        self._suffix = f".{domain}."

    def service(self, service: str) -> str:
        """Return the name under which the nodes of a service are asked for."""
        return service + self._suffix

    def asked(self, name: str) -> str:
        """Return the service of which the nodes are asked for under a name; empty for none."""
        return name.removesuffix(self._suffix) if name.endswith(self._suffix) else ""

    def instance(self, service: str, node_id: str) -> str:
        """Return the name of a node."""
        return f"{node_id}.{service}{self._suffix}"

    def listing(self, service: str) -> str:
        """Return the name of a service in the list of all."""
        return f"{service}.{self.list}"

    def listed(self, name: str) -> str | None:
        """Return the service that a name in the list stands for."""
        service, separator, rest = name.rpartition(f".{self.list}")
        return service if separator and not rest else None

    def twin_host(self, name: str) -> str:
        """Return the host in the records of a name that the same program announces as DNS-SD too.

        Readers of both dialects know by it that they need not look here. Go only wants the address
        to have the same name.
        """
        return f"m-{node_hash(name, '')}{self._suffix}"

    def node_id(self, instance: str, service: str) -> str | None:
        """Return the id of a node of a service, or None where the name is another service's."""
        node_id, separator, rest = instance.rpartition(f".{service}{self._suffix}")
        return node_id if separator and not rest else None


def encode(service: Service, node: Node, names: Names, host: str) -> Written:
    """Return the records of one node of a service.

    Raises:
        InvalidServiceError: go-micro would not see it; says which field is the reason and why.
    """
    where = describe(service, node)
    if not service.version:
        raise InvalidServiceError(
            f"{where}: version is empty, and go-micro's watchers pass over services without one"
        )
    address = check_address(node, where)
    _check_labels(service.name, f"{where}: service name")
    _check_labels(node.id, f"{where}: node id")
    if service.name.split(".")[-1] == LIST_LABEL:
        raise InvalidServiceError(
            f"{where}: service name ends in {LIST_LABEL!r}, which is go-micro's list of services"
        )
    instance = names.instance(service.name, node.id)
    if len(instance) > NAME_LIMIT:
        raise InvalidServiceError(
            f"{where}: service name and node id make a DNS name of {len(instance)} bytes; it may "
            f"have {NAME_LIMIT}"
        )
    written = Written(instance, host, address.packed, node.port, encode_text(service, node))
    question = Question(names.service(service.name), PTR)
    if (size := len(written.answer(question, 0))) > PACKET_LIMIT:
        raise InvalidServiceError(
            f"{where}: metadata and endpoints make a go-micro record of {size} bytes, compressed "
            f"and in hexadecimal; one packet takes {PACKET_LIMIT}"
        )
    try:
        decode(Seen(instance, host, str(address), node.port, written.text, 0), names)
    except ProtocolError as error:
        raise InvalidServiceError(
            f"{where}: other programs would refuse to read this record: {error}"
        ) from None
    return written


def encode_text(service: Service, node: Node) -> bytes:
    """Return the data of a node's TXT record."""
    text = Text(service=service.name, version=service.version)
    if node.metadata:
        text.metadata = msgspec.Raw(codec.encode_metadata(node.metadata))
    if service.endpoints:
        encoded = (codec.encode_endpoint(endpoint) for endpoint in service.endpoints)
        text.endpoints = msgspec.Raw(b"[" + b",".join(encoded) + b"]")
    data = codec.to_hex(codec.escape(_encoder.encode(text))).encode()
    strings = (data[start : start + STRING_BYTES] for start in range(0, len(data), STRING_BYTES))
    return b"".join(bytes([len(string)]) + string for string in strings)


def listing_records(names: Names, name: str, host: str) -> list[Record]:
    """Return the records that hold one name in the list of all services."""
    return [
        Record(names.list, PTR, LIST_TTL, target=name),
        Record(name, SRV, LIST_TTL, target=host, port=LIST_PORT),
        Record(host, A, LIST_TTL, LIST_ADDRESS),
        Record(name, TXT, LIST_TTL),
    ]


def nodes_in(message: Message) -> Iterator[Seen]:
    """Iterate over the nodes of a packet, of which everything must be in it.

    The address is that of the SRV record's host in the same packet, never one known from before:
    Go's hosts all announce their nodes' addresses under one name. IPv4 wins, as in Go.
    """
    services = {record.name: record for record in message.records if record.kind == SRV}
    for instance, service in services.items():
        text = address = None
        for record in message.records:
            if record.kind == TXT and record.name == instance:
                text = record.data
            elif record.name == service.target and (
                record.kind == A or (record.kind == AAAA and address is None)
            ):
                address = str(ip_address(record.data))
        if instance and text is not None and address is not None:
            yield Seen(instance, service.target, address, service.port, text, service.ttl)


def decode(seen: Seen, names: Names) -> Claim:
    """Return what a node's TXT record and name say.

    Raises:
        ProtocolError: It is no node of this domain, or damaged, or larger than can be meant well.
    """
    plain = codec.from_hex(_join_strings(seen.text), INFLATE_LIMIT)
    cost = check_cost(plain)
    try:
        text = _text_decoder.decode(plain)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"TXT record's JSON cannot be read: {error}") from None
    node_id = names.node_id(seen.instance, text.service or "")
    if not node_id or not text.service:
        raise ProtocolError(f"TXT record is of the service {text.service!r:.80}, its name is not")
    try:
        check_name(text.service)
        check_name(node_id, "node id")
    except InvalidServiceError as error:
        raise ProtocolError(str(error)) from None
    return Claim(
        service=Service(
            text.service, text.version or "", endpoints=codec.decode_endpoints(text.endpoints)
        ),
        node=Node(node_id, "", codec.decode_metadata(text.metadata)),
        stamp=None,
        cost=len(seen.text) + cost,
    )


def locate(claim: Claim, seen: Seen, zone: str) -> Service:
    """Return the service with its one node; `zone` is that of the interface it was heard on."""
    address = ip_address(seen.address)
    is_near = isinstance(address, IPv6Address) and address.is_link_local
    host = f"{address}%{zone}" if is_near and zone else str(address)
    node = Node(claim.node.id, join_address(host, seen.port), claim.node.metadata)
    return claim.service.with_nodes((node,))


def is_dns_name(name: str) -> bool:
    """Tell whether a name that ends with a dot can be written into a packet."""
    labels = name.removesuffix(".").split(".")
    return len(name) <= NAME_LIMIT and all(1 <= len(label) <= LABEL_LIMIT for label in labels)


def _check_labels(name: str, where: str) -> None:
    if "@" in name:
        raise InvalidServiceError(
            f"{where} {name!r} has an '@', before which Go puts a backslash, and finds nothing"
        )
    for label in name.split("."):
        if not 1 <= len(label) <= LABEL_LIMIT:
            raise InvalidServiceError(
                f"{where} {name!r:.80} has {len(label)} bytes between two dots or in all; DNS has "
                f"labels of 1 to {LABEL_LIMIT}"
            )


def _join_strings(text: bytes) -> str:
    """Return the strings of a TXT record as one."""
    joined = bytearray()
    position = 0
    while position < len(text):
        end = position + 1 + text[position]
        if end > len(text):
            raise ProtocolError("TXT record is cut short")
        joined += text[position + 1 : end]
        position = end
    return joined.decode("latin-1")  # whatever is not hexadecimal is refused as such
