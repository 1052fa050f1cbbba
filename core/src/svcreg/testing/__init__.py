"""For the tests of backends: the conformance suite, and a TCP proxy that misbehaves on demand.

Needs the extra `svcreg[testing]`. A plugin's whole test of its conformance is:

    from svcreg.testing import BackendConformance

    class TestAcme(BackendConformance):
        backend_url = "acme://127.0.0.1:7000"
"""

from __future__ import annotations

import pytest

# Before they are imported, so that their assertions explain themselves like those of any test.
pytest.register_assert_rewrite("svcreg.testing.conformance")

from svcreg.testing.conformance import BackendConformance  # noqa: E402 - see above
from svcreg.testing.proxy import FaultProxy  # noqa: E402

__all__ = ["BackendConformance", "FaultProxy"]
