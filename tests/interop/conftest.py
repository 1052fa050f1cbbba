"""Registries with go-micro on one side and svcreg on the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.interop.recording import link_up
from tests.support.consul import consul
from tests.support.etcd import etcd
from tests.support.gomicro import GoMicro, Peer, Python
from tests.support.namespaces import hosts, require_namespaces

__all__ = ["consul", "etcd"]  # fixtures


class World:
    """One registry, one program of either kind that uses it, and room for more of them."""

    def __init__(
        self,
        registry: str,
        address: str,
        folder: Path,
        stack: contextlib.ExitStack,
        prefix: Sequence[str] = (),
    ) -> None:
        """Start the two; `prefix` puts a command where the registry is."""
        self.registry = registry
        self.address = address
        self.prefix = prefix
        self._folder = folder
        self.go = self.start_go(stack)
        self.python = self.start_python(stack)

    def start_go(self, stack: contextlib.ExitStack) -> Peer:
        """Start a program that ends with the stack."""
        log = self._folder / "go.log"
        peer = GoMicro(log, self.registry, self.address, prefix=self.prefix)
        return stack.enter_context(peer)

    def start_python(self, stack: contextlib.ExitStack) -> Peer:
        """Start a program that ends with the stack."""
        log = self._folder / "python.log"
        peer = Python(log, self.registry, self.address, prefix=self.prefix)
        return stack.enter_context(peer)


class Pair:
    """Who registers and who looks, in one world."""

    def __init__(self, world: World, writer: str) -> None:
        self.world = world
        self.case = f"{writer} on {world.registry}"  # such as `go on consul`; the other one looks
        peers = [world.go, world.python]
        self.writer, self.reader = peers if writer == "go" else peers[::-1]
        self.start_writer = world.start_go if writer == "go" else world.start_python


@pytest.fixture(scope="session")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A link of one host, with mDNS."""
    require_namespaces()
    with hosts(1) as (host,), contextlib.ExitStack() as stack:
        link_up(host)
        folder = tmp_path_factory.mktemp("mdns")
        yield World("mdns", "", folder, stack, host.prefix)


def _group(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.server(name), pytest.mark.xdist_group(f"interop-{name}")]


REGISTRIES = [
    pytest.param("etcd", marks=_group("etcd")),
    pytest.param("consul", marks=_group("consul")),
    pytest.param("mdns", marks=[*_group("go-micro"), pytest.mark.root]),
]


def on(*registries: str) -> pytest.MarkDecorator:
    """Run tests in the worlds of some registries only."""
    chosen = [parameter for parameter in REGISTRIES if parameter.values[0] in registries]
    return pytest.mark.parametrize("world", chosen, indirect=True)


@pytest.fixture(scope="session", params=REGISTRIES)
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Each registry in turn."""
    if request.param == "mdns":
        yield request.getfixturevalue("link")
        return
    server = request.getfixturevalue(request.param)
    address = server.endpoint if request.param == "etcd" else server.address
    with contextlib.ExitStack() as stack:
        yield World(request.param, address, tmp_path_factory.mktemp("peers"), stack)


@pytest.fixture(params=["python", "go"], ids=["python-to-go", "go-to-python"])
def pair(request: pytest.FixtureRequest, world: World) -> Pair:
    """Each direction in turn."""
    return Pair(world, request.param)
