"""Node records <-> what Consul stores: pure functions, in go-micro's format.

Sources: go-micro v6, registry/consul/encoding.go for the tags and registry/consul/consul.go for the
rest; https://developer.hashicorp.com/consul/api-docs/agent/service for the limits. Ours alone are
the `s-` tag (metadata of the service), which go-micro ignores as it ignores every tag that it
does not know, and the keys of `Meta` that begin with `svcreg-`.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from svcreg import Endpoint, Node, Service, codec
from svcreg.codec import COUNT_LIMIT, INFLATE_LIMIT, to_hex
from svcreg.errors import InvalidServiceError, ProtocolError
from svcreg.model import check_name, join_address, split_address
from svcreg_consul.options import Options

META_PAIRS = 64
META_KEY_CHARACTERS = 128
META_VALUE_CHARACTERS = 512
"""Consul's limits of `Meta`; what does not fit is in the tags, which hold all the metadata."""

OWNER_KEY = "svcreg-owner"
"""Key of `Meta` that tells which backend instance has registered."""

NODE_KEY = "svcreg-node"
"""Key of `Meta` that holds the node id where the service ID is not the node id."""

WAN_KEY = "wan_address"
"""Key of the node metadata that becomes the tagged address `wan`, as `host:port`."""

MIN_REAP_SECONDS = 65.0
REAP_SPLAY_SECONDS = 5.0
"""go-micro's getDeregisterTTL: TTL + 5 s, and Consul's own minimum of a minute + 5 s."""

MAX_WEIGHT = 65_535  # agent/structs/structs.go, ValidateWeights

TAG_LIMIT = INFLATE_LIMIT
"""Bytes that all tags of one record together may expand to."""

_META_KEY = re.compile(r"[A-Za-z0-9_-]+")
_RESERVED = ("consul-", "svcreg-")
_ID_DIGEST_BYTES = 6
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._~:@+-]")
_READABLE_CHARACTERS = 200  # of a service ID that is too long for a node id


class Registration(NamedTuple):
    """One node as the agent is told of it; `check` is its only check."""

    id: str
    name: str
    host: str
    port: int
    tags: list[str]
    meta: dict[str, str]
    weights: dict[str, int]
    tagged_addresses: dict[str, dict[str, Any]]
    check: dict[str, Any]
    connect: dict[str, Any] | None

    def is_shown_by(self, shown: Mapping[str, Any]) -> bool:
        """Tell whether what an agent shows of a service ID is this very registration."""
        return bool(
            shown.get("Service") == self.name
            and shown.get("Address") == self.host
            and shown.get("Port") == self.port
            and set(shown.get("Tags") or ()) == set(self.tags)
            and (shown.get("Meta") or {}) == self.meta
        )


class Tags(NamedTuple):
    """What the tags of a record say; `is_damaged` where one of them cannot be read."""

    version: str
    metadata: dict[str, str] | None
    endpoints: tuple[Endpoint, ...]
    service_metadata: dict[str, str]
    is_damaged: bool


def qualified_id(name: str, node_id: str) -> str:
    """Return a service ID that no other node of the agent has, whatever its service.

    Consul's IDs belong to an agent, not to a service, and its catalogue does not tell upper from
    lower case; svcreg's node ids belong to their service.
    """
    return f"{node_id}:{_digest(name, node_id)}"


def may_be_plain(node_id: str) -> bool:
    """Tell whether the node id can itself be the service ID, if no other service has it."""
    return node_id == node_id.lower()


def check_id(service_id: str) -> str:
    """Return the id of the check of a service; go-micro renews the same one."""
    return f"service:{service_id}"


def duration(seconds: float) -> str:
    """Return seconds as Consul reads them, rounded up to milliseconds."""
    return f"{math.ceil(round(seconds * 1000, 3))}ms"


def encode(
    service: Service, node: Node, service_id: str, ttl: float, owner: str, options: Options
) -> Registration:
    """Return the registration of one node of a service."""
    host, port = split_address(node.address)
    tags = encode_tags(service, node)
    meta = encode_meta(node.metadata)
    meta[OWNER_KEY] = owner
    if service_id != node.id:
        meta[NODE_KEY] = node.id
    registration = Registration(
        id=service_id,
        name=service.name,
        host=host,
        port=port,
        tags=tags,
        meta=meta,
        weights={"Passing": _weight(node.metadata.get("weight")), "Warning": 1},
        tagged_addresses=_tagged_addresses(host, port, node.metadata.get(WAN_KEY)),
        check={},
        connect={"Native": True} if options.connect else None,
    )
    # The notes change with the record, so that a watch of all checks shows which record changed.
    digest = hashlib.blake2b(repr(registration).encode(), digest_size=8).hexdigest()
    registration.check.update(_check(node, service_id, ttl, options, f"svcreg {digest}"))
    return registration


def encode_tags(service: Service, node: Node) -> list[str]:
    """Return the tags: metadata, endpoints and version as go-micro, then the service's metadata."""
    tags = [
        "t-" + to_hex(codec.encode_metadata({key: value}))
        for key, value in sorted(node.metadata.items())
    ]
    tags += ["e-" + to_hex(codec.encode_endpoint(endpoint)) for endpoint in service.endpoints]
    tags.append("v-" + to_hex(service.version.encode()))
    if service.metadata:
        tags.append("s-" + to_hex(codec.encode_metadata(service.metadata)))
    return tags


