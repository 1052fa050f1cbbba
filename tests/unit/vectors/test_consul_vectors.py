"""Our Consul registrations against those of go-micro, and in what they differ on purpose."""

from __future__ import annotations

import re

import pytest

from svcreg import Config, Service
from svcreg_consul import records
from svcreg_consul.options import Options
from svcreg_consul.records import OWNER_KEY, Registration, decode_address, decode_tags
from tests.support.gomicro_vectors import Vector, as_service, plain_tag, vectors, without_null

TTL = 30.0  # seconds, as they were recorded with
CONSUL = vectors("consul")
STORED = [vector for vector in CONSUL if "registration" in vector]
REFUSED = [vector for vector in CONSUL if "refused" in vector]


def names(found: list[Vector]) -> list[str]:
    return [f"{vector['service']['name']}-{number}" for number, vector in enumerate(found)]


def encode(service: Service) -> Registration:
    node = service.nodes[0]  # go-micro drops the others
    options = Config(backend="consul").parse_options(Options)
    return records.encode(service, node, node.id, TTL, "an-owner", options)


def seconds(duration: str) -> float:
    """Return a duration as Go writes it, such as 1m5s."""
    units = {"m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(float(n) * units[unit] for n, unit in re.findall(r"([\d.]+)(ms|m|s)", duration))


@pytest.mark.parametrize("vector", STORED, ids=names(STORED))
def test_our_registration_says_all_that_go_micros_does(vector: Vector) -> None:
    go, ours = vector["registration"], encode(as_service(vector["service"]))
    assert (ours.id, ours.name, ours.host) == (go["ID"], go["Name"], go["Address"])
    assert ours.port == go["Port"]
    assert seconds(ours.check["TTL"]) == seconds(go["Check"]["TTL"]) == TTL
    reap = "DeregisterCriticalServiceAfter"
    assert seconds(ours.check[reap]) == seconds(go["Check"][reap]) == 65.0
    # Ours alone; go-micro's checks are critical until their first renewal.
    assert ours.check["Status"] == "passing"
    assert ours.weights == {"Passing": 1, "Warning": 1}
    assert ours.tagged_addresses == {"lan": {"Address": go["Address"], "Port": go["Port"]}}
    said = {key for key, value in go.items() if value is not None}
    assert said <= {"ID", "Name", "Address", "Port", "Tags", "Meta", "Check"}


@pytest.mark.parametrize("vector", STORED, ids=names(STORED))
def test_our_tags_are_go_micros_byte_for_byte_before_compression(vector: Vector) -> None:
    service = as_service(vector["service"])
    ours = [plain_tag(tag) for tag in encode(service).tags]
    theirs = [without_null(plain_tag(tag)) for tag in vector["registration"]["Tags"]]
    # Ours alone: the service's metadata, which go-micro drops on Consul.
    assert [tag for tag in ours if tag.startswith("s-")] == (
        ["s-" + ours[-1][2:]] if service.metadata else []
    )
    assert sorted(tag for tag in ours if not tag.startswith("s-")) == sorted(theirs)


@pytest.mark.parametrize("vector", STORED, ids=names(STORED))
def test_our_meta_is_go_micros_and_names_the_owner(vector: Vector) -> None:
    theirs = vector["registration"].get("Meta") or {}
    assert encode(as_service(vector["service"])).meta == {**theirs, OWNER_KEY: "an-owner"}


@pytest.mark.parametrize("vector", REFUSED, ids=names(REFUSED))
def test_what_consul_refuses_of_go_micro_we_keep_out_of_meta_and_in_the_tags(
    vector: Vector,
) -> None:
    service = as_service(vector["service"])
    ours = encode(service)
    assert set(ours.meta) == {OWNER_KEY}
    assert decode_tags(ours.tags).metadata == service.nodes[0].metadata


@pytest.mark.parametrize("vector", STORED, ids=names(STORED))
def test_go_micros_registration_is_read_as_what_was_registered(vector: Vector) -> None:
    service, go = as_service(vector["service"]), vector["registration"]
    read = decode_tags(go["Tags"])
    assert not read.is_damaged
    assert (read.version, read.endpoints) == (service.version, service.endpoints)
    assert (read.metadata or {}) == service.nodes[0].metadata
    assert read.service_metadata == {}  # go-micro drops it
    assert decode_address(go["Address"], go["Port"], "") == service.nodes[0].address
