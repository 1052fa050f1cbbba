"""What `/v1/health/service/NAME` answers, as records; an entry that did not change is not decoded.

Loop only.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import NamedTuple

import msgspec

from svcreg import Node, Service
from svcreg.errors import ProtocolError
from svcreg_consul.records import (
    ConsulEntry,
    decode_address,
    decode_meta,
    decode_node_id,
    decode_tags,
)

CACHED_ENTRIES = 20_000
"""Entries whose decoded form is kept, twice: about 1 kB each."""

BREATH = 100
"""Entries decoded before others have a turn on the loop: 5,000 at once would take half a second."""

_LISTED = {"passing": 2, "warning": 1}
"""How good a node is, by the worst of its checks; others are not listed."""

_log = logging.getLogger("svcreg.consul")


class Sighting(NamedTuple):
    """One listed instance.

    Attributes:
        header: Its service without any node; one object for all nodes that agree.
        node: The node.
        service_id: As registered; often the node id.
        consul_node: The machine that it is registered with.
        rank: The higher, the likelier it is the current one of several with the same node id.
    """

    header: Service
    node: Node
    service_id: str
    consul_node: str
    rank: tuple[int, int]

    def says_the_same(self, other: Sighting | None) -> bool:
        """Tell whether a reader of the registry would see no difference."""
        return self is other or (
            other is not None and self.node == other.node and self.header == other.header
        )


State = Mapping[str, Sighting]
"""The listed nodes of one service, by node id."""

_entries_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_entry_decoder = msgspec.json.Decoder(ConsulEntry)


class Reader:
    """Decodes answers, remembering each entry by what it looked like.

    Attributes:
        decoded: Entries decoded so far; those found in memory do not count.
        skipped: Entries left out because nothing sensible could be made of them.
    """

    def __init__(self, *, passing_only: bool = False, cached: int = CACHED_ENTRIES) -> None:
        self.decoded = 0
        self.skipped = 0
        self._worst_listed = 2 if passing_only else 1
        self._limit = cached
        self._young: dict[bytes, Sighting | None] = {}
        self._old: dict[bytes, Sighting | None] = {}
        self._headers: dict[object, Service] = {}
        self._complained: set[tuple[str, str]] = set()

    async def read(self, name: str, body: bytes) -> dict[str, Sighting]:
        """Return the listed nodes of a service.

        Raises:
            ProtocolError: The answer is no list of entries.
        """
        try:
            entries = _entries_decoder.decode(body)
        except (msgspec.MsgspecError, ValueError) as error:
            raise ProtocolError(
                f"consul: the entries of {name!r} make no sense: {error}", service=name
            ) from None
        state: dict[str, Sighting] = {}
        fresh = 0
        for raw in entries:
            view = memoryview(raw)
            # Consul does not tell upper from lower case, so the name is part of the question.
            digest = hashlib.blake2b(view, digest_size=16, key=name.encode()[:64]).digest()
            try:
                sighting = self._young[digest]
            except KeyError:
                if digest in self._old:
                    sighting = self._old[digest]
                else:
                    sighting = self._decode(name, raw)
                    self.decoded += 1
                    fresh += 1
                    if fresh % BREATH == 0:
                        await asyncio.sleep(0)
                self._remember(digest, sighting)
            if sighting is not None:
                node_id = sighting.node.id
                other = state.get(node_id)
                if other is None or other.rank < sighting.rank:
                    state[node_id] = sighting
        return state

    def _remember(self, digest: bytes, sighting: Sighting | None) -> None:
        if len(self._young) >= self._limit:
            self._old, self._young = self._young, {}
            self._headers.clear()
        self._young[digest] = sighting

    def _decode(self, name: str, raw: msgspec.Raw) -> Sighting | None:
        """Return one entry; None where it is not listed, not ours to answer, or damaged."""
        try:
            entry = _entry_decoder.decode(raw)
        except (msgspec.MsgspecError, ValueError) as error:
            self._complain(name, "?", str(error))
            return None
        shown = entry.Service
        if shown.Service != name:
            return None
        worst = min((_LISTED.get(check.Status, 0) for check in entry.Checks or ()), default=2)
        if worst < self._worst_listed:
            return None
        try:
            tags = decode_tags(shown.Tags or ())
        except ProtocolError as error:
            self._complain(name, shown.ID, str(error))
            return None
        if tags.is_damaged:
            self._complain(name, shown.ID, "a tag is damaged and was passed over", skipped=False)
        meta = shown.Meta or {}
        node = Node(
            decode_node_id(name, shown.ID, meta),
            decode_address(shown.Address, shown.Port, entry.Node.Address),
            decode_meta(meta) if tags.metadata is None else tags.metadata,
        )
        header = Service(name, tags.version, tags.service_metadata, tags.endpoints)
        header = self._headers.setdefault(_key(header), header)
        return Sighting(header, node, shown.ID, entry.Node.Node, (worst, shown.ModifyIndex))

    def _complain(self, name: str, service_id: str, why: str, *, skipped: bool = True) -> None:
        self.skipped += skipped
        if (name, service_id) not in self._complained and len(self._complained) < self._limit:
            self._complained.add((name, service_id))
            what = "is left out" if skipped else "is incomplete"
            _log.warning("record %r of %r %s: %s", service_id, name, what, why)


def _key(header: Service) -> object:
    return (
        header.name,
        header.version,
        tuple(sorted(header.metadata.items())),
        tuple(repr(endpoint) for endpoint in header.endpoints),
    )


def group(sightings: Iterable[Sighting]) -> tuple[Service, ...]:
    """Merge sightings into one service per name and version.

    Where nodes of one version disagree about the service's metadata or endpoints, as during an
    upgrade, each opinion stays a service of its own.
    """
    versions: dict[tuple[str, str], list[tuple[Service, list[Node]]]] = {}
    for sighting in sightings:
        header = sighting.header
        opinions = versions.setdefault((header.name, header.version), [])
        for opinion, nodes in opinions:
            if opinion is header or opinion == header:
                nodes.append(sighting.node)
                break
        else:
            opinions.append((header, [sighting.node]))
    return tuple(
        header.with_nodes(tuple(sorted(nodes, key=attrgetter("id"))))
        for _, opinions in sorted(versions.items())
        for header, nodes in opinions
    )
