"""`import svcreg` is cheap: what a program does not use is not loaded."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from typing import Any

import pytest

import svcreg

FORBIDDEN = {"asyncio", "click", "rich", "sqlite3", "zeroconf", "grpclib", "aiohttp", "pytest"}

PROBE = """
import json, sys, threading
before = set(sys.modules)
import svcreg
print(json.dumps({
    "modules": sorted(set(sys.modules) - before),
    "threads": [thread.name for thread in threading.enumerate()],
}))
"""


def run_fresh(code: str) -> str:
    """Run `code` in an interpreter of its own and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    return result.stdout


@pytest.fixture(scope="module")
def probe() -> Any:
    return json.loads(run_fresh(PROBE))


def test_import_loads_no_plugin_no_cli_library_and_no_asyncio(probe: Any) -> None:
    loaded = {name.partition(".")[0] for name in probe["modules"]}
    assert not loaded & FORBIDDEN
    assert not {name for name in loaded if name.startswith("svcreg_")}


def test_import_loads_neither_backends_nor_the_command_line(probe: Any) -> None:
    loaded = probe["modules"]
    assert not [n for n in loaded if n.startswith(("svcreg.builtin", "svcreg.cli"))]


def test_import_starts_no_thread(probe: Any) -> None:
    assert probe["threads"] == ["MainThread"]


def test_import_reads_none_of_its_settings() -> None:
    code = """
import os
read = []
class Recording(dict):
    def __getitem__(self, key):
        read.append(key)
        return super().__getitem__(key)
    def get(self, key, default=None):
        read.append(key)
        return super().get(key, default)
os.environ = Recording(os.environ)
import svcreg
print([key for key in read if key.startswith(("MICRO_", "ETCD_", "CONSUL_"))])
"""
    assert run_fresh(code).strip() == "[]"


def test_no_module_takes_the_name_of_something_exported() -> None:
    """Importing `svcreg.x` binds `x` in the package, over a function of that name."""
    modules = {module.name for module in pkgutil.iter_modules(svcreg.__path__)}
    assert modules & set(svcreg.__all__) == {"aio"}
