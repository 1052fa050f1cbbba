"""Our etcd records against those of go-micro."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from svcreg_etcd.records import Keyspace
from tests.support.gomicro_vectors import Vector, as_service, services, vectors, without_null

KEYSPACE = Keyspace("go-micro")


def names(found: Sequence[Vector]) -> list[str]:
    return [f"{vector['service']['name']}-{number}" for number, vector in enumerate(found)]


ETCD = vectors("etcd")


def test_every_node_of_every_service_is_there() -> None:
    listed = [key for service in services() for key in KEYSPACE.keys(as_service(service))]
    assert sorted(listed) == sorted(vector["key"].encode() for vector in ETCD)


@pytest.mark.parametrize("vector", ETCD, ids=names(ETCD))
def test_our_record_is_go_micros_byte_for_byte(vector: Vector) -> None:
    ours = dict(KEYSPACE.encode(as_service(vector["service"])))
    assert ours[vector["key"].encode()].decode() == without_null(vector["value"])


@pytest.mark.parametrize("vector", ETCD, ids=names(ETCD))
def test_go_micros_record_is_read_as_what_was_registered(vector: Vector) -> None:
    service = as_service(vector["service"])
    key = vector["key"]
    read = KEYSPACE.decode(key.encode(), vector["value"].encode())
    nodes = [node for node in service.nodes if key.endswith(f"/{node.id}")]
    assert read == service.with_nodes(nodes)
    assert len(read.nodes) == 1
