"""The vectors are what go-micro writes today: recorded anew and compared.

Where one fails because go-micro has changed, `python -m tests.interop.recording` renews them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.interop.recording import link_up, record_consul, record_etcd, record_mdns
from tests.support.consul import Agent
from tests.support.etcd import Etcd
from tests.support.gomicro_vectors import Vector, plain_packet, plain_tag, vectors
from tests.support.namespaces import hosts, require_namespaces


@pytest.mark.server("etcd")
@pytest.mark.xdist_group("interop-etcd")
def test_etcd(etcd: Etcd, tmp_path: Path) -> None:
    assert record_etcd(etcd, tmp_path) == vectors("etcd")


@pytest.mark.server("consul")
@pytest.mark.xdist_group("interop-consul")
def test_consul(consul: Agent, tmp_path: Path) -> None:
    assert _plain_tags(record_consul(consul, tmp_path)) == _plain_tags(vectors("consul"))


@pytest.mark.server("go-micro")
@pytest.mark.root
def test_mdns(tmp_path: Path) -> None:
    require_namespaces()
    with hosts(1) as (host,):
        link_up(host)
        recorded = record_mdns(host, tmp_path)
    assert _plain_packets(recorded) == _plain_packets(vectors("mdns"))


def _plain_tags(found: list[Vector]) -> list[Any]:
    """Return the registrations, and without Consul's own words where it refused one."""
    return [
        {
            **vector["registration"],
            "Tags": [plain_tag(tag) for tag in vector["registration"]["Tags"]],
        }
        if "registration" in vector
        else vector["service"]
        for vector in found
    ]


def _plain_packets(found: list[Vector]) -> list[Any]:
    return [
        {
            kind: sorted(plain_packet(packet) for packet in packets)
            for kind, packets in vector.get("packets", {}).items()
        }
        or vector
        for vector in found
    ]
