"""What is heard in go-micro's dialect: a bounded table of nodes, pure and fed with packets.

go-micro's nodes announce themselves once, when they start, and keep silent until they are asked. So
each is asked for before its TTL runs out, and dropped when no answer comes.
"""

from __future__ import annotations

import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from svcreg import Service
from svcreg.errors import ProtocolError
from svcreg_mdns.gomicro import records
from svcreg_mdns.gomicro.records import Names, Seen
from svcreg_mdns.nodes import Nodes, Rank
from svcreg_mdns.records import Claim
from svcreg_mdns.skips import Skips

NODE_LIMIT = 4096
"""Nodes kept."""

MEMORY_LIMIT = 32 * 1024 * 1024
"""Bytes, roughly, of all decoded records together; an ordinary one takes 1 to 10 kB."""

BAD_LIMIT = 1024
"""Bad records kept in mind, so that they are not decoded again each time they are heard."""

TTL_LIMIT = 4500
"""Seconds; RFC 6762 section 10 recommends 75 minutes for what lives longest. Go announces 120."""

ASK_AFTER, ASK_STEP = 0.80, 0.05
"""Shares of the TTL after which a node is asked for, and then again (RFC 6762 section 5.2)."""

JITTER = 0.02
"""Share of the TTL added at random, so that readers do not all ask at once (same section)."""

ASKED_LEAST = 2
"""Questions without an answer after which a node may be dropped ..."""

PATIENCE_SECONDS = 0.15
"""... this long after the last of them, and from one to the next when the TTL is over: answers come
within milliseconds, but a process or a radio may have been asleep."""

DEPARTED_SECONDS = 1.0
"""How long answers cannot bring back what was withdrawn: they may have been under way."""

PROBATION_SECONDS = 1.0
"""A node heard again after this long has shown that somebody keeps it up; when the table is full it
is those heard only once that make room."""

_CLAIM = "go-micro"

Key = tuple[str, str]
"""Service and node id."""

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True, eq=False)
class _Heard:
    """One node as last heard. Times are on the monotonic clock, in seconds."""

    seen: Seen
    claim: Claim
    shown: Service
    first_heard: float
    lapses_at: float = math.inf
    ask_at: float = math.inf
    step: float = 0.0
    asked: int = 0
    asked_at: float = -math.inf

    @property
    def dropped_at(self) -> float:
        """When to forget it, should nothing be heard until then."""
        if self.asked < ASKED_LEAST:
            return math.inf
        return max(self.lapses_at, self.asked_at + PATIENCE_SECONDS)

    def refresh(self, now: float) -> None:
        """Reckon from a packet that shows it alive."""
        ttl = min(self.seen.ttl, TTL_LIMIT)
        self.lapses_at = now + ttl
        self.ask_at = now + ttl * (ASK_AFTER + random.uniform(0, JITTER))
        self.step = ttl * ASK_STEP
        self.asked = 0

    def was_asked(self, now: float) -> None:
        """Reckon that a question was sent, and whether there is time for another one."""
        self.asked += 1
        self.asked_at = now
        self.ask_at = now + max(self.step, PATIENCE_SECONDS)
        if self.asked >= ASKED_LEAST and self.ask_at >= self.lapses_at:
            self.ask_at = math.inf

    def doubt(self, now: float) -> None:
        """Ask at once, and drop it unless an answer comes."""
        self.lapses_at = self.ask_at = now
        self.step = 0.0
        self.asked = 0


