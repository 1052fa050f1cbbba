"""Services to keys and values and back, in the layouts of those who share an etcd with us.

Pure: no I/O. A record is one node of one service under one key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from svcreg.codec import RECORD_LIMIT, decode_service, encode_service
from svcreg.errors import ConfigError, InvalidServiceError, ProtocolError
from svcreg.model import Node, Service, split_address

_encoder = msgspec.json.Encoder(order="deterministic")


class Layout(Protocol):
    """Where one system keeps its nodes below a prefix, and how it writes them.

    Attributes:
        prefix: What its own programs use.
        keeps_endpoints: Whether endpoints and service metadata survive.
    """

    prefix: str
    keeps_endpoints: bool

    def folder(self, name: str) -> str:
        """Return the part of a key that stands for a service."""
        ...

    def leaf(self, node: Node) -> str:
        """Return the part of a key that stands for a node."""
        ...

    def encode(self, service: Service) -> bytes:
        """Return the value for a service with one node."""
        ...

    def decode(self, folder: str, leaf: str, value: bytes) -> Service:
        """Return the service with its nodes.

        Raises:
            ProtocolError: It is nothing that this layout's programs write.
        """
        ...


class _GoMicro:
    """go-micro v6, registry/etcd/etcd.go: `<prefix><service>/<node id>`, JSON of the service."""

    prefix = "/micro/registry/"  # etcd.go, prefix
    keeps_endpoints = True

    def folder(self, name: str) -> str:
        return name.replace("/", "-")  # etcd.go, nodePath and servicePath

    def leaf(self, node: Node) -> str:
        return node.id.replace("/", "-")

    def encode(self, service: Service) -> bytes:
        return encode_service(service)

    def decode(self, folder: str, leaf: str, value: bytes) -> Service:
        service = decode_service(value)
        if not service.name or not service.nodes:
            raise ProtocolError("it has no service name or no node")
        return service


class _Ego:
    """`/<service>/<host:port>`, JSON of gRPC's `resolver.Address`.

    What that type has no field for stands in `Attributes`: the node's metadata, and below keys of
    ours its id and version. Programs in Go write `Attributes` as null or text, which says nothing.
    """

    prefix = "/"
    keeps_endpoints = False
    _ID, _VERSION = "svcreg.id", "svcreg.version"

    def folder(self, name: str) -> str:
        return name

    def leaf(self, node: Node) -> str:
        return node.address or node.id  # whoever withdraws may know the id only

    def encode(self, service: Service) -> bytes:
        (node,) = service.nodes
        attributes = dict(node.metadata)
        if node.id != node.address:
            attributes[self._ID] = node.id
        if service.version:
            attributes[self._VERSION] = service.version
        address = {"Addr": node.address, "ServerName": service.name, "Attributes": attributes}
        return _encoder.encode(address)

    def decode(self, folder: str, leaf: str, value: bytes) -> Service:
        found = _decode_object(value)
        address = found.get("Addr")
        if not isinstance(address, str) or not address:
            raise ProtocolError("it has no Addr")
        metadata = _texts(found.get("Attributes")) | _texts(found.get("Metadata"))
        node_id = metadata.pop(self._ID, address)
        version = metadata.pop(self._VERSION, "")
        return Service(folder, version, nodes=(Node(node_id, address, metadata),))


class _Kratos:
    """Kratos v2, contrib/registry/etcd: `/microservices/<service>/<id>`, `ServiceInstance` JSON.

    One instance has a URL per protocol. The node has the address of the first one for gRPC, or of
    the first at all, its scheme as metadata `protocol`, and where there are several URLs all of
    them as metadata `endpoints`.
    """

    prefix = "/microservices/"
    keeps_endpoints = False
    _PROTOCOL, _URLS = "protocol", "endpoints"

    def folder(self, name: str) -> str:
        return name

    def leaf(self, node: Node) -> str:
        return node.id

    def encode(self, service: Service) -> bytes:
        (node,) = service.nodes
        metadata = dict(node.metadata)
        protocol = metadata.pop(self._PROTOCOL, "grpc")
        urls = [url for url in metadata.pop(self._URLS, "").split(",") if url]
        instance = {
            "id": node.id,
            "name": service.name,
            "version": service.version,
            "metadata": metadata,
            "endpoints": urls or [f"{protocol}://{node.address}"],
        }
        return _encoder.encode(instance)

    def decode(self, folder: str, leaf: str, value: bytes) -> Service:
        found = _decode_object(value)
        listed = found.get("endpoints")
        urls = [url for url in listed if isinstance(url, str)] if isinstance(listed, list) else []
        chosen = next((url for url in urls if url.startswith("grpc:")), urls[0] if urls else "")
        try:
            scheme, address = urlsplit(chosen)[:2]
        except ValueError:
            scheme, address = "", ""
        if not split_address(address)[1]:
            raise ProtocolError("it has no endpoint such as grpc://10.0.0.5:9000")
        metadata = {self._PROTOCOL: scheme} | _texts(found.get("metadata"))
        if len(urls) > 1:
            metadata[self._URLS] = ",".join(urls)
        node = Node(_text(found.get("id")) or leaf, address, metadata)
        name = _text(found.get("name")) or folder
        return Service(name, _text(found.get("version")), nodes=(node,))


LAYOUTS: Mapping[str, Layout] = {"go-micro": _GoMicro(), "ego": _Ego(), "kratos": _Kratos()}


class Keyspace:
    """The keys below one prefix, in one layout."""

    def __init__(self, layout: str, prefix: str = "") -> None:
        self.layout = LAYOUTS[layout]
        self.prefix = (prefix or self.layout.prefix).rstrip("/") + "/"
        if not self.prefix.isprintable():
            raise ConfigError("etcd: the prefix holds control characters")

    def range(self, name: str | None) -> tuple[bytes, bytes]:
        """Return first key and end of what belongs to a service, or to all of them.

        The prefix of a service ends with `/`, so that `user` does not find `user-admin`.
        """
        start = self.prefix if name is None else f"{self.prefix}{self.layout.folder(name)}/"
        return start.encode(), range_end(start.encode())

    def keys(self, service: Service) -> list[bytes]:
        """Return the key of each node."""
        folder = f"{self.prefix}{self.layout.folder(service.name)}/"
        return [f"{folder}{self.layout.leaf(node)}".encode() for node in service.nodes]

    def encode(self, service: Service) -> Iterator[tuple[bytes, bytes]]:
        """Yield key and value of each node.

        Raises:
            InvalidServiceError: A record is larger than etcd takes.
        """
        for key, node in zip(self.keys(service), service.nodes, strict=True):
            value = self.layout.encode(service.with_nodes((node,)))
            if len(value) > RECORD_LIMIT:
                raise InvalidServiceError(
                    f"node {node.id!r} of service {service.name!r} takes {len(value)} bytes; "
                    f"etcd stores at most {RECORD_LIMIT} in one record"
                )
            yield key, value

    def decode(self, key: bytes, value: bytes) -> Service:
        """Return the service, with its nodes, that a key holds.

        Raises:
            ProtocolError: Somebody else keeps something else there; says why.
        """
        try:
            folder, slash, leaf = key.decode().removeprefix(self.prefix).rpartition("/")
        except UnicodeDecodeError:
            raise ProtocolError("the key is not UTF-8") from None
        if not slash or not leaf:
            raise ProtocolError("the key is not <prefix><service>/<node>")
        return self.layout.decode(folder, leaf, value)


def range_end(prefix: bytes) -> bytes:
    """Return the first key after all that begin with `prefix`, which is not all 0xff."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def _decode_object(value: bytes) -> dict[str, Any]:
    if len(value) > RECORD_LIMIT:
        raise ProtocolError(f"it is larger than {RECORD_LIMIT} bytes")
    try:
        return msgspec.json.decode(value, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"it is no JSON object: {error}") from None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> dict[str, str]:
    """Return a JSON object's members as text; whatever else it is says nothing."""
    if not isinstance(value, dict):
        return {}
    return {
        name: item if isinstance(item, str) else msgspec.json.encode(item).decode()
        for name, item in value.items()
    }
