"""What this process has registered: under which service ID, with which agents, and as what.

Consul cannot compare owners in one step, so looking at who holds an ID and writing it are two
requests, a millisecond apart, to the agent itself. Loop only.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from svcreg import Node, Service
from svcreg.errors import PermissionDeniedError, RegistryError
from svcreg_consul.calls import Call
from svcreg_consul.client import Client
from svcreg_consul.options import Address, Options
from svcreg_consul.reader import Reader
from svcreg_consul.records import (
    OWNER_KEY,
    Registration,
    check_id,
    encode,
    may_be_plain,
    qualified_id,
)

WRITES_AT_ONCE = 8
"""Requests that write, under way at once. An agent takes one change after the other: 16 at once are
not quicker than 4 (measured with 1.8 on a busy machine: 93 and 107 registrations a second)."""

COMPARED_AT_ONCE = 64
"""Registrations compared with the agent's record at each renewal, in turn."""

DRAINING = "draining: its program is about to end"
"""What operators read in Consul's maintenance check."""

Key = tuple[str, str]
"""Service name and node id."""

T = TypeVar("T")


class _Held:
    """One node of ours: what was written last, to which agent, and which others may have it."""

    def __init__(self, registration: Registration, home: Address) -> None:
        self.registration = registration
        self.home = home
        self.former: set[Address] = set()

    def move(self, registration: Registration, home: Address) -> None:
        self.former.add(self.home)
        self.registration, self.home = registration, home
        self.former.discard(home)


