"""The extensions that docs/plugin-authors shows work once installed; bad ones stop nothing."""

from __future__ import annotations

import json
import logging
import socket
import sys
import tomllib
import uuid

import pytest

import svcreg as library
from svcreg import Node, Service
from tests.support.documents import blocks
from tests.support.plugins import Distributions
from tests.unit.cli.support import Svcreg, add

GREETER = Service("greeter", nodes=[Node("g-1", "10.0.0.5:80")])
BAD_OBSERVER = """
import time, svcreg
class Observer:
    @svcreg.hookimpl
    def svcreg_observe(self, operation):
        ACTION
"""


def install(distributions: Distributions, folder: str) -> None:
    """Install an example of extensions.md as its own pyproject says."""
    shown = {
        block.path.removeprefix(f"{folder}/"): block.text
        for block in blocks("extensions.md")
        if block.path.startswith(f"{folder}/")
    }
    project = tomllib.loads(shown.pop("pyproject.toml"))["project"]
    ((group, points),) = project["entry-points"].items()
    modules = {path.removesuffix(".py"): text for path, text in shown.items()}
    distributions.install(project["name"], modules, points, group=group)


def test_strategy_prefers_nodes_of_this_machine(
    svcreg: Svcreg, registry: library.Registry, distributions: Distributions
) -> None:
    install(distributions, "strategy")
    add(registry, "greeter", "far-1", host="elsewhere")
    add(registry, "greeter", "far-2")
    picked = {registry.select("greeter", strategy="host_first").id for _ in range(50)}
    assert picked == {"far-1", "far-2"}
    add(registry, "greeter", "near", host=socket.gethostname())
    args = ("select", "greeter", "--strategy", "host_first", "-n", "20", "--output", "json")
    picked = {json.loads(line)["id"] for line in svcreg(*args).stdout.splitlines()}
    assert picked == {"near"}


def test_observer_counts_calls_and_states(distributions: Distributions) -> None:
    install(distributions, "observer")
    url = f"memory://{uuid.uuid4().hex}"
    with library.open(url) as registry, registry.register(GREETER):
        registry.get("greeter")
    calls = sys.modules["acme_metrics"].calls
    for operation in ("register", "state:active", "watch", "deregister", "state:closed"):
        assert calls["memory", operation, "ok"] == 1, calls


@pytest.mark.parametrize("action", ["raise RuntimeError('no')", "time.sleep(0.05)"])
def test_observer_that_raises_or_blocks_stops_nothing(
    distributions: Distributions, caplog: pytest.LogCaptureFixture, action: str
) -> None:
    source = BAD_OBSERVER.replace("ACTION", action)
    point = {"bad": "bad_observer:Observer"}
    distributions.install("bad", {"bad_observer": source}, point, group="svcreg.extensions")
    with library.open(f"memory://{uuid.uuid4().hex}") as registry:
        with registry.register(GREETER) as registration:
            assert registry.get("greeter") == (GREETER,)
            assert registration.state == "active"
        assert registry.list() == ()
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    complaint = "observer bad_observer:Observer failed and is not called any more"
    assert said == ([complaint] if "raise" in action else [])


def test_command_counts_nodes(
    svcreg: Svcreg, registry: library.Registry, distributions: Distributions
) -> None:
    install(distributions, "command")
    add(registry, "greeter", "g-1")
    add(registry, "greeter", "g-2", "2.0")
    add(registry, "other", "o-1")
    assert svcreg("count").stdout == "greeter 2\nother 1\n"
    assert svcreg.json("count") == {"greeter": 2, "other": 1}
    assert "Print the number of nodes of each service." in svcreg("--help").stdout
