"""The object that filters and chooses: built once, then picking from memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from svcreg.errors import NoNodeError
from svcreg.model import Node, Service
from svcreg.selection.filters import Filter
from svcreg.selection.strategies import Strategy


class Selector:
    """Picks nodes of one service; from any thread, without I/O or a lock."""

    def __init__(
        self,
        name: str,
        services: Callable[[str], tuple[Service, ...] | None],
        warm: Callable[[str], None],
        strategy: Strategy,
        filters: Sequence[Filter] = (),
    ) -> None:
        self.name = name
        self._services = services
        self._warm = warm
        self._strategy = strategy
        self._filters = tuple(filters)
        self._cached: tuple[tuple[Service, ...], tuple[Node, ...]] | None = None
        known = services(name)
        if known is not None:  # remembered, for a first pick after the watch has ended
            self._cached = (known, self._filter(known))

    def pick(self, key: str | None = None, *, without: frozenset[str] = frozenset()) -> Node:
        """Return one node.

        Args:
            key: For strategies that stick to one node per key; others ignore it.
            without: Ids of nodes to avoid as long as there are others.

        Raises:
            NoNodeError: Nothing is registered, or everything was filtered out.
        """
        services = self._services(self.name)
        cached = self._cached
        if services is None:  # nobody asked for so long that it is not watched any more
            self._warm(self.name)
            services = cached[0] if cached else ()
        if cached is None or cached[0] is not services:
            cached = self._cached = (services, self._filter(services))
        nodes: Sequence[Node] = cached[1]
        if without:
            nodes = [node for node in nodes if node.id not in without] or nodes
        if not nodes:
            registered = sum(len(service.nodes) for service in services)
            raise NoNodeError(
                f"no node of {self.name!r} to select: "
                + (f"all {registered} are filtered out" if registered else "none is registered")
            )
        return self._strategy.pick(nodes, key)

    @contextlib.contextmanager
    def use(self, key: str | None = None) -> Iterator[Node]:
        """Pick a node for the length of a `with` block."""
        yield self.pick(key)

    def _filter(self, services: Sequence[Service]) -> tuple[Node, ...]:
        for apply in self._filters:
            services = apply(services)
        return tuple(node for service in services for node in service.nodes)
