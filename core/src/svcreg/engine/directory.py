"""What is known of each watched service: newest snapshot, freshness, and who wants to hear of it.

No I/O and no clock of its own beyond `time.monotonic`. Everything runs on the engine's loop except
`Directory.services`, which any thread may call: it reads an immutable tuple that is swapped whole.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from svcreg.errors import RegistryClosedError
from svcreg.hookspecs import Delta, Snapshot
from svcreg.model import Event, Node, Service

UNWELL_WINDOW = 5.0
"""Seconds after a reconnection in which the source may still be incomplete."""

GUARDED_NODES = 4
"""Nodes from which on the loss of more than half counts as the registry's trouble, not theirs."""

EVENT_BACKLOG = 10_000
"""Undelivered events of one watch before they are merged to one per node."""

Key = tuple[str, str]
"""Service name and node id: what identifies a node."""


class Record(NamedTuple):
    """One node, and its service without any node."""

    header: Service
    node: Node

    def service(self) -> Service:
        """Return the service with just this node."""
        return self.header.with_nodes((self.node,))


def records_of(services: Iterable[Service]) -> dict[Key, Record]:
    """Take services apart into one record per node; a node id given twice counts once."""
    records: dict[Key, Record] = {}
    for service in services:
        header = service.with_nodes(())
        for node in service.nodes:
            records[service.name, node.id] = Record(header, node)
    return records


def group(records: Iterable[Record]) -> tuple[Service, ...]:
    """Put records together: one service per version, sorted, with its nodes sorted by id."""
    versions: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        versions.setdefault((record.header.name, record.header.version), []).append(record)
    grouped = []
    for _, members in sorted(versions.items()):
        members.sort(key=lambda record: record.node.id)
        grouped.append(members[0].header.with_nodes(tuple(record.node for record in members)))
    return tuple(grouped)


