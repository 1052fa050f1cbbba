"""Keeps what a backend read only if it makes sense: a bad record never hides its neighbours."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from svcreg.errors import InvalidServiceError, ProtocolError
from svcreg.hookspecs import Delta, Snapshot
from svcreg.model import Service, check_name, check_read_header, check_read_node

NAMED_LIMIT = 1000
"""Bad records that are told apart, so that a registry full of them cannot fill the memory."""

_log = logging.getLogger("svcreg.sieve")


class Sieve:
    """Leaves out bad records, counts them, and names each once in the log. Loop only."""

    def __init__(self, backend: str) -> None:
        self.skipped = 0
        self._backend = backend
        self._named: set[str] = set()

    def item(self, item: object, name: str | None) -> Snapshot | Delta:
        """Return what a watch of `name` yielded, without bad records.

        Raises:
            ProtocolError: It is neither a `Snapshot` nor a `Delta`.
        """
        if isinstance(item, Snapshot):
            return Snapshot(self.services(item.services, name), item.revision)
        if isinstance(item, Delta):
            upserts = self.services(item.upserts, name)
            return Delta(upserts, self.services(item.deletes, name), item.revision)
        raise ProtocolError(
            f"{self._backend}: svcreg_watch yielded a {type(item).__name__}; "
            "it must yield a svcreg.Snapshot or svcreg.Delta"
        )

    def services(self, found: Iterable[Service], name: str | None) -> tuple[Service, ...]:
        """Return the services that are sound and, unless it is None, are of this name."""
        kept = []
        for service in found:
            try:
                check_read_header(service)
                if name is not None and service.name != name:
                    raise InvalidServiceError(f"service {service.name!r} where {name!r} was asked")
                kept.append(self._with_sound_nodes(service))
            except (InvalidServiceError, TypeError) as error:  # TypeError: no sequence
                self._skip(error)
        return tuple(kept)

    def names(self, found: Iterable[str]) -> tuple[str, ...]:
        """Return the service names among these, sorted and each once."""
        kept = set()
        for name in found:
            try:
                kept.add(check_name(name))
            except InvalidServiceError as error:
                self._skip(error)
        return tuple(sorted(kept))

    def _with_sound_nodes(self, service: Service) -> Service:
        sound = []
        for node in service.nodes:
            try:
                check_read_node(node, service.name)
                sound.append(node)
            except InvalidServiceError as error:
                self._skip(error)
        return service if len(sound) == len(service.nodes) else service.with_nodes(sound)

    def _skip(self, error: Exception) -> None:
        self.skipped += 1
        said = str(error)
        if said not in self._named and len(self._named) < NAMED_LIMIT:
            self._named.add(said)
            _log.warning(
                "%s: a bad record is skipped (%d so far): %s", self._backend, self.skipped, said
            )
