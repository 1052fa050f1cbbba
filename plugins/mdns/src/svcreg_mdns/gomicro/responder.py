"""What this program announces as go-micro does, and how it answers."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import Any

from svcreg import Node, Service
from svcreg.errors import InvalidServiceError
from svcreg_mdns.acknowledgement import Acknowledgement
from svcreg_mdns.gomicro import packets, records
from svcreg_mdns.gomicro.packets import (
    ANY,
    IN,
    LABEL_LIMIT,
    PTR,
    READER_OF_BOTH,
    Message,
    Question,
    Record,
)
from svcreg_mdns.gomicro.records import Names, Seen, Written
from svcreg_mdns.gomicro.sockets import PORT, Sockets, Source

REPEAT_AFTER = (1.0, 2.0)
"""Seconds from one announcement to the next, as go-micro waits (internal/util/mdns/server.go)."""

BURST_PACKETS = 32
"""Packets sent without a pause: a receiver's socket buffer holds about 200."""

BURST_PAUSE_SECONDS = 0.003
"""The pause, in which a receiver takes in a burst many times over. 1000 nodes are sent in 100 ms,
which is how long go-micro waits for them."""

ANSWERS_AT_ONCE = 64
"""Longer answers under way at the same time; further questions are lost, as on a busy link."""

GOODBYES_LIMIT = 1024
"""Goodbyes of our own kept in mind."""

MULTICAST_SECONDS = 1.0
"""A record is multicast at most once in this time, whoever asks (RFC 6762 section 6)."""

OWN_GOODBYE_SECONDS = 1.0
"""How long a goodbye that comes back to us may be our own."""

_UNICAST_BIT = 0x8000
_INSTANCE_KINDS = frozenset({ANY, packets.SRV, packets.TXT, packets.A, packets.AAAA})

_log = logging.getLogger("svcreg.mdns")


@dataclass(slots=True, eq=False)
class _Held:
    """One node that we announce."""

    service: Service
    node: Node
    written: Written
    ttl: int
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    multicast_at: float = -MULTICAST_SECONDS
    answers: dict[tuple[str, int], bytes] = field(default_factory=dict)

    def announcement(self, pointer_from: str = "") -> bytes:
        self.multicast_at = time.monotonic()
        return self.written.announcement(self.ttl, pointer_from=pointer_from)

    def answer(self, question: Question, number: int) -> bytes:
        key = question.name, question.kind
        if key not in self.answers:
            self.answers[key] = self.written.answer(Question(*key), self.ttl)
        return packets.readdress(self.answers[key], question, number)