class Registrations:
    """Writes nodes through the agents' own API, which is where Consul wants them."""

    def __init__(self, client: Client, reader: Reader, options: Options) -> None:
        self._client = client
        self._reader = reader
        self._options = options
        self._owner = uuid.uuid4().hex
        self._held: dict[Key, _Held] = {}
        self._compare_from = 0
        self._slots = asyncio.Semaphore(WRITES_AT_ONCE)
        self._leaving: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Give up what goes on by itself."""
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def register(self, service: Service, ttl: float) -> None:
        """Create or replace every node of a service.

        Raises:
            RegistryError: One of them was not acknowledged.
        """
        call = Call("register", service.name)
        await _all(self._register(call, service, node, ttl) for node in service.nodes)

    async def renew(self, services: Sequence[Service]) -> list[Service]:
        """Extend the TTL of every node; return the services of which a node is not known any more.

        Raises:
            RegistryError: The agent could not be asked.
        """
        keys = [(service, node) for service in services for node in service.nodes]
        start = self._compare_from % max(len(keys), 1)
        compared = {*range(start, start + COMPARED_AT_ONCE)}
        compared |= {place - len(keys) for place in compared}
        self._compare_from = start + COMPARED_AT_ONCE
        well = await _all(
            self._renew(service, node, compare=place in compared)
            for place, (service, node) in enumerate(keys)
        )
        lost = {
            id(service) for (service, _), is_well in zip(keys, well, strict=True) if not is_well
        }
        return [service for service in services if id(service) in lost]

    async def drain(self, service: Service) -> None:
        """Put every node of ours into maintenance.

        Raises:
            RegistryError: One of them was not acknowledged.
        """
        call = Call("drain", service.name)
        held = [self._held.get((service.name, node.id)) for node in service.nodes]
        await _all(
            self._client.maintain(call, one.registration.id, DRAINING, one.home)
            for one in held
            if one is not None
        )

    async def deregister(self, service: Service) -> None:
        """Withdraw every node of a service; an unknown one is success.

        Raises:
            RegistryError: One of them was not acknowledged.
        """
        call = Call("deregister", service.name)
        await _all(self._deregister(call, service.name, node.id) for node in service.nodes)

    async def _register(self, call: Call, service: Service, node: Node, ttl: float) -> None:
        key = (service.name, node.id)
        async with self._slots:
            held = self._held.get(key)
            service_id, shown = await self._choose_id(call, key, held)
            registration = encode(service, node, service_id, ttl, self._owner, self._options)
            is_unchanged = held is not None and held.registration == registration
            if self._options.check != "ttl" and is_unchanged and registration.is_shown_by(shown):
                return  # writing it again would start the agent's own check anew, as failing
            home = await self._client.register(call, registration)
            if held is None or held.registration.id != service_id:
                self._held[key] = held = _Held(registration, home)
            held.move(registration, home)
            if self._options.check == "ttl" and shown:
                # An agent restores the status that a check of this id had: it may be critical.
                await self._client.pass_check(call, check_id(service_id), home)
        for former in held.former:
            task = asyncio.create_task(self._leave(call, held, former))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _choose_id(
        self, call: Call, key: Key, held: _Held | None
    ) -> tuple[str, Mapping[str, Any]]:
        """Return the service ID, and what the agent shows under it; empty for nothing yet.

        It is the node id, unless another service of the agent has that.
        """
        name, node_id = key
        is_qualified = held is not None and held.registration.id != node_id
        if may_be_plain(node_id) and not is_qualified:
            shown = await self._client.shown(call, node_id)
            if shown is None or shown.get("Service") == name:
                return node_id, shown or {}
        service_id = qualified_id(name, node_id)
        return service_id, await self._client.shown(call, service_id) or {}

    async def _leave(self, call: Call, held: _Held, former: Address) -> None:
        """Withdraw from an agent that was used while another could not be reached."""
        if self._client.is_down(former):
            return  # the TTL does it
        try:
            await self._client.deregister(call, held.registration.id, former)
        except RegistryError:
            return
        held.former.discard(former)

    async def _renew(self, service: Service, node: Node, *, compare: bool) -> bool:
        call = Call("renew", service.name)
        held = self._held.get((service.name, node.id))
        if held is None:
            return False
        registration = held.registration
        async with self._slots:
            try:
                if compare or self._options.check != "ttl":
                    shown = await self._client.shown(call, registration.id)
                    if shown is None or not shown:
                        return False
                    if not registration.is_shown_by(shown):
                        other = (shown.get("Meta") or {}).get(OWNER_KEY, self._owner)
                        # Somebody else's registration is well; what a hand has changed is not.
                        return shown.get("Service") == service.name and other != self._owner
                if self._options.check != "ttl":
                    return True
                return await self._client.pass_check(call, check_id(registration.id))
            except PermissionDeniedError:
                return False  # registering anew says so, for this one alone

    async def _deregister(self, call: Call, name: str, node_id: str) -> None:
        async with self._slots:
            held = self._held.get((name, node_id))
            if held is not None:
                await self._deregister_ours(call, held)
                self._held.pop((name, node_id), None)
            else:
                await self._deregister_anybodys(call, name, node_id)

    async def _deregister_ours(self, call: Call, held: _Held) -> None:
        service_id = held.registration.id
        shown = await self._client.shown(call, service_id, held.home)
        if shown is not None:
            owner = (shown.get("Meta") or {}).get(OWNER_KEY, self._owner)
            if owner == self._owner and shown.get("Service", call.service) == call.service:
                await self._client.deregister(call, service_id, held.home)
        await _all(self._leave(call, held, former) for former in tuple(held.former))

    async def _deregister_anybodys(self, call: Call, name: str, node_id: str) -> None:
        ids = {qualified_id(name, node_id)}
        if not may_be_plain(node_id):
            ids.add(node_id)
        shown = await self._client.shown(call, node_id)
        if shown is not None and shown.get("Service") == name:
            ids.add(node_id)
        for service_id in ids:
            await self._client.deregister(call, service_id)
        reply = await self._client.entries(call, name)
        sighting = (await self._reader.read(name, reply.body)).get(node_id)
        if sighting is None or sighting.service_id in ids:
            return
        # Either its ID is no node id, or another agent has it, which we cannot ask.
        service_id = sighting.service_id
        shown = None
        if ".." not in service_id:  # in a path that would lead elsewhere
            shown = await self._client.shown(call, service_id)
        if shown is not None and shown.get("Service") == name:
            await self._client.deregister(call, service_id)
        else:
            await self._client.deregister_elsewhere(call, sighting.consul_node, service_id)


async def _all(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines, a bounded number at once; return their results in order.

    The first failure ends the others. They are made as their turn comes, so none is left over.
    """
    results: dict[int, T] = {}
    queue = enumerate(works)

    async def work() -> None:
        for place, one in queue:
            results[place] = await one

    workers = [asyncio.create_task(work()) for _ in range(WRITES_AT_ONCE)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[place] for place in sorted(results)]
