"""The heartbeat: one task renews all registrations of one TTL, and registers anew what was lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Iterable

from svcreg.engine.backoff import MAX_DELAY, Backoff
from svcreg.engine.dispatch import Dispatcher
from svcreg.engine.writer import Entry, Writer, patience
from svcreg.errors import SvcregError

READ_BACK_BEATS = 4
"""Beats of the heart between two looks at our own records through the read path."""

READ_BACK_SERVICES = 8
"""Services looked at each time, in turn, so that ten thousand do not become ten thousand reads."""

TIMER_SLACK = 0.01
"""Seconds by which a timeout may end before its time."""

_log = logging.getLogger("svcreg.registrar")


class Heartbeat:
    """The registrations of one TTL and interval, and the one task that keeps them."""

    def __init__(self, writer: Writer, dispatch: Dispatcher, ttl: float, interval: float) -> None:
        self.entries: dict[Entry, None] = {}  # a set that keeps its order
        self._writer = writer
        self._dispatch = dispatch
        self._ttl = ttl
        self._interval = interval
        self._wake = asyncio.Event()
        self._beats = 0
        self._read_back_from = 0
        self._task: asyncio.Task[None] | None = None

    def add(self, entry: Entry) -> None:
        """Keep one more."""
        self.entries[entry] = None
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"svcreg-renew-{self._ttl:g}")
        if entry.state != "active":
            self.wake()

    def discard(self, entry: Entry) -> None:
        """Keep one less; without any the task ends."""
        self.entries.pop(entry, None)
        if not self.entries and self._task is not None:
            self._wake.set()

    def wake(self) -> None:
        """Have what is not active looked at now."""
        self._wake.set()

    async def _run(self) -> None:
        backoff = Backoff(cap=min(MAX_DELAY, self._interval))
        next_beat = time.monotonic() + self._jittered()
        while self.entries:
            delay = next_beat - time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(delay, 0)):
                    await self._wake.wait()
            self._wake.clear()
            try:
                is_well = True
                if time.monotonic() >= next_beat:
                    started = time.monotonic()
                    is_well = await self._beat()
                    next_beat = started + self._jittered()
                is_well = await self._recover() and is_well
            except Exception:  # a defect of ours must not end all heartbeats for ever
                _log.exception("heartbeat failed")
                is_well = False
            if is_well:
                backoff.reset()
            else:
                next_beat = min(next_beat, time.monotonic() + backoff.next())

    def _jittered(self) -> float:
        return self._interval * random.uniform(0.9, 1.0)  # early rather than late

    async def _beat(self) -> bool:
        """Renew everything that is active; return whether all of it was acknowledged."""
        active = [entry for entry in self.entries if entry.state == "active" and entry.call is None]
        if not active:
            return True
        is_well = True
        if self._dispatch.can_renew:
            is_well = await self._renew(active)
        else:
            is_well = await self._register_all(active)
        self._beats += 1
        if is_well and self._beats % READ_BACK_BEATS == 0:
            await self._read_back()
        return is_well

    async def _renew(self, active: list[Entry]) -> bool:
        started = time.monotonic()
        services = [entry.service for entry in active]
        try:
            lost = await self._writer.write(
                active, self._dispatch.renew(services, self._ttl, timeout=patience(active))
            )
        except SvcregError as error:
            for entry in active:
                entry.error = error
            return False
        unknown = {(service.name, node.id) for service in lost for node in service.nodes}
        for entry, sent in zip(active, services, strict=True):
            if entry.state != "active":
                continue
            if unknown and any(key in unknown for key in entry.nodes):
                self._writer.lose(entry, "the registry no longer knows it")
            elif entry.service is sent:
                self._writer.acknowledge(entry, started)
        return True

    async def _recover(self) -> bool:
        """Register what is not listed, or not surely; return whether all of it is now."""
        now = time.monotonic()
        for entry in self.entries:
            if entry.state == "active" and entry.grace < TIMER_SLACK:
                silence = now - entry.acked_at
                self._writer.lose(entry, f"no renewal was acknowledged for {silence:.1f} s")
        missing = [
            entry
            for entry in self.entries
            if entry.state in ("pending", "lost") and entry.is_ready and entry.call is None
        ]
        return await self._register_all(missing) if missing else True

    async def _register_all(self, entries: Iterable[Entry]) -> bool:
        async def register(entry: Entry) -> bool:
            async with self._writer.slots:
                if entry.state == "closed" or entry.call is not None:
                    return True
                try:
                    await self._writer.register(entry)
                except SvcregError:
                    return False  # kept in entry.error, and tried again
                return True

        return all(await asyncio.gather(*(register(entry) for entry in entries)))

    async def _read_back(self) -> None:
        """Look at some of our records as a reader would; one that is missing is registered anew."""
        names = sorted({entry.service.name for entry in self.entries if entry.state == "active"})
        start = self._read_back_from % max(len(names), 1)
        chosen = (names[start:] + names[:start])[:READ_BACK_SERVICES]
        self._read_back_from = start + len(chosen)
        for name in chosen:
            started = time.monotonic()
            try:
                services = await self._dispatch.get(name)
            except SvcregError:
                return
            seen = {node.id for service in services for node in service.nodes}
            for entry in list(self.entries):
                is_ours = entry.service.name == name and entry.state == "active"
                is_older = entry.acked_at < started and entry.call is None
                is_seen = all(node.id in seen for node in entry.service.nodes)
                if is_ours and is_older and not is_seen:
                    self._writer.lose(entry, "its record is missing from what readers get")
