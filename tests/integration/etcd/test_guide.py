"""What the guide tells a newcomer to do: two programs that find each other through etcd."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.etcd import TIMERS, Etcd, running_etcd, wait_for
from tests.support.servers import Process

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = [sys.executable, str(ROOT / "examples" / "greeter.py")]
FOLDER = "/micro/registry/greeter-example/"

pytestmark = pytest.mark.server("etcd")


@pytest.fixture
def environment(etcd: Etcd) -> dict[str, str]:
    return {"MICRO_REGISTRY": "etcd", "MICRO_REGISTRY_ADDRESS": etcd.endpoint}


def test_two_programs_find_each_other(tmp_path: Path) -> None:
    with running_etcd(tmp_path / "etcd", options=TIMERS) as etcd:
        environment = {"MICRO_REGISTRY": "etcd", "MICRO_REGISTRY_ADDRESS": etcd.endpoint}
        server = Process([*PROGRAM, "serve"], tmp_path / "log", env=environment)
        try:
            server.wait_until(lambda: etcd.items(FOLDER))
            called = subprocess.run(
                [*PROGRAM, "call", "Ada"],
                env=environment,
                capture_output=True,
                text=True,
                timeout=20,
                check=True,
            )
            assert "Hello Ada!" in called.stdout
            ((key, item),) = etcd.items(FOLDER).items()
            found = json.loads(item["value"])
            assert key == FOLDER + found["nodes"][0]["id"]
            server.popen.send_signal(signal.SIGINT)
            wait_for(lambda: not etcd.items(FOLDER), 5, "the withdrawal")
            assert server.popen.wait(10) == 0
        finally:
            server.stop()


def test_command_line_shows_what_is_there(environment: dict[str, str], etcd: Etcd) -> None:
    def svcreg(*arguments: str) -> str:
        command = [sys.executable, "-m", "svcreg", *arguments]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=20, check=True
        )
        return done.stdout

    record = {"name": "shown", "nodes": [{"id": "n", "address": "10.0.0.5:80"}]}
    etcd.put("/micro/registry/shown/n", json.dumps(record))
    try:
        assert "shown" in json.loads(svcreg("--output", "json", "list"))
        (service,) = json.loads(svcreg("--output", "json", "get", "shown"))
        assert service["nodes"][0]["address"] == "10.0.0.5:80"
    finally:
        etcd.delete("/micro/registry/shown/n")
