"""Records to Consul's form and back, without an agent."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcreg import Endpoint, Node, Service, Value
from svcreg.errors import ProtocolError
from svcreg.model import check_name
from svcreg_consul import records
from svcreg_consul.options import Options

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
METADATA = st.dictionaries(TEXT, TEXT, max_size=8)


def encode(node: Node, ttl: float = 90, **options: Any) -> records.Registration:
    chosen = Options(**options)
    return records.encode(Service("greeter", "1"), node, node.id, ttl, "owner", chosen)


def node(address: str = "10.0.0.5:8080", **metadata: str) -> Node:
    return Node("greeter-1", address, metadata)


@given(METADATA, METADATA, TEXT)
def test_tags_say_everything(metadata: dict[str, str], of_service: dict[str, str], v: str) -> None:
    endpoints = (Endpoint("Greeter.Hello", Value("Request", "Request"), None, metadata),)
    service = Service("greeter", v, of_service, endpoints)
    tags = records.encode_tags(service, Node("greeter-1", "h:1", metadata))
    said = records.decode_tags(tags)
    assert said == records.Tags(v, metadata or None, endpoints, of_service, False)


@given(st.lists(TEXT | TEXT.map(lambda text: "t-" + text) | TEXT.map(lambda text: "e=" + text)))
def test_foreign_tags_never_fail(tags: list[str]) -> None:
    records.decode_tags(tags)


def test_newer_form_wins_where_a_record_has_both() -> None:
    tags = ['t={"a":"old"}', "t-" + zlib.compress(b'{"a":"new"}').hex(), "v=1", "v-" + "00"]
    said = records.decode_tags(tags)
    assert (said.metadata, said.version, said.is_damaged) == ({"a": "new"}, "1", True)


@pytest.mark.parametrize("parts", [1, 3])
def test_tags_that_expand_without_end_are_refused(parts: int) -> None:
    plain = json.dumps({"a": "x" * (records.TAG_LIMIT // parts)}).encode()
    tag = "t-" + zlib.compress(plain).hex()
    with pytest.raises(ProtocolError, match="expand beyond"):
        records.decode_tags([tag] * parts)


def test_number_of_tags_is_bounded() -> None:
    with pytest.raises(ProtocolError, match="tags"):
        records.decode_tags(["x"] * 20_000)


@given(METADATA)
def test_meta_keeps_within_consuls_limits(metadata: dict[str, str]) -> None:
    metadata |= {f"k{n}": "v" for n in range(100)} | {"a" * 129: "v", "b": "v" * 513}
    meta = records.encode_meta(metadata)
    assert len(meta) <= records.META_PAIRS - 2
    assert all(len(key) <= 128 and len(value) <= 512 for key, value in meta.items())
    assert meta.items() <= metadata.items()


def test_reserved_keys_stay_out_of_meta() -> None:
    meta = records.encode_meta({"consul-version": "1", "svcreg-owner": "me", "zone": "z1"})
    assert meta == {"zone": "z1"}
    assert records.decode_meta({"svcreg-owner": "x", "zone": "z1"}) == {"zone": "z1"}


@pytest.mark.parametrize(
    ("text", "weight"),
    [("7", 7), ("2.9", 2), ("0", 1), ("-3", 1), ("1e9", 65_535), ("heavy", 1), ("inf", 1)],
)
def test_weight_is_one_that_consul_takes(text: str, weight: int) -> None:
    assert encode(node(weight=text)).weights == {"Passing": weight, "Warning": 1}


@pytest.mark.parametrize(("ttl", "reap"), [(1, "65000ms"), (60, "65000ms"), (90, "95000ms")])
def test_dead_nodes_are_reaped_as_go_micro_has_it(ttl: float, reap: str) -> None:
    check = encode(node(), ttl).check
    assert check["DeregisterCriticalServiceAfter"] == reap
    assert (check["CheckID"], check["Status"]) == ("service:greeter-1", "passing")


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, "1000ms"), (1.5, "1500ms"), (0.1, "100ms"), (1.0001, "1001ms")]
)
def test_durations_are_rounded_up_to_milliseconds(seconds: float, text: str) -> None:
    assert records.duration(seconds) == text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"check": "tcp"}, {"TCP": "[::1]:80"}),
        ({"check": "http", "check_path": "/health"}, {"HTTP": "http://[::1]:80/health"}),
        ({"check": "grpc", "check_path": "greeter"}, {"GRPC": "[::1]:80/greeter"}),
        ({"check": "grpc"}, {"GRPC": "[::1]:80"}),
    ],
)
def test_agent_is_told_what_to_check(options: dict[str, Any], expected: dict[str, str]) -> None:
    check = encode(node("[::1]:80"), **options, check_interval=3.0).check
    assert expected.items() <= check.items()
    assert check["Interval"] == "3000ms"
    assert "TTL" not in check
    assert "Status" not in check  # not listed before the agent has seen it


def test_secure_programs_are_checked_over_tls() -> None:
    check = encode(node("h:443", scheme="https"), check="http").check
    assert check["HTTP"] == "https://h:443/"


def test_any_change_of_a_record_changes_the_notes_of_its_check() -> None:
    notes = {
        encode(one).check["Notes"] for one in (node(), node("10.0.0.6:1"), node(zone="z1"), node())
    }
    assert len(notes) == 3


def test_wan_address_is_tagged() -> None:
    tagged = encode(node(wan_address="198.51.100.1:443")).tagged_addresses
    assert tagged["lan"] == {"Address": "10.0.0.5", "Port": 8080}
    assert tagged["wan"] == {"Address": "198.51.100.1", "Port": 443}
    assert "wan" not in encode(node()).tagged_addresses


def test_qualified_id_is_read_back_and_cannot_be_forged() -> None:
    service_id = records.qualified_id("greeter", "node")
    meta = {records.NODE_KEY: "node"}
    assert records.decode_node_id("greeter", service_id, meta) == "node"
    assert records.decode_node_id("other", service_id, meta) == service_id
    assert records.decode_node_id("greeter", "victim", meta) == "victim"
    assert service_id != records.qualified_id("greeter2", "node")


@given(st.text(min_size=1, max_size=300))
def test_every_service_id_becomes_a_node_id(service_id: str) -> None:
    check_name(records.decode_node_id("greeter", service_id, {}))
