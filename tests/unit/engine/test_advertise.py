"""A node that listens on every address is announced under one that others can reach."""

from __future__ import annotations

import asyncio
import logging

import pytest

from svcreg.engine.advertise import advertised
from svcreg.errors import ConfigError
from svcreg.model import Node, Service


def announced(*addresses: str, registry: str = "", override: str | None = None) -> list[str]:
    service = Service("greeter", nodes=[Node(f"n{n}", a) for n, a in enumerate(addresses)])
    found = asyncio.run(advertised(service, registry, override))
    return [node.address for node in found.nodes]


def test_node_that_names_its_host_is_left_alone() -> None:
    service = Service("greeter", nodes=(Node("a", "10.0.0.5:80"), Node("b", "host.example:80")))
    assert asyncio.run(advertised(service, "127.0.0.1:2379", "192.0.2.9")) is service


@pytest.mark.parametrize("address", ["0.0.0.0:80", "[::]:80", ":80"])
def test_wildcard_is_replaced_and_named_hosts_beside_it_are_not(address: str) -> None:
    found = announced(address, "10.0.0.5:80", registry="127.0.0.1:2379")
    assert found == ["127.0.0.1:80", "10.0.0.5:80"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("192.0.2.9", "192.0.2.9:80"),
        ("192.0.2.9:8443", "192.0.2.9:8443"),
        ("node-1.example", "node-1.example:80"),
        ("node-1.example:8443", "node-1.example:8443"),
        ("2001:db8::1", "[2001:db8::1]:80"),
        ("[2001:db8::1]", "[2001:db8::1]:80"),
        ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
    ],
)
def test_setting_wins_over_the_route(override: str, expected: str) -> None:
    assert announced("0.0.0.0:80", registry="127.0.0.1:2379", override=override) == [expected]


@pytest.mark.parametrize("override", [":80", "0.0.0.0:80", "[::]:80", "host:", "host:99999"])
def test_setting_that_nobody_could_connect_to_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="MICRO_ADVERTISE"):
        announced("0.0.0.0:80", override=override)


@pytest.mark.parametrize("override", ["0.0.0.0", "::"])
def test_setting_that_is_a_wildcard_itself_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="MICRO_ADVERTISE"):
        announced("0.0.0.0:80", override=override)


def test_registry_that_is_a_file_has_its_readers_on_this_machine() -> None:
    assert announced(":80", registry="/var/lib/registry.db") == ["127.0.0.1:80"]
    assert announced(":80") == ["127.0.0.1:80"]


def test_registry_without_a_route_means_loopback_and_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*args: object, **kwargs: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", fail)
    caplog.set_level(logging.INFO, "svcreg")
    assert announced(":80", registry="registry.invalid:2379") == ["127.0.0.1:80"]
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "registry.invalid:2379" in warned[0].getMessage()


def test_choice_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "svcreg")
    announced("0.0.0.0:80", registry="127.0.0.1:2379")
    assert "listens on 0.0.0.0:80 and is advertised as 127.0.0.1:80" in caplog.text
