"""The state of services, as it changes, turned into one `Snapshot` and then `Delta`s."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

from svcreg import Delta, Node, Service, Snapshot
from svcreg_consul.queries import Asker, BlockingQuery
from svcreg_consul.reader import Reader, Sighting, State, group

Update = Mapping[str, State]
"""The complete new state of each service that is mentioned."""


async def follow(asker: Asker, reader: Reader, name: str) -> AsyncGenerator[Update, None]:
    """Yield the state of one service at once and after each change, with a long poll of its own.

    Raises:
        RegistryError: The connection is lost.
    """
    query = BlockingQuery(asker)
    while True:
        reply = await query.next()
        yield {name: await reader.read(name, reply.body)}


async def watch(
    sources: Sequence[AsyncGenerator[Update, None]],
) -> AsyncGenerator[Snapshot | Delta, None]:
    """Turn what one or several datacentres say into one story.

    Of a node id that occurs in several of them the first one's counts.
    """
    story = _Story(len(sources))
    async with _merged(sources) as updates:
        async for place, update in updates:
            item = story.take(place, update)
            if item is not None:
                yield item


class _Story:
    """What each source says, and what the reader of the watch has been told of it."""

    def __init__(self, places: int) -> None:
        self._silent = set(range(places))
        self._said: list[dict[str, State]] = [{} for _ in range(places)]
        self._told: dict[str, dict[str, Sighting]] = {}

    def take(self, place: int, update: Update) -> Snapshot | Delta | None:
        """Take in an update; return what there is to tell, if anything."""
        is_first = bool(self._silent)
        self._silent.discard(place)
        for name, state in update.items():
            if state:
                self._said[place][name] = state
            else:
                self._said[place].pop(name, None)
        if self._silent:
            return None
        if is_first:
            names = {name for said in self._said for name in said}
            for name in names:
                self._told[name] = self._now(name)
            return Snapshot(
                group(sighting for state in self._told.values() for sighting in state.values())
            )
        return self._difference(update)

    def _now(self, name: str) -> dict[str, Sighting]:
        now: dict[str, Sighting] = {}
        for said in reversed(self._said):
            now.update(said.get(name, {}))
        return now

    def _difference(self, names: Update) -> Delta | None:
        upserts: list[Sighting] = []
        deletes: list[Service] = []
        for name in names:
            before, now = self._told.get(name, {}), self._now(name)
            upserts += [one for key, one in now.items() if not one.says_the_same(before.get(key))]
            gone = [key for key in before if key not in now]
            if gone:
                deletes.append(Service(name, nodes=tuple(Node(key, "") for key in gone)))
            if now:
                self._told[name] = now
            else:
                self._told.pop(name, None)
        return Delta(group(upserts), deletes) if upserts or deletes else None


@contextlib.asynccontextmanager
async def _merged(
    sources: Sequence[AsyncGenerator[Update, None]],
) -> AsyncIterator[AsyncIterator[tuple[int, Update]]]:
    """Iterate over several sources at once; one that fails fails the whole."""
    pending: dict[asyncio.Task[Update], int] = {}

    async def items() -> AsyncIterator[tuple[int, Update]]:
        while True:
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                place = pending.pop(task)
                update = task.result()
                pending[_next(sources[place])] = place
                yield place, update

    if len(sources) == 1:
        async with contextlib.aclosing(sources[0]) as source:
            yield ((0, update) async for update in source)
        return
    try:
        for place, source in enumerate(sources):
            pending[_next(source)] = place
        yield items()
    finally:
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
        for task in pending:
            if not task.cancelled():
                task.exception()  # seen: it came too late
        for source in sources:
            await source.aclose()


def _next(source: AsyncGenerator[Update, None]) -> asyncio.Task[Update]:
    async def take() -> Update:
        return await anext(source)

    return asyncio.create_task(take())
