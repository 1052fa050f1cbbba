"""What is left out before a node is chosen.

A filter is any callable from services to services, as in go-micro. It is applied once per
snapshot, not per pick, so it must depend on nothing but its argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from svcreg.model import Node, Service

Filter = Callable[[Sequence[Service]], Sequence[Service]]


def metadata(key: str, value: str) -> Filter:
    """Keep the nodes whose metadata has `value` under `key`."""
    return _keep_nodes(lambda node: node.metadata.get(key) == value)


def zone(name: str) -> Filter:
    """Keep the nodes of one zone."""
    return metadata("zone", name)


def protocol(name: str) -> Filter:
    """Keep the nodes that speak one protocol."""
    return metadata("protocol", name)


def env(name: str) -> Filter:
    """Keep the nodes of one environment, such as `production`."""
    return metadata("env", name)


def endpoint(name: str) -> Filter:
    """Keep the services that have an endpoint of this name."""
    return lambda services: [
        service
        for service in services
        if any(endpoint.name == name for endpoint in service.endpoints)
    ]


def _keep_nodes(is_kept: Callable[[Node], bool]) -> Filter:
    def apply(services: Sequence[Service]) -> Sequence[Service]:
        return [
            service.with_nodes([node for node in service.nodes if is_kept(node)])
            for service in services
        ]

    return apply
