"""Registrations: register, renew all of one TTL together, register anew, withdraw for good."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from svcreg.config import Config
from svcreg.engine.backoff import Backoff
from svcreg.engine.dispatch import Dispatcher
from svcreg.engine.heartbeat import Heartbeat
from svcreg.engine.writer import CONCURRENCY, Check, Entry, Writer
from svcreg.errors import (
    ConfigError,
    InvalidServiceError,
    PermissionDeniedError,
    SvcregError,
)
from svcreg.model import Service

CHECK_PERIOD = 1.0
"""Seconds between two looks at a health check."""

CHECK_FAILURES = 2
"""Failed checks in a row that unlist a node: one alone may be a hiccup of the check."""

SETTLE_DELAY = 1.0
"""Seconds after which a withdrawal is repeated where an unanswered write may still arrive."""

_log = logging.getLogger("svcreg.registrar")


class Registrar:
    """Keeps every registration of one registry listed until it is removed. Loop only."""

    def __init__(self, config: Config, dispatch: Dispatcher) -> None:
        self._config = config
        self._dispatch = dispatch
        self._holders: dict[tuple[str, str], Entry] = {}
        self._groups: dict[tuple[float, float], Heartbeat] = {}
        self._background: dict[asyncio.Task[None], Service | None] = {}
        self._writer = Writer(dispatch)
        self._slots = asyncio.Semaphore(CONCURRENCY)  # not the heartbeats', which must not queue

    @property
    def entries(self) -> list[Entry]:
        """Every registration that is not closed."""
        return list(dict.fromkeys(list(self._holders.values())))  # list() first: other threads read

    async def add(self, entry: Entry, *, required: bool) -> None:
        """Register, and keep registered.

        Raises:
            SvcregError: `required`, and the registry has not acknowledged; nothing is left behind.
        """
        previous = self._claim(entry)
        if entry.check is not None:
            entry.error = await _fault(entry.check)
            entry.is_ready = entry.error is None
            entry.gate = asyncio.create_task(self._gate(entry, entry.check))
        if entry.is_ready and required:
            try:
                async with self._slots:
                    await self._writer.register(entry)
                self._take_over(previous)
                if late := [before for before in previous.values() if before.call is not None]:
                    for before in late:  # its record may have been written over ours
                        await self._writer.idle(before)
                    await self._writer.register(entry)
            except BaseException as error:
                may_have_happened = not isinstance(
                    error, (ConfigError, InvalidServiceError, PermissionDeniedError)
                )
                self._drop(entry)
                self._give_back(previous)
                if may_have_happened:
                    for task, earlier in list(self._background.items()):
                        if earlier == entry.service:  # somebody tries again and again
                            task.cancel()
                    self._withdraw_later(entry.service, entry.ttl)
                raise
        else:
            self._take_over(previous)
        if entry.state != "closed":  # it may have been closed, or taken over, meanwhile
            self._group(entry).add(entry)

    async def update(self, entry: Entry, service: Service) -> None:
        """Change the record in place. What the registry does not take now, it is told again later.

        Raises:
            SvcregError: The registry has not acknowledged yet.
        """
        kept = {node.id for node in service.nodes}
        dropped = [node for node in entry.service.nodes if node.id not in kept]
        previous, entry.service = entry.service, service
        self._take_over(self._claim(entry))
        await self._writer.idle(entry)
        try:
            if dropped:
                for node in dropped:
                    self._holders.pop((service.name, node.id), None)
                await self._dispatch.deregister(previous.with_nodes(dropped))
            async with self._slots:
                await self._writer.idle(entry)
                if entry.state == "active":
                    await self._writer.register(entry)
        except SvcregError as error:
            if entry.state == "active":
                self._writer.set_state(entry, "lost", error)
                self._group(entry).wake()
            raise

    async def drain(self, entry: Entry) -> None:
        """Hide the nodes from readers, and renew them no more; `remove` is to follow.

        Raises:
            SvcregError: The registry has not acknowledged.
        """
        if entry.gate is not None:
            entry.gate.cancel()
        entry.is_ready = False
        await self._writer.idle(entry)
        if entry.state != "closed":
            self._writer.set_state(entry, "pending", None)
            await self._dispatch.drain(entry.service)

    async def remove(self, entry: Entry) -> None:
        """Withdraw for good: what is under way is waited for, so that nothing comes back after.

        Raises:
            SvcregError: The registry has not acknowledged; the TTL will do it.
        """
        if entry.state == "closed":
            return
        held = [node for node in entry.service.nodes if self._holds(entry, node.id)]
        was_listed = entry.last_renewal is not None or entry.is_unsettled
        self._drop(entry)
        service = entry.service.with_nodes(held)
        pending = entry.call
        if pending is not None:
            was_listed = True
            await asyncio.wait({pending}, timeout=self._config.timeout)
        if not held or not was_listed:
            return
        if entry.is_unsettled or (pending is not None and not pending.done()):
            self._withdraw_later(service, entry.ttl, pending)
        await self._dispatch.deregister(service)

    async def release(self, service: Service) -> None:
        """Withdraw nodes registered by anyone; ours let go of them first.

        Raises:
            SvcregError: The registry has not acknowledged.
        """
        for node in service.nodes:
            entry = self._holders.get((service.name, node.id))
            if entry is None:
                continue
            rest = [other for other in entry.service.nodes if other.id != node.id]
            if rest:
                self._holders.pop((service.name, node.id), None)
                entry.service = entry.service.with_nodes(rest)
                await self._writer.idle(entry)
            else:
                await self.remove(entry)
        await self._dispatch.deregister(service)

    async def close(self) -> None:
        """Withdraw everything; what fails is logged once, and left to its TTL."""
        entries = self.entries
        failures: list[SvcregError] = []

        async def remove(entry: Entry) -> None:
            async with self._slots:
                try:
                    await self.remove(entry)
                except SvcregError as error:
                    failures.append(error)

        if entries:
            await asyncio.gather(*(remove(entry) for entry in entries))
        if failures:
            _log.warning(
                "%d of %d registrations were not withdrawn and end with their TTL: %s",
                len(failures),
                len(entries),
                failures[0],
            )

    # Who holds which node.

    def _holds(self, entry: Entry, node_id: str) -> bool:
        return self._holders.get((entry.service.name, node_id)) is entry

    def _claim(self, entry: Entry) -> dict[tuple[str, str], Entry]:
        """Note that these nodes are this entry's; return the other entries that held them."""
        previous = {}
        for key in entry.nodes:
            before = self._holders.get(key)
            if before is not None and before is not entry:
                previous[key] = before
            self._holders[key] = entry
        return previous

    def _take_over(self, previous: dict[tuple[str, str], Entry]) -> None:
        """Have entries let go of nodes that another entry of ours holds now."""
        for (_, node_id), before in previous.items():
            rest = [node for node in before.service.nodes if node.id != node_id]
            if rest:
                before.service = before.service.with_nodes(rest)
            else:
                self._drop(before)

    def _give_back(self, previous: dict[tuple[str, str], Entry]) -> None:
        """Undo a claim."""
        for key, before in previous.items():
            if before.state != "closed":
                self._holders[key] = before

    def _drop(self, entry: Entry) -> None:
        """Let go of an entry: nothing of ours writes it any more."""
        self._writer.set_state(entry, "closed", entry.error)
        for key in entry.nodes:
            if self._holders.get(key) is entry:
                del self._holders[key]
        if entry.gate is not None:
            entry.gate.cancel()
        group = self._groups.get((entry.ttl, entry.interval))
        if group is not None:
            group.discard(entry)
            if not group.entries:
                del self._groups[entry.ttl, entry.interval]

    def _group(self, entry: Entry) -> Heartbeat:
        key = (entry.ttl, entry.interval)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Heartbeat(self._writer, self._dispatch, *key)
        return group

    # What happens beside the beat.

    async def _gate(self, entry: Entry, check: Check) -> None:
        """List the node while its check passes, and only then."""
        failures = 0
        while True:
            await asyncio.sleep(CHECK_PERIOD)
            fault = await _fault(check)
            failures = 0 if fault is None else failures + 1
            if not entry.is_ready:
                entry.error = fault
                if fault is None:
                    entry.is_ready = True
                    self._group(entry).wake()
            elif failures >= CHECK_FAILURES:
                entry.is_ready = False
                await self._writer.idle(entry)
                _log.warning("nodes of %r are unlisted: %s", entry.service.name, fault)
                self._writer.set_state(entry, "pending", fault)
                with contextlib.suppress(SvcregError):  # the TTL does it, since nobody renews
                    await self._dispatch.deregister(entry.service)

    def _withdraw_later(
        self, service: Service, ttl: float, pending: asyncio.Task[Any] | None = None
    ) -> None:
        task = asyncio.create_task(self._withdraw_again(service, ttl, pending))
        self._background[task] = service if pending is None else None
        task.add_done_callback(self._background.pop)

    async def _withdraw_again(
        self, service: Service, ttl: float, pending: asyncio.Task[Any] | None
    ) -> None:
        """Withdraw what a write that was never answered may have listed late.

        While the registry cannot be reached it is asked again, until the TTL has done it. What the
        line held back may come with the first answer, so then there is one more look.
        """
        ends, backoff, was_away = time.monotonic() + ttl, Backoff(), False
        if pending is not None and not pending.done():
            await asyncio.wait({pending}, timeout=ttl)
        while True:
            await asyncio.sleep(SETTLE_DELAY)
            await self._dispatch.settled(ttl)
            try:
                await self._withdraw_unheld(service)
            except SvcregError as error:
                if not error.retryable or time.monotonic() > ends:
                    return
                was_away = True
                await asyncio.sleep(backoff.next())
                continue
            if not was_away:
                return
            was_away = False

    async def _withdraw_unheld(self, service: Service) -> None:
        """Withdraw the nodes that look exactly as in `service` and are nobody's of ours.

        A backend does not compare owners twice, and a successor may have come meanwhile.
        """
        found = await self._dispatch.get(service.name)
        listed = {node.id: node for version in found for node in version.nodes}
        nodes = [
            node
            for node in service.nodes
            if listed.get(node.id) == node and (service.name, node.id) not in self._holders
        ]
        if nodes:
            await self._dispatch.deregister(service.with_nodes(nodes))


async def _fault(check: Check) -> Exception | None:
    """Return why a check does not pass, or None when it does."""
    try:
        return None if await check() else SvcregError("the check does not pass")
    except Exception as error:
        fault = SvcregError(f"the check does not pass: {str(error) or type(error).__name__}")
        fault.__cause__ = error
        return fault
