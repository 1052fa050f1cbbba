"""What is heard on the link as `Snapshot` and `Delta`, and the upkeep of that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable
from functools import partial

from svcreg import Delta, Service, Snapshot
from svcreg.errors import RegistryError
from svcreg_mdns.client import Link
from svcreg_mdns.sightings import Packet, Sighting, Sightings

UPKEEP_SECONDS = 1.0
"""How often to look for lapsed instances at least; the shortest TTL is one second too."""

LAPSE_GRAIN_SECONDS = 0.05
"""Instances that lapse within this time are looked after together."""

RESCAN_SECONDS = 5.0
"""How often to look for interfaces that have come or gone; costs less than a millisecond."""

SETTLE_SECONDS = 0.15
"""How long the missing records of an instance may take to arrive before they are asked for: a large
announcement comes in several packets, an answer up to 120 ms late."""

QUESTIONS_AT_ONCE = 64
"""Lapsed instances asked for at the same time; a host that dies with 500 nodes takes 5 seconds."""

RESOLVED_AT_ONCE = 8
"""Incomplete instances asked for at the same time: anybody can name hundreds of them in one packet
and must not make us flood the link with questions."""

_log = logging.getLogger("svcreg.mdns")


class Watcher:
    """Reads from a link on behalf of any number of `get`, `list` and `watch`.

    Reading starts with the first of them; until then packets are only listened to.
    """

    def __init__(self) -> None:
        self.sightings = Sightings(self._changed, self._need_attention)
        self._link: Link | None = None
        self._subscribers: set[_Subscriber] = set()
        self._starting: asyncio.Task[None] | None = None
        self._attention = asyncio.Event()
        self._asking: dict[str, asyncio.Task[None]] = {}

    def attach(self, link: Link) -> None:
        """Say which link to ask on; before anything else."""
        self._link = link

    async def start(self) -> None:
        """Ask who is there, once; a few hundred milliseconds the first time, then none."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._first_look())
        try:
            await asyncio.shield(self._starting)
        except (OSError, RegistryError):
            self._starting = None
            raise

    async def watch(self, name: str | None) -> AsyncGenerator[Snapshot | Delta, None]:
        """Yield what is there, then every change of it.

        Raises:
            RegistryUnavailableError: The network interface has gone.
        """
        await self.start()
        subscriber = _Subscriber(name)
        self._subscribers.add(subscriber)
        try:
            yield Snapshot(self.sightings.services(name))
            while True:
                yield await subscriber.take()
        finally:
            self._subscribers.discard(subscriber)

    async def keep_up(self) -> None:
        """Run for ever: ask for what lapsed or is incomplete, and follow the interfaces.

        Raises:
            RegistryUnavailableError: No interface is left.
        """
        assert self._link is not None  # noqa: S101 - attach() comes first
        loop = asyncio.get_running_loop()
        rescan_at = loop.time() + RESCAN_SECONDS
        while True:
            self._attention.clear()
            if self._starting is None:
                self._drop_lapsed()
            else:
                self._ask_about_lapsed()
            if loop.time() >= rescan_at:
                rescan_at = loop.time() + RESCAN_SECONDS
                await self._link.rescan()
            try:
                async with asyncio.timeout(self._seconds_to_next_lapse()):
                    await self._attention.wait()
                    await asyncio.sleep(SETTLE_SECONDS)
            except TimeoutError:
                pass

    def fail(self, error: RegistryError) -> None:
        """End every watch with an error, and forget what was heard."""
        for subscriber in self._subscribers:
            subscriber.fail(error)
        self.close()

    def close(self) -> None:
        """Stop asking."""
        if self._starting is not None:
            self._starting.cancel()
        for task in self._asking.values():
            task.cancel()

    def hear(self, packet: Packet) -> None:
        """Take in one packet."""
        self.sightings.hear(packet)

    async def _first_look(self) -> None:
        assert self._link is not None  # noqa: S101 - attach() comes first
        self._drop_lapsed()
        self._link.browse()
        await self._link.sweep()

    def _seconds_to_next_lapse(self) -> float:
        until = self.sightings.seconds_to_next_lapse(apart_from=self._asking)
        return min(max(until, LAPSE_GRAIN_SECONDS), UPKEEP_SECONDS)

    def _drop_lapsed(self) -> None:
        """Forget what may not be there, without asking: nobody reads yet."""
        for sighting in [*self.sightings.lapsed(), *self.sightings.unresolved()]:
            self.sightings.remove(sighting.name)

    def _ask_about_lapsed(self) -> None:
        self._ask_about(self.sightings.lapsed(), QUESTIONS_AT_ONCE)
        self._ask_about(self.sightings.unresolved(), RESOLVED_AT_ONCE)

    def _ask_about(self, sightings: Iterable[Sighting], limit: int) -> None:
        for sighting in sightings:
            if len(self._asking) >= limit:
                return
            if sighting.name not in self._asking:
                task = asyncio.create_task(self._ask(sighting))
                self._asking[sighting.name] = task
                task.add_done_callback(partial(self._answered, sighting.name))

    async def _ask(self, sighting: Sighting) -> None:
        """Ask for an instance and forget it if nobody answers."""
        assert self._link is not None  # noqa: S101 - attach() comes first
        known = await self._link.ask(sighting.name)
        if self.sightings.find(sighting.name) is not sighting:
            return
        if known is not None and not self.sightings.is_complete(sighting):
            self.sightings.hear(known)
        if not self.sightings.is_complete(sighting) or self.sightings.has_lapsed(sighting):
            self.sightings.remove(sighting.name)

    def _answered(self, name: str, _: asyncio.Task[None]) -> None:
        del self._asking[name]
        self._need_attention()

    def _changed(self, before: Service | None, after: Service | None) -> None:
        for subscriber in self._subscribers:
            subscriber.add(before, after)

    def _need_attention(self) -> None:
        self._attention.set()


class _Subscriber:
    """Changes that one watch has not taken yet: the last one per node, so it stays bounded."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._changes: dict[tuple[str, str], tuple[Service, bool]] = {}
        self._error: RegistryError | None = None
        self._ready = asyncio.Event()

    def add(self, before: Service | None, after: Service | None) -> None:
        service = after or before
        if service is None or (self._name is not None and service.name != self._name):
            return
        self._changes[service.name, service.nodes[0].id] = service, after is not None
        self._ready.set()

    def fail(self, error: RegistryError) -> None:
        self._error = error
        self._ready.set()

    async def take(self) -> Delta:
        await self._ready.wait()
        self._ready.clear()
        if self._error is not None:
            raise self._error
        changes, self._changes = self._changes, {}
        return Delta(
            upserts=tuple(service for service, is_there in changes.values() if is_there),
            deletes=tuple(service for service, is_there in changes.values() if not is_there),
        )
