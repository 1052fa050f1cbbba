"""What others register, and what others see of what we register."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from svcreg import Endpoint, InvalidServiceError, Node, Registry, RegistryError, Service
from svcreg_consul.registrations import DRAINING
from tests.support.consul import Agent, free_ports, running_agent, unique, version
from tests.support.servers import eventually

pytestmark = pytest.mark.server("consul")

OpenRegistry = Callable[..., Registry]


def hexed(text: str) -> str:
    return zlib.compress(text.encode()).hex()


def put(agent: Agent, name: str, **body: Any) -> None:
    agent.put("agent/service/register", {"Name": name, **body})


class TestForeign:
    def test_service_of_consuls_command_line_is_found(
        self, consul: Agent, connect: OpenRegistry
    ) -> None:
        name = unique("redis")
        consul.cli(
            "services",
            "register",
            f"-name={name}",
            f"-id={name}-primary",
            "-address=10.0.0.7",
            "-port=6379",
            "-tag=primary",
            "-tag=env=prod",
            "-meta=role=cache",
            "-meta=version=7.2",
        )
        expected = Service(
            name,
            nodes=(Node(f"{name}-primary", "10.0.0.7:6379", {"role": "cache", "version": "7.2"}),),
        )
        registry = connect(consul.address)
        assert registry.get(name) == (expected,)
        assert name in registry.list()
        consul.cli("services", "deregister", f"-id={name}-primary")
        eventually(lambda: registry.get(name) == ())

    def test_plain_json_without_address_is_where_its_agent_is(
        self, consul: Agent, connect: OpenRegistry
    ) -> None:
        name = unique()
        put(consul, name, Port=80)
        assert connect(consul.address).get(name) == (
            Service(name, nodes=(Node(name, "127.0.0.1:80"),)),
        )

    def test_id_that_no_node_may_have_is_made_into_one(
        self, consul: Agent, connect: OpenRegistry
    ) -> None:
        name = unique()
        for service_id in (f"{name}/1", f"{name} 1", f"../{name}"):
            put(consul, name, ID=service_id, Address="10.0.0.1", Port=1)
        registry = connect(consul.address)
        (service,) = registry.get(name)
        assert len({node.id for node in service.nodes}) == 3
        registry.deregister(service)  # by the ids that were made up
        eventually(lambda: not registry.get(name), 5)

    def test_record_of_an_external_node_is_found(
        self, consul: Agent, connect: OpenRegistry
    ) -> None:
        name = unique()
        consul.put(
            "catalog/register",
            {
                "Node": unique("external"),
                "Address": "192.0.2.10",
                "Service": {"ID": f"{name}-1", "Service": name, "Port": 443, "Meta": {"a": "b"}},
            },
        )
        registry = connect(consul.address)
        node = Node(f"{name}-1", "192.0.2.10:443", {"a": "b"})
        assert registry.get(name) == (Service(name, nodes=(node,)),)
        connect(consul.address).deregister(Service(name, nodes=(node,)))
        eventually(lambda: registry.get(name) == ())

    def test_both_of_go_micros_forms_are_read(self, consul: Agent, connect: OpenRegistry) -> None:
        new, old = unique("new"), unique("old")
        endpoint = '{"name":"Greeter.Hello","request":null,"response":null,"metadata":{"a":"b"}}'
        put(
            consul,
            new,
            ID=f"{new}-1",
            Address="2001:db8::1",
            Port=80,
            Tags=[
                "t-" + hexed('{"zone":"z1"}'),
                "t-" + hexed('{"env":"prod"}'),
                "e-" + hexed(endpoint),
                "v-" + hexed("1.2.0"),
            ],
        )
        tags = ['t={"zone":"z1"}', f"e={endpoint}", "v=0.9"]
        put(consul, old, ID=f"{old}-1", Address="10.0.0.8", Port=80, Tags=tags)
        registry = connect(consul.address)
        endpoints = (Endpoint("Greeter.Hello", metadata={"a": "b"}),)
        node = Node(f"{new}-1", "[2001:db8::1]:80", {"zone": "z1", "env": "prod"})
        assert registry.get(new) == (Service(new, "1.2.0", {}, endpoints, (node,)),)
        node = Node(f"{old}-1", "10.0.0.8:80", {"zone": "z1"})
        assert registry.get(old) == (Service(old, "0.9", {}, endpoints, (node,)),)

    def test_bomb_hides_itself_and_nobody_else(
        self, consul: Agent, connect: OpenRegistry, caplog: pytest.LogCaptureFixture
    ) -> None:
        name = unique()
        bomb = "t-" + hexed(json.dumps({"a": "x" * 3_000_000}))
        put(consul, name, ID=f"{name}-bomb", Address="10.0.0.1", Port=1, Tags=[bomb])
        many = ["t-" + hexed(json.dumps({str(n): "x" * 300_000})) for n in range(8)]
        put(consul, name, ID=f"{name}-many", Address="10.0.0.2", Port=1, Tags=many)
        put(consul, name, ID=f"{name}-good", Address="10.0.0.3", Port=1, Tags=["v-" + hexed("1")])
        (service,) = connect(consul.address).get(name)
        assert [node.id for node in service.nodes] == [f"{name}-good"]
        said = [record.getMessage() for record in caplog.records if name in record.getMessage()]
        assert len(said) == 2
        assert all("expand beyond" in line for line in said)

    def test_odd_tags_do_no_harm(self, consul: Agent, connect: OpenRegistry) -> None:
        name = unique()
        tags = ["t", "v", "e", "traefik.enable=true", "t-zz", "e-00", "v-", "s-", "env", "t=blue"]
        put(consul, name, ID=f"{name}-1", Address="10.0.0.1", Port=1, Tags=tags, Meta={"a": "b"})
        node = Node(f"{name}-1", "10.0.0.1:1", {"a": "b"})
        assert connect(consul.address).get(name) == (Service(name, nodes=(node,)),)

    def test_names_that_differ_in_case_alone_are_two_services(
        self, consul: Agent, connect: OpenRegistry
    ) -> None:
        lower = unique()
        upper = lower.upper()
        put(consul, upper, ID=f"{lower}-x", Address="10.0.0.1", Port=1)
        registry = connect(consul.address)
        assert registry.get(lower) == ()
        assert [service.name for service in registry.get(upper)] == [upper]


class TestHealth:
    @pytest.fixture
    def name(self, consul: Agent) -> str:
        name = unique()
        for status in ("passing", "warning", "critical"):
            put(
                consul,
                name,
                ID=f"{name}-{status}",
                Address="10.0.0.1",
                Port=1,
                Check={"CheckID": f"{name}-{status}", "TTL": "1h", "Status": status},
            )
        return name

    def seen(self, registry: Registry, name: str) -> set[str]:
        nodes = [node.id for service in registry.get(name) for node in service.nodes]
        return {node_id.removeprefix(f"{name}-") for node_id in nodes}

    def test_passing_and_warning_nodes_are_listed(
        self, consul: Agent, name: str, connect: OpenRegistry
    ) -> None:
        assert self.seen(connect(consul.address), name) == {"passing", "warning"}
        assert self.seen(connect(consul.address, passing_only=True), name) == {"passing"}

    @pytest.mark.parametrize("polls", [32, 0])
    def test_change_of_health_is_seen(
        self, consul: Agent, name: str, connect: OpenRegistry, polls: int
    ) -> None:
        registry = connect(consul.address, polls=polls)
        assert self.seen(registry, name) == {"passing", "warning"}
        consul.put(f"agent/check/fail/{name}-passing")
        eventually(lambda: self.seen(registry, name) == {"warning"}, 5)
        consul.put(f"agent/check/pass/{name}-critical")
        eventually(lambda: self.seen(registry, name) == {"warning", "critical"}, 5)

    def test_what_comes_and_goes_between_two_answers_of_a_poll_is_no_remnant(
        self, consul: Agent, connect: OpenRegistry
    ) -> None:
        # After twenty answers polls slow down, and then skip what was undone meanwhile.
        registry, reader = connect(consul.address), connect(consul.address, polls=0)

        def see(name: str, expected: set[str]) -> None:
            eventually(lambda: self.seen(reader, name) == expected, 5)

        for _ in range(12):
            name = unique()
            service = Service(name, nodes=(Node(f"{name}-1", "10.0.0.1:1"),))
            with registry.register(service, ttl=30):
                see(name, {"1"})
            see(name, set())

    def test_maintenance_withdraws_and_brings_back(
        self, consul: Agent, connect: OpenRegistry
    ) -> None:
        name = unique()
        registry, reader = connect(consul.address), connect(consul.address, polls=0)
        registry.register(Service(name, nodes=(Node(f"{name}-1", "10.0.0.1:1"),)), ttl=30)
        eventually(lambda: self.seen(reader, name) == {"1"})
        consul.put(f"agent/service/maintenance/{name}-1", enable="true", reason="repair")
        eventually(lambda: not self.seen(reader, name), 5)
        consul.put(f"agent/service/maintenance/{name}-1", enable="false")
        eventually(lambda: self.seen(reader, name) == {"1"}, 5)

    def test_draining_is_maintenance_first_and_withdrawal_then(
        self, consul: Agent, connect: OpenRegistry
    ) -> None:
        name = unique()
        registry, reader = connect(consul.address), connect(consul.address)
        registration = registry.register(
            Service(name, nodes=(Node(f"{name}-1", "10.0.0.1:1"),)), ttl=30
        )
        eventually(lambda: self.seen(reader, name) == {"1"})
        draining = threading.Thread(target=registration.drain, args=(2.0,))
        draining.start()
        eventually(lambda: not self.seen(reader, name), 1.5)
        checks = consul.get(f"health/checks/{name}")
        assert [one["Notes"] for one in checks if "maintenance" in one["CheckID"]] == [DRAINING]
        assert draining.is_alive()
        draining.join()
        assert registration.state == "closed"
        assert not consul.ids(name)


class TestOurs:
    def test_record_is_what_go_micro_would_have_written(
        self, consul: Agent, connect: OpenRegistry
    ) -> None:
        name = unique()
        metadata = {
            "zone": "z1",
            "weight": "7",
            "with space": "x",
            "wan_address": "198.51.100.1:443",
        }
        node = Node(f"{name}-1", "10.0.0.5:8080", metadata)
        service = Service(name, "1.2.0", {}, (Endpoint("Greeter.Hello"),), (node,))
        connect(consul.address).register(service, ttl=90)
        (entry,) = consul.entries(name)
        shown = entry["Service"]
        assert (shown["ID"], shown["Address"], shown["Port"]) == (node.id, "10.0.0.5", 8080)
        tags = sorted(shown["Tags"])
        plain = [zlib.decompress(bytes.fromhex(tag[2:])).decode() for tag in tags]
        assert [tag[:2] for tag in tags] == ["e-", "t-", "t-", "t-", "t-", "v-"]
        assert json.loads(plain[0])["name"] == "Greeter.Hello"
        pairs = [json.loads(text) for text in plain[1:5]]
        assert {key: value for pair in pairs for key, value in pair.items()} == metadata
        assert plain[5] == "1.2.0"
        meta = {key: value for key, value in shown["Meta"].items() if "svcreg" not in key}
        assert meta == {key: value for key, value in metadata.items() if key != "with space"}
        assert shown["Weights"] == {"Passing": 7, "Warning": 1}
        assert shown["TaggedAddresses"]["lan"] == {"Address": "10.0.0.5", "Port": 8080}
        assert shown["TaggedAddresses"]["wan"] == {"Address": "198.51.100.1", "Port": 443}
        (check,) = [check for check in entry["Checks"] if check["ServiceID"]]
        assert (check["CheckID"], check["Status"]) == (f"service:{node.id}", "passing")
        definition = consul.get("agent/checks")[f"service:{node.id}"]
        assert definition["Type"] == "ttl"

    def test_metadata_beyond_the_limits_of_meta_survives(
        self, consul: Agent, connect: OpenRegistry
    ) -> None:
        name = unique()
        metadata = {f"key{n}": str(n) for n in range(80)}
        metadata |= {"k" * 200: "long key", "long": "v" * 2000, "consul-x": "reserved", "ä": "ü"}
        service = Service(name, nodes=(Node(f"{name}-1", "[2001:db8::5]:80", metadata),))
        registry = connect(consul.address)
        registry.register(service)
        assert registry.get(name) == (service,)
        (entry,) = consul.entries(name)
        assert len(entry["Service"]["Meta"]) <= 64
        assert entry["Service"]["Address"] == "2001:db8::5"

    def test_every_node_of_a_service_is_registered(
        self, consul: Agent, connect: OpenRegistry
    ) -> None:
        name = unique()
        nodes = tuple(Node(f"{name}-{n}", f"10.0.0.{n}:80") for n in range(1, 6))
        registry = connect(consul.address)
        registration = registry.register(Service(name, "1", nodes=nodes), ttl=1.0)
        assert consul.ids(name) == {node.id for node in nodes}
        renewed = registration.last_renewal or 0
        eventually(lambda: (registration.last_renewal or 0) > renewed + 1.5, 5)
        assert consul.ids(name) == {node.id for node in nodes}

    def test_connect_native_is_said(self, consul: Agent, connect: OpenRegistry) -> None:
        name = unique()
        service = Service(name, nodes=(Node(f"{name}-1", "10.0.0.1:1"),))
        connect(consul.address, connect=True).register(service)
        (entry,) = consul.get(f"health/connect/{name}")
        assert entry["Service"]["Connect"]["Native"] is True

    def test_namespaces_are_passed_on(self, consul: Agent, connect: OpenRegistry) -> None:
        # Without Enterprise an agent refuses them, which shows that they arrive.
        # Partitions came with 1.11; an agent that does not know them passes them over.
        options = [{"namespace": "team"}, {"partition": "part"}][: 1 + (version() >= (1, 11))]
        for option in options:
            registry = connect(consul.address, **option)
            with pytest.raises((RegistryError, InvalidServiceError), match="Enterprise"):
                registry.get("nobody")

    def test_nearness_is_passed_on(self, consul: Agent, connect: OpenRegistry) -> None:
        name = unique()
        registry = connect(consul.address, near="_agent", stale=True)
        registry.register(Service(name, nodes=(Node(f"{name}-1", "10.0.0.1:1"),)))
        assert [service.name for service in registry.get(name)] == [name]


class Target(BaseHTTPRequestHandler):
    """Answers `/healthy` with 200, anything else with 404."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthy" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def target() -> Iterator[str]:
    """Return the address of a program that listens."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Target)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({"check": "tcp"}, True),
        ({"check": "http", "check_path": "/healthy"}, True),
        ({"check": "http", "check_path": "/broken"}, False),
        ({"check": "grpc"}, False),  # it listens, but speaks no gRPC
    ],
    ids=lambda value: str(value),
)
def test_agent_checks_by_itself(
    consul: Agent, target: str, connect: OpenRegistry, options: dict[str, Any], *, passes: bool
) -> None:
    name = unique()
    registry = connect(consul.address, check_interval=1.0, check_timeout=0.5, **options)
    registration = registry.register(
        Service(name, nodes=(Node(f"{name}-1", target),)), ttl=60, interval=0.2
    )

    def check() -> Any:
        checks = consul.get("agent/checks").values()
        return next(check for check in checks if check["ServiceName"] == name)

    assert check()["Type"] == options["check"]
    if passes:
        eventually(lambda: consul.ids(name), 5)
        consul.put(f"agent/service/deregister/{name}-1")
        eventually(lambda: consul.ids(name), 5)  # a renewal looks whether it is still there
    else:
        eventually(lambda: check()["Output"], 5)
        assert not consul.ids(name)
    registration.close()


def test_several_datacentres_are_read_as_one(tmp_path: Path, connect: OpenRegistry) -> None:
    wan = free_ports(2)
    with running_agent(
        tmp_path / "dc1", name="a", dev=False, config={"datacenter": "dc1"}, serf_wan=wan[0]
    ) as first:
        joined = {"datacenter": "dc2", "retry_join_wan": [f"127.0.0.1:{wan[0]}"]}
        joined["retry_interval_wan"] = "1s"
        with running_agent(
            tmp_path / "dc2", name="b", dev=False, config=joined, serf_wan=wan[1]
        ) as second:
            eventually(lambda: len(first.get("catalog/datacenters")) == 2, 20)
            name = unique()
            for agent, host in ((first, "10.0.0.1"), (second, "10.0.0.2")):
                put(agent, name, ID=f"{name}-{agent.name}", Address=host, Port=1)
                put(agent, name, ID=f"{name}-both", Address=host, Port=2)
            both = connect(first.address, dc="dc1,dc2")

            def seen() -> dict[str, str]:
                nodes = [node for service in both.get(name) for node in service.nodes]
                return {node.id.removeprefix(f"{name}-"): node.address for node in nodes}

            expected = {"a": "10.0.0.1:1", "b": "10.0.0.2:1", "both": "10.0.0.1:2"}
            eventually(lambda: seen() == expected, 5)
            second.put(f"agent/service/deregister/{name}-b")
            first.put(f"agent/service/deregister/{name}-both")
            eventually(lambda: seen() == {"a": "10.0.0.1:1", "both": "10.0.0.2:2"}, 5)
            assert connect(first.address, dc="dc2").get(name)[0].nodes[0].host == "10.0.0.2"
            assert name in both.list()
