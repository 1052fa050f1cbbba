"""The standard dialect, DNS-SD: what this program announces and what it reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from svcreg import Service
from svcreg.errors import RegistryError
from svcreg_mdns.client import Link
from svcreg_mdns.interfaces import Interface
from svcreg_mdns.nodes import Nodes
from svcreg_mdns.publisher import Publisher
from svcreg_mdns.sightings import Packet, Sighting, Sightings

UPKEEP_SECONDS = 1.0
"""How often to look for lapsed instances at least; the shortest TTL is one second too."""

LAPSE_GRAIN_SECONDS = 0.05
"""Instances that lapse within this time are looked after together."""

SETTLE_SECONDS = 0.15
"""How long the missing records of an instance may take to arrive before they are asked for: a large
announcement comes in several packets, an answer up to 120 ms late."""

QUESTIONS_AT_ONCE = 64
"""Lapsed instances asked for at the same time; a host that dies with 500 nodes takes 5 seconds."""

RESOLVED_AT_ONCE = 8
"""Incomplete instances asked for at the same time: anybody can name hundreds of them in one packet
and must not make us flood the link with questions."""


class DnsSd:
    """One link with what is announced and what is heard on it.

    Reading starts with the first `look`; until then packets are only listened to.

    Args:
        nodes: Told what is there.
        on_lost: Told of each of our nodes that somebody else has registered since (True) or
            withdrawn (False).
    """

    def __init__(self, nodes: Nodes, on_lost: Callable[[Service, bool], None]) -> None:
        self._sightings = Sightings(nodes, self._need_attention)
        self._link = Link(self._hear)
        self._publisher = Publisher(self._link, self._sightings, on_lost)
        self._starting: asyncio.Task[None] | None = None
        self._attention = asyncio.Event()
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def open(self, interfaces: tuple[Interface, ...]) -> None:
        """Open the sockets."""
        await self._link.open(interfaces)

    async def close(self) -> None:
        """Say goodbye, and release the sockets."""
        if self._starting is not None:
            self._starting.cancel()
        for task in self._asking.values():
            task.cancel()
        self._publisher.cancel()
        await self._link.close()

    async def use(self, interfaces: tuple[Interface, ...]) -> None:
        """Use these interfaces from now on."""
        await self._link.use(interfaces)

    async def register(self, service: Service, ttl: float) -> None:
        """Announce every node; return when we have heard it."""
        await self._publisher.register(service, ttl)

    async def renew(self, services: Sequence[Service], ttl: float) -> list[Service]:
        """Keep nodes alive; return the services of which a node is not ours."""
        return await self._publisher.renew(services, ttl)

    async def withdraw(self, service: Service) -> None:
        """Withdraw nodes, of whomever."""
        await self._publisher.withdraw(service)

    def holds(self, service: Service) -> bool:
        """Tell whether every node of a service was registered here."""
        return self._publisher.holds(service)

    async def look(self, name: str | None) -> None:
        """Ask who is there, once for all names; a few hundred milliseconds the first time."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._first_look())
        try:
            await asyncio.shield(self._starting)
        except (OSError, RegistryError):
            self._starting = None
            raise

    async def keep_up(self) -> None:
        """Run for ever: ask for what lapsed or is incomplete."""
        while True:
            self._attention.clear()
            if self._starting is None:
                self._drop_lapsed()
            else:
                self._ask_about_lapsed()
            try:
                async with asyncio.timeout(self._seconds_to_next_lapse()):
                    await self._attention.wait()
                    await asyncio.sleep(SETTLE_SECONDS)
            except TimeoutError:
                pass

    def _hear(self, packet: Packet) -> None:
        self._publisher.hear(packet)
        self._sightings.hear(packet)

    async def _first_look(self) -> None:
        self._drop_lapsed()
        self._link.browse()
        await self._link.sweep()

    def _seconds_to_next_lapse(self) -> float:
        until = self._sightings.seconds_to_next_lapse(apart_from=self._asking)
        return min(max(until, LAPSE_GRAIN_SECONDS), UPKEEP_SECONDS)

    def _drop_lapsed(self) -> None:
        """Forget what may not be there, without asking: nobody reads yet."""
        for sighting in [*self._sightings.lapsed(), *self._sightings.unresolved()]:
            self._sightings.remove(sighting.name)

    def _ask_about_lapsed(self) -> None:
        self._ask_about(self._sightings.lapsed(), QUESTIONS_AT_ONCE)
        self._ask_about(self._sightings.unresolved(), RESOLVED_AT_ONCE)

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
        known = await self._link.ask(sighting.name)
        if self._sightings.find(sighting.name) is not sighting:
            return
        if known is not None and not self._sightings.is_complete(sighting):
            self._sightings.hear(known)
        if not self._sightings.is_complete(sighting) or self._sightings.has_lapsed(sighting):
            self._sightings.remove(sighting.name)

    def _answered(self, name: str, _: asyncio.Task[None]) -> None:
        del self._asking[name]
        self._need_attention()

    def _need_attention(self) -> None:
        self._attention.set()
