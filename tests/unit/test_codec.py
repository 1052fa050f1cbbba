"""go-micro's wire forms: we write what Go writes, and nothing hostile costs more than it may."""

from __future__ import annotations

import json
import time
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcreg import Endpoint, Event, Node, ProtocolError, Service, Value, codec
from svcreg.model import DEPTH_LIMIT

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
METADATA = st.dictionaries(TEXT, TEXT, max_size=4)
VALUES = st.recursive(
    st.builds(Value, TEXT, TEXT),
    lambda inner: st.builds(Value, TEXT, TEXT, st.lists(inner, max_size=3)),
    max_leaves=8,
)
ENDPOINTS = st.builds(Endpoint, TEXT, st.none() | VALUES, st.none() | VALUES, METADATA)
NODES = st.builds(Node, TEXT, TEXT, METADATA)
SERVICES = st.builds(
    Service, TEXT, TEXT, METADATA, st.lists(ENDPOINTS, max_size=3), st.lists(NODES, max_size=3)
)

GREETER = Service(
    "greeter",
    "1.2.0",
    {"b": "2", "a": "1"},
    (
        Endpoint(
            "Greeter.Hello",
            Value("Request", "Request", (Value("name", "string"),)),
            Value("Response", "Response"),
            {"stream": "false"},
        ),
    ),
    (Node("greeter-1", "10.0.0.5:8080", {"zone": "z1"}),),
)

# What json.Marshal of go-micro v6's registry.Service gives for the same service.
GREETER_JSON = (
    '{"name":"greeter","version":"1.2.0","metadata":{"a":"1","b":"2"},"endpoints":[{"request":'
    '{"name":"Request","type":"Request","values":[{"name":"name","type":"string","values":[]}]},'
    '"response":{"name":"Response","type":"Response","values":[]},"metadata":{"stream":"false"},'
    '"name":"Greeter.Hello"}],"nodes":[{"metadata":{"zone":"z1"},"id":"greeter-1",'
    '"address":"10.0.0.5:8080"}]}'
)


def test_service_is_written_in_gos_field_order() -> None:
    assert codec.encode_service(GREETER).decode() == GREETER_JSON
    assert codec.decode_service(GREETER_JSON) == GREETER


def test_what_is_stored_is_escaped_as_go_does_and_what_is_shown_is_not() -> None:
    text = "<a href='?b&c'>\u2028\u2029\x00\x08\x7f\u00e9\U0001f600\ufffd"
    escaped = r"\u003ca href='?b\u0026c'\u003e\u2028\u2029\u0000\b" + text[-4:]
    assert codec.encode_metadata({text: text}).decode() == f'{{"{escaped}":"{escaped}"}}'
    for encode in (codec.encode_service, codec.encode_endpoint):
        named: Any = Service(text) if encode is codec.encode_service else Endpoint(text)
        assert f'"name":"{escaped}"' in encode(named).decode()
    service = Service("web", nodes=(Node("web-1", "h:1", {"url": "/?a&b"}),))
    assert b'"/?a&b"' in codec.encode_services([service])
    assert b'"/?a&b"' in codec.encode_node(service.nodes[0])
    assert b'"/?a&b"' in codec.encode_event(Event("create", service, 1.5))


@given(SERVICES)
def test_service_survives_the_round_trip(service: Service) -> None:
    assert codec.decode_service(codec.encode_service(service)) == service


@given(ENDPOINTS)
def test_endpoint_survives_the_round_trip(endpoint: Endpoint) -> None:
    assert codec.decode_endpoint(codec.encode_endpoint(endpoint)) == endpoint
    array = b"[" + codec.encode_endpoint(endpoint) + b"]"
    assert codec.decode_endpoints(array) == (endpoint,)


@given(METADATA)
def test_metadata_survives_the_round_trip(metadata: dict[str, str]) -> None:
    assert codec.decode_metadata(codec.encode_metadata(metadata)) == metadata


@given(st.binary(max_size=2000))
def test_bytes_survive_compression_and_hexadecimal(data: bytes) -> None:
    assert codec.inflate(codec.deflate(data)) == data
    assert codec.from_hex(codec.to_hex(data)) == data


@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_a_service_or_a_protocol_error(data: bytes) -> None:
    for decode in (codec.decode_service, codec.decode_endpoints, codec.inflate):
        try:
            decode(data)
        except ProtocolError:
            pass


