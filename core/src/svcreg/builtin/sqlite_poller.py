"""Sees what changes in a registry file, and tells the watches of one backend instance."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from pathlib import Path

from svcreg.builtin.records import Key, by_name
from svcreg.builtin.sqlite_file import RegistryFile
from svcreg.builtin.sqlite_nodes import Nodes, RecordReader
from svcreg.builtin.watcher import Watcher
from svcreg.errors import RegistryClosedError, RegistryUnavailableError, SvcregError
from svcreg.model import Service

POLL_INTERVAL = 0.025
"""Seconds between looks, which take microseconds each; a change may take 100 ms to be seen."""


class Poller:
    """One thread that runs while there are watches; any thread may add and remove them.

    An error ends all watches with it; core starts them anew. The thread is a daemon and only
    reads, so it can be left behind at exit.
    """

    def __init__(self, path: Path, timeout: float, reader: RecordReader) -> None:
        self._path = path
        self._timeout = timeout
        self._reader = reader
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_running = False
        self._is_closed = False
        self._watchers: set[Watcher] = set()
        self._joining: set[Watcher] = set()

    def add(self, watcher: Watcher) -> None:
        """Tell a watcher everything that is there, and then every change."""
        with self._lock:
            if self._is_closed:
                raise self._closed_error()
            self._joining.add(watcher)
            if not self._is_running:
                self._is_running = True
                self._thread = threading.Thread(
                    target=self._run, name="svcreg-sqlite-poll", daemon=True
                )
                self._thread.start()
        self._wake.set()

    def remove(self, watcher: Watcher) -> None:
        """Tell a watcher no more; with the last one the thread ends."""
        with self._lock:
            self._watchers.discard(watcher)
            self._joining.discard(watcher)
        self._wake.set()

    def close(self) -> None:
        """End all watches, and wait for the thread to end."""
        with self._lock:
            self._is_closed = True
        self._fail(self._closed_error())
        self._wake.set()
        if self._thread is not None:
            self._thread.join(self._timeout)

    def _closed_error(self) -> RegistryClosedError:
        return RegistryClosedError(f"sqlite: the registry {self._path} has been closed")

    def _run(self) -> None:
        is_needed = True
        while is_needed:
            file = RegistryFile(self._path, self._timeout)
            try:
                self._follow(file)
                is_needed = False
            except SvcregError as error:
                self._fail(error)
            except Exception as error:
                message = f"sqlite: watching {self._path} failed: {error!r}"
                failure = RegistryUnavailableError(message)
                failure.__cause__ = error
                self._fail(failure)
            finally:
                file.close()

    def _follow(self, file: RegistryFile) -> None:
        """Tell watchers what changes in the file, until there are none."""
        changes = _Changes(file, self._reader)
        while (watchers := self._next_round()) is not None:
            changes.tell(*watchers)
            self._wake.wait(POLL_INTERVAL)
            self._wake.clear()

    def _next_round(self) -> tuple[list[Watcher], list[Watcher]] | None:
        """Return the watchers of before and those that have just come; None when there are none."""
        with self._lock:
            for watcher in [one for one in self._watchers if one.is_abandoned]:
                self._watchers.discard(watcher)
            if not self._watchers and not self._joining:
                self._is_running = False
                return None
            known, new = list(self._watchers), list(self._joining)
            self._watchers |= self._joining
            self._joining.clear()
            return known, new

    def _fail(self, error: SvcregError) -> None:
        with self._lock:
            watchers = self._watchers | self._joining
            self._watchers.clear()
            self._joining.clear()
        for watcher in watchers:
            watcher.fail(error)


class _Changes:
    """Where one reader of a file has got to; used by one thread."""

    def __init__(self, file: RegistryFile, reader: RecordReader) -> None:
        self._file = file
        self._reader = reader
        self._identity: tuple[int, int] | None = None
        self._version: tuple[int, int] | None = None
        self._last_change = 0
        self._last_look = 0.0
        self._next_deadline = -math.inf

    def tell(self, known: list[Watcher], new: list[Watcher]) -> None:
        """Tell known watchers what has changed since last time, and new ones everything."""
        version = self._file.version()
        self._check_identity()
        if not new and version == self._version and time.monotonic() < self._next_deadline:
            return
        with self._file.reading() as nodes:
            self._check_identity()
            first, last = nodes.change_range()
            if not first - 1 <= self._last_change <= last:
                known, new = [], [*known, *new]  # too far behind, so what was missed is unknown
            if known:
                self._tell_changes(nodes, known)
            for watcher in new:
                watcher.reset(self._reader.read(nodes.rows(watcher.name)))
            deadline = nodes.next_deadline()
            self._next_deadline = math.inf if deadline is None else deadline
            self._last_change = last
            self._last_look = nodes.now
        self._version = version

    def _check_identity(self) -> None:
        """Raise when this is no longer the file that was read before."""
        if self._identity not in (None, self._file.identity):
            raise RegistryUnavailableError(f"sqlite: {self._file.path} was removed or replaced")
        self._identity = self._file.identity

    def _tell_changes(self, nodes: Nodes, watchers: list[Watcher]) -> None:
        interested: dict[str | None, list[Watcher]] = defaultdict(list)
        for watcher in watchers:
            interested[watcher.name].append(watcher)
        found: dict[Key, Service | None] = dict.fromkeys(nodes.expired(self._last_look))
        for row in nodes.changed(self._last_change):
            if None in interested or row[0] in interested:
                key = row[0], row[1]
                found.pop(key, None)
                found[key] = self._reader.read_one(row)
        for name, part in by_name(found).items():
            for watcher in interested.get(name, ()):
                watcher.change(part)
