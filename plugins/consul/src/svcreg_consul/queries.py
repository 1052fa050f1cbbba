"""Blocking queries as Consul's documentation prescribes, and reads while there is no leader.

https://developer.hashicorp.com/consul/api-docs/features/blocking: an index that goes backwards
starts anew, one that is not positive is not waited for, and the loop is rate-limited.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from svcreg.errors import RegistryError, RegistryTimeoutError, RegistryUnavailableError
from svcreg_consul.client import Query, Reply

WAIT_SECONDS = 30.0
"""How long the agent holds a query; a connection that died unnoticed is noticed after that."""

BURST = 20
"""Answers that may follow one another at once: a rollout is seen as it happens ..."""

SPACING_SECONDS = 0.2
"""... and after that this much time apart, so that a storm costs 5 answers a second ..."""

COST_FACTOR = 4.0
"""... or, where an answer takes long to digest, so many times what it took."""

Ask = Callable[[Query], Awaitable[Reply]]


class Asker:
    """How one question is asked: its datacentre, its patience, and the newest answer there was.

    It is made once per question and registry, so that what was seen outlives a lost watch.

    Args:
        ask: Sends the query.
        dc: Datacentre; empty is the agent's own.
        is_stale: Let any server answer.
        patience: Seconds that an answer may take that does not have to wait for a change.
    """

    def __init__(self, ask: Ask, dc: str, *, is_stale: bool, patience: float) -> None:
        self.is_stale = is_stale
        self._ask = ask
        self._dc = dc
        self._patience = patience
        self._newest = 0

    async def wait(self, after: int, *, is_stale: bool) -> Reply:
        """Return the answer once it is newer than `after`, or half a minute has passed.

        Raises:
            RegistryError: It was not answered, or only with what was before.
        """
        reply = await self._ask(Query(after, WAIT_SECONDS, is_stale, self._dc))
        return self._note(reply, is_makeshift=is_stale and not self.is_stale)

    async def read(self) -> Reply:
        """Return the answer to a plain read; from a server without a leader if need be.

        Without a leader servers answer an ordinary read after 7 s, with an error, so a stale one
        is sent after half of the patience. A server that has not even what was seen before does
        not count.

        Raises:
            RegistryError: Neither was answered; the error is that of the ordinary read.
        """
        if self.is_stale:
            return await self._ask(Query(is_stale=True, dc=self._dc))
        first: asyncio.Future[Reply] = asyncio.ensure_future(self._ask(Query(dc=self._dc)))
        second: asyncio.Future[Reply] | None = None
        try:
            await asyncio.wait({first}, timeout=self._patience / 2)
            if first.done() and not _is_worth_another(first):
                return self._note(first.result(), is_makeshift=False)
            second = asyncio.ensure_future(self._ask(Query(is_stale=True, dc=self._dc)))
            pending = {second} if first.done() else {first, second}
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    with contextlib.suppress(RegistryError):
                        return self._note(one.result(), is_makeshift=one is second)
            return first.result()
        finally:
            for one in filter(None, (first, second)):
                if not one.cancel() and not one.cancelled():
                    one.exception()  # seen

    def _note(self, reply: Reply, *, is_makeshift: bool) -> Reply:
        """Return an answer that may be believed: a makeshift one only if it is new enough."""
        if not is_makeshift:
            self._newest = reply.revision
        elif reply.revision < self._newest:
            raise RegistryUnavailableError(
                "consul: there is no leader, and the server that is left is behind what was known"
            )
        return reply


def _is_worth_another(read: asyncio.Future[Reply]) -> bool:
    error = read.exception()
    return isinstance(error, RegistryUnavailableError | RegistryTimeoutError)


class BlockingQuery:
    """One question asked again and again, each answer as soon as there is something new."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._index = 0
        self._has_leader = True
        self._tokens = float(BURST)
        self._refilled_at = self._answered_at = time.monotonic()

    async def next(self) -> Reply:
        """Return the next answer; it may be the same as before.

        While there is no leader, what the servers had last is read, and waited for, as stale.

        Raises:
            RegistryError: The connection is lost.
        """
        await self._slow_down()
        try:
            reply = await self._next()
        except RegistryUnavailableError:
            if not self._has_leader or self._asker.is_stale or self._index == 0:
                raise
            reply = await self._asker.read()  # perhaps only the leader is gone
        self._has_leader = reply.has_leader
        self._index = reply.revision if reply.revision >= self._index else 0
        self._answered_at = time.monotonic()
        return reply

    async def _next(self) -> Reply:
        if self._index <= 0:
            return await self._asker.read()
        is_stale = self._asker.is_stale or not self._has_leader
        return await self._asker.wait(self._index, is_stale=is_stale)

    async def _slow_down(self) -> None:
        """Take one token of a bucket that refills by the time that answers take to digest."""
        now = time.monotonic()
        spacing = max(SPACING_SECONDS, (now - self._answered_at) * COST_FACTOR)
        self._tokens = min(float(BURST), self._tokens + (now - self._refilled_at) / spacing)
        self._refilled_at = now
        if self._tokens < 1:
            await asyncio.sleep((1 - self._tokens) * spacing)
        self._tokens -= 1
