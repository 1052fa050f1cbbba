"""Asks for go-micro's services and nodes, and keeps what is known of them up to date."""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict

from svcreg_mdns.gomicro import packets
from svcreg_mdns.gomicro.packets import PTR, READER_OF_BOTH, SRV, Message
from svcreg_mdns.gomicro.records import Names, Seen, is_dns_name
from svcreg_mdns.gomicro.sockets import Sockets
from svcreg_mdns.gomicro.table import Table
from svcreg_mdns.nodes import Nodes

LOOK_MIN_SECONDS = 0.1
"""How long the first question waits for answers: as long as go-micro itself does."""

LOOK_QUIET_SECONDS = 0.05
"""The first question is over when nothing new has come for this long ..."""

LOOK_MAX_SECONDS = 0.5
"""... and in any case after this, so that a busy link cannot hold up the first read."""

LOOK_AGAIN_SECONDS = 0.04
"""How long a service is waited for that is not known, when all others are: Go's answers take a few
milliseconds, and any that comes later is a change."""

LIST_AFTER = (1.0, 3.0, 10.0)
"""Seconds after which the list of services is asked for again, as a question may get lost ..."""

LIST_EVERY = 60.0
"""... and then as often as this, give or take a tenth: services announce their nodes when they
start, so this finds only those of which every announcement was lost."""

NAMES_LIMIT = 1024
"""Services asked for that are kept in mind."""

QUESTIONS_PER_TURN = 32
"""Questions sent at once: anybody can put names into the list and must not make us flood it."""

TURN_SECONDS = 0.05
"""At least this long from one turn to the next, in which questions are sent."""

UPKEEP_SECONDS = 1.0
"""How often to look for nodes to ask for, at least."""


class Reader:
    """Reads from the first `look` on; until then nothing is kept. Loop only."""

    def __init__(
        self, sockets: Sockets, names: Names, table: Table, nodes: Nodes, *, is_alone: bool
    ) -> None:
        self._sockets = sockets
        self._nodes = nodes
        self._names = names
        self._table = table
        self._is_alone = is_alone
        self._looking: asyncio.Task[None] | None = None
        self._asked: OrderedDict[str, float] = OrderedDict()
        self._waiting: dict[str, None] = {}
        self._list_at = 0.0
        self._list_after = iter(LIST_AFTER)
        self._news = 0
        self._attention = asyncio.Event()

    async def look(self, name: str | None) -> None:
        """Ask who is there, of one service or of all, and wait for the answers.

        Everything is known after the first time; a service that was not found then is asked for
        once a minute at most.
        """
        is_new = name is not None and self._is_unasked(name)
        if self._looking is None:
            self._ask_for_list()
            self._looking = asyncio.create_task(self._first_look())
        if name is not None and is_new:
            self._ask(name)
        if not self._looking.done():
            await asyncio.shield(self._looking)
        elif is_new and not self._nodes.services(name):
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def keep_up(self) -> None:
        """Run for ever: ask for nodes before their TTL is over, and for the list now and then."""
        while True:
            self._attention.clear()
            if self._looking is not None:
                self._waiting.update(dict.fromkeys(self._table.due()))
                self._table.drop_lapsed()
                if time.monotonic() >= self._list_at:
                    self._ask_for_list()
                for service in list(self._waiting)[:QUESTIONS_PER_TURN]:
                    self._ask(service)
            await asyncio.sleep(TURN_SECONDS)
            try:
                async with asyncio.timeout(self._seconds_to_next()):
                    await self._attention.wait()
            except TimeoutError:
                pass

    def ask_all(self) -> None:
        """Ask for everything again, as when an interface has come."""
        if self._looking is not None:
            self._list_at = 0.0
            self._waiting.update(dict.fromkeys([*self._asked, *self._table.services()]))
            self._attention.set()

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    def hear_node(self, seen: Seen, zone: str, *, is_answer: bool) -> None:
        """Take in a node that a packet shows."""
        if self._looking is None:
            return
        before = len(self._table)
        self._table.hear(seen, zone, is_answer=is_answer)
        self._news += len(self._table) != before
        if seen.ttl <= UPKEEP_SECONDS + 1:  # a goodbye may be doubtful, a short TTL soon over
            self._attention.set()

    def hear_list(self, message: Message) -> None:
        """Ask for the services of the list that nobody has been asked about yet."""
        if self._looking is None:
            return
        for record in message.records:
            service = self._names.listed(record.name) if record.kind == SRV else None
            if service is None or len(self._waiting) >= NAMES_LIMIT:
                continue
            is_twin = record.target == self._names.twin_host(record.name)
            if (self._is_alone or not is_twin) and self._is_unasked(service):
                self._waiting[service] = None
                self._news += 1
                self._attention.set()

    async def _first_look(self) -> None:
        loop = asyncio.get_running_loop()
        begin = last = loop.time()
        news = self._news
        while loop.time() < begin + LOOK_MAX_SECONDS:
            # In small steps: a process that was not given the CPU finds answers waiting.
            await asyncio.sleep(LOOK_QUIET_SECONDS / 3)
            now = loop.time()
            if news != self._news or self._waiting:
                news, last = self._news, now
            elif now > begin + LOOK_MIN_SECONDS and now > last + LOOK_QUIET_SECONDS:
                return

    def _ask(self, service: str) -> None:
        self._waiting.pop(service, None)
        self._asked[service] = time.monotonic()
        self._asked.move_to_end(service)
        if len(self._asked) > NAMES_LIMIT:
            self._asked.popitem(last=False)
        self._send_question(self._names.service(service))

    def _ask_for_list(self) -> None:
        after = next(self._list_after, LIST_EVERY * random.uniform(0.9, 1.1))
        self._list_at = time.monotonic() + after
        self._send_question(self._names.list)

    def _send_question(self, name: str) -> None:
        number = random.randint(1, 0xFFFF) if self._is_alone else READER_OF_BOTH
        self._sockets.ask(packets.encode_query(name, PTR, number))

    def _is_unasked(self, service: str) -> bool:
        at = self._asked.get(service)
        is_due = at is None or time.monotonic() - at > LIST_EVERY * 0.8
        return is_due and is_dns_name(self._names.service(service))

    def _seconds_to_next(self) -> float:
        if self._waiting:
            return 0.0
        if self._looking is None:
            return UPKEEP_SECONDS
        until_list = self._list_at - time.monotonic()
        return max(0.0, min(self._table.seconds_to_next(), until_list, UPKEEP_SECONDS))
