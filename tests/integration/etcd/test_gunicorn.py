"""gunicorn with `--preload` and four workers: parent or workers register, and all of them read."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.etcd import Etcd, free_port, unique, wait_for
from tests.support.servers import Process

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "tests" / "support" / "gunicorn_app.py"
WORKERS = 4

pytestmark = [pytest.mark.server("etcd"), pytest.mark.xdist_group("etcd-gunicorn")]


class Gunicorn:
    """The server, and what its workers answer."""

    def __init__(self, etcd: Etcd, prefix: str, who: str, folder: Path) -> None:
        self.folder = f"{prefix}{(name := unique('web'))}/"
        self.etcd = etcd
        self.address = f"127.0.0.1:{free_port()}"
        self.seen: dict[int, list[str]] = {}
        self.process = Process(
            [sys.executable, "-m", "gunicorn", "--config", str(CONFIG), "--chdir", str(ROOT)],
            folder / "log",
            env={
                "SUPPORT_URL": f"etcd://{etcd.endpoint}?prefix={prefix}",
                "SUPPORT_NAME": name,
                "SUPPORT_WHO": who,
                "SUPPORT_BIND": self.address,
                "PYTHONPATH": str(ROOT),
            },
        )

    def listed(self) -> set[str]:
        return {key.removeprefix(self.folder) for key in self.etcd.items(self.folder)}

    def item(self, node_id: str) -> dict[str, Any]:
        return self.etcd.items(self.folder)[self.folder + node_id]

    def ask(self) -> None:
        """Note what one worker finds."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with (
            contextlib.suppress(OSError),
            opener.open(f"http://{self.address}/", timeout=5) as answer,
        ):
            found = json.loads(answer.read())
            self.seen[found["pid"]] = found["found"]

    def answers(self) -> bool:
        self.ask()
        return bool(self.seen)

    def all_workers_find(self, ids: set[str]) -> bool:
        self.ask()
        return len(self.seen) >= WORKERS and all(set(found) == ids for found in self.seen.values())


@pytest.fixture
def gunicorn(
    etcd: Etcd, prefix: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Gunicorn]:
    pytest.importorskip("gunicorn")
    server = Gunicorn(etcd, prefix, request.param, tmp_path)
    try:
        server.process.wait_until(server.answers, 20)
        yield server
    finally:
        server.process.stop()


@pytest.mark.parametrize("gunicorn", ["parent"], indirect=True)
def test_parent_registers_once_for_all_workers(gunicorn: Gunicorn) -> None:
    wait_for(lambda: gunicorn.all_workers_find({"parent"}), 15)
    before = gunicorn.item("parent")
    os.kill(victim := next(iter(gunicorn.seen)), signal.SIGKILL)
    gunicorn.seen.clear()
    wait_for(lambda: gunicorn.all_workers_find({"parent"}), 15)
    assert victim not in gunicorn.seen
    assert gunicorn.item("parent") == before  # the same lease, which the parent keeps
    gunicorn.process.popen.terminate()
    wait_for(lambda: not gunicorn.listed(), 5)
    gunicorn.process.popen.wait(10)


@pytest.mark.parametrize("gunicorn", ["worker"], indirect=True)
def test_each_worker_registers_itself(gunicorn: Gunicorn) -> None:
    wait_for(lambda: len(gunicorn.listed()) == WORKERS, 15)
    first = gunicorn.listed()
    wait_for(lambda: gunicorn.all_workers_find(first), 15)
    assert {f"worker-{pid}" for pid in gunicorn.seen} == first
    assert len({gunicorn.item(node_id)["lease"] for node_id in first}) == WORKERS
    victim = next(iter(gunicorn.seen))
    before = {node_id: gunicorn.item(node_id) for node_id in first}
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: f"worker-{victim}" not in gunicorn.listed(), 10, "the end of its TTL")
    wait_for(lambda: len(gunicorn.listed()) == WORKERS, 10, "its successor")
    for node_id in first - {f"worker-{victim}"}:
        assert gunicorn.item(node_id) == before[node_id]
    gunicorn.process.popen.terminate()
    wait_for(lambda: not gunicorn.listed(), 5)
    gunicorn.process.popen.wait(10)
