"""What a program with threads writes."""

from __future__ import annotations

from typing import assert_type

import svcreg
from svcreg import Event, Node, Registration, Registry, Service


def main() -> None:
    with svcreg.open("sqlite:///run/registry.db", timeout=2.0) as registry:
        assert_type(registry, Registry)
        greeter = Service(
            "greeter",
            version="1.2.0",
            nodes=[Node("greeter-1", "10.0.0.5:8080", metadata={"zone": "z1"})],
        )
        with registry.register(greeter, ttl=90, required=False) as registration:
            assert_type(registration, Registration)
            assert_type(registration.service, Service)
            registration.update(metadata={"weight": "2"})
            assert_type(registry.get("greeter"), tuple[Service, ...])
            assert_type(registry.list(), tuple[str, ...])
            assert_type(registry.select("greeter", strategy="round_robin"), Node)
            assert_type(registry.call("greeter", address_length), int)
            pick_often(registry)
            with registry.watch("greeter") as events:
                for event in events:
                    show(event)
            registration.drain(0.5)
        registry.deregister(greeter)


def address_length(node: Node) -> int:
    return len(node.address)


def pick_often(registry: Registry) -> None:
    selector = registry.selector("greeter")
    assert_type(selector.pick(), Node)
    assert_type(selector.pick(key="user-1"), Node)
    with selector.use() as node:
        assert_type(node, Node)


def show(event: Event) -> None:
    if event.action == "delete":
        print([node.id for node in event.service.nodes], event.timestamp)


def which() -> list[str]:
    try:
        return sorted(svcreg.backends())
    except svcreg.BackendNotFoundError as error:
        raise SystemExit(str(error)) from error