class Responder:
    """Announces nodes, answers for them, and withdraws them. Loop only.

    Args:
        sockets: Where to.
        names: Those of the domain.
        is_alone: There is no other dialect, so what does not fit is refused.
    """

    def __init__(self, sockets: Sockets, names: Names, *, is_alone: bool) -> None:
        self._sockets = sockets
        self._names = names
        self._is_alone = is_alone
        self._held: dict[str, dict[str, _Held]] = {}  # by service and node id
        self._instances: dict[str, list[_Held]] = {}
        self._goodbyes: OrderedDict[str, float] = OrderedDict()
        self._listed_at = -MULTICAST_SECONDS
        self._acknowledgement = Acknowledgement()
        self._warned: set[str] = set()
        self._versionless: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._answering = 0

    async def register(self, service: Service, ttl: float) -> None:
        """Announce every node now, after 1 and after 3 seconds; return when we have heard it.

        Raises:
            InvalidServiceError: go-micro would not see a node, and there is no other dialect. Then
                none is announced.
        """
        prepared = self._prepare(service, ttl)
        for held in prepared:
            before = self._find(held.service)
            if before is not None:
                self._remove(before)
            self._add(held)
            if before is not None and before.service.version != service.version:
                # Go's cache keeps nodes by version, so the old one must go. Its goodbye comes
                # between two announcements: then there is no moment without the node, neither for
                # readers that tell versions apart nor for those that only look at the node's id.
                self._sockets.announce(held.announcement())
                self._say_goodbye(before)
        await self._send([held.announcement() for held in prepared], self._sockets.announce)
        changed = [held for held in prepared if not held.heard.is_set()]
        if changed:
            self._spawn(self._repeat(changed))
        await self._acknowledgement.wait(
            (held.heard for held in changed), self._sockets.interface_names
        )

    def renew(self, services: Sequence[Service], ttl: float) -> list[Service]:
        """Have answers tell the TTL; return the services of which a node is not ours.

        Nothing is sent: go-micro takes every announcement for a new node.
        """
        lost = []
        for service in services:
            for node in service.nodes:
                held = self._find(service.with_nodes((node,)))
                if held is None:
                    lost.append(service)
                    break
                if held.ttl != _whole(ttl):
                    held.ttl = _whole(ttl)
                    held.answers.clear()
        return lost

    def withdraw(self, service: Service) -> None:
        """Stop answering for nodes, and say goodbye; of what is not ours nothing happens."""
        for node in service.nodes:
            if (held := self._find(service.with_nodes((node,)))) is not None:
                self._remove(held)
                self._say_goodbye(held)

    def withdraw_of_others(self, seen: Seen) -> None:
        """Say goodbye for a node that is not ours, as last heard of it."""
        address = ip_address(seen.address).packed
        gone = Written(seen.instance, seen.host, address, seen.port, seen.text)
        self._sockets.announce(gone.announcement(0))

    def fall_silent(self, service: Service) -> None:
        """Stop answering for nodes without a goodbye: somebody else announces them now."""
        for node in service.nodes:
            if (held := self._find(service.with_nodes((node,)))) is not None:
                self._remove(held)

    def holds(self, service: Service) -> bool:
        """Tell whether every node of a service was registered here."""
        held = self._held.get(service.name, {})
        return all(node.id in held for node in service.nodes)

    async def announce_all(self) -> None:
        """Announce everything once more, as when an interface has come."""
        await self._send([held.announcement() for held in self._all()], self._sockets.announce)

    async def close(self) -> None:
        """Say goodbye for everything."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        goodbyes = [held.written.announcement(0) for held in self._all()]
        self._held.clear()
        self._instances.clear()
        await self._send(goodbyes, self._sockets.announce)

    def hear_question(self, message: Message, source: Source) -> None:
        """Answer a query, at once: go-micro waits for 100 ms.

        Whoever asks from port 5353 is told by multicast and without the question: if it is a
        go-micro server, it would answer the question in our answer.
        """
        for question in message.questions:
            if question.class_ & ~_UNICAST_BIT not in (IN, ANY):
                continue
            if message.number != READER_OF_BOTH:
                self._warn_of_versionless(self._names.asked(question.name))
            if source.port == PORT:
                answers, send = self._multicast_answers(question), self._sockets.announce
            else:
                answers = self._answers(question, message.number)
                send = partial(self._sockets.answer, to=source)
            if len(answers) <= BURST_PACKETS:
                for answer in answers:
                    send(answer)
            elif self._answering < ANSWERS_AT_ONCE:
                self._answering += 1
                self._spawn(self._send(answers, send)).add_done_callback(self._answered)

    def hear_node(self, seen: Seen) -> None:
        """Look for our own nodes in what others, or we, have sent."""
        for held in list(self._instances.get(seen.instance, ())):
            if seen.ttl and seen.text == held.written.text:
                held.heard.set()
            elif seen.ttl == 0 and not self._is_own_goodbye(seen.instance):
                if self._is_alone and _is_of(held.written, seen):
                    _log.warning(
                        "node %r of %r was deregistered by another program",
                        held.node.id,
                        held.service.name,
                    )
                    self._remove(held)
                elif time.monotonic() - held.multicast_at >= MULTICAST_SECONDS:
                    # RFC 6762 section 6.6: who hears its own record withdrawn corrects that.
                    self._sockets.announce(held.announcement())

    def _prepare(self, service: Service, ttl: float) -> list[_Held]:
        if self._is_alone and service.metadata:
            self._warn(
                " metadata",
                "go-micro's records over mDNS hold metadata of nodes only, so that of service %r "
                "is left out",
                service.name,
            )
        if not self._is_alone and not service.version:
            # Most services of Python programs are like this: a warning can wait until it matters.
            _log.info("%r has no version, so go-micro programs do not find it", service.name)
            self._versionless.add(service.name)
            self.withdraw(service)
            return []
        self._versionless.discard(service.name)
        prepared = []
        for node in service.nodes:
            alone = service.with_nodes((node,))
            instance = self._names.instance(service.name, node.id)
            host = _host_name() if self._is_alone else self._names.twin_host(instance)
            try:
                written = records.encode(service, node, self._names, host)
            except InvalidServiceError as error:
                if self._is_alone:
                    raise
                self._warn(
                    service.name, "announced in DNS-SD only, Go programs do not find it: %s", error
                )
                self.withdraw(alone)
                continue
            held = _Held(alone, node, written, _whole(ttl))
            if (before := self._find(alone)) and before.written == written:
                held.heard = before.heard
            prepared.append(held)
        return prepared

    def _warn_of_versionless(self, service: str) -> None:
        if service in self._versionless:
            self._warn(
                service,
                "a go-micro program asks for %r, which has no version: go-micro's watchers pass "
                "over such services, so it is announced in DNS-SD only; give it a version",
                service,
            )

    def _warn(self, subject: str, message: str, *arguments: object) -> None:
        """Warn once of each subject, a service's name or what is common to all."""
        if subject not in self._warned:
            self._warned.add(subject)
            _log.warning(message, *arguments)

    def _answers(self, question: Question, number: int) -> list[bytes]:
        if question.name == self._names.list:
            if question.kind not in (PTR, ANY):
                return []
            return [
                packets.encode_response(listing, question=question, number=number)
                for listing in self._listings()
            ]
        return [held.answer(question, number) for held in self._asked_for(question)]

    def _multicast_answers(self, question: Question) -> list[bytes]:
        now = time.monotonic()
        if question.name == self._names.list:
            if question.kind not in (PTR, ANY) or now - self._listed_at < MULTICAST_SECONDS:
                return []
            self._listed_at = now
            return [packets.encode_response(listing) for listing in self._listings()]
        return [
            held.announcement(pointer_from=question.name)
            for held in self._asked_for(question)
            if now - held.multicast_at >= MULTICAST_SECONDS
        ]

    def _asked_for(self, question: Question) -> Iterable[_Held]:
        """Return the nodes in the answer to a question, as in go-micro's zone.go.

        To a PTR question for a node there is none: that is how go-micro's servers probe for their
        own names, from port 5353.
        """
        if question.kind in _INSTANCE_KINDS and question.name in self._instances:
            return self._instances[question.name]
        service = self._names.asked(question.name)
        if question.kind in (PTR, ANY) and service in self._held:
            return self._held[service].values()
        return ()

    def _listings(self) -> Iterator[list[Record]]:
        for service in self._held:
            name = self._names.listing(service)
            host = _host_name() if self._is_alone else self._names.twin_host(name)
            yield records.listing_records(self._names, name, host)

    async def _repeat(self, announced: list[_Held]) -> None:
        for delay in REPEAT_AFTER:
            await asyncio.sleep(delay)
            still = [held.announcement() for held in announced if self._find(held.service) is held]
            await self._send(still, self._sockets.announce)

    async def _send(self, burst: list[bytes], send: Callable[[bytes], None]) -> None:
        for number, packet in enumerate(burst, start=1):
            send(packet)
            if number % BURST_PACKETS == 0:
                await asyncio.sleep(BURST_PAUSE_SECONDS)

    def _answered(self, _: asyncio.Task[None]) -> None:
        self._answering -= 1

    def _say_goodbye(self, held: _Held) -> None:
        self._goodbyes[held.written.instance] = time.monotonic()
        self._goodbyes.move_to_end(held.written.instance)
        while len(self._goodbyes) > GOODBYES_LIMIT:
            self._goodbyes.popitem(last=False)
        self._sockets.announce(held.written.announcement(0))

    def _is_own_goodbye(self, instance: str) -> bool:
        at = self._goodbyes.get(instance, -OWN_GOODBYE_SECONDS)
        return time.monotonic() - at < OWN_GOODBYE_SECONDS

    def _all(self) -> list[_Held]:
        return [held for nodes in self._held.values() for held in nodes.values()]

    def _find(self, alone: Service) -> _Held | None:
        """Return what is held of a service with one node."""
        return self._held.get(alone.name, {}).get(alone.nodes[0].id)

    def _add(self, held: _Held) -> None:
        self._held.setdefault(held.service.name, {})[held.node.id] = held
        self._instances.setdefault(held.written.instance, []).append(held)

    def _remove(self, held: _Held) -> None:
        nodes = self._held[held.service.name]
        del nodes[held.node.id]
        if not nodes:
            del self._held[held.service.name]
        same_name = self._instances[held.written.instance]
        same_name.remove(held)
        if not same_name:
            del self._instances[held.written.instance]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _is_of(written: Written, seen: Seen) -> bool:
    address = ip_address(seen.address).packed
    return (written.text, written.address, written.port) == (seen.text, address, seen.port)


def _host_name() -> str:
    """Return this machine's name as go-micro writes it, if DNS can."""
    name = socket.gethostname()
    is_fit = name.isascii() and all(1 <= len(part) <= LABEL_LIMIT for part in name.split("."))
    return f"{name}." if is_fit else "localhost."


def _whole(ttl: float) -> int:
    return max(1, math.ceil(ttl))
