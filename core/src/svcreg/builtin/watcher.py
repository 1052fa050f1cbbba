"""What one `svcreg_watch` has yet to be told, handed from any thread to its event loop."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Iterable, Mapping

from svcreg.builtin.records import Key, group, only_ids
from svcreg.hookspecs import Delta, Snapshot
from svcreg.model import Service


class Watcher:
    """The changes that one watch has not read yet.

    Changes of one node coalesce into the last, so a watch that nobody reads holds no more than
    one entry per node. `reset`, `change`, `fail` and `wake` may be called from any thread, one at
    a time; `take` and `wait` belong to the loop that the watcher was made on.
    """

    def __init__(self, name: str | None) -> None:
        self.name = name
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._lock = threading.Lock()
        self._is_signalled = False
        self._reset: tuple[Snapshot, set[Key]] | None = None
        self._changes: dict[Key, Service | None] = {}
        self._error: Exception | None = None
        self._listed: set[Key] = set()  # what the reader has been told of; loop only

    def reset(self, records: Iterable[Service]) -> None:
        """Tell everything that is there, in place of what has not been read yet."""
        records = list(records)
        complete = Snapshot(group(records)), {(one.name, one.nodes[0].id) for one in records}
        with self._lock:
            self._reset = complete
            self._changes.clear()
        self.wake()

    def change(self, changes: Mapping[Key, Service | None]) -> None:
        """Tell in one item that nodes have new records, or with None that they are gone."""
        with self._lock:
            for key, record in changes.items():
                self._changes.pop(key, None)  # the dict's order is that of the last changes
                self._changes[key] = record
        self.wake()

    def fail(self, error: Exception) -> None:
        """End the watch with an error, once what was told before has been read."""
        with self._lock:
            # A copy each: core completes an error with the service concerned.
            self._error = copy.copy(error)
            self._error.__cause__ = error.__cause__
        self.wake()

    def wake(self) -> None:
        """Make `wait` return."""
        with self._lock:
            if self._is_signalled:
                return
            self._is_signalled = True
        try:
            self._loop.call_soon_threadsafe(self._woken.set)
        except RuntimeError:
            pass  # the loop has been closed; see is_abandoned

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody can read this any more, because its loop is closed."""
        return self._loop.is_closed()

    def take(self) -> Snapshot | Delta | None:
        """Return what is new since the last call; None when nothing is, and it is time to wait.

        Raises:
            Exception: What `fail` was given.
        """
        with self._lock:
            self._is_signalled = False
            self._woken.clear()
            if self._reset is not None:
                snapshot, self._listed = self._reset
                self._reset = None
                return snapshot
            changes, self._changes = self._changes, {}
            error = self._error
        upserts = [record for record in changes.values() if record is not None]
        deletes = [key for key, record in changes.items() if record is None and key in self._listed]
        self._listed.difference_update(deletes)
        self._listed.update(key for key, record in changes.items() if record is not None)
        if upserts or deletes:
            return Delta(group(upserts), only_ids(deletes))
        if error is not None:
            raise error
        return None

    async def wait(self, seconds: float | None = None) -> None:
        """Return when there may be something to take, or after so many seconds."""
        if seconds is None:
            await self._woken.wait()
            return
        timer = self._loop.call_later(max(seconds, 0.0), self._woken.set)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()
