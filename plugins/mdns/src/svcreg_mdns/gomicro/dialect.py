"""go-micro's dialect, put together from its parts."""

from __future__ import annotations

from collections.abc import Sequence

from svcreg import Service
from svcreg.errors import ProtocolError
from svcreg_mdns.gomicro import packets, records
from svcreg_mdns.gomicro.announcer import Announcer
from svcreg_mdns.gomicro.held import Holdings
from svcreg_mdns.gomicro.reader import Reader
from svcreg_mdns.gomicro.records import Names
from svcreg_mdns.gomicro.responder import Responder
from svcreg_mdns.gomicro.sockets import Sockets, Source
from svcreg_mdns.gomicro.table import Table
from svcreg_mdns.interfaces import Interface
from svcreg_mdns.nodes import Nodes
from svcreg_mdns.skips import Skips


class GoMicro:
    """Announces and reads nodes as go-micro's own mDNS registry does. Loop only.

    Args:
        nodes: Told what is there.
        domain: The last part of all names; go-micro's is `micro`.
        is_alone: There is no other dialect. Otherwise what does not fit into this one is left to
            the other, and nodes of programs that speak both are read there.
    """

    def __init__(self, nodes: Nodes, domain: str, *, is_alone: bool) -> None:
        self._names = Names(domain)
        self._skips = Skips()
        self._sockets = Sockets(self._receive)
        self._table = Table(nodes, self._names, is_alone=is_alone, skips=self._skips)
        self._holdings = Holdings(self._names, is_alone=is_alone)
        self._announcer = Announcer(self._sockets, self._names, self._holdings, is_alone=is_alone)
        self._responder = Responder(self._sockets, self._names, self._holdings)
        self._reader = Reader(self._sockets, self._names, self._table, nodes, is_alone=is_alone)
        self._interfaces: tuple[Interface, ...] = ()

    async def open(self, interfaces: tuple[Interface, ...]) -> None:
        """Open the sockets."""
        self._sockets.open(interfaces)
        self._interfaces = interfaces

    async def close(self) -> None:
        """Say goodbye, and release the sockets."""
        await self._reader.close()
        await self._responder.close()
        await self._announcer.close()
        self._sockets.close()

    async def use(self, interfaces: tuple[Interface, ...]) -> None:
        """Use these interfaces from now on."""
        self._sockets.use(interfaces)
        if set(interfaces) - set(self._interfaces):
            await self._announcer.announce_all()
            self._reader.ask_all()
        self._interfaces = interfaces

    async def keep_up(self) -> None:
        """Run for ever: look after what may have gone."""
        await self._reader.keep_up()

    async def look(self, name: str | None) -> None:
        """Ask who is there, where that is not known yet."""
        await self._reader.look(name)

    async def register(self, service: Service, ttl: float) -> None:
        """Announce every node."""
        await self._announcer.register(service, ttl)

    async def renew(self, services: Sequence[Service], ttl: float) -> list[Service]:
        """Keep nodes alive; return the services of which a node is not ours."""
        return self._announcer.renew(services, ttl)

    async def withdraw(self, service: Service) -> None:
        """Withdraw nodes, of whomever."""
        for node in service.nodes:
            seen = self._table.find(service.name, node.id)
            if seen is not None and self._holdings.find(service.name, node.id) is None:
                self._announcer.withdraw_of_others(seen)
            self._table.forget(service.name, node.id)
        await self._announcer.withdraw(service)

    def holds(self, service: Service) -> bool:
        """Tell whether every node of a service was registered here."""
        return len(self._holdings.find_all(service)) == len(service.nodes)

    def lose(self, service: Service, is_taken_over: bool) -> None:
        """Follow the other dialect, in which somebody else has registered or withdrawn our node."""
        if is_taken_over:
            self._announcer.fall_silent(service)
        else:
            self._announcer.withdraw_now(service)

    def _receive(self, packet: bytes, source: Source) -> None:
        if self._names.marker not in packet:
            return  # nothing of this domain, as most of what is heard on this port
        try:
            message = packets.decode(packet)
        except ProtocolError as error:
            self._skips.add(f"packet from {source.host}", str(error))
            return
        if not message.is_response:
            self._responder.hear_question(message, source)
            return
        self._reader.hear_list(message)
        for seen in records.nodes_in(message):
            if self._names.listed(seen.instance) is None:
                self._announcer.hear_node(seen)
                self._reader.hear_node(seen, source.zone, is_answer=source.is_answer)
