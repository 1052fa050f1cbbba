"""`deregister`: one node withdrawn, whoever registered it."""

from __future__ import annotations

import svcreg as library
from svcreg import Node, Service
from tests.unit.cli.support import Svcreg, add


def nodes(svcreg: Svcreg, name: str) -> list[str]:
    with library.open(svcreg.url) as registry:
        return sorted(node.id for service in registry.get(name) for node in service.nodes)


def test_one_node_of_several_is_withdrawn(svcreg: Svcreg, registry: library.Registry) -> None:
    together = [Node("h-1", "10.0.0.5:81"), Node("h-2", "10.0.0.5:82")]
    registry.register(Service("hello", nodes=together))
    add(registry, "hello", "h-3", "2.0")
    line = svcreg("deregister", "hello", "h-1").stdout
    assert line == "deregistered h-1 of hello at 10.0.0.5:81\n"
    assert nodes(svcreg, "hello") == ["h-2", "h-3"]
    assert svcreg.json("deregister", "hello", "h-3") == [
        {
            "name": "hello",
            "version": "2.0",
            "metadata": {},
            "endpoints": [],
            "nodes": [{"metadata": {}, "id": "h-3", "address": "10.0.0.5:80"}],
        }
    ]
    assert nodes(svcreg, "hello") == ["h-2"]


def test_unknown_node_is_not_found_and_nothing_is_withdrawn(
    svcreg: Svcreg, registry: library.Registry
) -> None:
    add(registry, "hello", "h-1")
    result = svcreg("deregister", "hello", "h-2", "--output", "json", code=3)
    assert result[1:] == ("", "error: service 'hello' has no node 'h-2'\n")
    assert nodes(svcreg, "hello") == ["h-1"]


def test_unknown_service_is_not_found(svcreg: Svcreg) -> None:
    assert "'nobody' has no node" in svcreg("deregister", "nobody", "h-1", code=3).stderr
