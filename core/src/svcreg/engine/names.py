"""The names of all services, read on demand and remembered."""

from __future__ import annotations

import asyncio
import copy
import time

from svcreg.engine.dispatch import Dispatcher
from svcreg.errors import SvcregError

MAX_AGE = 1.0
"""Seconds that an answer serves; also the least time between two attempts that fail."""

REFRESH_PATIENCE = 0.5
"""Seconds that a reader who could have an older answer waits for a newer one."""


class Names:
    """Answers `list`: from memory while fresh, from the registry otherwise, stale when it is down.

    `fresh` may be called from any thread; the rest on the engine's loop alone.
    """

    def __init__(self, dispatch: Dispatcher) -> None:
        self._dispatch = dispatch
        self._names: tuple[str, ...] | None = None
        self._asked_at = float("-inf")
        self._error: SvcregError | None = None
        self._task: asyncio.Task[None] | None = None

    def fresh(self) -> tuple[str, ...] | None:
        """Return the names if they are fresh, else None."""
        is_fresh = self._error is None and time.monotonic() - self._asked_at < MAX_AGE
        return self._names if is_fresh else None

    def invalidate(self) -> None:
        """Make the next reader ask: we have just changed something ourselves."""
        self._asked_at = float("-inf")

    async def get(self) -> tuple[str, ...]:
        """Return the sorted names; readers at one moment share one call.

        Raises:
            SvcregError: Nothing was ever known, and the last attempt failed so.
        """
        age = time.monotonic() - self._asked_at
        if self._task is None and age >= MAX_AGE:
            self._task = asyncio.create_task(self._refresh(), name="svcreg-list")
        if self._task is not None and (self._names is None or self._error is None):
            patience = None if self._names is None else REFRESH_PATIENCE
            await asyncio.wait({self._task}, timeout=patience)
        if self._names is None and self._error is not None:
            raise copy.copy(self._error) from self._error.__cause__
        return self._names or ()

    async def _refresh(self) -> None:
        asked_at = time.monotonic()
        self._asked_at = asked_at
        try:
            self._names = await self._dispatch.list()
            self._error = None
        except SvcregError as error:
            self._error = error
        finally:
            self._task = None