class Known:
    """The newest state of one watched service, or of all (`name` None).

    `services` is what readers get: what the source says, and for a bounded time also nodes that
    went missing while the source was unwell (`empty_grace` seconds).

    Attributes:
        services: Grouped by version; swapped whole.
        is_known: Whether the source has ever answered.
        stale_since: Monotonic time at which the source was lost, None while it is connected.
        fresh_at: Monotonic time of the source's last sign of life.
        used_at: Monotonic time at which somebody last asked.
        obey_at: Monotonic time at which nodes held back are to be let go, or None.
    """

    def __init__(
        self,
        name: str | None,
        empty_grace: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.services: tuple[Service, ...] = ()
        self.is_known = False
        self.stale_since: float | None = None
        self.fresh_at = self.used_at = clock()
        self.obey_at: float | None = None
        self.subscriptions: set[Subscription] = set()
        self.truth: dict[Key, Record] = {}
        self._visible: dict[Key, Record] = {}
        self._baseline: frozenset[Key] = frozenset()
        self._held: set[Key] = set()
        self._restored_at: float | None = None
        self._empty_grace = empty_grace
        self._clock = clock
        self._changed: set[asyncio.Future[None]] = set()

    def apply(self, item: Snapshot | Delta) -> None:
        """Take in what the source said, and tell the subscribers what changed."""
        now = self.fresh_at = self._clock()
        if self.stale_since is not None:
            self.stale_since = None
            self._restored_at = now
        if isinstance(item, Snapshot):
            self.truth = upserts = records_of(item.services)
            deletes = [key for key in self._visible if key not in upserts]
        else:
            upserts = records_of(item.upserts)
            deletes = [
                (service.name, node.id) for service in item.deletes for node in service.nodes
            ]
            self.truth.update(upserts)
            for key in deletes:
                self.truth.pop(key, None)
        self._held.difference_update(upserts)
        deletes = self._hold_back(deletes, now, is_explicit=isinstance(item, Delta))
        if not self._held:
            self.obey_at = None
        self._commit(upserts, deletes)
        self.is_known = True

    def lost(self) -> None:
        """Note that the source cannot be reached; what is known stays, as stale."""
        if self.stale_since is None:
            self.stale_since = self._clock()
            self._baseline = frozenset(self._visible)
            self._wake()

    def obey(self) -> None:
        """Let go of what was held back, once its time has come and the source still says so."""
        is_due = self.obey_at is not None and self._clock() >= self.obey_at
        if is_due and self.stale_since is None:
            deletes, self._held, self.obey_at = list(self._held), set(), None
            self._commit({}, deletes)

    def subscribe(self) -> Subscription:
        """Return a subscription that begins with a `create` for every node already there."""
        subscription = Subscription(self)
        now = time.time()
        subscription.publish(
            [Event("create", record.service(), now) for record in self._visible.values()]
        )
        self.subscriptions.add(subscription)
        return subscription

    async def wait_until(self, is_met: Callable[[Mapping[Key, Record]], bool]) -> None:
        """Return once the visible records meet a condition, or the source is lost."""
        while not is_met(self._visible) and self.stale_since is None:
            changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._changed.add(changed)
            try:
                await changed
            finally:
                self._changed.discard(changed)

    def close(self, error: Exception | None = None) -> None:
        """End every subscription, with an error or without."""
        for subscription in list(self.subscriptions):
            subscription.close(error)

    def _hold_back(self, deletes: Sequence[Key], now: float, *, is_explicit: bool) -> list[Key]:
        """Return the deletions to obey at once; the others are held for `empty_grace`."""
        is_unwell = self._restored_at is not None and now - self._restored_at < UNWELL_WINDOW
        if is_unwell:
            missing = [key for key in self._baseline if key not in self.truth]
            is_empty = bool(missing) and not self.truth
            is_mass = len(self._baseline) >= GUARDED_NODES
            if is_empty or (is_mass and len(missing) > len(self._baseline) / 2):
                self._held.update(missing)
                if self.obey_at is None:
                    self.obey_at = now + self._empty_grace
        elif is_explicit:
            self._held.difference_update(deletes)  # said by a source that is well
        return [key for key in deletes if key not in self._held]

    def _commit(self, upserts: Mapping[Key, Record], deletes: Iterable[Key]) -> None:
        now = time.time()
        events = []
        for key, record in upserts.items():
            before = self._visible.get(key)
            if before != record:
                self._visible[key] = record
                action: Literal["create", "update"] = "update" if before else "create"
                events.append(Event(action, record.service(), now))
        gone = (self._visible.pop(key, None) for key in deletes)
        events.extend(Event("delete", record.service(), now) for record in gone if record)
        if events:
            if self.name is not None:  # of all services together nobody reads a snapshot
                self.services = group(self._visible.values())
            for subscription in self.subscriptions:
                subscription.publish(events)
            self._wake()

    def _wake(self) -> None:
        for future in self._changed:
            if not future.done():
                future.set_result(None)


class Subscription:
    """The events of one watch, in order; for one consumer, on the engine's loop.

    A consumer that falls far behind loses nothing that matters: its backlog is merged to one
    event per node, so that memory stays bounded by the number of nodes.
    """

    def __init__(self, known: Known, backlog: int = EVENT_BACKLOG) -> None:
        self._known = known
        self._events: deque[Event] = deque()
        self._batch: Sequence[Event] = ()
        self._sent = 0
        self._backlog = self._limit = backlog
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._is_closed = False

    def publish(self, events: Collection[Event]) -> None:
        """Queue events for the consumer."""
        self._events.extend(events)
        if len(self._events) > self._limit:
            self._events = deque(merge(self._events))
            self._limit = max(self._backlog, 2 * len(self._events))
        if self._events:
            self._wake()

    async def next_batch(self, received: int) -> Sequence[Event]:
        """Return all events queued, waiting for at least one; an empty batch is the end.

        Args:
            received: How many batches have arrived at the consumer. One that was on its way when
                its reader was cancelled is handed out again, so that no event is lost.

        Raises:
            SvcregError: The watch cannot go on, for a reason that no retry mends.
        """
        if received < self._sent:
            return self._batch
        while not self._events and not self._is_closed:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if not self._events and self._error is not None:
            raise self._error
        self._batch = tuple(self._events)
        self._events.clear()
        self._sent += 1
        return self._batch

    def close(self, error: Exception | None = None) -> None:
        """End the subscription; events queued before are still delivered."""
        self._is_closed = True
        self._error = error
        self._known.subscriptions.discard(self)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def merge(events: Iterable[Event]) -> list[Event]:
    """Merge events to the net effect per node, in the order of each node's last event."""
    first: dict[Key, Event] = {}
    last: dict[Key, Event] = {}
    for event in events:
        key = (event.service.name, event.service.nodes[0].id)
        first.setdefault(key, event)
        last.pop(key, None)
        last[key] = event
    merged = []
    for key, event in last.items():
        was_there, is_there = first[key].action != "create", event.action != "delete"
        if was_there or is_there:
            action: Literal["create", "update", "delete"] = (
                "delete" if not is_there else "update" if was_there else "create"
            )
            merged.append(Event(action, event.service, event.timestamp))
    return merged


class Directory:
    """What is known, by service name; None stands for every service."""

    def __init__(self, empty_grace: float) -> None:
        self._empty_grace = empty_grace
        self._known: dict[str | None, Known] = {}
        self._is_closed = False

    def services(self, name: str) -> tuple[Service, ...] | None:
        """Return the newest snapshot, or None where nothing is known. Any thread may call it."""
        known = self._known.get(name)
        if known is None or not known.is_known:
            return None
        known.used_at = time.monotonic()
        return known.services

    def known(self, name: str | None) -> Known | None:
        """Return what is known of a service that is being watched."""
        return self._known.get(name)

    def add(self, name: str | None) -> Known:
        """Begin to know a service."""
        if self._is_closed:
            raise RegistryClosedError("the registry is closed")
        known = self._known[name] = Known(name, self._empty_grace)
        return known

    def remove(self, name: str | None) -> None:
        """Forget a service that nobody asks for."""
        self._known.pop(name, None)

    def close(self) -> None:
        """Forget everything and end every subscription."""
        self._is_closed = True
        for known in list(self._known.values()):
            known.close()
        self._known.clear()
