"""What is there: one service per node, out of all that claim to be it; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum

from svcreg import Service
from svcreg_mdns import records


class Rank(IntEnum):
    """Which claim shows where several are made for one node: the smallest.

    A program of ours says most in DNS-SD, so what it says there is what shows, whichever packet
    comes first. A name that anybody may choose comes last: nobody takes a node's place by chance.
    """

    OWN_NAME = 0
    GO_MICRO = 1
    FREE_NAME = 2


class Nodes:
    """The nodes of all services. Call it from one thread only; `on_change` is called from within.

    Args:
        on_change: Told of every visible change: what was there before, what is there now; each a
            service with its one node, or None.
    """

    def __init__(self, on_change: Callable[[Service | None, Service | None], None]) -> None:
        self._on_change = on_change
        self._claims: dict[str, dict[str, dict[str, tuple[Rank, Service]]]] = {}
        self._visible: dict[str, dict[str, Service]] = {}

    def names(self) -> tuple[str, ...]:
        """Return the names of all services with a node, sorted."""
        return tuple(sorted(self._visible))

    def services(self, name: str | None = None) -> tuple[Service, ...]:
        """Return one service, or all of them, grouped by version; unknown is empty."""
        chosen: Iterable[dict[str, Service]]
        chosen = self._visible.values() if name is None else [self._visible.get(name, {})]
        return records.group(service for nodes in chosen for service in nodes.values())

    def claimants(self, service: str, node_id: str) -> list[str]:
        """Return the names under which a node is announced; usually one."""
        return list(self._claims.get(service, {}).get(node_id, ()))

    def claim(self, name: str, rank: Rank, shown: Service) -> None:
        """Have what is announced under a name show a node; again, when that has changed."""
        node_id = shown.nodes[0].id
        nodes = self._claims.setdefault(shown.name, {})
        nodes.setdefault(node_id, {})[name] = rank, shown
        self._refresh(shown.name, node_id)

    def unclaim(self, name: str, shown: Service) -> None:
        """Take back a claim."""
        node_id = shown.nodes[0].id
        nodes = self._claims[shown.name]
        del nodes[node_id][name]
        if not nodes[node_id]:
            del nodes[node_id]
        if not nodes:
            del self._claims[shown.name]
        self._refresh(shown.name, node_id)

    def _refresh(self, service: str, node_id: str) -> None:
        """Report the node if what is to be seen of it has changed."""
        claims = self._claims.get(service, {}).get(node_id)
        before = self._visible.get(service, {}).get(node_id)
        after = min(claims.values(), key=lambda claim: claim[0])[1] if claims else None
        if after == before:
            return
        if after is not None:
            self._visible.setdefault(service, {})[node_id] = after
        else:
            del self._visible[service][node_id]
            if not self._visible[service]:
                del self._visible[service]
        self._on_change(before, after)
