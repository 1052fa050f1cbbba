"""What is heard on the link: a bounded table of instances, pure and fed with packets.

Every program on the link can fill it, so everything has a limit, and one bad record never costs
a good neighbour its place.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from svcreg import Service
from svcreg.errors import ProtocolError
from svcreg_mdns import records
from svcreg_mdns.nodes import Nodes, Rank
from svcreg_mdns.records import Claim, Stamp
from svcreg_mdns.skips import Skips

NODE_LIMIT = 4096
"""Instances kept. zeroconf's own cache ends at 10,000 records, which is 2,000 nodes."""

MEMORY_LIMIT = 64 * 1024 * 1024
"""Bytes, roughly, of all decoded records together; an ordinary one takes 1 to 10 kB."""

ADDRESS_LIMIT = 16
"""Addresses kept per host; a machine has a few."""

TOMBSTONE_SECONDS = 3.0
"""How long a withdrawn record is refused. zeroconf may still send an answer 1.3 s after the
goodbye: its queue for records multicast less than a second ago is not emptied by it."""

MEMORY_OF_DEPARTED = 4096
"""Tombstones, and bad records, kept in mind."""

TTL_LIMIT = 4500
"""Seconds; RFC 6762 section 10 recommends 75 minutes for what lives longest."""

PROBATION_SECONDS = 1.0
"""A record heard again after this long has shown that somebody keeps it up; when the table is full
it is those heard only once that make room."""

T = TypeVar("T")


@dataclass(slots=True)
class Packet:
    """The records of one response that concern us; names in lower case, TTL 0 means goodbye.

    Attributes:
        pointers: TTL by instance name.
        services: Host, port and TTL by instance name.
        texts: TXT data and TTL by instance name.
        addresses: IP address, TTL and whether it replaces all others, by host name.
    """

    pointers: dict[str, int] = field(default_factory=dict)
    services: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    texts: dict[str, list[tuple[bytes, int]]] = field(default_factory=dict)
    addresses: dict[str, list[tuple[str, int, bool]]] = field(default_factory=dict)

    def instances(self) -> set[str]:
        """Return the names of all instances that the packet says something about."""
        return {*self.pointers, *self.services, *self.texts}

    def live_text(self, name: str) -> bytes | None:
        """Return the TXT data announced for an instance, or None."""
        return next((text for text, ttl in self.texts.get(name, ()) if ttl), None)

    def goodbye_texts(self, name: str) -> list[bytes]:
        """Return the TXT data withdrawn for an instance."""
        return [text for text, ttl in self.texts.get(name, ()) if not ttl]

    def is_goodbye(self, name: str) -> bool:
        """Tell whether the packet withdraws an instance, in whole or in part."""
        service = self.services.get(name)
        return (
            self.pointers.get(name) == 0
            or (service is not None and service[2] == 0)
            or (bool(self.goodbye_texts(name)) and self.live_text(name) is None)
        )


@dataclass(slots=True, eq=False)
class Sighting:
    """One instance as last heard. `lapses_at` is on the monotonic clock, in seconds."""

    name: str
    first_heard: float
    lapses_at: float
    host: str | None = None
    port: int = 0
    text: bytes = b""
    claim: Claim | None = None
    shown: Service | None = None

    @property
    def stamp(self) -> Stamp | None:
        """Which registration this is, where it says so."""
        return self.claim.stamp if self.claim else None


