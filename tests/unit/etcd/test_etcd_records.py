"""Services to keys and values and back, in every layout."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcreg import Endpoint, Node, Service
from svcreg.errors import InvalidServiceError, ProtocolError
from svcreg_etcd.records import LAYOUTS, Keyspace, range_end

names = st.text("abcXYZ019._~:@+-", min_size=1, max_size=20)
texts = st.text(max_size=20)
nodes = st.builds(
    Node,
    names,
    st.builds(
        "{}:{}".format, st.sampled_from(["10.0.0.5", "[::1]", "host"]), st.integers(1, 65535)
    ),
    st.dictionaries(texts.filter(lambda key: not key.startswith("svcreg.")), texts, max_size=3),
)


@given(names, texts, nodes, st.dictionaries(texts, texts, max_size=2))
def test_go_micro_keeps_everything(
    name: str, version: str, node: Node, metadata: dict[str, str]
) -> None:
    service = Service(name, version, metadata, (Endpoint("E", metadata=metadata),), (node,))
    keyspace = Keyspace("go-micro")
    ((key, value),) = keyspace.encode(service)
    assert key.decode() == f"/micro/registry/{name}/{node.id}"
    assert keyspace.decode(key, value) == service


@pytest.mark.parametrize("layout", ["ego", "kratos"])
@given(names, texts, nodes)
def test_other_layouts_keep_version_node_and_metadata(
    layout: str, name: str, version: str, node: Node
) -> None:
    metadata = {key: value for key, value in node.metadata.items() if key != "endpoints"}
    node = Node(node.id, node.address, metadata | {"protocol": "grpc"})
    service = Service(name, version, nodes=(node,))
    keyspace = Keyspace(layout)
    ((key, value),) = keyspace.encode(service)
    assert keyspace.decode(key, value) == service


@pytest.mark.parametrize("layout", LAYOUTS)
@given(key=st.binary(max_size=40), value=st.binary(max_size=80))
def test_garbage_is_refused_as_such(layout: str, key: bytes, value: bytes) -> None:
    keyspace = Keyspace(layout)
    try:
        keyspace.decode(keyspace.prefix.encode() + key, value)
    except ProtocolError:
        pass


def test_slash_in_a_foreign_name_becomes_a_dash() -> None:
    """go-micro's own rule; names like that are refused before they reach us."""
    keyspace = Keyspace("go-micro")
    service = Service("a/b", nodes=(Node("n/1", "h:1"),))
    assert keyspace.keys(service) == [b"/micro/registry/a-b/n-1"]


def test_range_of_a_service_ends_with_its_name() -> None:
    keyspace = Keyspace("go-micro", "/x")
    start, end = keyspace.range("user")
    assert start <= b"/x/user/1" < end
    for other in (b"/x/user-admin/1", b"/x/use/1", b"/x/user.1/1", b"/x/user"):
        assert not start <= other < end
    start, end = keyspace.range(None)
    assert start <= b"/x/user/1" < end
    assert not start <= b"/xy/user/1" < end
    assert range_end(b"/") == b"0"


@pytest.mark.parametrize("prefix", ["/x", "/x/", "/x//"])
def test_prefix_ends_with_one_slash(prefix: str) -> None:
    assert Keyspace("go-micro", prefix).prefix == "/x/"


def test_defaults_are_what_each_systems_programs_use() -> None:
    prefixes = {layout: Keyspace(layout).prefix for layout in LAYOUTS}
    assert prefixes == {"go-micro": "/micro/registry/", "ego": "/", "kratos": "/microservices/"}


def test_record_that_is_too_large_is_refused() -> None:
    service = Service("a", nodes=(Node("n", "h:1", {"k": "x" * 2**20}),))
    with pytest.raises(InvalidServiceError, match="at most"):
        list(Keyspace("go-micro").encode(service))


@pytest.mark.parametrize("attributes", [None, {}, "<%!p>", [1], {"weight": 10, "zone": "z1"}])
def test_ego_attributes_may_be_anything(attributes: object) -> None:
    value = {"Addr": "10.0.0.5:9000", "ServerName": "other", "Attributes": attributes}
    service = Keyspace("ego").decode(b"/svc/10.0.0.5:9000", json.dumps(value).encode())
    expected = {"weight": "10", "zone": "z1"} if attributes and type(attributes) is dict else {}
    assert service == Service("svc", nodes=(Node("10.0.0.5:9000", "10.0.0.5:9000", expected),))


def test_ego_node_is_withdrawn_by_its_id_alone() -> None:
    service = Service("svc", nodes=(Node("10.0.0.5:9000", ""),))
    assert Keyspace("ego").keys(service) == [b"/svc/10.0.0.5:9000"]


def test_kratos_instance_with_several_protocols_has_the_address_for_grpc() -> None:
    urls = ["http://10.0.0.5:8000", "grpc://10.0.0.5:9000?isSecure=false"]
    value = {"id": "i", "name": "svc", "version": "v1", "metadata": None, "endpoints": urls}
    keyspace = Keyspace("kratos")
    service = keyspace.decode(b"/microservices/svc/i", json.dumps(value).encode())
    metadata = {"protocol": "grpc", "endpoints": ",".join(urls)}
    assert service == Service("svc", "v1", nodes=(Node("i", "10.0.0.5:9000", metadata),))
    ((_, written),) = keyspace.encode(service)
    assert json.loads(written)["endpoints"] == urls


@pytest.mark.parametrize("urls", [None, [], [1], ["nonsense"], ["grpc://[::1"], "grpc://h:1"])
def test_kratos_instance_without_an_address_is_no_record(urls: object) -> None:
    value = json.dumps({"id": "i", "name": "svc", "endpoints": urls}).encode()
    with pytest.raises(ProtocolError):
        Keyspace("kratos").decode(b"/microservices/svc/i", value)
