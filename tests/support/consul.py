"""Start real Consul agents and clusters, and look at them past the code under test."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.servers import _CACHE, _ENVIRON, Process, eventually, find_program

MASTER = "5ec2e7aa-5ec2-4e7a-aa11-0123456789ab"
"""The token that may do everything, on agents that have ACLs."""

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def unique(name: str = "t") -> str:
    """Return a name that no other test uses."""
    return f"{name}-{uuid.uuid4().hex[:12]}"


def program() -> str:
    """Return the path of consul; skips the test without one.

    It is the one from Debian, unless `SVCREG_CONSUL_VERSION` says with what the version begins.
    """
    wanted = _ENVIRON.get("SVCREG_CONSUL_VERSION", "1.8")
    for folder in sorted((_CACHE / "consul").glob(f"{wanted}*")):
        found = next((path for path in folder.glob("**/bin/consul") if path.is_file()), None)
        if (folder / ".complete").exists() and found and "SVCREG_TEST_CONSUL" not in _ENVIRON:
            return str(found)
    return find_program("consul", "consul")


@cache
def version() -> tuple[int, ...]:
    """Return the version of the consul that is here."""
    said = subprocess.run([program(), "version"], capture_output=True, text=True, check=True)
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", said.stdout)
    assert found, said.stdout
    return tuple(int(number) for number in found.groups())


class Agent:
    """One agent, running or not; keeps its ports and, unless it is a `dev` one, its data.

    Args:
        folder: Its own; holds data, configuration and log.
        dev: Keep everything in memory, and be ready in a tenth of a second.
        token: Sent with what the test asks past the code under test.
        context: Talk TLS to it.
        config: Merged into its configuration.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "n",
        dev: bool = True,
        token: str = "",
        context: ssl.SSLContext | None = None,
        config: Mapping[str, Any] | None = None,
        serf_wan: int = -1,
    ) -> None:
        self.folder = folder
        self.name = name
        self.token = token
        self.dev = dev
        self.context = context
        self.ports = dict(zip(("http", "server", "serf_lan"), free_ports(3), strict=True))
        self.process: Process | None = None
        ports: dict[str, int] = {**self.ports, "dns": -1, "serf_wan": serf_wan, "grpc": -1}
        if version() >= (1, 14):
            ports["grpc_tls"] = -1
        if context is not None:
            ports["https"], ports["http"] = ports["http"], -1
        self.config: dict[str, Any] = {
            "node_name": name,
            "node_id": str(uuid.uuid4()),
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "ports": ports,
            "disable_host_node_id": True,
            "disable_update_check": True,
            "performance": {"raft_multiplier": 1},
            # At `-dev`'s level, debug, 1.8 logs a line per service and check for every change.
            "log_level": "info",
        }
        if not dev:
            self.config |= {"server": True, "data_dir": str(folder / "data")}
            self.config |= {"bootstrap_expect": 1}
        self.config |= config or {}
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports['http']}"

    def start(self, *, wait: bool = True) -> Agent:
        (self.folder / "config.json").write_text(json.dumps(self.config))
        command = [program(), "agent", f"-config-file={self.folder / 'config.json'}"]
        self.process = Process(
            [*command, "-dev"] if self.dev else command,
            self.folder / "log",
            env={"CHECKPOINT_DISABLE": "1"},
        )
        if wait:
            self.wait()
        return self

    def wait(self) -> None:
        assert self.process is not None
        self.process.wait_until(self.is_ready, 30)

    def is_ready(self) -> bool:
        try:
            return bool(self.get("status/leader") and self.get(f"health/node/{self.name}"))
        except (OSError, ValueError):
            return False

    def is_leader(self) -> bool:
        try:
            return str(self.get("status/leader")) == f"127.0.0.1:{self.ports['server']}"
        except (OSError, ValueError):
            return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    def stop(self) -> None:
        if self.process is not None:
            # SIGTERM makes a server leave gracefully, which takes seconds that nobody needs.
            self.process.kill()

    # Consul's API, so that nothing here depends on what is tested.

    def get(self, path: str, **params: str) -> Any:
        return self._http("GET", path, None, params)

    def put(self, path: str, body: Any = None, **params: str) -> Any:
        return self._http("PUT", path, body, params)

    def delete(self, path: str) -> Any:
        return self._http("DELETE", path, None, {})

    def as_(self, token: str) -> Agent:
        """Return the same agent, asked with another token."""
        other = copy.copy(self)
        other.token = token
        return other

    def entries(self, name: str) -> list[dict[str, Any]]:
        """Return the instances of a service with their checks."""
        found: list[dict[str, Any]] = self.get(f"health/service/{name}")
        return found

    def ids(self, name: str) -> set[str]:
        """Return the service IDs that pass."""
        found = self.get(f"health/service/{name}", passing="1")
        return {entry["Service"]["ID"] for entry in found}

    def add_token(self, rules: str) -> str:
        """Return a new token that may do what the rules say, and nothing else."""
        policy = self.put("acl/policy", {"Name": unique(), "Rules": rules})
        token = self.put("acl/token", {"Policies": [{"ID": policy["ID"]}]})
        return str(token["SecretID"])

    def cli(self, *arguments: str) -> str:
        """Run Consul's own command line against this agent."""
        done = subprocess.run(
            [program(), *arguments],
            env={**os.environ, "CONSUL_HTTP_ADDR": self.address, "CONSUL_HTTP_TOKEN": self.token},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def connections(self) -> int:
        """Return how many established connections the agent's HTTP port has."""
        port = f":{self.ports['http']:04X}"
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        rows = [line.split() for line in lines]
        return sum(row[1].endswith(port) and row[3] == "01" for row in rows)

    def _http(self, method: str, path: str, body: Any, params: Mapping[str, str]) -> Any:
        scheme = "http" if self.context is None else "https"
        query = urllib.parse.urlencode(params)
        request = urllib.request.Request(
            f"{scheme}://{self.address}/v1/{path}?{query}",
            None if body is None else json.dumps(body).encode(),
            {"X-Consul-Token": self.token} if self.token else {},
            method=method,
        )
        opener = _opener
        if self.context is not None:
            handlers = (
                urllib.request.ProxyHandler({}),
                urllib.request.HTTPSHandler(context=self.context),
            )
            opener = urllib.request.build_opener(*handlers)
        with opener.open(request, timeout=10) as answer:
            text = answer.read()
            return json.loads(text) if text.strip() else None


class Cluster:
    """Three servers, each of them also an agent that takes registrations."""

    def __init__(self, folder: Path, size: int = 3) -> None:
        self.agents = [Agent(folder / f"s{n}", name=f"s{n}", dev=False) for n in range(size)]
        for agent in self.agents:
            agent.config["bootstrap_expect"] = size
            agent.config["retry_join"] = [f"127.0.0.1:{a.ports['serf_lan']}" for a in self.agents]
            agent.config["retry_interval"] = "1s"

    @property
    def addresses(self) -> str:
        return ",".join(agent.address for agent in self.agents)

    def start(self) -> Cluster:
        for agent in self.agents:
            agent.start(wait=False)
        for agent in self.agents:
            agent.wait()
        eventually(lambda: len(self.agents[0].get("catalog/nodes")) == len(self.agents), 30)
        return self

    def leader(self) -> Agent:
        """Return the server that leads, waiting for one."""

        def find() -> Agent | None:
            return next((agent for agent in self.agents if agent.is_leader()), None)

        found = eventually(find, 30, "a leader")
        assert isinstance(found, Agent)
        return found

    def followers(self) -> list[Agent]:
        leader = self.leader()
        return [agent for agent in self.agents if agent is not leader]

    def stop(self) -> None:
        for agent in self.agents:
            agent.stop()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses now, below those that the system gives out by itself."""
    ports: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(ports) < count:
            port = random.randrange(10000, 32000)
            sock = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                sock.bind(("127.0.0.1", port))
                ports.append(port)
    return ports


@contextlib.contextmanager
def running_agent(folder: Path, **settings: Any) -> Iterator[Agent]:
    """Run one agent; where somebody took one of its ports meanwhile, it is tried once more."""
    agent = Agent(folder, **settings)
    try:
        agent.start()
    except BaseException:
        if "address already in use" not in (folder / "log").read_text(errors="replace"):
            raise
        agent.stop()
        shutil.rmtree(folder)
        agent = Agent(folder, **settings).start()
    try:
        yield agent
    finally:
        agent.stop()


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Run three servers."""
    cluster = Cluster(folder)
    try:
        yield cluster.start()
    finally:
        cluster.stop()


def acl_config() -> dict[str, Any]:
    """Return the configuration of an agent that denies what no token allows."""
    management = "initial_management" if version() >= (1, 11) else "master"
    return {
        # An agent waits up to 20 s before it asks for its token again; nothing is cached here.
        "acl": {
            "enabled": True,
            "default_policy": "deny",
            "policy_ttl": "0s",
            "token_ttl": "0s",
            "tokens": {management: MASTER, "agent": MASTER},
        }
    }


class Certificates:
    """An authority, and what it signed: PEM files for an agent and for clients."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.ca = str(folder / "ca.pem")
        self._authority.cert_pem.write_to_path(self.ca)
        self.server = self.issue("server", "127.0.0.1", "localhost")
        self.client = self.issue("client", "client")

    def issue(self, name: str, *identities: str) -> tuple[str, str]:
        """Sign a certificate; return the paths of it and of its key."""
        signed = self._authority.issue_cert(*identities)
        cert, key = str(self._folder / f"{name}.pem"), str(self._folder / f"{name}-key.pem")
        signed.cert_chain_pems[0].write_to_path(cert)
        signed.private_key_pem.write_to_path(key)
        return cert, key

    def context(self) -> ssl.SSLContext:
        """Return what the looks past the code under test need."""
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(*self.client)
        return context

    def config(self, *, mutual: bool) -> dict[str, Any]:
        """Return the configuration of an agent that speaks TLS, and may want it of its clients."""
        files = {"ca_file": self.ca, "cert_file": self.server[0], "key_file": self.server[1]}
        if version() >= (1, 12):
            return {"tls": {"https": {**files, "verify_incoming": mutual}}}
        return {**files, "verify_incoming_https": mutual}


@pytest.fixture(scope="session")
def consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """One agent for all tests of a process; use names of your own."""
    with running_agent(tmp_path_factory.mktemp("consul")) as agent:
        yield agent


@pytest.fixture
def own_agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent of the test's own, to be killed and emptied."""
    with running_agent(tmp_path / "consul") as agent:
        yield agent