def test_lists_of_services_nodes_and_events_are_json() -> None:
    assert json.loads(codec.encode_services([GREETER])) == [json.loads(GREETER_JSON)]
    assert json.loads(codec.encode_node(GREETER.nodes[0])) == {
        "metadata": {"zone": "z1"},
        "id": "greeter-1",
        "address": "10.0.0.5:8080",
    }
    assert json.loads(codec.encode_event(Event("create", GREETER, 1.5))) == {
        "action": "create",
        "service": json.loads(GREETER_JSON),
        "timestamp": 1.5,
    }


def test_null_stands_for_any_map_list_or_text() -> None:
    text = (
        '{"name":"a","version":null,"metadata":null,"endpoints":[{"name":null,"request":null,'
        '"response":{"name":null,"type":null,"values":null},"metadata":null}],'
        '"nodes":[{"id":"n","address":"h:1","metadata":null}]}'
    )
    assert codec.decode_service(text) == Service(
        "a", endpoints=(Endpoint("", None, Value()),), nodes=(Node("n", "h:1"),)
    )
    assert codec.decode_service('{"name":"a","endpoints":null,"nodes":null}') == Service("a")
    assert codec.decode_endpoints("null") == ()
    assert codec.decode_metadata("null") == {}


def test_unknown_and_duplicate_fields_are_tolerated() -> None:
    text = '{"name":"a","future":{"x":[1,2]},"name":"b","nodes":[{"id":"n","address":"h:1","x":1}]}'
    assert codec.decode_service(text) == Service("b", nodes=(Node("n", "h:1"),))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"greeter"',
        b'{"name":1}',
        b'{"metadata":{"a":1}}',
        b'{"nodes":{}}',
        b'{"nodes":[null]}',
        b'{"name":"\xff"}',
        b"\xff\xfe",
        "\ud800",
    ],
)
def test_what_is_no_service_is_a_protocol_error(data: Any) -> None:
    with pytest.raises(ProtocolError, match="service JSON cannot be read"):
        codec.decode_service(data)


def schema_json(levels: int) -> str:
    return '{"name":"e","request":' + '{"values":[' * levels + "{}" + "]}" * levels + "}"


def test_schema_may_be_as_deep_as_the_limit() -> None:
    codec.decode_endpoint(schema_json(DEPTH_LIMIT - 1))
    with pytest.raises(ProtocolError, match="nested"):
        codec.decode_endpoint(schema_json(DEPTH_LIMIT))


def test_abyss_of_nesting_is_a_protocol_error_not_a_crash() -> None:
    with pytest.raises(ProtocolError):
        codec.decode_endpoint(schema_json(70_000))
    with pytest.raises(ProtocolError):
        codec.decode_service('{"future":' + "[" * 500_000)


@pytest.mark.parametrize("field", ["nodes", "endpoints"])
def test_number_of_items_is_bounded(field: str) -> None:
    def record(count: int) -> str:
        return json.dumps({"name": "a", field: [{}] * count})

    assert len(getattr(codec.decode_service(record(codec.COUNT_LIMIT)), field)) == 10_000
    with pytest.raises(ProtocolError):
        codec.decode_service(record(codec.COUNT_LIMIT + 1))


def test_size_of_a_record_is_bounded() -> None:
    filler = "x" * (codec.RECORD_LIMIT - len('{"name": ""}'))
    assert codec.decode_service(json.dumps({"name": filler})).name == filler
    with pytest.raises(ProtocolError, match="larger than"):
        codec.decode_service(json.dumps({"name": filler + "x"}))


def test_compressed_data_may_fill_the_limit_and_no_more() -> None:
    for size in (1, 1000, 1001, codec.INFLATE_LIMIT):
        data = bytes(size)
        assert codec.inflate(zlib.compress(data), size) == data
        with pytest.raises(ProtocolError, match="expands beyond"):
            codec.inflate(zlib.compress(data + b"\0"), size)


def test_bomb_is_refused_cheaply() -> None:
    bomb = zlib.compress(bytes(20 << 20))
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(ProtocolError, match="expands beyond"):
        codec.inflate(bomb)
    seconds = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * codec.INFLATE_LIMIT
    assert seconds < 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cut short"),
        (zlib.compress(b"greeter")[:-1], "cut short"),
        (b"greeter", "damaged"),
        (zlib.compress(b"greeter")[:-4] + bytes(4), "damaged"),
    ],
)
def test_damaged_compression_is_a_protocol_error(data: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        codec.inflate(data)


@pytest.mark.parametrize("text", ["x", "abc", "\u0663\u0663", "zz"])
def test_what_is_not_hexadecimal_is_a_protocol_error(text: str) -> None:
    with pytest.raises(ProtocolError, match="not hexadecimal"):
        codec.from_hex(text)