class Table:
    """The table. Call it from one thread only.

    Args:
        nodes: Given a claim for every node.
        names: Those of the domain.
        is_alone: No other dialect is read. Otherwise nodes that are announced in DNS-SD by the same
            program are left out here.
        skips: Told of records that are left out.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        nodes: Nodes,
        names: Names,
        *,
        is_alone: bool,
        skips: Skips,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nodes = nodes
        self._names = names
        self._is_alone = is_alone
        self._skips = skips
        self._clock = clock
        self._heard: dict[Key, _Heard] = {}
        self._keys: dict[str, Key] = {}  # by instance, as last decoded
        self._probation: OrderedDict[Key, None] = OrderedDict()
        self._departed: OrderedDict[Key, tuple[float, int]] = OrderedDict()
        self._bad: OrderedDict[str, int] = OrderedDict()
        self._memory = 0

    def __len__(self) -> int:
        return len(self._heard)

    def services(self) -> set[str]:
        """Return the names of all services with a node."""
        return {service for service, _ in self._heard}

    def find(self, service: str, node_id: str) -> Seen | None:
        """Return what was last heard of a node."""
        heard = self._heard.get((service, node_id))
        return heard.seen if heard else None

    def hear(self, seen: Seen, zone: str = "", *, is_answer: bool = False) -> None:
        """Take in one node of a packet; never raises, whatever is in it."""
        if not self._is_alone and seen.host == self._names.twin_host(seen.instance):
            return
        known = self._heard.get(self._keys.get(seen.instance, ("", "")))
        if known is None or known.seen.text != seen.text:
            claim = self._read(seen)
            if claim is None:
                return
        else:
            claim = known.claim
        key = claim.service.name, claim.node.id
        if seen.ttl == 0:
            self._hear_goodbye(key, seen)
        elif not (is_answer and self._has_departed(key, seen.text)):
            self._hear_alive(key, seen, claim, zone)

    def due(self) -> set[str]:
        """Return the services of which a node is to be asked for now, and reckon that they are."""
        now = self._clock()
        services = set()
        for (service, _), heard in self._heard.items():
            if heard.ask_at <= now:
                services.add(service)
                heard.was_asked(now)
        return services

    def drop_lapsed(self) -> None:
        """Forget the nodes that were asked for and kept silent until their TTL was over."""
        now = self._clock()
        for key, heard in list(self._heard.items()):
            if heard.dropped_at <= now:
                self._drop(key)  # not `forget`: a late answer brings it back

    def seconds_to_next(self) -> float:
        """Return when somebody is to be asked for or dropped; infinity when there is nobody."""
        times = (min(heard.ask_at, heard.dropped_at) for heard in self._heard.values())
        return min(times, default=math.inf) - self._clock()

    def forget(self, service: str, node_id: str) -> None:
        """Drop a node; answers under way do not bring it back."""
        key = service, node_id
        if (heard := self._heard.get(key)) is not None:
            _remember(self._departed, key, (self._clock(), hash(heard.seen.text)), NODE_LIMIT)
            self._drop(key)

    def _drop(self, key: Key) -> None:
        heard = self._heard.pop(key)
        self._probation.pop(key, None)
        if self._keys.get(heard.seen.instance) == key:
            del self._keys[heard.seen.instance]
        self._memory -= heard.claim.cost
        self._nodes.unclaim(_CLAIM, heard.shown)

    def _hear_alive(self, key: Key, seen: Seen, claim: Claim, zone: str) -> None:
        now = self._clock()
        heard = self._heard.get(key)
        cost = claim.cost - (heard.claim.cost if heard else 0)
        if self._memory + cost > MEMORY_LIMIT:
            self._skips.add(seen.instance, f"all records take more than {MEMORY_LIMIT} bytes")
            return
        if heard is None:
            if not self._make_room(seen.instance):
                return
            heard = _Heard(seen, claim, records.locate(claim, seen, zone), first_heard=now)
            self._heard[key] = heard
            self._probation[key] = None
        else:
            if now - heard.first_heard >= PROBATION_SECONDS:
                self._probation.pop(key, None)
            if _content(seen) != _content(heard.seen):
                heard.shown = records.locate(claim, seen, zone)
            heard.seen, heard.claim = seen, claim
        self._memory += cost
        self._keys[seen.instance] = key
        heard.refresh(now)
        self._nodes.claim(_CLAIM, Rank.GO_MICRO, heard.shown)

    def _hear_goodbye(self, key: Key, seen: Seen) -> None:
        heard = self._heard.get(key)
        if heard is None:
            return
        if _content(heard.seen) == _content(seen):
            self.forget(*key)
        else:
            # A predecessor's, or that of an older version of the record.
            heard.doubt(self._clock())

    def _read(self, seen: Seen) -> Claim | None:
        if self._bad.get(seen.instance) == hash(seen.text):
            return None
        try:
            return records.decode(seen, self._names)
        except ProtocolError as error:
            _remember(self._bad, seen.instance, hash(seen.text), BAD_LIMIT)
            self._skips.add(seen.instance, str(error))
            return None

    def _has_departed(self, key: Key, text: bytes) -> bool:
        at, gone = self._departed.get(key, (-math.inf, 0))
        return hash(text) == gone and self._clock() - at < DEPARTED_SECONDS

    def _make_room(self, instance: str) -> bool:
        if len(self._heard) < NODE_LIMIT:
            return True
        full = f"more than {NODE_LIMIT} nodes on this link"
        if not self._probation:
            self._skips.add(instance, full)
            return False
        oldest = next(iter(self._probation))
        self._skips.add(self._heard[oldest].seen.instance, full)
        self._drop(oldest)
        return True


def _content(seen: Seen) -> tuple[bytes, str, int]:
    return seen.text, seen.address, seen.port


def _remember(memory: OrderedDict[K, V], key: K, value: V, limit: int) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > limit:
        memory.popitem(last=False)
