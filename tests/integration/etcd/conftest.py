"""Servers that several tests share."""

from __future__ import annotations

from svcreg import Node, Service
from tests.support.etcd import certificates, etcd, prefix

__all__ = ["certificates", "etcd", "prefix"]  # fixtures


def node(name: str, node_id: str, address: str = "10.0.0.5:8080", **metadata: str) -> Service:
    """Return a service with one node."""
    return Service(name, nodes=(Node(node_id, address, metadata),))
