"""All members as one: which one is asked, when another is, and who we are to them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections.abc import AsyncIterator
from typing import Any

from svcreg.errors import ConfigError
from svcreg_etcd import messages as m
from svcreg_etcd.client import Client, Metadata, Stream, make_context
from svcreg_etcd.errors import RpcError
from svcreg_etcd.options import Settings

MIN_TRY, MAX_TRY = 1.0, 2.0
"""Seconds that one member gets for one answer. With such a limit a killed leader cost 1.1 to 3.2 s,
without one 7.1 s."""

MIN_PAUSE, MAX_PAUSE = 0.05, 1.0
"""Seconds between two rounds through all members, doubling, with jitter."""

IN_FLIGHT = 128
"""Calls under way at once; a member that is given many more answers `too many requests`."""

LOGIN_PAUSE = 5.0
"""Seconds for which a refused login is not tried again: each costs the server a slow hash."""

_log = logging.getLogger("svcreg.etcd")


class Cluster:
    """Calls go to one member at a time; when it fails, all calls and streams move to the next.

    To be used on one event loop; connects on first use.

    Attributes:
        token: What shows who we are; None before the first login, empty where nobody logs in.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._endpoints = settings.endpoints
        self._context = make_context(settings.tls)  # now, so that a missing file is noticed now
        self._at = random.randrange(len(self._endpoints))  # spreads many programs over the members
        self._client: Client | None = None
        self._try = min(
            max(settings.timeout / max(2, len(self._endpoints)), MIN_TRY), MAX_TRY, settings.timeout
        )
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self.token: str | None = None
        self._login = asyncio.Lock()
        self._refusal: RpcError | None = None
        self._refused_at = 0.0
        self._refused_password: str | None = None

    # One method per call of the server's API.

    async def range(self, key: bytes, end: bytes, *, limit: int = 0, revision: int = 0) -> Any:
        """Read the keys from `key` to before `end`; linearizable where no revision is given."""
        request = m.RangeRequest(key=key, range_end=end, limit=limit, revision=revision)
        return await self._call("KV/Range", request, m.RangeResponse)

    async def txn(self, request: Any, *, is_repeatable: bool = True) -> Any:
        """Run a transaction.

        One whose answer was lost is run again, unless `is_repeatable` is false: then an `RpcError`
        with `was_sent` says that it may have been run, or may not.
        """
        return await self._call("KV/Txn", request, m.TxnResponse, is_repeatable=is_repeatable)

    async def grant(self, lease_id: int, ttl: int) -> None:
        """Create a lease of `ttl` seconds under an id of our own, so that repeating is safe."""
        request = m.LeaseGrantRequest(ID=lease_id, TTL=ttl)
        try:
            await self._call("Lease/LeaseGrant", request, m.LeaseGrantResponse)
        except RpcError as error:
            if not error.is_lease_taken:
                raise

    async def revoke(self, lease_id: int) -> None:
        """End a lease and delete its keys; one that is gone is success."""
        request = m.LeaseRevokeRequest(ID=lease_id)
        try:
            await self._call("Lease/LeaseRevoke", request, m.LeaseRevokeResponse)
        except RpcError as error:
            if not error.is_lease_gone:
                raise

    async def keep_alive(self, lease_id: int, patience: float) -> bool:
        """Extend a lease; tell whether it is still there.

        Args:
            lease_id: The lease.
            patience: Seconds that one member gets to answer, where that is less than usual.
        """
        request = m.LeaseKeepAliveRequest(ID=lease_id)
        reply = m.LeaseKeepAliveResponse
        answer = await self._call(
            "Lease/LeaseKeepAlive", request, reply, patience=patience, is_stream=True
        )
        return bool(answer.TTL > 0)

    async def lease_keys(self, lease_id: int) -> set[bytes] | None:
        """Return the keys that hang on a lease; None where the lease is gone."""
        request = m.LeaseTimeToLiveRequest(ID=lease_id, keys=True)
        answer = await self._call("Lease/LeaseTimeToLive", request, m.LeaseTimeToLiveResponse)
        return set(answer.keys) if answer.TTL > 0 else None

    async def probe(self, client: Client, key: bytes, timeout: float) -> None:
        """Ask a member for a sign of life; a refusal is one.

        Raises:
            RpcError: There was none within `timeout` seconds.
        """
        request = m.RangeRequest(key=key, limit=1, keys_only=True, serializable=True)
        reply, metadata = m.RangeResponse, {"token": self.token} if self.token else {}
        try:
            await client.call(
                "/etcdserverpb.KV/Range", request, reply, timeout=timeout, metadata=metadata
            )
        except RpcError as error:
            if error.is_lost:
                raise

    @contextlib.asynccontextmanager
    async def watch_stream(self) -> AsyncIterator[tuple[Client, Stream]]:
        """Open a stream of watches on the present member, which is left when it is lost.

        Raises:
            RpcError: It could not be opened, or ended.
        """
        client = self._current()
        path, kinds = "/etcdserverpb.Watch/Watch", (m.WatchRequest, m.WatchResponse)
        try:
            metadata = await self._metadata(client)
            async with client.stream(path, *kinds, timeout=self._try, metadata=metadata) as made:
                yield client, made
        except RpcError as error:
            if error.is_lost:
                self.leave(client)
            raise

    # Which member.

    def leave(self, client: Client) -> None:
        """Let go of a member that has failed: calls and streams move to the next one."""
        if client is self._client:
            self._client = None
            self._at = (self._at + 1) % len(self._endpoints)
        client.close()

    def close(self) -> None:
        """Drop the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _current(self) -> Client:
        if self._client is not None and self._client.is_lost:
            self.leave(self._client)
        if self._client is None:
            with contextlib.suppress(ConfigError):  # being replaced: those read before will do
                self._context = make_context(self._settings.tls)
            self._client = Client(self._endpoints[self._at], self._context)
        return self._client

    async def _call(
        self,
        path: str,
        request: Any,
        reply: Any,
        *,
        patience: float = MAX_TRY,
        is_stream: bool = False,
        is_repeatable: bool = True,
    ) -> Any:
        """Ask one member after the other until one answers, within the configured timeout.

        A round in which no member could be reached at all is the last; where members are there and
        have no leader, say, there are more.
        """
        started = time.monotonic()
        rounds = max(2, len(self._endpoints))
        pause = MIN_PAUSE
        is_anybody_there = False  # in this round
        for attempt in itertools.count(1):
            client = self._current()
            asked_at = time.monotonic()
            left = self._settings.timeout - (asked_at - started)
            try:
                async with self._slots:
                    limit = min(self._try, patience, left)
                    return await self._ask(
                        client, path, request, reply, timeout=limit, stream=is_stream
                    )
            except RpcError as error:
                if not error.is_lost:
                    raise
                self._note_failure(client, error, asked_at)
                if error.was_sent and not is_repeatable:
                    raise
                is_anybody_there = is_anybody_there or error.was_there
                if attempt % rounds == 0:
                    if not is_anybody_there:
                        raise
                    await self._pause_within(started, pause, error)
                    pause, is_anybody_there = min(pause * 2, MAX_PAUSE), False
                elif time.monotonic() - started >= self._settings.timeout:
                    raise
        raise AssertionError  # count() does not end

    async def _pause_within(self, started: float, pause: float, error: RpcError) -> None:
        delay = random.uniform(pause / 2, pause)
        if time.monotonic() + delay - started >= self._settings.timeout - MIN_PAUSE:
            raise error
        await asyncio.sleep(delay)

    def _note_failure(self, client: Client, error: RpcError, asked_at: float) -> None:
        """Move on, unless there is nowhere to go and the connection itself is well."""
        is_well = not client.is_lost and client.heard_at >= asked_at
        if len(self._endpoints) > 1 or not is_well:
            if client is self._client:
                _log.debug("leaving %s", error)
            self.leave(client)

    # Who we are.

    async def _ask(
        self, client: Client, path: str, request: Any, reply: Any, *, timeout: float, stream: bool
    ) -> Any:
        """Call with a token, and once more with a new one where that is what is missing."""
        function = client.exchange if stream else client.call
        path = f"/etcdserverpb.{path}"
        metadata = await self._metadata(client)
        token = self.token
        try:
            return await function(path, request, reply, timeout=timeout, metadata=metadata)
        except RpcError as error:
            if not error.is_stale_token or not self._settings.username:
                raise
        await self._log_in(client, token)
        metadata = await self._metadata(client)
        return await function(path, request, reply, timeout=timeout, metadata=metadata)

    async def _metadata(self, client: Client) -> Metadata:
        if self._settings.username and self.token is None:
            await self._log_in(client, None)
        # A member without a leader then says so, instead of falling silent.
        metadata = {"hasleader": "true"}
        return metadata | {"token": self.token} if self.token else metadata

    async def _log_in(self, client: Client, stale: str | None) -> None:
        """Log in, unless somebody else has since `stale` was the token.

        Raises:
            RpcError: User or password is wrong; it is not tried again for a while.
        """
        async with self._login:
            if self.token != stale:
                return
            password = self._settings.current_password()
            is_new = password != self._refused_password
            if self._refusal and not is_new and time.monotonic() - self._refused_at < LOGIN_PAUSE:
                raise self._refusal.again()
            try:
                answer = await client.call(
                    "/etcdserverpb.Auth/Authenticate",
                    m.AuthenticateRequest(name=self._settings.username, password=password),
                    m.AuthenticateResponse,
                    timeout=self._try,
                    metadata={"hasleader": "true"},
                )
            except RpcError as error:
                if error.is_auth_disabled:
                    self.token = ""
                    return
                if error.is_refused:
                    self._refusal, self._refused_at = error, time.monotonic()
                    self._refused_password = password
                raise
            self.token, self._refusal = answer.token, None
