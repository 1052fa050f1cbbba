"""Our packets in go-micro's mDNS dialect against those of go-micro."""

from __future__ import annotations

import re

import pytest

from svcreg import InvalidServiceError, Service
from svcreg_mdns.gomicro import packets, records
from svcreg_mdns.gomicro.packets import PTR, Question
from svcreg_mdns.gomicro.records import Names, Written, listing_records, nodes_in
from tests.support.gomicro_vectors import (
    Vector,
    as_service,
    plain_packet,
    vectors,
    without_null,
)

NAMES = Names("micro")
HOST = "vectors."  # tests/interop/recording.py, HOST_NAME
TTL = 120  # seconds; go-micro has no other
MDNS = vectors("mdns")
SEEN = [v for v in MDNS if "packets" in v and v["service"]["version"]]
UNSEEN = [v for v in MDNS if v not in SEEN]


def names(found: list[Vector]) -> list[str]:
    return [f"{vector['service']['name']}-{number}" for number, vector in enumerate(found)]


def written(service: Service) -> list[Written]:
    return [records.encode(service, node, NAMES, HOST) for node in service.nodes]


def plain(packet: str) -> str:
    """Return a packet whose JSON does not tell what is empty from what is not there."""
    text = re.sub(r'"(Metadata|Endpoints)":(\{\}|\[\])', r'"\1":null', plain_packet(packet))
    return without_null(text)


@pytest.mark.parametrize("vector", SEEN, ids=names(SEEN))
def test_our_packets_are_go_micros_byte_for_byte_before_compression(vector: Vector) -> None:
    service = as_service(vector["service"])
    asked = Question(NAMES.service(service.name), PTR)
    ours = written(service)
    expected = {kind: {plain(p) for p in found} for kind, found in vector["packets"].items()}
    assert {plain(one.announcement(TTL).hex()) for one in ours} == expected["announcements"]
    assert {plain(one.answer(asked, TTL).hex()) for one in ours} == expected["answers"]
    assert {plain(one.announcement(0).hex()) for one in ours} == expected["goodbyes"]
    listed = listing_records(NAMES, NAMES.listing(service.name), HOST)
    answer = packets.encode_response(listed, question=Question(NAMES.list, PTR))
    assert {answer.hex()} == expected["listed"]


@pytest.mark.parametrize("vector", SEEN, ids=names(SEEN))
def test_go_micros_packets_are_read_as_what_was_registered(vector: Vector) -> None:
    service = as_service(vector["service"])
    for kind, ttl in (("announcements", TTL), ("answers", TTL), ("goodbyes", 0)):
        found = set()
        for packet in vector["packets"][kind]:
            (seen,) = nodes_in(packets.decode(bytes.fromhex(packet)))
            claim = records.decode(seen, NAMES)
            read = records.locate(claim, seen, "")
            assert seen.ttl == ttl
            assert (read.name, read.version) == (service.name, service.version)
            assert read.endpoints == service.endpoints
            found.add(read.nodes[0])
        assert found == set(service.nodes)


@pytest.mark.parametrize("vector", UNSEEN, ids=names(UNSEEN))
def test_what_go_micro_cannot_register_or_see_is_refused(vector: Vector) -> None:
    with pytest.raises(InvalidServiceError):
        written(as_service(vector["service"]))


def test_probes_hold_no_node() -> None:
    for vector in SEEN:
        for packet in vector["packets"]["probes"]:
            message = packets.decode(bytes.fromhex(packet))
            assert not message.is_response
            assert list(nodes_in(message)) == []
