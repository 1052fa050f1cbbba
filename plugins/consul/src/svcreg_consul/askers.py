"""What a registry asks of Consul, each question remembered for as long as the registry lives."""

from __future__ import annotations

from svcreg_consul.calls import Call
from svcreg_consul.client import Client, Query, Reply
from svcreg_consul.options import Settings
from svcreg_consul.queries import Ask, Asker

REMEMBERED = 20_000
"""Questions remembered at most: one per service, operation and datacentre."""


class Askers:
    """Makes and remembers the askers. Loop only."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._is_stale = settings.options.stale
        self._patience = settings.timeout
        self._askers: dict[tuple[str, Call, str], Asker] = {}

    def entries(self, operation: str, name: str, dc: str, *, may_be_stale: bool = True) -> Asker:
        """Ask for the instances of a service."""
        call = Call(operation, name)

        async def ask(query: Query) -> Reply:
            return await self._client.entries(call, name, query)

        kind = "entries" if may_be_stale else "fresh entries"
        return self._remembered(kind, call, dc, ask, may_be_stale=may_be_stale)

    def names(self, operation: str, dc: str) -> Asker:
        """Ask for the names of all services."""
        call = Call(operation)

        async def ask(query: Query) -> Reply:
            return await self._client.names(call, query)

        return self._remembered("names", call, dc, ask)

    def checks(self, operation: str, dc: str) -> Asker:
        """Ask for every check there is."""
        call = Call(operation)

        async def ask(query: Query) -> Reply:
            return await self._client.checks(call, query)

        return self._remembered("checks", call, dc, ask)

    def _remembered(
        self, kind: str, call: Call, dc: str, ask: Ask, *, may_be_stale: bool = True
    ) -> Asker:
        key = (kind, call, dc)
        asker = self._askers.get(key)
        if asker is None:
            if len(self._askers) >= REMEMBERED:
                self._askers.clear()
            is_stale = self._is_stale and may_be_stale
            asker = Asker(ask, dc, is_stale=is_stale, patience=self._patience)
            self._askers[key] = asker
        return asker
