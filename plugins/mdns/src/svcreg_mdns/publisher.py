"""What this registry announces, and what it does when others speak up under the same name."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from zeroconf import ServiceInfo

from svcreg import Node, Service
from svcreg.errors import ProtocolError
from svcreg_mdns import records
from svcreg_mdns.acknowledgement import Acknowledgement
from svcreg_mdns.client import Link, service_info
from svcreg_mdns.records import Announcement, Stamp
from svcreg_mdns.sightings import Packet, Sightings

BURST_PACKETS = 32
"""Renewals sent without a pause: a receiver's socket buffer holds about 200 packets."""

BURST_PAUSE_SECONDS = 0.005
"""The pause, in which a receiver takes in a burst many times over."""

DEFENCE_SECONDS = 1.0
"""At most one defending announcement per node and second (RFC 6762 section 6)."""

LATE_GOODBYE_SECONDS = 1.5
"""zeroconf still sends answers that were queued before the goodbye up to 1.3 s after it; one more
goodbye then tells programs that do not know our stamps."""

_log = logging.getLogger("svcreg.mdns")


@dataclass(slots=True, eq=False)
class _Held:
    """One node that we announce. `is_yielded` once somebody else has registered it since."""

    service: Service
    node: Node
    stamp: Stamp
    announcement: Announcement
    info: ServiceInfo
    ttl: float
    sending: asyncio.Future[Any] | None = None
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    is_yielded: bool = False
    defended_at: float = -DEFENCE_SECONDS

    @property
    def name(self) -> str:
        return self.announcement.instance.lower()


