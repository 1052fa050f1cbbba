"""What the backend asks of a dialect, that is of one way to write records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from svcreg import Service
from svcreg_mdns.interfaces import Interface


class Dialect(Protocol):
    """Announces nodes and reads those of others, from `open` to `close`. Loop only."""

    async def open(self, interfaces: tuple[Interface, ...]) -> None:
        """Open the sockets.

        Raises:
            RegistryUnavailableError: Port 5353 cannot be shared.
        """

    async def close(self) -> None:
        """Say goodbye for everything announced, and release the sockets."""

    async def use(self, interfaces: tuple[Interface, ...]) -> None:
        """Use these interfaces from now on; what is announced is announced on new ones."""

    async def keep_up(self) -> None:
        """Run for ever: look after what may have gone."""

    async def look(self, name: str | None) -> None:
        """Ask who is there, of one service or of all, where that is not known yet."""

    async def register(self, service: Service, ttl: float) -> None:
        """Announce every node; return when our own announcements have come back.

        Raises:
            InvalidServiceError: A node does not fit into the records. Then none is announced.
        """

    async def renew(self, services: Sequence[Service], ttl: float) -> list[Service]:
        """Keep nodes alive; return the services of which a node is no longer ours."""
        ...

    async def withdraw(self, service: Service) -> None:
        """Withdraw nodes: our own, and of others whatever is known of them."""

    def holds(self, service: Service) -> bool:
        """Tell whether every node of a service was registered here."""
        ...
