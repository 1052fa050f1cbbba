"""For the tests of backends: the conformance suite, and a TCP proxy that misbehaves on demand.

Needs the extra `svcreg[testing]`. A plugin's whole test of its conformance is:

    from svcreg.testing import BackendConformance

    class TestAcme(BackendConformance):
        backend = "acme://127.0.0.1:7000"

Names load when they are first used: who wants the proxy, or the report, needs no pytest.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from svcreg.testing.conformance import BackendConformance
    from svcreg.testing.proxy import FaultProxy
    from svcreg.testing.settings import Server

__all__ = ["BackendConformance", "FaultProxy", "Server"]

_HOME_OF = {"BackendConformance": "conformance", "FaultProxy": "proxy", "Server": "settings"}

if "pytest" in sys.modules:
    import pytest

    # Before they are imported, so that their assertions explain themselves like those of any test.
    pytest.register_assert_rewrite("svcreg.testing.conformance")


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
