"""One watch for many services: two long polls say which of them changed, and only those are read.

`/v1/health/state/any` shows every check with the index of its last change, `/v1/catalog/services`
every name with its tags. A record that svcreg writes always shows there, because the notes of its
check change with it. What somebody else changes about a record without touching its tags or checks
(its address, say) shows in neither: such changes are found when everything is read again, a minute
later.

Loop only.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import TypeVar

import msgspec

from svcreg.errors import ProtocolError, RegistryUnavailableError
from svcreg.model import check_name
from svcreg_consul.askers import Askers
from svcreg_consul.queries import BlockingQuery
from svcreg_consul.reader import Reader, State
from svcreg_consul.watcher import Update

READERS = 6
"""Services read at once."""

LINGER_SECONDS = 10.0
"""How long the catalogue is still watched when nobody needs it: a watch may be about to return."""

SWEEP_SECONDS = 60.0
"""How often everything is read again, if the catalogue has moved since."""

NAMES, CHECKS = "names", "checks"
"""The two long polls."""

T = TypeVar("T")


class _Check(msgspec.Struct):
    """What is of interest in one check."""

    Node: str
    CheckID: str
    ServiceName: str = ""
    Status: str = ""
    ModifyIndex: int = 0


_checks_decoder = msgspec.json.Decoder(list[_Check])
_names_decoder = msgspec.json.Decoder(dict[str, list[str] | None])


class Catalogue:
    """Follows any number of services of one datacentre over at most `2 + READERS` connections."""

    def __init__(self, askers: Askers, reader: Reader, dc: str) -> None:
        self._askers = askers
        self._reader = reader
        self._dc = dc
        self._followers: dict[str | None, set[_Follower]] = {}
        self._states: dict[str, State] = {}
        self._revisions: dict[str, int] = {}  # at which each state was read
        self._positions = {NAMES: 0, CHECKS: 0}  # how far each poll is
        self._names: dict[str, int] = {}
        self._checks: dict[tuple[str, str], _Check] = {}
        self._dirty: dict[str, None] = {}
        self._reading: set[str] = set()
        self._work = asyncio.Event()
        self._has_moved = False
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._ending: asyncio.TimerHandle | None = None

    async def follow(self, name: str | None) -> AsyncGenerator[Update, None]:
        """Yield the state of a service, or of all, at once and after each change.

        Raises:
            RegistryError: The connection is lost.
        """
        follower = _Follower(name)
        self._followers.setdefault(name, set()).add(follower)
        self._start()
        try:
            ready = self._ready
            if ready is not None:
                await asyncio.wait({ready})
            self._begin(follower)
            while True:
                yield await follower.take()
        finally:
            followers = self._followers.get(name, set())
            followers.discard(follower)
            if not followers:
                self._followers.pop(name, None)
                self._forget(name)
            if not self._followers and self._task is not None:
                loop = asyncio.get_running_loop()
                self._ending = loop.call_later(LINGER_SECONDS, self._task.cancel)

    async def close(self) -> None:
        """End the watch."""
        if self._ending is not None:
            self._ending.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    # Followers.

    def _begin(self, follower: _Follower) -> None:
        """Give a follower what is known, and have the rest read."""
        names = self._names if follower.name is None else (follower.name,)
        known = {name: self._states[name] for name in names if name in self._states}
        missing = [name for name in names if name not in known]
        follower.begin(known, missing)
        self._mark(missing)

    def _is_followed(self, name: str) -> bool:
        return name in self._followers or None in self._followers

    def _deliver(self, name: str, state: State) -> None:
        for audience in (name, None):
            for follower in self._followers.get(audience, ()):
                follower.put(name, state)

    def _forget(self, name: str | None) -> None:
        gone = [name] if name is not None else list(self._states)
        for one in gone:
            if not self._is_followed(one):
                self._states.pop(one, None)
                self._revisions.pop(one, None)
                self._dirty.pop(one, None)

    def _fail(self, error: BaseException) -> None:
        for followers in self._followers.values():
            for follower in followers:
                follower.fail(error)

    # The work.

    def _start(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        if self._task is None or self._task.done():
            self._states.clear()
            self._revisions.clear()
            self._dirty.clear()
            self._reading.clear()
            self._ready = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._run(self._ready), name="svcreg-catalogue")

    async def _run(self, ready: asyncio.Future[None]) -> None:
        names, checks = asyncio.Event(), asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_names(names))
                group.create_task(self._follow_checks(checks))
                await names.wait()
                await checks.wait()
                ready.set_result(None)
                for _ in range(READERS):
                    group.create_task(self._read())
                group.create_task(self._sweep())
        except* Exception as group_error:
            error: BaseException = group_error
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self._fail(error)
        finally:
            if not ready.done():
                ready.set_result(None)
            # Who joined while this was ending must not wait for ever.
            self._fail(RegistryUnavailableError("consul: the watch of the catalogue has ended"))

    async def _follow_names(self, baseline: asyncio.Event) -> None:
        query = BlockingQuery(self._askers.names("watch", self._dc))
        while True:
            reply = await query.next()
            names = _decode(_names_decoder, reply.body)
            now = {
                name: hash(frozenset(tags or ())) for name, tags in names.items() if _is_name(name)
            }
            before, self._names = self._names, now
            overtaken = self._advance(NAMES, reply.revision)
            if baseline.is_set():
                self._has_moved = True
                self._mark(_different(before, now) | overtaken)
            baseline.set()

    async def _follow_checks(self, baseline: asyncio.Event) -> None:
        query = BlockingQuery(self._askers.checks("watch", self._dc))
        while True:
            reply = await query.next()
            now = {
                (check.Node, check.CheckID): check for check in _decode(_checks_decoder, reply.body)
            }
            before, self._checks = self._checks, now
            overtaken = self._advance(CHECKS, reply.revision)
            if baseline.is_set():
                self._mark(self._touched(before, now) | overtaken)
            baseline.set()

    def _advance(self, poll: str, position: int) -> set[str]:
        """Note how far a poll is; return the services that were read on the way.

        Two answers of a poll do not differ in what came and went between them, and that is what
        such a read may have found: polls slow down when there is much to tell.
        """
        before, self._positions[poll] = self._positions[poll], position
        return {name for name, revision in self._revisions.items() if before < revision < position}

    def _touched(
        self,
        before: Mapping[tuple[str, str], _Check],
        now: Mapping[tuple[str, str], _Check],
    ) -> set[str]:
        """Return the services whose checks differ; a machine's own check concerns all on it."""
        touched: set[str] = set()
        machines: set[str] = set()
        for key in before.keys() | now.keys():
            old, new = before.get(key), now.get(key)
            if old is not None and new is not None and old.ModifyIndex == new.ModifyIndex:
                continue
            for check in (old, new):
                if check is not None and check.ServiceName:
                    touched.add(check.ServiceName)
                elif check is not None and getattr(old, "Status", "") != getattr(new, "Status", ""):
                    machines.add(check.Node)
        if machines:
            touched |= {check.ServiceName for check in now.values() if check.Node in machines}
            touched |= {
                name
                for name, state in self._states.items()
                if any(sighting.consul_node in machines for sighting in state.values())
            }
        return touched

    def _mark(self, names: Iterable[str]) -> None:
        """Have those services read again that somebody follows."""
        for name in names:
            if self._is_followed(name) and _is_name(name):
                self._dirty[name] = None
        if self._dirty:
            self._work.set()

    async def _read(self) -> None:
        while True:
            name = next((name for name in self._dirty if name not in self._reading), None)
            if name is None:
                self._work.clear()
                await self._work.wait()
                continue
            del self._dirty[name]
            self._reading.add(name)
            try:
                await self._read_one(name)
            finally:
                self._reading.discard(name)
                if self._dirty:
                    self._work.set()

    async def _read_one(self, name: str) -> None:
        # Not stale: a server that lags behind would answer with what was before the change.
        asker = self._askers.entries("watch", name, self._dc, may_be_stale=False)
        before = dict(self._positions)
        reply = await asker.read()
        state = await self._reader.read(name, reply.body)
        if self._is_followed(name):
            self._states[name] = state
            self._revisions[name] = reply.revision
            self._deliver(name, state)
            if any(before[poll] < reply.revision < now for poll, now in self._positions.items()):
                self._mark((name,))  # a poll has overtaken the read; see `_advance`

    async def _sweep(self) -> None:
        """Find what neither poll shows."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            if self._has_moved:
                self._has_moved = False
                self._mark(list(self._states))


class _Follower:
    """What one watch has yet to be told: the last state of each service, so it stays bounded."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self._missing: set[str] | None = None
        self._states: dict[str, State] = {}
        self._error: BaseException | None = None
        self._news = asyncio.Event()

    def begin(self, known: Update, missing: Iterable[str]) -> None:
        """Take in what is known; nothing is told before what is missing has been put."""
        self._states.update(known)
        self._missing = set(missing)
        self._wake()

    def put(self, name: str, state: State) -> None:
        if self._missing is not None:
            self._missing.discard(name)
            self._states[name] = state
            self._wake()

    def fail(self, error: BaseException) -> None:
        self._error = self._error or error  # the first one says why
        self._news.set()

    async def take(self) -> Update:
        await self._news.wait()
        self._news.clear()
        if self._error is not None:
            raise copy.copy(self._error) from self._error.__cause__
        states, self._states = self._states, {}
        return states

    def _wake(self) -> None:
        if not self._missing:
            self._news.set()


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ProtocolError(f"consul: the catalogue makes no sense: {error}") from None


def _different(before: Mapping[str, int], now: Mapping[str, int]) -> set[str]:
    return {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}


def _is_name(name: str) -> bool:
    """Tell whether a service may be asked for; another name would be another request."""
    try:
        check_name(name)
    except ValueError:
        return False
    return True
