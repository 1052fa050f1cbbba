"""Programs with an mDNS backend, each a process of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.mdns import Program
from tests.support.namespaces import Host, hosts, require_namespaces

StartProgram = Callable[..., Program]
HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have one worker run what shares the loopback: bursts would drown packets of others."""
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("root") is None:
            item.add_marker(pytest.mark.xdist_group("mdns"))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartProgram]:
    """Start programs that end with the test; on the loopback unless told otherwise."""
    with contextlib.ExitStack() as stack:
        count = 0

        def start_program(
            interfaces: str = "lo", prefix: Sequence[str] = (), dialect: str = "both"
        ) -> Program:
            nonlocal count
            count += 1
            log = tmp_path / f"program-{count}.log"
            return stack.enter_context(Program(log, interfaces, prefix, dialect))

        yield start_program


@pytest.fixture
def two_hosts() -> Iterator[list[Host]]:
    """Two hosts that are not connected yet."""
    require_namespaces()
    with hosts(2) as made:
        yield made


@pytest.fixture
def one_host() -> Iterator[Host]:
    """A host with nothing but its loopback."""
    require_namespaces()
    with hosts(1) as made:
        yield made[0]
