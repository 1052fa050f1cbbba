"""go-micro's dialect, put together from its parts."""

from __future__ import annotations

from collections.abc import Sequence

from svcreg import Service
from svcreg.errors import ProtocolError
from svcreg_mdns.gomicro import packets, records
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
        self._responder = Responder(self._sockets, self._names, is_alone=is_alone)
        self._reader = Reader(self._sockets, self._names, self._table, is_alone=is_alone)
        self._interfaces: tuple[Interface, ...] = ()

    async def open(self, interfaces: tuple[Interface, ...]) -> None:
        """Open the sockets."""
        self._sockets.open(interfaces)
        self._interfaces = interfaces

    async def close(self) -> None:
        """Say goodbye, and release the sockets."""
        await self._reader.close()
        await self._responder.close()
        self._sockets.close()

    async def use(self, interfaces: tuple[Interface, ...]) -> None:
        """Use these interfaces from now on."""
        self._sockets.use(interfaces)
        if set(interfaces) - set(self._interfaces):
            await self._responder.announce_all()
            self._reader.ask_all()
        self._interfaces = interfaces

    async def keep_up(self) -> None:
        """Run for ever: look after what may have gone."""
        await self._reader.keep_up()

    async def look(self, name: str | None) -> None:
        """Ask who is there, where that is not known yet."""
        await self._reader.look(name)

    async def register(self, service: Service, ttl: float) -> None:
        """Announce every node; return when we have heard it."""
        await self._responder.register(service, ttl)

    async def renew(self, services: Sequence[Service], ttl: float) -> list[Service]:
        """Keep nodes alive; return the services of which a node is not ours."""
        return self._responder.renew(services, ttl)

    async def withdraw(self, service: Service) -> None:
        """Withdraw nodes, of whomever."""
        for node in service.nodes:
            alone = service.with_nodes((node,))
            if not self._responder.holds(alone) and (
                seen := self._table.find(service.name, node.id)
            ):
                self._responder.withdraw_of_others(seen)
            self._responder.withdraw(alone)
            self._table.forget(service.name, node.id)

    def holds(self, service: Service) -> bool:
        """Tell whether every node of a service was registered here."""
        return self._responder.holds(service)

    def lose(self, service: Service, is_taken_over: bool) -> None:
        """Follow the other dialect, in which somebody else has registered or withdrawn our node."""
        if is_taken_over:
            self._responder.fall_silent(service)
        else:
            self._responder.withdraw(service)

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
                self._responder.hear_node(seen)
                self._reader.hear_node(seen, source.zone, is_answer=source.is_answer)