def encode_meta(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return what Consul's limits let into `Meta`: for people, and for Consul's own filters."""
    fitting = (
        (key, value)
        for key, value in sorted(metadata.items())
        if len(key) <= META_KEY_CHARACTERS
        and len(value.encode()) <= META_VALUE_CHARACTERS
        and _META_KEY.fullmatch(key)
        and not key.startswith(_RESERVED)
    )
    room = META_PAIRS - len((OWNER_KEY, NODE_KEY))
    return dict(pair for pair, _ in zip(fitting, range(room), strict=False))


def decode_tags(tags: Iterable[str]) -> Tags:
    """Return what tags say; foreign ones are passed over, damaged ones noted.

    Raises:
        ProtocolError: They are too many, or expand beyond what can be meant well.
    """
    version: str | None = None
    metadata: dict[str, dict[str, str]] = {}
    endpoints: dict[str, list[Endpoint]] = {}
    service_metadata: dict[str, str] = {}
    is_damaged = False
    room = TAG_LIMIT
    for count, tag in enumerate(tags):
        if count >= COUNT_LIMIT:
            raise ProtocolError(f"record has more than {COUNT_LIMIT} tags")
        kind, form = tag[:1], tag[1:2]
        if kind not in ("t", "e", "v", "s") or form not in ("-", "="):
            continue
        try:
            plain = codec.from_hex(tag[2:], room) if form == "-" else tag[2:].encode()
        except ProtocolError as error:
            if "beyond" in str(error):
                raise ProtocolError(f"tags expand beyond {TAG_LIMIT} bytes") from None
            is_damaged = True
            continue
        room -= len(plain)
        try:
            if kind == "v":
                version = plain.decode() if version is None else version
            elif kind == "e":
                endpoint = codec.decode_endpoint(plain)
                endpoints.setdefault(form, []).append(endpoint)
            elif kind == "t":
                pairs = codec.decode_metadata(plain)
                metadata.setdefault(form, {}).update(pairs)
            elif form == "-":
                service_metadata.update(codec.decode_metadata(plain))
        except (ProtocolError, UnicodeDecodeError):
            is_damaged = is_damaged or form == "-"  # "t=blue" is merely somebody else's tag
    # Where a record has both forms they say the same twice; the newer one is the hexadecimal one.
    return Tags(
        version or "",
        metadata.get("-", metadata.get("=")),
        tuple(endpoints.get("-", endpoints.get("=", ()))),
        service_metadata,
        is_damaged,
    )


def decode_meta(meta: Mapping[str, str]) -> dict[str, str]:
    """Return `Meta` as node metadata: what others than go-micro and svcreg have."""
    return {key: value for key, value in meta.items() if not key.startswith("svcreg-")}


def decode_node_id(name: str, service_id: str, meta: Mapping[str, str]) -> str:
    """Return the node id, which is the service ID unless that had to be qualified.

    A service ID may hold anything; what no node id may hold is replaced, and a digest added.
    """
    node_id = meta.get(NODE_KEY, "")
    if node_id and service_id == qualified_id(name, node_id):
        return node_id
    try:
        return check_name(service_id)
    except InvalidServiceError:
        readable = _NOT_IN_NAMES.sub("-", service_id)[:_READABLE_CHARACTERS]
        return f"{readable}:{_digest(name, service_id)}"


def decode_address(host: str, port: int, consul_node_host: str) -> str:
    """Return the address of a node; one without a host is where its agent is."""
    return join_address(host or consul_node_host, port)


def _digest(name: str, some_id: str) -> str:
    text = f"{name}\0{some_id}".encode()
    return hashlib.blake2b(text, digest_size=_ID_DIGEST_BYTES).hexdigest()


def _check(node: Node, service_id: str, ttl: float, options: Options, notes: str) -> dict[str, Any]:
    check: dict[str, Any] = {
        "CheckID": check_id(service_id),
        "Name": f"svcreg {options.check}",
        "Notes": notes,
        "DeregisterCriticalServiceAfter": duration(max(ttl + REAP_SPLAY_SECONDS, MIN_REAP_SECONDS)),
    }
    if options.check == "ttl":
        return check | {"TTL": duration(ttl), "Status": "passing"}
    check["Interval"] = duration(options.check_interval)
    check["Timeout"] = duration(options.check_timeout)
    path = options.check_path.lstrip("/")
    if options.check == "tcp":
        check["TCP"] = node.address
    elif options.check == "http":
        scheme = "https" if node.metadata.get("scheme") == "https" else "http"
        check["HTTP"] = f"{scheme}://{node.address}/{path}"
    else:
        check["GRPC"] = f"{node.address}/{path}" if path else node.address
    return check


def _weight(text: str | None) -> int:
    try:
        weight = int(float(text or "1"))
    except (ValueError, OverflowError):
        return 1
    return min(max(weight, 1), MAX_WEIGHT)


def _tagged_addresses(host: str, port: int, wan: str | None) -> dict[str, dict[str, Any]]:
    tagged = {"lan": {"Address": host, "Port": port}}
    wan_host, wan_port = split_address(wan or "")
    if wan_host:
        tagged["wan"] = {"Address": wan_host, "Port": wan_port or port}
    return tagged


# What `/v1/health/service/NAME` answers, as far as it is of interest.
# https://developer.hashicorp.com/consul/api-docs/health#sample-response-2


class ConsulNode(msgspec.Struct):
    """The machine, in Consul's words: the agent that a service is registered with."""

    Node: str = ""
    Address: str = ""


class ConsulService(msgspec.Struct):
    """One registered instance."""

    ID: str = ""
    Service: str = ""
    Tags: list[str] | None = None
    Address: str = ""
    Port: int = 0
    Meta: dict[str, str] | None = None
    ModifyIndex: int = 0


class ConsulCheck(msgspec.Struct):
    """One check of an instance or of its machine."""

    CheckID: str = ""
    Status: str = ""


class ConsulEntry(msgspec.Struct):
    """One instance with its machine and its checks."""

    Node: ConsulNode
    Service: ConsulService
    Checks: list[ConsulCheck] | None = None
