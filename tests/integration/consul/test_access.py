"""Tokens, TLS and sockets: what an agent demands of its clients, and what must not get out."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import svcreg
from svcreg import ConfigError, Node, PermissionDeniedError, Registry, RegistryError, Service
from tests.support.consul import (
    MASTER,
    Agent,
    Certificates,
    acl_config,
    running_agent,
    unique,
    version,
)
from tests.support.servers import eventually

pytestmark = pytest.mark.server("consul")

OpenRegistry = Callable[..., Registry]


def one(name: str) -> Service:
    return Service(name, nodes=(Node(f"{name}-1", "10.0.0.5:8080"),))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    config = {**acl_config(), "log_level": "debug"}  # at which it logs URLs
    with running_agent(tmp_path_factory.mktemp("acl"), token=MASTER, config=config) as agent:
        yield agent


def write_rules(name: str) -> str:
    return (
        f'service "{name}" {{ policy = "write" }} '
        'service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }'
    )


@pytest.mark.xdist_group("consul-acl")
class TestAcls:
    def test_missing_right_is_named(self, guarded: Agent, connect: OpenRegistry) -> None:
        token = guarded.add_token('service_prefix "" { policy = "read" }')
        registry = connect(guarded.address, token=token)
        with pytest.raises(PermissionDeniedError) as caught:
            registry.register(one("billing"))
        assert str(caught.value) == (
            f"consul: register of 'billing' at {guarded.address} refused (403); "
            "the token needs service:write"
        )
        assert not caught.value.retryable

    def test_service_that_may_not_be_seen_is_said_to_be_there(
        self, guarded: Agent, connect: OpenRegistry
    ) -> None:
        if version() < (1, 11):
            pytest.skip("agents before 1.11 do not say that they left something out")
        name = unique()
        guarded.put("agent/service/register", {"Name": name, "ID": name})
        registry = connect(guarded.address, token=guarded.add_token('key "x" { policy = "read" }'))
        with pytest.raises(PermissionDeniedError, match="needs service:read"):
            registry.get(name)
        assert registry.get(unique()) == ()

    def test_unknown_token_is_said_to_be_one(self, guarded: Agent, connect: OpenRegistry) -> None:
        unknown = "11111111-2222-3333-4444-555555555555"
        registry = connect(guarded.address, token=unknown)
        for call in (lambda: registry.get("billing"), lambda: registry.register(one("billing"))):
            with pytest.raises(PermissionDeniedError, match="does not know the token") as caught:
                call()
            assert unknown not in str(caught.value)

    def test_one_forbidden_registration_costs_the_others_nothing(
        self, guarded: Agent, connect: OpenRegistry
    ) -> None:
        kept, lost = unique("kept"), unique("lost")
        token = guarded.add_token(write_rules(kept) + f' service "{lost}" {{ policy = "write" }}')
        registry = connect(guarded.address, token=token)
        good = registry.register(one(kept), ttl=2.0)
        bad = registry.register(one(lost), ttl=2.0)
        eventually(lambda: guarded.ids(kept) and guarded.ids(lost))
        (policy,) = guarded.as_(token).get("acl/token/self")["Policies"]
        rules = {"ID": policy["ID"], "Name": policy["Name"], "Rules": write_rules(kept)}
        guarded.put(f"acl/policy/{policy['ID']}", rules)
        eventually(lambda: bad.state == "lost" and isinstance(bad.error, PermissionDeniedError), 10)
        assert good.state == "active"
        assert guarded.ids(kept) == {f"{kept}-1"}

    def test_token_file_is_read_again_when_it_changes(
        self, guarded: Agent, connect: OpenRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = unique()
        first, second = (guarded.add_token(write_rules(name)) for _ in range(2))
        path = tmp_path / "token"
        path.write_text(first + "\n")
        monkeypatch.setenv("CONSUL_HTTP_TOKEN_FILE", str(path))
        registry = connect(guarded.address)
        registration = registry.register(one(name), ttl=2.0)
        assert registry.get(name) == (one(name),)
        path.write_text(second + "\n")
        eventually(lambda: registration.last_renewal)
        accessor = guarded.as_(first).get("acl/token/self")["AccessorID"]
        guarded.delete(f"acl/token/{accessor}")
        renewed = registration.last_renewal or 0
        eventually(lambda: (registration.last_renewal or 0) > renewed + 1, 5)
        other = connect(guarded.address, token=second)
        other.register(Service(name, nodes=(Node(f"{name}-2", "10.0.0.6:1"),)), ttl=30)
        eventually(lambda: len(registry.get(name)[0].nodes) == 2, 10)

    def test_token_file_that_is_missing_is_named(self, connect: OpenRegistry) -> None:
        registry = connect("127.0.0.1:1", token_file="/nonexistent/token")
        with pytest.raises(ConfigError, match="/nonexistent/token"):
            registry.get("billing")

    def test_token_gets_nowhere_but_into_the_header(
        self, guarded: Agent, connect: OpenRegistry, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        name = unique()
        token = guarded.add_token(write_rules(name))
        registry = connect(guarded.address, token=token)
        registration = registry.register(one(name), ttl=2.0)
        registry.get(name)
        registry.list()
        shown = [repr(registry), repr(registry.status()), repr(registration)]
        with pytest.raises(RegistryError) as caught:
            registry.register(one("forbidden"))
        shown += [repr(caught.value), str(caught.value), repr(caught.value.__cause__)]
        registry.close()
        assert token not in "".join(shown) + caplog.text
        assert guarded.process is not None
        log = (guarded.folder / "log").read_text()
        assert f"/v1/health/service/{name}" in log  # the agent logs URLs ...
        assert token not in log  # ... and would show it there

    def test_token_of_the_environment_is_used(
        self, guarded: Agent, connect: OpenRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = unique()
        monkeypatch.setenv("CONSUL_HTTP_TOKEN", guarded.add_token(write_rules(name)))
        monkeypatch.setenv("CONSUL_HTTP_ADDR", f"http://{guarded.address}")
        with svcreg.open("consul") as registry:
            registry.register(one(name))
            assert registry.get(name) == (one(name),)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


class TestTls:
    @pytest.fixture
    def agent(self, tmp_path: Path, certificates: Certificates) -> Iterator[Agent]:
        with running_agent(
            tmp_path / "consul",
            context=certificates.context(),
            config=certificates.config(mutual=False),
        ) as agent:
            yield agent

    def test_authority_is_checked(
        self, agent: Agent, certificates: Certificates, connect: OpenRegistry
    ) -> None:
        assert connect(f"https://{agent.address}", ca=certificates.ca).get("nobody") == ()
        with pytest.raises(RegistryError, match="CONSUL_CACERT"):
            connect(f"https://{agent.address}").get("nobody")
        assert connect(f"https://{agent.address}", verify=False).get("nobody") == ()
        with pytest.raises(RegistryError, match="HTTPS"):
            connect(agent.address).get("nobody")

    def test_environment_is_that_of_consuls_own_tools(
        self,
        agent: Agent,
        certificates: Certificates,
        connect: OpenRegistry,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("CONSUL_HTTP_SSL", "true")
        monkeypatch.setenv("CONSUL_CACERT", certificates.ca)
        assert connect(agent.address).get("nobody") == ()
        monkeypatch.delenv("CONSUL_CACERT")
        monkeypatch.setenv("CONSUL_HTTP_SSL_VERIFY", "false")
        assert connect(agent.address).get("nobody") == ()

    def test_client_certificate_that_is_missing_is_hinted_at(
        self, tmp_path: Path, certificates: Certificates, connect: OpenRegistry
    ) -> None:
        with running_agent(
            tmp_path / "mutual",
            context=certificates.context(),
            config=certificates.config(mutual=True),
        ) as agent:
            with pytest.raises(RegistryError, match="client certificate"):
                connect(f"https://{agent.address}", ca=certificates.ca).get("nobody")
            cert, key = certificates.client
            registry = connect(agent.address, ca=certificates.ca, cert=cert, key=key)
            assert registry.get("nobody") == ()

    def test_certificates_replaced_while_running_are_picked_up(
        self, tmp_path: Path, connect: OpenRegistry
    ) -> None:
        folders = [tmp_path / "old", tmp_path / "new"]
        for folder in folders:
            folder.mkdir()
        old, new = (Certificates(folder) for folder in folders)
        ours = [tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem")]

        def give(certificates: Certificates) -> None:
            for path, source in zip(ours, (certificates.ca, *certificates.client), strict=True):
                fresh = path.with_suffix(".new")
                fresh.write_bytes(Path(source).read_bytes())
                fresh.replace(path)

        give(old)
        ca, cert, key = map(str, ours)
        with running_agent(
            tmp_path / "consul", context=old.context(), config=old.config(mutual=True)
        ) as agent:
            name = unique()
            registry = connect(agent.address, ca=ca, cert=cert, key=key)
            registration = registry.register(one(name), ttl=3.0)
            assert registry.get(name) == (one(name),)
            agent.kill()
            agent.config |= new.config(mutual=True)
            agent.context = new.context()
            agent.start()
            eventually(lambda: registration.error is not None, 5)
            assert not agent.ids(name)
            give(new)
            eventually(lambda: agent.ids(name) == {f"{name}-1"}, 10)
            eventually(lambda: not registry.status().feeds[0].stale, 15)


class TestUnixSocket:
    @pytest.mark.parametrize("form", ["address", "url", "environment"])
    def test_agent_is_reached_over_its_socket(
        self, tmp_path: Path, form: str, connect: OpenRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A socket's path may have 107 bytes, and the folder of a test has nearly as many.
        path = f"/tmp/svcreg-{os.getpid()}-{unique()}.sock"
        config = {"addresses": {"http": f"127.0.0.1 unix://{path}"}}
        with running_agent(tmp_path / "consul", config=config) as agent:
            if form == "environment":
                monkeypatch.setenv("CONSUL_HTTP_ADDR", f"unix://{path}")
            url = f"consul://{path}" if form == "url" else "consul"
            address = f"unix://{path}" if form == "address" else None
            with svcreg.open(url, address=address) as registry:
                name = unique()
                with registry.register(one(name)):
                    assert registry.get(name) == (one(name),)
                    assert agent.ids(name)


@pytest.mark.parametrize(
    ("registry", "address"), [("consul", None), ("consul", "{0}"), ("consul://{0}", None)]
)
def test_environment_alone_selects_consul(
    consul: Agent, monkeypatch: pytest.MonkeyPatch, registry: str, address: str | None
) -> None:
    monkeypatch.setenv("MICRO_REGISTRY", registry.format(consul.address))
    if address:
        monkeypatch.setenv("MICRO_REGISTRY_ADDRESS", address.format(consul.address))
    else:
        monkeypatch.setenv("CONSUL_HTTP_ADDR", consul.address)
    name = unique()
    with svcreg.open() as opened, opened.register(one(name)):
        assert opened.get(name) == (one(name),)
        assert consul.ids(name)


def test_agent_may_be_named_by_host(consul: Agent, connect: OpenRegistry) -> None:
    name = unique()
    address = f"localhost:{consul.ports['http']}"
    with connect(address) as registry, registry.register(one(name)):
        assert registry.get(name) == (one(name),)
    eventually(lambda: not consul.entries(name))


def test_process_that_ends_withdraws_although_it_has_to_resolve_again(consul: Agent) -> None:
    name = unique()
    program = f"""
import functools, aiohttp, svcreg, svcreg_consul.connections
from svcreg import Node, Service
# So that the exit needs a connection of its own, and has to ask where that goes.
svcreg_consul.connections.IDLE_SECONDS = 0.05
aiohttp.TCPConnector = functools.partial(aiohttp.TCPConnector, use_dns_cache=False)
registry = svcreg.open("consul://localhost:{consul.ports["http"]}")
registry.register(Service({name!r}, nodes=[Node("{name}-1", "10.0.0.5:80")]), ttl=60)
input()
"""
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    try:
        eventually(lambda: consul.ids(name), 20)
        time.sleep(0.2)  # the connection is closed meanwhile
        child.communicate(b"\n", 20)
        assert child.returncode == 0
        eventually(lambda: not consul.entries(name), 2)
    finally:
        child.kill()
        child.wait()
