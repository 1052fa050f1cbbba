"""go-micro's wire forms: service JSON, and zlib in hexadecimal; decoding is bounded.

Sources, all go-micro v6: registry/registry.go for the JSON field names and their order,
registry/etcd/etcd.go and registry/consul/encoding.go for where each form is used.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Annotated, TypeVar

import msgspec

from svcreg.errors import ProtocolError
from svcreg.model import DEPTH_LIMIT, Endpoint, Event, Node, Service, Value

INFLATE_LIMIT = 1 << 20
"""Bytes that a compressed record may expand to: a 9 kB packet can otherwise unfold to 4.6 MB."""

RECORD_LIMIT = 1 << 20
"""Bytes of JSON in one record; etcd's own limit is 1.5 MiB with key and overhead."""

COUNT_LIMIT = 10_000
"""Items in any list of a record: 1 MiB can otherwise hold 350,000 empty nodes."""

T = TypeVar("T")
_COUNT = msgspec.Meta(max_length=COUNT_LIMIT)


# The wire structs have Go's field order, so that the output is what Go would write, and take
# `null` for any map or list, which is how Go writes an empty one.
class _Value(msgspec.Struct):
    name: str | None = None
    type: str | None = None
    values: Annotated[list[_Value], _COUNT] | None = None


class _Endpoint(msgspec.Struct):
    request: _Value | None = None
    response: _Value | None = None
    metadata: Mapping[str, str] | None = None
    name: str | None = None


class _Node(msgspec.Struct):
    metadata: Mapping[str, str] | None = None
    id: str = ""
    address: str = ""


class _Service(msgspec.Struct):
    name: str = ""
    version: str | None = None
    metadata: Mapping[str, str] | None = None
    endpoints: Annotated[list[_Endpoint], _COUNT] | None = None
    nodes: Annotated[list[_Node], _COUNT] | None = None


class _Event(msgspec.Struct):
    action: str
    service: _Service
    timestamp: float


_encoder = msgspec.json.Encoder(order="deterministic")  # as Go, which sorts the keys of a map
_service_decoder = msgspec.json.Decoder(_Service)
_endpoint_decoder = msgspec.json.Decoder(_Endpoint)
_endpoints_decoder = msgspec.json.Decoder(Annotated[list[_Endpoint], _COUNT] | None)
_metadata_decoder = msgspec.json.Decoder(dict[str, str] | None)

# Go's encoding/json, Marshal: these are escaped so that JSON can stand inside HTML and JavaScript.
_ESCAPES = {
    b"<": rb"\u003c",
    b">": rb"\u003e",
    b"&": rb"\u0026",
    "\u2028".encode(): rb"\u2028",
    "\u2029".encode(): rb"\u2029",
}


def encode_service(service: Service) -> bytes:
    """Encode a service, with its nodes, byte for byte as go-micro stores it."""
    return escape(_encoder.encode(_service_to_wire(service)))


def encode_endpoint(endpoint: Endpoint) -> bytes:
    """Encode one endpoint as go-micro stores it."""
    return escape(_encoder.encode(_endpoint_to_wire(endpoint)))


def encode_metadata(metadata: Mapping[str, str]) -> bytes:
    """Encode metadata as go-micro stores it, as a JSON object."""
    return escape(_encoder.encode(metadata))


# What follows is shown and never stored: nothing is escaped that need not be.


def encode_services(services: Sequence[Service]) -> bytes:
    """Encode services as a JSON array."""
    return _encoder.encode([_service_to_wire(service) for service in services])


def encode_node(node: Node) -> bytes:
    """Encode one node as JSON, with go-micro's field names."""
    return _encoder.encode(_Node(node.metadata, node.id, node.address))


def encode_event(event: Event) -> bytes:
    """Encode an event as JSON: `action`, `service`, `timestamp`."""
    return _encoder.encode(_Event(event.action, _service_to_wire(event.service), event.timestamp))


def decode_service(data: bytes | str) -> Service:
    """Decode go-micro's service JSON; unknown fields are ignored, `null` is empty.

    Raises:
        ProtocolError: It is not such JSON, or is too large or nested too deeply.
    """
    wire = _decode(_service_decoder, data, "service")
    return Service(
        wire.name,
        wire.version or "",
        wire.metadata or {},
        tuple(_endpoint_from_wire(endpoint) for endpoint in wire.endpoints or ()),
        tuple(Node(node.id, node.address, node.metadata or {}) for node in wire.nodes or ()),
    )


