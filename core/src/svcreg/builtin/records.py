"""A node record is a `Service` with exactly one node: split services into records and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter

from svcreg.model import Node, Service

Key = tuple[str, str]
"""Service name and node id, which identify a record: a node has one version at a time."""

_by_id = attrgetter("id")


def split(service: Service) -> Iterator[tuple[Key, Service]]:
    """Yield the record of each node of a service, with its key."""
    for node in service.nodes:
        yield (service.name, node.id), service.with_nodes((node,))


def group(records: Iterable[Service]) -> tuple[Service, ...]:
    """Return one service per name and version, sorted by both, its nodes sorted by id.

    Where records of one version disagree about the service's metadata or endpoints, the last
    one counts, so pass them with the oldest first.
    """
    newest: dict[Key, Service] = {}
    nodes: dict[Key, list[Node]] = {}
    for record in records:
        version = (record.name, record.version)
        newest[version] = record
        nodes.setdefault(version, []).extend(record.nodes)
    return tuple(
        newest[version].with_nodes(tuple(sorted(nodes[version], key=_by_id)))
        for version in sorted(newest)
    )


def by_name(
    changes: Mapping[Key, Service | None],
) -> dict[str | None, dict[Key, Service | None]]:
    """Return changes as who watches a service is to be told, and under None all of them."""
    parts: dict[str | None, dict[Key, Service | None]] = {}
    for key, record in changes.items():
        for name in (key[0], None):
            parts.setdefault(name, {})[key] = record
    return parts


def only_ids(keys: Iterable[Key]) -> tuple[Service, ...]:
    """Return one service per name that holds just node ids: all that a delete needs."""
    ids: dict[str, list[str]] = {}
    for name, node_id in keys:
        ids.setdefault(name, []).append(node_id)
    return tuple(
        Service(name, nodes=tuple(Node(node_id, "") for node_id in ids[name])) for name in ids
    )
