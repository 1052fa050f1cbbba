"""The model refuses what no registry can hold, and says which field is wrong and why."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcreg import Endpoint, Event, InvalidServiceError, Node, Service, Value
from svcreg.model import (
    DEPTH_LIMIT,
    NAME_LIMIT,
    check_name,
    check_service,
    is_wildcard,
    join_address,
    split_address,
)

ALLOWED = "abcXYZ019._~:@+-"


def one(address: str = "10.0.0.5:8080", **fields: Any) -> Service:
    return Service("greeter", nodes=(Node("greeter-1", address),), **fields)


def nested(levels: int) -> Value:
    value = Value("leaf")
    for _ in range(levels - 1):
        value = Value("inner", values=(value,))
    return value


@pytest.mark.parametrize("name", ["a", "a-b", "ab", "A.b_c~d:e@f+g", "..a", "x" * NAME_LIMIT])
def test_name_within_the_rules_is_returned(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "../../kv/secret",
        "a b",
        "a\n",
        "a\x00",
        "\u00e4",
        "a%2fb",
        "a\\b",
        "x" * (NAME_LIMIT + 1),
        "x" * 300,
    ],
)
def test_name_outside_the_rules_is_refused(name: str) -> None:
    with pytest.raises(InvalidServiceError, match="service name"):
        check_name(name)


@pytest.mark.parametrize("name", [None, 5, b"greeter"])
def test_name_that_is_no_string_is_refused(name: Any) -> None:
    with pytest.raises(InvalidServiceError, match="must be a string"):
        check_name(name)


def test_long_name_is_not_repeated_in_full_by_the_error() -> None:
    with pytest.raises(InvalidServiceError) as caught:
        check_name("x" * 100_000)
    assert len(str(caught.value)) < 200
    assert "100000" in str(caught.value)


@given(st.text(max_size=300))
def test_a_name_is_allowed_exactly_when_every_character_is(name: str) -> None:
    allowed = (
        0 < len(name) <= NAME_LIMIT
        and name not in {".", ".."}
        and all(c.isascii() and (c.isalnum() or c in "._~:@+-") for c in name)
    )
    try:
        check_name(name)
    except InvalidServiceError:
        assert not allowed
    else:
        assert allowed


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("10.0.0.5:8080", "10.0.0.5", 8080),
        ("[::1]:80", "::1", 80),
        ("[fe80::1%eth0]:80", "fe80::1%eth0", 80),
        ("name.example:1", "name.example", 1),
        (":8080", "", 8080),
        ("host", "host", 0),
        ("host:", "host:", 0),
        ("host:x", "host:x", 0),
        ("::1", "::1", 0),
        ("[::1]", "::1", 0),
        ("host:\u0663", "host:\u0663", 0),
        ("", "", 0),
    ],
)
def test_address_is_split(address: str, host: str, port: int) -> None:
    assert split_address(address) == (host, port)
    node = Node("n", address)
    assert (node.host, node.port) == (host, port)


@given(st.ip_addresses(), st.integers(1, 65535))
def test_ip_address_and_port_survive_joining_and_splitting(ip: Any, port: int) -> None:
    address = join_address(str(ip), port)
    assert split_address(address) == (str(ip), port)
    check_service(one(address))


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::"])
def test_wildcard_host_is_recognised_and_accepted(host: str) -> None:
    assert is_wildcard(host)
    check_service(one(join_address(host, 80)))


@pytest.mark.parametrize(
    "address",
    [
        "",
        "10.0.0.5",
        "10.0.0.5:0",
        "10.0.0.5:65536",
        "10.0.0.5:99999999999999999999",
        "10.0.0.5:-1",
        "10.0.0.5:http",
        "::1",
        "::1:80",
        "[::1]",
        "[::1:80",
        "::1]:80",
        "[greeter]:80",
        "[10.0.0.5]:80",
        "[:::]:80",
        "[fe80::1%\n]:80",
        "10.0.0.5:080",
        "a b:80",
        "a/b:80",
        "http://a:80",
        "user@host:80",
        "host\n:80",
        "h" * 254 + ":80",
    ],
)
def test_address_that_is_not_host_and_port_is_refused(address: str) -> None:
    with pytest.raises(InvalidServiceError, match=r"greeter-1.*address"):
        check_service(one(address))


@pytest.mark.parametrize(
    ("service", "where"),
    [
        ("greeter", "svcreg.Service"),
        (Service("a/b", nodes=(Node("n", "h:1"),)), "service name"),
        (Service("greeter"), "no nodes"),
        (Service("greeter", nodes=(Node("a/b", "h:1"),)), "node id"),
        (Service("greeter", nodes=(Node("n", "h:1"), Node("n", "h:2"))), "twice"),
        (Service("greeter", nodes=("n",)), "svcreg.Node"),  # type: ignore[arg-type]
        (one(None), "address must be a string"),  # type: ignore[arg-type]
        (one(version=1), "version must be a string"),
        (one(version="\ud800"), "UTF-8"),
        (one(metadata={"a": 1}), "metadata 'a' must be a string"),
        (one(metadata={1: "a"}), "metadata key must be a string"),
        (one(metadata={"a": "\udfff"}), "UTF-8"),
        (one(metadata=[("a", "b")]), "must be a mapping"),
        (one(metadata=None), "must be a mapping"),
        (one(endpoints=("call",)), "svcreg.Endpoint"),
        (one(endpoints=(Endpoint("call", metadata={"a": b"b"}),)), "endpoint 'call'"),  # type: ignore[dict-item]
        (one(endpoints=(Endpoint("call", request="str"),)), "svcreg.Value"),  # type: ignore[arg-type]
        (one(endpoints=(Endpoint("call", response=Value("\ud800")),)), "UTF-8"),
        (one(endpoints=(Endpoint("call", request=nested(DEPTH_LIMIT + 1)),)), "nested"),
    ],
)
def test_service_that_no_registry_can_hold_is_refused(service: Any, where: str) -> None:
    with pytest.raises(InvalidServiceError, match=where):
        check_service(service)


def test_service_at_every_limit_is_accepted() -> None:
    name = (ALLOWED * 20)[:NAME_LIMIT]
    service = Service(
        name,
        "1.0",
        {"": "", "\u00e4": "\U0001f600\n"},
        (Endpoint("call", nested(DEPTH_LIMIT), nested(DEPTH_LIMIT), {"stream": "true"}),),
        (Node(name, "[::1]:65535", {"zone": "z1"}),),
    )
    assert check_service(service) is service


def test_lists_become_tuples_and_metadata_a_copy() -> None:
    nodes, metadata = [Node("n", "h:1")], {"a": "b"}
    service = Service("greeter", metadata=metadata, nodes=nodes, endpoints=[Endpoint("call")])
    nodes.clear()
    metadata["c"] = "d"
    assert service.nodes == (Node("n", "h:1"),)
    assert service.endpoints == (Endpoint("call"),)
    assert service.metadata == {"a": "b"}


def test_structs_compare_by_value_and_services_and_nodes_can_be_keys() -> None:
    assert one(metadata={"a": "b"}) == one(metadata={"a": "b"})
    assert len({one(), one()}) == 1
    assert len({Node("n", "h:1", {"a": "b"}), Node("n", "h:1", {"a": "b"})}) == 1


def test_fields_cannot_be_assigned() -> None:
    with pytest.raises(AttributeError):
        one().name = "other"  # type: ignore[misc]


def test_with_nodes_keeps_everything_else() -> None:
    service = one(version="1", metadata={"a": "b"})
    other = service.with_nodes([Node("n", "h:1")])
    assert other == Service("greeter", "1", {"a": "b"}, (), (Node("n", "h:1"),))


def test_event_says_what_happened_when() -> None:
    event = Event("create", one(), 1.5)
    assert (event.action, event.service, event.timestamp) == ("create", one(), 1.5)
