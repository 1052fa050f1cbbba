"""Ten thousand registrations in one process.

`SVCREG_ROUNDS=20 pytest -s tests/integration/etcd/test_scale.py` keeps them for longer; both print
figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from svcreg.testing.conformance.faces import BlockingClient
from tests.support.etcd import Etcd, wait_for
from tests.support.servers import Process

COUNT = 10_000
TTL = 9.0
KEPT_SECONDS = 6.0 * (5 if "SVCREG_ROUNDS" in os.environ else 1)  # read now: tests run without
PROGRAM = Path(__file__).resolve().parents[2] / "support" / "etcd_scale.py"
USUAL_INTERVAL = 30.0  # seconds; a third of the TTL of 90 s

pytestmark = [
    pytest.mark.server("etcd"),
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.xdist_group("etcd-scale"),
]


class Program:
    """The program, one step at a time."""

    def __init__(self, url: str, log: Path) -> None:
        command = [sys.executable, str(PROGRAM), url, str(COUNT), str(TTL), str(KEPT_SECONDS)]
        self.process = Process(command, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def expect(self, step: str) -> dict[str, Any]:
        assert self.process.popen.stdout is not None
        line = self.process.popen.stdout.readline()
        assert line, self.process.log
        figures: dict[str, Any] = json.loads(line)
        assert figures["step"] == step
        return figures

    def go_on(self) -> None:
        assert self.process.popen.stdin is not None
        self.process.popen.stdin.write(b"\n")
        self.process.popen.stdin.flush()


@pytest.fixture
def program(etcd: Etcd, prefix: str, tmp_path: Path) -> Iterator[Program]:
    program = Program(f"etcd://{etcd.endpoint}?prefix={prefix}", tmp_path / "log")
    yield program
    program.process.stop()


def test_ten_thousand_registrations(program: Program, etcd: Etcd, prefix: str) -> None:
    registered = program.expect("registered")
    assert len(etcd.items(prefix)) == COUNT
    assert len({item["lease"] for item in etcd.items(prefix).values()}) == 1
    watcher = BlockingClient(f"etcd://{etcd.endpoint}?prefix={prefix}", timeout=20)
    try:
        started = time.monotonic()
        watching = watcher.watch()
        wait_for(lambda: len(watching.events) == COUNT, 30)
        read = time.monotonic() - started

        program.go_on()
        kept = program.expect("kept")
        assert kept["active"] == COUNT
        assert len(watching.events) == COUNT

        # The lease goes, with everything on it, in one revision; and comes back.
        (lease,) = {item["lease"] for item in etcd.items(prefix).values()}
        started = time.monotonic()
        etcd.call("lease/revoke", ID=lease)
        wait_for(lambda: len(watching.events) >= 2 * COUNT, 20)
        gone = time.monotonic() - started
        wait_for(lambda: len(etcd.items(prefix)) == COUNT, TTL, "all of them")
        restored = time.monotonic() - started
        wait_for(lambda: len(watching.events) == 3 * COUNT, 20)
        actions = dict.fromkeys(("create", "update", "delete"), 0)
        for event in watching.events:
            actions[event.action] += 1
        assert actions == {"create": 2 * COUNT, "update": 0, "delete": COUNT}

        program.go_on()
        closed = program.expect("closed")
        wait_for(lambda: not etcd.items(prefix), 5)
    finally:
        watcher.end()
    usual = kept["share"] * (TTL / 3) / USUAL_INTERVAL
    print(
        f"\n{COUNT} registrations: {registered['seconds']:.2f} s to register "
        f"({registered['cpu']:.2f} s of CPU), {registered['mebibytes']:.1f} MiB, "
        f"{registered['threads']:.0f} threads; {kept['share']:.2%} of a core to keep at a TTL of "
        f"{TTL:g} s, so {usual:.3%} at 90 s; read by a new watch in {read:.2f} s; lease revoked: "
        f"{COUNT} deletes seen after {gone:.2f} s, all back after {restored:.2f} s; "
        f"withdrawn in {closed['seconds']:.2f} s"
    )