def decode_endpoint(data: bytes | str) -> Endpoint:
    """Decode one endpoint's JSON; raises `ProtocolError` as `decode_service` does."""
    return _endpoint_from_wire(_decode(_endpoint_decoder, data, "endpoint"))


def decode_endpoints(data: bytes | str) -> tuple[Endpoint, ...]:
    """Decode a JSON array of endpoints; raises `ProtocolError` as `decode_service` does."""
    wires = _decode(_endpoints_decoder, data, "endpoints")
    return tuple(_endpoint_from_wire(wire) for wire in wires or ())


def decode_metadata(data: bytes | str) -> dict[str, str]:
    """Decode a JSON object of strings; raises `ProtocolError` as `decode_service` does."""
    return _decode(_metadata_decoder, data, "metadata") or {}


def escape(data: bytes) -> bytes:
    """Escape in JSON what Go's encoding/json does; what is escaped already stays as it is."""
    for plain, escaped in _ESCAPES.items():
        data = data.replace(plain, escaped)  # together half a microsecond for a usual record
    return data


def deflate(data: bytes) -> bytes:
    """Compress as go-micro does, with zlib's default level."""
    return zlib.compress(data)


def inflate(data: bytes, limit: int = INFLATE_LIMIT) -> bytes:
    """Decompress a complete zlib stream of at most `limit` bytes.

    Raises:
        ProtocolError: It is not zlib, is cut short, or expands beyond the limit.
    """
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise ProtocolError(f"compressed record is damaged: {error}") from None
    if len(plain) > limit:
        raise ProtocolError(f"compressed record expands beyond {limit} bytes")
    if not stream.eof:
        raise ProtocolError("compressed record is cut short")
    return plain


def to_hex(data: bytes) -> str:
    """Compress and write in hexadecimal, as go-micro's Consul tags and mDNS records are."""
    return deflate(data).hex()


def from_hex(text: str, limit: int = INFLATE_LIMIT) -> bytes:
    """Undo `to_hex`; raises `ProtocolError` as `inflate` does."""
    try:
        data = bytes.fromhex(text)
    except ValueError:
        raise ProtocolError("compressed record is not hexadecimal") from None
    return inflate(data, limit)


def _decode(decoder: msgspec.json.Decoder[T], data: bytes | str, what: str) -> T:
    if len(data) > RECORD_LIMIT:
        raise ProtocolError(f"{what} JSON is larger than {RECORD_LIMIT} bytes")
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # ValueError: not UTF-8
        raise ProtocolError(f"{what} JSON cannot be read: {error}") from None


def _service_to_wire(service: Service) -> _Service:
    return _Service(
        service.name,
        service.version,
        service.metadata,
        [_endpoint_to_wire(endpoint) for endpoint in service.endpoints],
        [_Node(node.metadata, node.id, node.address) for node in service.nodes],
    )


def _endpoint_to_wire(endpoint: Endpoint) -> _Endpoint:
    return _Endpoint(
        _value_to_wire(endpoint.request),
        _value_to_wire(endpoint.response),
        endpoint.metadata,
        endpoint.name,
    )


def _endpoint_from_wire(wire: _Endpoint) -> Endpoint:
    return Endpoint(
        wire.name or "",
        _value_from_wire(wire.request),
        _value_from_wire(wire.response),
        wire.metadata or {},
    )


def _value_to_wire(value: Value | None) -> _Value | None:
    if value is None:
        return None
    values = [_value_to_wire(inner) for inner in value.values]
    return _Value(value.name, value.type, [inner for inner in values if inner is not None])


def _value_from_wire(wire: _Value | None, depth: int = 0) -> Value | None:
    if wire is None:
        return None
    if depth >= DEPTH_LIMIT:
        raise ProtocolError(f"endpoint schema is nested more than {DEPTH_LIMIT} levels deep")
    values = (_value_from_wire(inner, depth + 1) for inner in wire.values or ())
    return Value(
        wire.name or "", wire.type or "", tuple(inner for inner in values if inner is not None)
    )