class Sightings:
    """The table. Call it from one thread only.

    Args:
        nodes: Given a claim for every instance of which all is known.
        on_attention: Told that `unresolved` or `lapsed` may have become non-empty.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        nodes: Nodes,
        on_attention: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nodes = nodes
        self.skips = Skips(clock)
        self._on_attention = on_attention
        self._clock = clock
        self._sightings: dict[str, Sighting] = {}
        self._probation: OrderedDict[str, None] = OrderedDict()
        self._hosts: dict[str, dict[str, float]] = {}  # address -> heard at, of hosts in use
        self._host_users: dict[str, set[str]] = {}
        self._departed: OrderedDict[str, tuple[float, bytes, Stamp | None]] = OrderedDict()
        self._bad: OrderedDict[str, bytes] = OrderedDict()
        self._memory = 0

    def __len__(self) -> int:
        return len(self._sightings)

    def find(self, name: str) -> Sighting | None:
        """Return what is known of an instance, by its full name in lower case."""
        return self._sightings.get(name)

    def find_node(self, service: str, node_id: str) -> list[Sighting]:
        """Return every instance that claims to be a node; usually one."""
        names = self._nodes.claimants(service, node_id)
        return [self._sightings[name] for name in names if name in self._sightings]

    def addresses(self, host: str) -> tuple[str, ...]:
        """Return the known addresses of a host in use."""
        return tuple(self._hosts.get(host, ()))

    def unresolved(self) -> Iterator[Sighting]:
        """Iterate over instances of which a record is missing, the newest first."""
        return (
            sighting
            for sighting in reversed(self._sightings.values())
            if not self.is_complete(sighting)
        )

    def is_complete(self, sighting: Sighting) -> bool:
        """Tell whether all records of an instance are known."""
        return bool(sighting.claim and sighting.port and self._hosts.get(sighting.host or ""))

    def lapsed(self) -> list[Sighting]:
        """Return the instances not heard of within their TTL."""
        return [sighting for sighting in self._sightings.values() if self.has_lapsed(sighting)]

    def seconds_to_next_lapse(self, apart_from: Container[str] = ()) -> float:
        """Return when the next instance lapses, of those not named; infinity when there is none."""
        deadlines = (
            sighting.lapses_at
            for sighting in self._sightings.values()
            if sighting.name not in apart_from
        )
        return min(deadlines, default=math.inf) - self._clock()

    def has_lapsed(self, sighting: Sighting) -> bool:
        """Tell whether an instance was not heard of within its TTL."""
        return sighting.lapses_at <= self._clock()

    def hear(self, packet: Packet) -> None:
        """Take in one packet; never raises, whatever is in it."""
        touched = [name for name in packet.instances() if self._hear_instance(name, packet)]
        for host, addresses in packet.addresses.items():
            if host in self._host_users:
                self._hear_addresses(host, addresses)
                touched.extend(self._host_users[host])
        for name in touched:
            if sighting := self._sightings.get(name):
                self._show(sighting)

    def remove(self, name: str, *, goodbye: bool = False) -> None:
        """Forget an instance; after a goodbye its record is refused for a while."""
        sighting = self._sightings.pop(name, None)
        if sighting is None:
            return
        self._probation.pop(name, None)
        self._use_host(sighting, None)
        self._unclaim(sighting)
        self._memory -= sighting.claim.cost if sighting.claim else 0
        if goodbye and sighting.text:
            _remember(self._departed, name, (self._clock(), sighting.text, sighting.stamp))

    def clear(self) -> None:
        """Forget everything, as when the network is gone."""
        for name in list(self._sightings):
            self.remove(name)

    def _hear_instance(self, name: str, packet: Packet) -> bool:
        """Update one instance; return whether what it shows may have changed."""
        text = packet.live_text(name)
        sighting = self._sightings.get(name)
        if packet.is_goodbye(name):
            self._hear_goodbye(name, sighting, packet)
            return False
        if text is not None and (sighting is None or text != sighting.text):
            claim = self._read(name, text, sighting)
            if claim is None:
                return False
        else:
            claim = None
        now = self._clock()
        if sighting is None:
            if claim is None and (name in self._bad or self._has_departed(name)):
                return False
            if not self._make_room(name):
                return False
            sighting = Sighting(name, first_heard=now, lapses_at=now + TTL_LIMIT)
            self._sightings[name] = sighting
            self._probation[name] = None
        elif now - sighting.first_heard >= PROBATION_SECONDS:
            self._probation.pop(name, None)
        if claim is not None and text is not None:
            if sighting.shown and _identity(sighting.shown) != (claim.service.name, claim.node.id):
                self._unclaim(sighting)
            self._memory += claim.cost - (sighting.claim.cost if sighting.claim else 0)
            sighting.claim, sighting.text = claim, text
        if name in packet.services:
            host, port, ttl = packet.services[name]
            self._use_host(sighting, host)
            sighting.port = port
            sighting.lapses_at = now + min(ttl, TTL_LIMIT)
        return True

    def _hear_goodbye(self, name: str, sighting: Sighting | None, packet: Packet) -> None:
        if sighting is None:
            return
        if not sighting.text or sighting.text in packet.goodbye_texts(name):
            self.remove(name, goodbye=True)
        elif packet.services.get(name) == (sighting.host, sighting.port, 0):
            # With another text it is a predecessor's on its way out, or comes in parts: ask.
            sighting.lapses_at = self._clock()
            self._on_attention()

    def _read(self, name: str, text: bytes, sighting: Sighting | None) -> Claim | None:
        """Decode a TXT record unless it is known to be bad, is outdated or does not fit."""
        if self._bad.get(name) == text:
            return None
        try:
            claim = records.decode(text)
            known = sighting.claim.cost if sighting and sighting.claim else 0
            if self._memory + claim.cost - known > MEMORY_LIMIT:
                raise ProtocolError(f"all records together take more than {MEMORY_LIMIT} bytes")
        except ProtocolError as error:
            _remember(self._bad, name, text)
            self.skips.add(name, str(error))
            return None
        if self._has_departed(name):
            _, gone_text, gone_stamp = self._departed[name]
            if text == gone_text or _is_older(claim.stamp, gone_stamp):
                return None
        if sighting is not None and _is_older(claim.stamp, sighting.stamp):
            return None
        return claim

    def _has_departed(self, name: str) -> bool:
        departed = self._departed.get(name)
        return departed is not None and self._clock() - departed[0] < TOMBSTONE_SECONDS

    def _make_room(self, name: str) -> bool:
        if len(self._sightings) < NODE_LIMIT:
            return True
        if not self._probation:
            self.skips.add(name, f"more than {NODE_LIMIT} nodes on this link")
            return False
        oldest, _ = self._probation.popitem(last=False)
        self.skips.add(oldest, f"more than {NODE_LIMIT} nodes on this link")
        self.remove(oldest)
        return True

    def _hear_addresses(self, host: str, heard: list[tuple[str, int, bool]]) -> None:
        known = self._hosts.setdefault(host, {})
        now = self._clock()
        live = {address for address, ttl, _ in heard if ttl}
        replaced = {_is_ipv6(address) for address, ttl, unique in heard if unique and ttl}
        for address in list(known):
            # RFC 6762 section 10.2: records of the last second belong to the same announcement.
            if _is_ipv6(address) in replaced and now - known[address] > 1.0:
                del known[address]
        for address, ttl, _ in heard:
            if ttl == 0 and address not in live and len(known) > 1:
                known.pop(address, None)
            elif ttl and (address in known or len(known) < ADDRESS_LIMIT):
                known[address] = now

    def _use_host(self, sighting: Sighting, host: str | None) -> None:
        if sighting.host == host:
            return
        if sighting.host is not None:
            users = self._host_users[sighting.host]
            users.discard(sighting.name)
            if not users:
                del self._host_users[sighting.host]
                self._hosts.pop(sighting.host, None)
        if host is not None:
            self._host_users.setdefault(host, set()).add(sighting.name)
        sighting.host = host

    def _show(self, sighting: Sighting) -> None:
        claim = sighting.claim
        if claim is None or not self.is_complete(sighting):
            self._on_attention()
            return
        shown = records.locate(claim, self.addresses(sighting.host or ""), sighting.port)
        if shown != sighting.shown:
            sighting.shown = shown
            canonical = records.instance_name(shown.name, claim.node.id).lower()
            rank = Rank.OWN_NAME if sighting.name == canonical else Rank.FREE_NAME
            self._nodes.claim(sighting.name, rank, shown)

    def _unclaim(self, sighting: Sighting) -> None:
        """Take back the node that an instance shows."""
        shown, sighting.shown = sighting.shown, None
        if shown is not None:
            self._nodes.unclaim(sighting.name, shown)


def _identity(shown: Service) -> tuple[str, str]:
    return shown.name, shown.nodes[0].id


def _is_ipv6(address: str) -> bool:
    return ":" in address


def _is_older(stamp: Stamp | None, known: Stamp | None) -> bool:
    """Tell whether a record has been superseded; without stamps the last one heard counts."""
    return stamp is not None and known is not None and stamp < known


def _remember(memory: OrderedDict[str, T], name: str, value: T) -> None:
    memory[name] = value
    memory.move_to_end(name)
    if len(memory) > MEMORY_OF_DEPARTED:
        memory.popitem(last=False)
