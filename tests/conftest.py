"""What holds for every test: no settings from outside, nothing left running."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.plugins import Distributions

settings.register_profile("svcreg", deadline=None, database=None, print_blob=True)
settings.load_profile("svcreg")

_SETTINGS = ("MICRO_", "CONSUL_", "ETCD_", "ETCDCTL_", "SVCREG_")
_KEPT = ("SVCREG_REQUIRE_SERVERS",)
_THREADS_END_WITHIN = 5.0  # seconds; a worker may be inside its last bounded call


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the settings of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith(_SETTINGS) and name not in _KEPT:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_thread_left_behind() -> Iterator[None]:
    """Fail a test that leaves a thread running."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + _THREADS_END_WITHIN
    while left := [thread for thread in threading.enumerate() if thread not in before]:
        if time.monotonic() > deadline:
            pytest.fail(f"threads left running: {sorted(thread.name for thread in left)}")
        left[0].join(0.05)


@pytest.fixture
def distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Distributions]:
    """Install distributions for one test: real metadata and modules on `sys.path`."""
    before = set(sys.modules)
    installed = Distributions(tmp_path / "distributions")
    installed.on_install = lambda folder: monkeypatch.syspath_prepend(folder)
    yield installed
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(installed.root)):
            del sys.modules[name]
