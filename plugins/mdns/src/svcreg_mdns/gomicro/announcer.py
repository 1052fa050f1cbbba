"""Announces nodes as go-micro does, and withdraws them."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import ip_address

from svcreg import Service
from svcreg.errors import InvalidServiceError
from svcreg_mdns.acknowledgement import Acknowledgement
from svcreg_mdns.gomicro import records
from svcreg_mdns.gomicro.held import MULTICAST_SECONDS, Held, Holdings
from svcreg_mdns.gomicro.records import Names, Seen, Written
from svcreg_mdns.gomicro.sockets import Sockets, send_paced

REPEAT_AFTER = (1.0, 2.0)
"""Seconds from one announcement to the next, as go-micro waits (internal/util/mdns/server.go)."""

OWN_GOODBYE_SECONDS = 1.0
"""How long a goodbye that comes back to us may be our own."""

GOODBYES_LIMIT = 1024
"""Goodbyes of our own kept in mind."""

_log = logging.getLogger("svcreg.mdns")


class Announcer:
    """Announces and withdraws, and listens for what others say of our nodes. Loop only.

    Args:
        sockets: Where to.
        names: Those of the domain.
        holdings: What is announced.
        is_alone: There is no other dialect, so what does not fit is refused.
    """

    def __init__(
        self, sockets: Sockets, names: Names, holdings: Holdings, *, is_alone: bool
    ) -> None:
        self._sockets = sockets
        self._names = names
        self._holdings = holdings
        self._is_alone = is_alone
        self._goodbyes: OrderedDict[str, float] = OrderedDict()
        self._acknowledgement = Acknowledgement()
        self._warned: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def register(self, service: Service, ttl: float) -> None:
        """Announce every node now, after 1 and after 3 seconds.

        Raises:
            InvalidServiceError: go-micro would not see a node, and there is no other dialect. Then
                none is announced.
        """
        prepared = self._prepare(service, ttl)
        burst = []
        for held in prepared:
            before = self._holdings.find(service.name, held.node.id)
            self._holdings.add(held)
            if before is not None and before.service.version != service.version:
                # Go's cache keeps nodes by version, so the old one must go. Its goodbye comes
                # between two announcements: then there is no moment without the node, neither for
                # readers that tell versions apart nor for those that only look at the node's id.
                burst += [held.announcement(), self._goodbye(before)]
            burst.append(held.announcement())
        await send_paced(burst, self._sockets.announce)
        changed = [held for held in prepared if not held.heard.is_set()]
        if changed:
            task = asyncio.create_task(self._repeat(changed))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._is_alone:  # else the other dialect has just shown whether we can be heard
            await self._acknowledgement.wait(
                (held.heard for held in changed), self._sockets.interface_names
            )

    def renew(self, services: Sequence[Service], ttl: float) -> list[Service]:
        """Have answers tell the TTL; return the services of which a node is not ours.

        Nothing is sent: go-micro takes every announcement for a new node.
        """
        lost = []
        for service in services:
            held = self._holdings.find_all(service)
            for one in held:
                if one.ttl != _whole(ttl):
                    one.ttl = _whole(ttl)
                    one.answers.clear()
            if len(held) < len(service.nodes):
                lost.append(service)
        return lost

    async def withdraw(self, service: Service) -> None:
        """Stop answering for nodes, and say goodbye; of what is not ours nothing happens."""
        await send_paced(self._take_back(service), self._sockets.announce)

    def withdraw_now(self, service: Service) -> None:
        """Do the same at once."""
        for goodbye in self._take_back(service):
            self._sockets.announce(goodbye)

    def withdraw_of_others(self, seen: Seen) -> None:
        """Say goodbye for a node that is not ours, as last heard of it."""
        address = ip_address(seen.address).packed
        gone = Written(seen.instance, seen.host, address, seen.port, seen.text)
        self._sockets.announce(gone.announcement(0))

    def fall_silent(self, service: Service) -> None:
        """Stop answering for nodes without a goodbye: somebody else announces them now."""
        for held in self._holdings.find_all(service):
            self._holdings.remove(held)

    async def announce_all(self) -> None:
        """Announce everything once more, as when an interface has come."""
        await send_paced([held.announcement() for held in self._holdings], self._sockets.announce)

    async def close(self) -> None:
        """Say goodbye for everything."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        goodbyes = []
        for held in self._holdings:
            self._holdings.remove(held)
            goodbyes.append(held.goodbye())
        await send_paced(goodbyes, self._sockets.announce)

    def hear_node(self, seen: Seen) -> None:
        """Look for our own nodes in what others, or we, have sent."""
        for held in self._holdings.named(seen.instance):
            if seen.ttl:
                if seen.text == held.written.text:
                    held.heard.set()
            elif self._is_own_goodbye(seen.instance):
                pass
            elif self._is_alone and _is_of(held.written, seen):
                _log.warning(
                    "node %r of %r was deregistered by another program",
                    held.node.id,
                    held.service.name,
                )
                self._holdings.remove(held)
            elif time.monotonic() - held.defended_at >= MULTICAST_SECONDS:
                # RFC 6762 section 6.6: whoever hears its own record withdrawn corrects that.
                held.defended_at = time.monotonic()
                self._sockets.announce(held.announcement())

    def _prepare(self, service: Service, ttl: float) -> list[Held]:
        if self._is_alone and service.metadata:
            self._warn(
                service.name,
                "go-micro's records over mDNS hold metadata of nodes only; that of the service %r "
                "is left out",
                service.name,
            )
        if not self._is_alone and not service.version:
            # Most services of Python programs are like this: a warning can wait until it matters.
            _log.info("%r has no version, so go-micro programs do not find it", service.name)
            self._holdings.versionless.add(service.name)
            self.withdraw_now(service)
            return []
        self._holdings.versionless.discard(service.name)
        prepared = []
        for node in service.nodes:
            alone = service.with_nodes((node,))
            host = self._holdings.host(self._names.instance(service.name, node.id))
            try:
                written = records.encode(service, node, self._names, host)
            except InvalidServiceError as error:
                if self._is_alone:
                    raise
                self._warn(
                    service.name, "announced in DNS-SD only, Go programs do not find it: %s", error
                )
                self.withdraw_now(alone)
                continue
            held = Held(alone, node, written, _whole(ttl))
            before = self._holdings.find(service.name, node.id)
            if before is not None and before.written == written:
                held.heard = before.heard
            prepared.append(held)
        return prepared

    async def _repeat(self, announced: list[Held]) -> None:
        for delay in REPEAT_AFTER:
            await asyncio.sleep(delay)
            still = [held for held in announced if held in self._holdings.find_all(held.service)]
            await send_paced([held.announcement() for held in still], self._sockets.announce)

    def _take_back(self, service: Service) -> list[bytes]:
        goodbyes = []
        for held in self._holdings.find_all(service):
            self._holdings.remove(held)
            goodbyes.append(self._goodbye(held))
        return goodbyes

    def _goodbye(self, held: Held) -> bytes:
        self._goodbyes[held.written.instance] = time.monotonic()
        self._goodbyes.move_to_end(held.written.instance)
        if len(self._goodbyes) > GOODBYES_LIMIT:
            self._goodbyes.popitem(last=False)
        return held.goodbye()

    def _is_own_goodbye(self, instance: str) -> bool:
        at = self._goodbyes.get(instance)
        return at is not None and time.monotonic() - at < OWN_GOODBYE_SECONDS

    def _warn(self, service: str, message: str, *arguments: object) -> None:
        """Warn once of each service."""
        if service not in self._warned:
            self._warned.add(service)
            _log.warning(message, *arguments)


def _is_of(written: Written, seen: Seen) -> bool:
    address = ip_address(seen.address).packed
    return (written.text, written.address, written.port) == (seen.text, address, seen.port)


def _whole(ttl: float) -> int:
    return max(1, math.ceil(ttl))
