"""The write path: one call at a time per registration, and what its outcome means for the state."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Literal, TypeVar

from svcreg.engine.dispatch import Dispatcher
from svcreg.errors import RegistrationLostError, SvcregError
from svcreg.model import Service

State = Literal["pending", "active", "lost", "closed"]

Check = Callable[[], Awaitable[bool]]

CONCURRENCY = 32
"""Registrations or withdrawals under way at once; more only queue up in the registry."""

LOST_AFTER = 2 / 3
"""Share of the TTL without an acknowledgement after which a record counts as lost: what is left
serves to register it anew before it expires."""

T = TypeVar("T")

_log = logging.getLogger("svcreg.registrar")


class Entry:
    """One registration. Changed on the engine's loop only; any thread may read it.

    Attributes:
        service: The record as it is to be listed.
        state: `pending` (not listed yet), `active`, `lost` (being listed anew) or `closed`.
        error: Why it is not active, or why the last attempt failed; None when all is well.
        last_renewal: Unix seconds of the last acknowledged register or renewal.
    """

    def __init__(self, service: Service, ttl: float, interval: float, check: Check | None) -> None:
        self.service = service
        self.ttl = ttl
        self.interval = interval
        self.check = check
        self.state: State = "pending"
        self.state_since = time.monotonic()
        self.error: Exception | None = None
        self.last_renewal: float | None = None
        self.is_ready = check is None
        self.acked_at = float("-inf")  # monotonic; the start of the call that was acknowledged
        self.is_unsettled = False  # a write went unanswered: it may still take effect
        self.call: asyncio.Task[Any] | None = None  # the write under way, one at a time
        self.gate: asyncio.Task[None] | None = None

    @property
    def grace(self) -> float:
        """Seconds until the record counts as lost unless it is renewed."""
        return self.acked_at + self.ttl * LOST_AFTER - time.monotonic()

    @property
    def nodes(self) -> Iterable[tuple[str, str]]:
        """Service name and id of each node."""
        return [(self.service.name, node.id) for node in self.service.nodes]


class Writer:
    """Writes records, judges by what was acknowledged, and keeps each entry's state. Loop only.

    Attributes:
        slots: Bounds the calls under way at once.
    """

    def __init__(self, dispatch: Dispatcher) -> None:
        self._dispatch = dispatch
        self.slots = asyncio.Semaphore(CONCURRENCY)

    async def register(self, entry: Entry) -> None:
        """Write the record once.

        Raises:
            SvcregError: Not acknowledged; also kept in `entry.error`.
        """
        started = time.monotonic()
        limit = None if entry.state == "pending" else patience([entry])
        try:
            await self.write(
                [entry], self._dispatch.register(entry.service, entry.ttl, timeout=limit)
            )
        except SvcregError as error:
            if entry.state == "pending" and entry.error is None:
                _log.warning("registration of %r not acknowledged: %s", entry.service.name, error)
            entry.error = error
            raise
        self.acknowledge(entry, started)

    async def write(self, entries: Sequence[Entry], work: Coroutine[Any, Any, T]) -> T:
        """Await one call that writes these entries' records, so that others can wait for it."""
        task = asyncio.create_task(work)
        for entry in entries:
            entry.call = task
        try:
            return await task
        except BaseException as error:
            if getattr(error, "retryable", True):
                for entry in entries:
                    entry.is_unsettled = True
            raise
        finally:
            for entry in entries:
                if entry.call is task:
                    entry.call = None

    async def idle(self, entry: Entry) -> None:
        """Wait until no write of this entry is under way."""
        while entry.call is not None:
            await asyncio.wait({entry.call})
            await asyncio.sleep(0)  # lets the task that made the call note its end

    def acknowledge(self, entry: Entry, started: float) -> None:
        """Note that the registry has taken a write that began at monotonic time `started`."""
        entry.acked_at = started
        entry.last_renewal = time.time()
        entry.is_unsettled = False
        if entry.state != "closed":
            self.set_state(entry, "active", None)

    def set_state(self, entry: Entry, state: State, error: Exception | None) -> None:
        """Change the state; transitions are logged and observed."""
        entry.error = error
        if entry.state == state:
            return
        now = time.monotonic()
        previous, entry.state = entry.state, state
        seconds, entry.state_since = now - entry.state_since, now
        if state == "lost":
            _log.warning("registration of %r lost: %s", entry.service.name, error)
        elif state == "active" and previous == "lost":
            _log.info("registration of %r restored after %.1f s", entry.service.name, seconds)
        self._dispatch.observe_state(entry.service.name, state, seconds, error)

    def lose(self, entry: Entry, reason: str) -> None:
        """Note that the registry does not list the entry, or not surely."""
        said = f"registration of {entry.service.name!r}: {reason}; registering anew"
        if entry.error is not None and entry.state == "active":
            said += f" (last error: {entry.error})"
        error = RegistrationLostError(said, operation="renew", service=entry.service.name)
        self.set_state(entry, "lost", error)


def patience(entries: Sequence[Entry]) -> float:
    """Return the seconds that a renewal of these may take: it ends in time to mend its failure."""
    grace = min(entry.grace for entry in entries)
    return grace if grace > 0 else entries[0].interval