class Publisher:
    """Announces nodes on a link, repeats that on request, and withdraws them.

    Args:
        link: Where to.
        sightings: What is known of others that have the same nodes.
        on_lost: Told of each node that somebody else has registered since (True) or withdrawn
            (False).
    """

    def __init__(
        self, link: Link, sightings: Sightings, on_lost: Callable[[Service, bool], None]
    ) -> None:
        self._link = link
        self._sightings = sightings
        self._on_lost = on_lost
        self._held: dict[str, _Held] = {}
        self._acknowledgement = Acknowledgement()
        self._tasks: set[asyncio.Task[None]] = set()

    async def register(self, service: Service, ttl: float) -> None:
        """Announce every node; return when our own announcements have come back.

        Raises:
            InvalidServiceError: A node does not fit into DNS records. Then none is announced.
        """
        prepared = [self._prepare(service, node, ttl) for node in service.nodes]
        for held in prepared:
            before = self._held.get(held.name)
            self._held[held.name] = held
            if before is not None:
                _stop_sending(before)
            anew = before is None or before.is_yielded
            held.sending = await self._link.announce(held.info, anew=anew)
        await self._acknowledgement.wait(
            (held.heard for held in prepared), self._link.interface_names
        )

    async def renew(self, services: Sequence[Service], ttl: float) -> list[Service]:
        """Announce the nodes once more; return the services of which a node is no longer ours."""
        lost = []
        sent = 0
        for service in services:
            for node in service.nodes:
                held = self._held.get(_name(service, node))
                if held is None or (held.is_yielded and not self._sightings.find(held.name)):
                    lost.append(service)
                    break
                if held.is_yielded:
                    continue
                if held.ttl != ttl:
                    held.ttl = ttl
                    held.info = service_info(held.announcement, ttl)
                    _stop_sending(held)
                    held.sending = await self._link.announce(held.info, anew=False)
                else:
                    self._link.repeat(held.info)
                sent += 1
                if sent % BURST_PACKETS == 0:
                    await asyncio.sleep(BURST_PAUSE_SECONDS)
        return lost

    async def withdraw(self, service: Service) -> None:
        """Withdraw nodes: our own, and of others whatever is known of them."""
        for node in service.nodes:
            held = self._held.pop(_name(service, node), None)
            if held is None:
                self._withdraw_of_others(service, node)
            elif not held.is_yielded:
                _stop_sending(held)
                await self._link.withdraw(held.info)
                self._spawn(self._say_goodbye_late(held))
                sighting = self._sightings.find(held.name)
                if sighting and sighting.text == held.announcement.text:
                    self._sightings.remove(held.name, goodbye=True)

    def holds(self, service: Service) -> bool:
        """Tell whether every node of a service was registered here."""
        return all(_name(service, node) in self._held for node in service.nodes)

    def hear(self, packet: Packet) -> None:
        """Look for our own names in a packet, before the table takes it in."""
        for name in packet.instances():
            held = self._held.get(name)
            if held is None or held.is_yielded:
                continue
            if packet.is_goodbye(name):
                if held.announcement.text in packet.goodbye_texts(name):
                    self._let_go(held)  # somebody deregistered this very registration
                else:
                    self._defend(held)
            elif (text := packet.live_text(name)) is not None:
                if text == held.announcement.text:
                    held.heard.set()
                else:
                    self._meet_other(held, text)

    def cancel(self) -> None:
        """Stop everything in flight; the link says the goodbyes when it closes."""
        for held in self._held.values():
            _stop_sending(held)
        self._held.clear()
        for task in self._tasks:
            task.cancel()

    def _prepare(self, service: Service, node: Node, ttl: float) -> _Held:
        alone = service.with_nodes((node,))
        before = self._held.get(_name(service, node))
        if before and not before.is_yielded:
            if before.service == alone and before.ttl == ttl:
                return before
            # Later than before in any case, whatever the clock does.
            stamp = Stamp(max(_now(), before.stamp.time + 1), before.stamp.owner)
        else:
            stamp = Stamp(_now(), secrets.randbits(32))
            if (other := self._sightings.find(_name(service, node))) and other.stamp:
                stamp = stamp._replace(time=max(stamp.time, other.stamp.time + 1))
        announcement = records.encode(service, node, stamp)
        if announcement.size > records.FRAME_BYTES:
            _log.warning(
                "the record of node %r of %r has %d bytes; above %d it travels in several frames "
                "and is lost more easily",
                node.id,
                service.name,
                announcement.size,
                records.FRAME_BYTES,
            )
        return _Held(alone, node, stamp, announcement, service_info(announcement, ttl), ttl)

    def _withdraw_of_others(self, service: Service, node: Node) -> None:
        for sighting in self._sightings.find_node(service.name, node.id):
            if sighting.host is None:
                continue
            gone = ServiceInfo(
                records.SERVICE_TYPE,
                sighting.name,
                port=sighting.port,
                properties=sighting.text,
                server=sighting.host,
            )
            self._link.say_goodbye(gone)
            self._sightings.remove(sighting.name, goodbye=True)

    def _meet_other(self, held: _Held, text: bytes) -> None:
        """Somebody else announces our node: whoever registered it last keeps it."""
        try:
            other = records.decode(text).stamp
        except ProtocolError:
            return
        if other is None or other.owner == held.stamp.owner:
            return  # published by hand, or a late answer of our own
        if other < held.stamp:
            self._defend(held)
            return
        _log.warning(
            "node %r of %r is announced by another program now; leaving it to that",
            held.node.id,
            held.service.name,
        )
        held.is_yielded = True
        self._fall_silent(held)
        self._on_lost(held.service, True)

    def _let_go(self, held: _Held) -> None:
        _log.warning(
            "node %r of %r was deregistered by another program", held.node.id, held.service.name
        )
        del self._held[held.name]
        self._fall_silent(held)
        self._on_lost(held.service, False)

    def _fall_silent(self, held: _Held) -> None:
        _stop_sending(held)
        self._spawn(self._link.yield_to_other(held.info))

    def _defend(self, held: _Held) -> None:
        """Announce our record again after a goodbye or an older record under its name.

        RFC 6762 section 6.6: whoever hears its own record with too low a TTL corrects that.
        """
        now = time.monotonic()
        if now - held.defended_at < DEFENCE_SECONDS:
            return
        held.defended_at = now
        self._spawn(self._announce_again(held))

    async def _announce_again(self, held: _Held) -> None:
        if self._held.get(held.name) is held and not held.is_yielded:
            _stop_sending(held)
            held.sending = await self._link.announce(held.info, anew=False)

    async def _say_goodbye_late(self, held: _Held) -> None:
        await asyncio.sleep(LATE_GOODBYE_SECONDS)
        if held.name not in self._held and self._sightings.find(held.name) is None:
            self._link.say_goodbye(held.info)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _name(service: Service, node: Node) -> str:
    return records.instance_name(service.name, node.id).lower()


def _stop_sending(held: _Held) -> None:
    """Stop announcements in flight, which would undo what is announced next."""
    if held.sending is not None:
        held.sending.cancel()


def _now() -> int:
    return time.time_ns() // 1_000_000
